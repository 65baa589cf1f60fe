"""Probes: how they are declared, and how they are found. Nothing else.

A probe is a named, documented, read-only way to measure a target; it measures and never judges. Its module holds one
function, whose docstring is its manual. There are two kinds:

- ``@probe``: an async function that does the I/O of one cycle against one target; a plain one, where nothing is waited
  for because this process knows the answer;
- ``@combined``: a pure function over the newest samples of other probes of the same instance; it touches nothing.

Every module of this package whose name does not start with ``_`` is imported at start; one that cannot be imported
stops the start, because a monitor that silently lost a probe is worse than one that does not run.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, cast

from msgspec import Struct, field
from msgspec.structs import force_setattr

from probed.model import NO_FACTS, Expect, Question, Reading, Sample, Target

if TYPE_CHECKING:
    from probed.probes._access import Access
    from probed.probes._http import HttpClient
    from probed.probes._sql import Session
    from probed.vitals import Vitals

Readings = Mapping[str, Reading]


class Measured(Struct, frozen=True):
    """What a probe returns when plain readings are not all it has to say."""

    readings: Readings
    reason: str = ""
    """One line for people, when an observed sample needs a word of explanation."""
    series: str = ""
    """Identity of the counter series, for probes with counters."""
    facts: Mapping[str, object] = field(default_factory=lambda: NO_FACTS)
    keep: Mapping[str, object] | None = None
    """Becomes ``Context.kept`` (``View.kept``) and is durable together with the event that the readings lead to."""


class Context(Struct):
    """What one probe may touch while it measures one target. Made by the daemon, kept over the target's life."""

    target: Target
    timeout: float
    """Seconds that the caller gives this cycle; the probe sets no deadline of its own."""
    urls: Sequence[str] = ()
    """Base addresses of the target's HTTP doors, without a trailing slash; the preferred one first."""
    path: Path | None = None
    _http: HttpClient | None = None
    _sql: Session | None = None
    memory: dict[str, object] = field(default_factory=dict)
    """A probe's own scratch between cycles (which address answered last); never needed for a right answer."""
    kept: Mapping[str, object] = field(default_factory=lambda: NO_FACTS)
    """The newest ``Measured.keep`` that was judged, in this daemon or the last; set before each cycle by the caller."""
    expect: Expect = field(default_factory=Expect)
    access: Access | None = None
    """TLS files and credentials, for the HTTP client."""
    doors: Sequence[tuple[str, int]] = ()
    """(host, port) of the TCP ports that the target must hold open."""
    deep: str = ""
    """Who is asked about the database beside, once a minute (Realtime's tenant); empty: nobody."""
    question: Question | None = None
    """What the policy asks that this target belongs to; only for the generic probes."""
    _vitals: Vitals | None = None
    paths: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    """Further places on this machine, by what the probe calls them."""

    @property
    def http(self) -> HttpClient:
        assert self._http is not None, "this kind of target has no HTTP client"
        return self._http

    @property
    def vitals(self) -> Vitals:
        assert self._vitals is not None, "only the observer itself has vital signs"
        return self._vitals

    @property
    def sql(self) -> Session:
        assert self._sql is not None, "this kind of target has no database session"
        return self._sql


class View(Struct, frozen=True):
    """What a combined probe sees: the newest samples of its instance, of one and the same round where possible."""

    target: Target
    nodes: tuple[str, ...]
    samples: Mapping[tuple[str, str], Sample]
    """(probe, node) -> newest sample; the node is empty for what belongs to the instance as a whole."""
    at: float
    mono: float
    before: Sample | None = None
    """This combined probe's own previous sample: its memory, while the daemon runs."""
    several: Mapping[str, tuple[Sample, ...]] = field(default_factory=dict)
    """Probe -> newest samples of targets that are one of several without a node (etcd members, write ports)."""
    kept: Mapping[str, object] = field(default_factory=lambda: NO_FACTS)
    """The newest ``Measured.keep`` that was judged, in this daemon or the last."""

    def of(self, probe: str, node: str | None = None) -> Sample | None:
        """The newest sample of a probe on a node, by default on the view's own."""
        return self.samples.get((probe, self.target.node if node is None else node))


Run = Callable[[Context], Awaitable[Readings | Measured]]
Tell = Callable[[Context], Readings | Measured]
Combine = Callable[[View], Readings | Measured]


class Probe(Struct, frozen=True):
    """A probe that looks at one target."""

    name: str
    run: Run
    kinds: tuple[str, ...]
    """Kinds of target it can be pointed at."""
    readings: Mapping[str, str]
    """Reading -> what it is, with its unit."""
    manual: str
    costly: bool = False
    """Not for every cycle: runs only while a policy that is on needs it, on a database session of its own."""
    tell: Tell | None = None
    """The same as ``run`` for a probe that waits for nothing: such a cycle needs neither a task nor a deadline."""
    timed: tuple[str, ...] = ()
    """Readings in seconds: those of ``readings``, whatever is given."""

    def __post_init__(self) -> None:
        force_setattr(self, "timed", _timed(self.readings))


class Combined(Struct, frozen=True):
    """A probe that computes from the samples of others."""

    name: str
    combine: Combine
    scope: Literal["node", "instance"]
    component: str
    inputs: tuple[str, ...]
    readings: Mapping[str, str]
    manual: str
    needs: tuple[str, ...] = ()
    """Inputs without which there is nothing to combine; of the others, one is enough."""
    timed: tuple[str, ...] = ()
    """Readings in seconds: those of ``readings``, whatever is given."""

    def __post_init__(self) -> None:
        force_setattr(self, "timed", _timed(self.readings))


def _timed(readings: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in readings if name.endswith("_seconds"))


AnyProbe = Probe | Combined
_Function = TypeVar("_Function", bound=Run | Tell)
_declared: dict[str, AnyProbe] = {}


def probe(
    *, kinds: Sequence[str], readings: Mapping[str, str], costly: bool = False
) -> Callable[[_Function], _Function]:
    """Declare a probe of targets; its name is the function's, its manual the docstring."""

    def declare(function: _Function) -> _Function:
        manual, tell = inspect.getdoc(function) or "", None
        if inspect.iscoroutinefunction(function):
            run = cast(Run, function)
        else:
            tell = cast(Tell, function)
            run = _waiting_for_nothing(tell)
        _declare(Probe(function.__name__, run, tuple(kinds), dict(readings), manual, costly, tell))
        return function

    return declare


def _waiting_for_nothing(tell: Tell) -> Run:
    async def run(context: Context) -> Readings | Measured:
        return tell(context)

    return run


def combined(
    *,
    scope: Literal["node", "instance"],
    component: str,
    inputs: Sequence[str],
    readings: Mapping[str, str],
    needs: Sequence[str] = (),
) -> Callable[[Combine], Combine]:
    """Declare a combined probe; its name is the function's, its manual the docstring."""

    def declare(function: Combine) -> Combine:
        name = function.__name__
        manual = inspect.getdoc(function) or ""
        _declare(Combined(name, function, scope, component, tuple(inputs), dict(readings), manual, tuple(needs)))
        return function

    return declare


def _declare(declared: AnyProbe) -> None:
    if declared.name in _declared:
        raise ValueError(f"two probes are named {declared.name}")
    if not declared.manual:
        raise ValueError(f"probe {declared.name} has no docstring: it is the probe's manual")
    _declared[declared.name] = declared


def catalogue() -> Mapping[str, AnyProbe]:
    """Every probe by name. Imports all modules of this package on the first call."""
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(_declared.items()))
