"""The newest samples of every target: what the status shows, combined probes read and events keep as their history."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from probed.model import Outcome, Sample, Target

RING = 20
"""Samples kept per probe and target."""

Key = tuple[str, str]
"""(probe, target key)"""


@dataclass(slots=True)
class Entry:
    target: Target
    probe: str
    interval: float
    """Seconds between its cycles."""
    ring: deque[Sample]
    runs: dict[Outcome, int]
    """Cycles so far, by outcome."""
    computed: bool = False
    """By a combined probe, from the samples of others."""
    outcome: Outcome | None = None
    since: float = 0.0
    """Wall time since which the outcome is what it is."""

    @property
    def newest(self) -> Sample | None:
        return self.ring[-1] if self.ring else None


class Board:
    """Entries by probe and target; an entry exists from the moment a target is known, samples or not."""

    def __init__(self) -> None:
        self._instances: dict[str, dict[Key, Entry]] = {}

    def expect(self, probe: str, target: Target, interval: float, *, computed: bool = False) -> None:
        """Make the entry, or take over the address and interval that a reload brought."""
        entries = self._instances.setdefault(target.instance, {})
        key = (probe, target.key)
        entry = entries.get(key)
        if entry is None:
            entries[key] = Entry(target, probe, interval, deque(maxlen=RING), dict.fromkeys(Outcome, 0), computed)
        else:
            entry.target, entry.interval = target, interval

    def keep_only(self, keys: set[Key]) -> None:
        """Forget what is no longer probed."""
        for entries in self._instances.values():
            for key in entries.keys() - keys:
                del entries[key]

    def put(self, sample: Sample) -> Outcome | None:
        """Take a sample in; returns the outcome before it when the outcome changed by it, else ``None``."""
        entry = self._entry(sample.probe, sample.target)
        if entry is None:
            return None
        before = entry.outcome
        if before is not sample.outcome:
            entry.outcome, entry.since = sample.outcome, sample.at
        entry.ring.append(sample)
        entry.runs[sample.outcome] += 1
        return before if before is not sample.outcome else None

    def knows(self, probe: str, target: str) -> bool:
        """Whether anything is probed under that name; ``target`` is a key, which begins with the instance."""
        return (probe, target) in self._instances.get(target.partition("/")[0], {})

    def newest(self, probe: str, target: Target) -> Sample | None:
        entry = self._entry(probe, target)
        return entry.newest if entry else None

    def ring(self, probe: str, target: Target) -> tuple[Sample, ...]:
        """The last samples, oldest first."""
        entry = self._entry(probe, target)
        return tuple(entry.ring) if entry else ()

    def newest_of(self, instance: str) -> list[Entry]:
        """The entries of an instance that have a sample."""
        return [entry for entry in self._instances.get(instance, {}).values() if entry.ring]

    @property
    def instances(self) -> tuple[str, ...]:
        """Their names, as of now."""
        return tuple(self._instances)

    def entries(self, instance: str | None = None) -> Iterator[Entry]:
        """Of one instance, or of all."""
        for name in self._instances if instance is None else (instance,):
            yield from self._instances.get(name, {}).values()

    def _entry(self, probe: str, target: Target) -> Entry | None:
        return self._instances.get(target.instance, {}).get((probe, target.key))
