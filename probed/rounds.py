"""Runs the rounds of one instance on one grid: start cycles in their slots, gather samples, have them judged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from msgspec import Struct, field

from probed import cadence
from probed.clock import Clock
from probed.model import HOST, OBSERVER, Sample, Target
from probed.pipeline import Pipeline
from probed.probes import Combined, Context
from probed.sampling import take_sample, told
from probed.watching import CombinedCycle, Cycle, InstancePlan


class Pulse(Struct):
    """Signs of life of all rounds, for the watchdog and the metrics."""

    progress_at: float = 0.0
    """Monotonic time at which a round was last judged."""
    late: Callable[[float, int], None] = field(default=lambda *_: None)
    """Told how many seconds after their due time how many cycles started."""
    skipped: Callable[[int], None] = field(default=lambda _: None)
    stalled: Callable[[float], float] = field(default=lambda _: 0.0)
    """Asked for the longest stall of the event loop since a monotonic time, seconds."""


ContextOf = Callable[[Cycle], Context]
Slot = tuple[int, list[Cycle]]
"""(how many slots after the round's start, cycles that start in it)"""


FIRST_WITHIN = 5.0
"""Seconds within which everything is probed for the first time, spread by name as the grids are."""


class Rounds:
    """One instance, one interval. ``plan`` may be replaced at any time; the next round follows it."""

    def __init__(
        self, plan: InstancePlan, interval: float, pipeline: Pipeline, context_of: ContextOf, clock: Clock, pulse: Pulse
    ) -> None:
        self.plan = plan
        self.interval = interval
        self._pipeline, self._context_of, self._clock, self._pulse = pipeline, context_of, clock, pulse
        self._begun = False
        self._laid: tuple[InstancePlan, Sequence[Slot]] | None = None
        self.after_round: Callable[[str], None] = lambda _: None
        """Told the instance's name when a round has been judged."""

    async def run(self) -> None:
        """For ever, until cancelled."""
        # The observer looks at itself when it is awake anyway, to look at the clock (vitals.BEAT).
        start = 0.0 if self.plan.name == OBSERVER else cadence.phase(self.plan.name, self.interval)
        await self._soon(start)
        async for slot in cadence.every(self.interval, start, self._clock):
            if slot.skipped:
                self._pulse.skipped(slot.skipped)
            await self.round(slot.due, slot.number)
            await self._confirm(slot.due)

    async def _soon(self, start: float) -> None:
        """A slow grid gets one round soon after the start, so as not to be in the dark until its first slot."""
        soon = cadence.phase(self.plan.name, FIRST_WITHIN)
        now = self._clock.mono()
        due = now + (soon - now) % FIRST_WITHIN
        if due + 2 * FIRST_WITHIN < now + (start - now) % self.interval:
            await self._clock.sleep_until(due)
            await self.round(due, 0)

    def _is_due(self, cycle: CombinedCycle, number: int) -> bool:
        """A slow combination is due in every so-manieth round, and in the very first, as its baseline."""
        return cycle.home == self.interval and (not self._begun or number % cycle.every == 0)

    async def round(self, due: float, number: int) -> None:
        """Every cycle of this grid once, then the combined probes that are due in round ``number``."""
        combined = [cycle for cycle in self.plan.combined if self._is_due(cycle, number)]
        self._begun = True
        await self._judge(due, self._slots(), combined)

    def _slots(self) -> Sequence[Slot]:
        """Of all cycles of this grid; the plan seldom changes."""
        if self._laid is None or self._laid[0] is not self.plan:
            cycles = [cycle for cycle in self.plan.cycles if cycle.interval == self.interval]
            self._laid = (self.plan, _slots(cycles, self.interval))
        return self._laid[1]

    async def _confirm(self, due: float) -> None:
        """While streaks are pending, ask again at their ``confirm_interval``, until the next slot is near."""
        asked = self._clock.mono()
        while wanted := self._pipeline.confirming(self.plan.name):
            combined = [cycle for cycle in self.plan.combined if cycle.probe.name in wanted]
            probes = {name for cycle in combined for name in cycle.probe.inputs} | wanted.keys()
            cycles = [c for c in self.plan.cycles if c.probe.name in probes and c.interval == self.interval]
            asked += min(wanted.values())
            longest = max((cycle.timeout for cycle in cycles), default=0.0)
            if not cycles or asked + longest >= due + self.interval:
                return
            await self._clock.sleep_until(asked)
            slots = _slots(cycles, self.interval)
            await self._judge(asked, slots, [cycle for cycle in combined if cycle.home == self.interval])
            asked = max(asked, self._clock.mono())

    async def _judge(self, due: float, slots: Sequence[Slot], combined: Sequence[CombinedCycle]) -> None:
        samples = await self._taken(due, slots)
        targets: list[tuple[Combined, Target]] = [(cycle.probe, cycle.target) for cycle in combined]
        self._pipeline.accept(self.plan.name, samples, targets)
        self._pulse.progress_at = self._clock.mono()
        self.after_round(self.plan.name)

    async def _taken(self, due: float, slots: Sequence[Slot]) -> list[Sample]:
        """Start all cycles, those of a slot at one moment and in their order, and wait for their samples.

        A node's probes take turns on one connection, and the ping is to be the first of them every time: after another
        statement it would find a server that is awake already.
        """
        samples: list[Sample] = []
        running: list[asyncio.Task[Sample]] = []
        try:
            for slot, together in slots:
                start = due + slot * cadence.SLOT
                if self._clock.mono() < start:
                    await self._clock.sleep_until(start)
                late = max(0.0, self._clock.mono() - start)
                self._pulse.late(late, len(together))
                for cycle in together:
                    if cycle.probe.tell is not None:
                        samples.append(told(cycle.probe, self._context(cycle), self._clock))
                    else:
                        sample = take_sample(
                            cycle.probe, self._context(cycle), cycle.timeout, self._clock, self._pulse.stalled
                        )
                        running.append(asyncio.create_task(sample, name=cycle.probe.name))
            # The last first: it has mostly been waited for longest, and who waits is woken once, not for each.
            samples += [await task for task in reversed(running)]
            return samples
        finally:
            for task in running:
                task.cancel()

    def _context(self, cycle: Cycle) -> Context:
        context = self._context_of(cycle)
        # From the pipeline, not from the cycle before: a sample that was never judged must not move a baseline.
        context.kept = self._pipeline.kept(cycle.probe.name, cycle.reach.target)
        return context


def _slots(cycles: Sequence[Cycle], interval: float) -> list[Slot]:
    """Where cycles start: what looks at this machine, then the nodes', of these the pings first, then all others.

    What looks at this machine has a slot of its own, since its threads take turns with the event loop: beside twenty
    answers that come in, each turn is waited for. And nothing else delays a ping.
    """
    here = [cycle for cycle in cycles if cycle.reach.target.component == HOST]
    nodes: dict[str, list[Cycle]] = {}
    others: dict[str, list[Cycle]] = {}
    for cycle in cycles:
        # One node's probes share a slot: they take turns on one connection, and read the same moment.
        target = cycle.reach.target
        if target.component != HOST:
            (nodes if target.node else others).setdefault(target.node or target.key, []).append(cycle)
    laid: dict[int, list[Cycle]] = {}
    for groups in ([here] if here else [], list(nodes.values()), list(others.values())):
        for slot, together in cadence.bundled(groups, interval, max(laid, default=-1) + 1):
            laid.setdefault(slot, []).extend(sorted(together, key=lambda cycle: cycle.reach.login is None))
    return sorted(laid.items())


class Contexts:
    """The contexts of all cycles, kept over rounds and reloads; probes of one target share its session."""

    def __init__(self, make: Callable[[Cycle], Context]) -> None:
        self._make = make
        self._kept: dict[tuple[str, str], tuple[Cycle, Context]] = {}

    def of(self, cycle: Cycle) -> Context:
        key = (cycle.probe.name, cycle.reach.target.key)
        kept = self._kept.get(key)
        if kept is not None and kept[0] is cycle:
            return kept[1]
        if kept is not None and kept[0].reach == cycle.reach and kept[0].timeout == cycle.timeout:
            self._kept[key] = (cycle, kept[1])
            return kept[1]
        context = self._make(cycle)
        if kept is not None:
            context.memory = kept[1].memory
        self._kept[key] = (cycle, context)
        return context

    def keep_only(self, cycles: Sequence[Cycle]) -> None:
        keys = {(cycle.probe.name, cycle.reach.target.key) for cycle in cycles}
        for key in self._kept.keys() - keys:
            del self._kept[key]
