"""Evidence: how collectors are declared, and how they are found. Nothing else.

A collector takes one snapshot of a target because of an event: it reads, bounded, and never judges. Its module holds
one function, named like the file, whose docstring is its manual. What it returns is redacted and capped by who calls
it (``probed.gathering``), which also sets its one deadline; it raises ProbeError as probes do.

The time before an event is not collected but remembered: ``recall`` reads it from the samples that are there anyway,
and a ``standing`` collector is also run at a low rate while all is well.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from typing import Literal

from msgspec import Struct

from probed.model import Sample
from probed.probes import Context

Data = Mapping[str, object]
"""What a snapshot shows, in JSON's types; tuples are taken as lists."""

Take = Callable[[Context], Awaitable[Data]]
Scope = Literal["node", "instance", "target"]

HOST = "host"
"""Kind of target of collectors that read the machine: nodes with ``local: true``."""


class Recall(Struct, frozen=True):
    """How a snapshot of the time before is read from the samples of a probe."""

    probe: str
    tell: Callable[[Sample], Data | None]
    """What an observed sample shows; ``None`` when it shows nothing."""
    essence: Callable[[Data], object] | None = None
    """What makes two snapshots different: each different one is kept. Without it only the newest is."""


class Collector(Struct, frozen=True):
    name: str
    take: Take
    kinds: tuple[str, ...]
    """Kinds of target it can be pointed at."""
    scope: Scope
    """Which targets of these kinds are looked at: those of the event's node (of all nodes, when the event belongs to
    the instance), all of the instance, or the event's own alone."""
    manual: str
    recall: Recall | None = None
    standing: bool = False
    """Also taken at a low rate while the target is well, and the last few kept."""
    recovery: bool = False
    """Taken once more when the event resolves."""


_declared: dict[str, Collector] = {}


def collector(
    *,
    kinds: Sequence[str],
    scope: Scope = "node",
    recall: Recall | None = None,
    standing: bool = False,
    recovery: bool = False,
) -> Callable[[Take], Take]:
    """Declare a collector; its name is the function's, its manual the docstring."""

    def declare(function: Take) -> Take:
        name, manual = function.__name__, inspect.getdoc(function) or ""
        if not manual:
            raise ValueError(f"collector {name} has no docstring: it is the collector's manual")
        if name != function.__module__.rpartition(".")[2]:
            raise ValueError(f"collector {name} must stand in a module of its name")
        _declared[name] = Collector(name, function, tuple(kinds), scope, manual, recall, standing, recovery)
        return function

    return declare


@cache
def names() -> frozenset[str]:
    """Of every collector; imports none."""
    return frozenset(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def find(name: str) -> Collector:
    """One collector by its name, imported when it is needed. KeyError when there is none."""
    if name not in _declared:
        if name not in names():
            raise KeyError(name)
        importlib.import_module(f"{__name__}.{name}")
    return _declared[name]


def catalogue() -> Mapping[str, Collector]:
    """Every collector by name."""
    return {name: find(name) for name in sorted(names())}
