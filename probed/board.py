"""The newest samples of every target: what the status shows, combined probes read and events keep as their history."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

from msgspec import Struct, field

from probed.model import Outcome, Sample, Target

RING = 20
"""Samples kept per probe and target."""

Key = tuple[str, str]
"""(probe, target key)"""


class Entry(Struct):
    target: Target
    probe: str
    interval: float
    """Seconds between its cycles."""
    computed: bool = False
    """By a combined probe, from the samples of others."""
    ring: deque[Sample] = field(default_factory=lambda: deque(maxlen=RING))
    outcome: Outcome | None = None
    since: float = 0.0
    """Wall time since which the outcome is what it is."""
    run: int = 0
    """Cycles in a row with this outcome, the newest included."""
    _before: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    """Cycles before these, by outcome."""

    @property
    def runs(self) -> Mapping[Outcome, int]:
        """Cycles so far, by outcome."""
        if self.outcome is None:
            return self._before
        return {**self._before, self.outcome: self._before[self.outcome] + self.run}

    @property
    def newest(self) -> Sample | None:
        return self.ring[-1] if self.ring else None

    def turn(self, sample: Sample) -> Outcome | None:
        """Take in that the outcome is another by a sample; returns the one before."""
        before = self.outcome
        if before is not None:
            self._before[before] += self.run
        self.outcome, self.since, self.run = sample.outcome, sample.at, 1
        return before


class Board:
    """Entries by probe and target; an entry exists from the moment a target is known, samples or not."""

    def __init__(self) -> None:
        self._instances: dict[str, dict[Key, Entry]] = {}
        self._probes: dict[str, dict[str, Entry]] = {}
        """The same by target key and probe."""

    def expect(self, probe: str, target: Target, interval: float, *, computed: bool = False) -> None:
        """Make the entry, or take over the address and interval that a reload brought."""
        entries = self._instances.setdefault(target.instance, {})
        key = (probe, target.key)
        entry = entries.get(key)
        if entry is None:
            entry = entries[key] = Entry(target, probe, interval, computed)
            self._probes.setdefault(target.key, {})[probe] = entry
        else:
            entry.target, entry.interval = target, interval

    def keep_only(self, keys: set[Key]) -> None:
        """Forget what is no longer probed."""
        for entries in self._instances.values():
            for probe, target in entries.keys() - keys:
                del entries[probe, target], self._probes[target][probe]
                if not self._probes[target]:
                    del self._probes[target]

    def put(self, sample: Sample) -> Outcome | None:
        """Take a sample in; returns the outcome before it when the outcome changed by it, else ``None``."""
        try:
            entry = self._probes[sample.target.key][sample.probe]
        except KeyError:
            return None
        entry.ring.append(sample)
        if sample.outcome is entry.outcome:
            entry.run += 1
            return None
        return entry.turn(sample)

    def knows(self, probe: str, target: str) -> bool:
        """Whether anything is probed under that name; ``target`` is a key."""
        return probe in self._probes.get(target, ())

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
        of_target = self._probes.get(target.key)
        return of_target.get(probe) if of_target is not None else None
