"""The error tree.

ProbedError
├── ConfigError       the operator's files or flags; carries every problem found, each with its place
├── StoreError        the history cannot be read or written
├── Undelivered       a receiver did not take a notice
├── ApiError          a client command could not get its answer
├── MissingExtra      a part of probed that is installed on its own is not there
├── Unprintable       a report could not be made into a PDF
└── ProbeError        one cycle did not yield readings; never leaves ``take_sample``
    ├── TargetFailed  the target's fault
    ├── Blind         our fault, or nobody's: nothing can be said of the target
    └── NotApplicable the topology has no such thing
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct


class ProbedError(Exception):
    """Every error of ours; ``str()`` is fit for an operator."""


class Problem(Struct, frozen=True):
    """One thing wrong in the operator's input: where, what, and what instead."""

    where: str
    """File path, flag or variable."""
    message: str
    line: int = 0
    column: int = 0
    path: str = ""
    """Dotted path inside the file, such as ``instances[0].nodes[1].patroni``."""

    def __str__(self) -> str:
        place = f"{self.where}:{self.line}:{self.column}" if self.line else self.where
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class ConfigError(ProbedError):
    """Bad configuration: all problems at once, in the order of the files."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class StoreError(ProbedError):
    pass


class ApiError(ProbedError):
    pass


class MissingExtra(ProbedError):
    """The text says what to install."""


class Unprintable(ProbedError):
    pass


class Undelivered(ProbedError):
    """A receiver did not take what it was sent; the text is one line without secrets.

    ``retry_after``: seconds for which the receiver asked to be left alone. ``final``: it will never take it.
    ``unwanted``: it objects to what it was sent, and may well take something else.
    """

    def __init__(self, reason: str, *, retry_after: float = 0.0, final: bool = False, unwanted: bool = False) -> None:
        self.retry_after, self.final, self.unwanted = retry_after, final, unwanted
        super().__init__(reason)


class ProbeError(ProbedError):
    """Raised by probes; ``kind`` is from the closed set in ``KINDS``."""

    def __init__(self, kind: str, message: str, *, facts: Mapping[str, object] | None = None) -> None:
        self.kind = kind
        self.facts = facts
        """What a combined probe wants to remember all the same."""
        super().__init__(message)


class TargetFailed(ProbeError):
    pass


class Blind(ProbeError):
    pass


class NotApplicable(ProbeError):
    def __init__(self, message: str) -> None:
        super().__init__("not_applicable", message)


KINDS = frozenset(
    {
        "",
        # the target's fault
        "refused", "reset", "timeout", "closed", "starting", "protocol", "too_large", "status", "body", "redirect",
        "tls", "read_only", "no_answer", "state", "server", "config_lost",
        # ours
        "auth", "privilege", "no_database", "dns", "network", "config", "lag", "descriptors", "no_input",
        "unsupported", "bug", "too_many_connections", "lock", "transition",
        # neither
        "not_applicable",
    }
)  # fmt: skip
"""Every reason a sample can carry: a bounded set, because it is a metric label."""
