"""The steps of one cycle (resolve, connect, TLS, login, statement, first byte …) and how long each took.

For who runs a probe by hand: where time goes, and how far it got. And for the verdict on a cycle that ended at its
deadline: "nobody accepts a connection" and "accepts, and is mute" are different news. Who takes a step says so here;
outside a cycle nothing is kept. A context variable carries it, so that no probe has to pass it on.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from time import perf_counter

from msgspec import Struct

CONNECT = "connect"
"""The step that ends when the far side accepts a connection, before TLS and login."""


class Step(Struct):
    name: str
    detail: str
    at: float
    """Seconds after the start of the cycle."""
    seconds: float = 0.0
    finished: bool = False
    """Not, when it failed, or when the cycle's deadline came first."""


class Steps:
    """What one cycle did, in the order in which it was begun."""

    __slots__ = ("began", "taken")

    def __init__(self) -> None:
        self.began = perf_counter()
        self.taken: list[Step] = []

    def begin(self, name: str, detail: str) -> Step:
        step = Step(name, detail, perf_counter() - self.began)
        self.taken.append(step)
        return step

    def end(self, step: Step, *, finished: bool) -> None:
        step.seconds, step.finished = perf_counter() - self.began - step.at, finished

    def unaccepted(self) -> float:
        """For how many seconds nobody has accepted a connection, although one was begun; 0 when somebody did."""
        connects = [step for step in self.taken if step.name == CONNECT]
        if not connects or any(step.finished for step in connects):
            return 0.0
        return perf_counter() - self.began - connects[0].at

    def close(self) -> None:
        for step in self.taken:
            if not step.finished and not step.seconds:
                self.end(step, finished=False)


_of_this_cycle: ContextVar[Steps | None] = ContextVar("steps", default=None)


class kept:  # noqa: N801 - used as a function is
    """Keep the steps taken within, also in tasks that are started within. Within another, they are the same."""

    __slots__ = ("_steps", "_token")

    def __enter__(self) -> Steps:
        steps = _of_this_cycle.get()
        self._token: Token[Steps | None] | None = None
        if steps is None:
            steps = Steps()
            self._token = _of_this_cycle.set(steps)
        self._steps = steps
        return steps

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            if self._steps.taken:
                self._steps.close()
            _of_this_cycle.reset(self._token)


class step:  # noqa: N801 - used as a function is
    """One step; what is raised within leaves it unfinished."""

    __slots__ = ("_detail", "_name", "_steps", "_taken")

    def __init__(self, name: str, detail: str = "") -> None:
        self._name, self._detail = name, detail

    def __enter__(self) -> None:
        self._steps = _of_this_cycle.get()
        if self._steps is not None:
            self._taken = self._steps.begin(self._name, self._detail)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._steps is not None:
            self._steps.end(self._taken, finished=kind is None)


def begin(name: str, detail: str = "") -> None:
    """A step whose end is seen elsewhere: by ``end``, or never."""
    steps = _of_this_cycle.get()
    if steps is not None:
        steps.begin(name, detail)


def end(name: str) -> None:
    """The end of the newest such step."""
    steps = _of_this_cycle.get()
    for taken in reversed(steps.taken if steps is not None else ()):
        if taken.name == name and not taken.seconds:
            assert steps is not None
            steps.end(taken, finished=True)
            return
