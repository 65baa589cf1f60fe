"""Who walks which rounds: every instance's newest plan carried out, over connections that its probes share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet

from msgspec.structs import replace

from probed import cadence
from probed.board import Board
from probed.clock import Clock
from probed.model import OBSERVER, Policy
from probed.pipeline import Pipeline
from probed.probes import Context
from probed.probes._http import HttpClient
from probed.probes._sql import Login, Session
from probed.reaching import context_for
from probed.rounds import Contexts, Pulse, Rounds
from probed.supervising import Supervisor
from probed.vitals import Vitals
from probed.watching import Cycle, InstancePlan

FIRST_LOOK_SECONDS = 1.0
"""Rounds that begin within so long after the start have the machine for themselves: nobody is let in before."""


class Patrol:
    """Follows plans. ``judged`` (instance) is called after each of its rounds, when its connections are idle."""

    def __init__(
        self,
        pipeline: Pipeline,
        board: Board,
        vitals: Vitals,
        clock: Clock,
        tasks: Supervisor,
        pulse: Pulse,
        judged: Callable[[str], None],
    ) -> None:
        self._pipeline, self._board, self._vitals, self._clock, self._tasks = pipeline, board, vitals, clock, tasks
        self.pulse = pulse
        self._own_pulse = Pulse(stalled=vitals.lag_since)
        """Of the rounds in which this daemon looks at itself: they are no sign that it does its work."""
        self._judged = judged
        self.http = HttpClient()
        self._sessions: dict[str, Session] = {}
        self._contexts = Contexts(self._context)
        self._rounds: dict[tuple[str, float], tuple[Rounds, asyncio.Task[None]]] = {}
        self._plans: dict[str, InstancePlan] = {}
        self._unlooked: set[str] = set()
        """Instances whose first round is waited for."""
        self._looked = asyncio.Event()

    @property
    def instances(self) -> AbstractSet[str]:
        """Names of those with a plan, the observer's own among them."""
        return self._plans.keys()

    @property
    def plans(self) -> Mapping[str, InstancePlan]:
        """The newest of every instance, the observer's own among them."""
        return self._plans

    @property
    def shortest_interval(self) -> float:
        """Seconds; 0 while there are no rounds."""
        return min((interval for _, interval in self._rounds), default=0.0)

    async def first_look(self) -> None:
        """Until the rounds that begin at once were judged, for twice as long at most."""
        self._unlooked = self._beginning(FIRST_LOOK_SECONDS)
        if self._unlooked:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2 * FIRST_LOOK_SECONDS):
                    await self._looked.wait()

    def _beginning(self, seconds: float) -> set[str]:
        """Instances with a grid whose next slot is within so many seconds, without the observer's own."""
        now = self._clock.mono()
        return {
            name
            for name, interval in self._rounds
            if name != OBSERVER and (cadence.phase(name, interval) - now) % interval <= seconds
        }

    def _after_round(self, name: str) -> None:
        if name in self._unlooked:
            self._unlooked.remove(name)
            if not self._unlooked:
                self._looked.set()
        self._judged(name)

    def session(self, key: str) -> Session | None:
        """The connection of a reach, once a probe has asked for it."""
        return self._sessions.get(key)

    def follow(self, planned: InstancePlan, policies: Mapping[str, Policy], *, bind: bool = True) -> None:
        """Carry out a plan from now on. What it shares with the one before goes on undisturbed.

        Without ``bind`` its watches stay as they are: nothing is known yet that could be said to be gone.
        """
        self._plans[planned.name] = planned
        for cycle in planned.cycles:
            self._board.expect(cycle.probe.name, cycle.reach.target, cycle.interval)
        for computed in planned.combined:
            self._board.expect(computed.probe.name, computed.target, computed.interval, computed=True)
        self._forget_unused()
        if bind:
            self._pipeline.bind(planned.name, planned.labels, planned.nodes, planned.watches, all_policies=policies)
        self._run(planned)

    def leave(self, name: str) -> None:
        """Nothing of this instance is probed any more."""
        self._pipeline.unbind(name)
        self._run(replace(self._plans.pop(name), cycles=(), combined=(), reaches=(), watches=()))

    def forget_streaks(self) -> None:
        """Keep what the pipeline remembers of cycles that are still run."""
        self._pipeline.keep_only(self._places())

    async def close(self) -> None:
        """End the connections politely where that is done at once. The rounds were tasks, and are over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await asyncio.gather(*(session.close() for session in self._sessions.values()), return_exceptions=True)
        for session in self._sessions.values():
            session.drop()
        await self.http.close()

    def _forget_unused(self) -> None:
        cycles = [cycle for planned in self._plans.values() for cycle in planned.cycles]
        self._board.keep_only(self._places())
        self._contexts.keep_only(cycles)
        for key in self._sessions.keys() - {cycle.session for cycle in cycles}:
            self._sessions.pop(key).drop()

    def _places(self) -> set[tuple[str, str]]:
        """(probe, key of the target) of everything that is sampled or combined."""
        plans = self._plans.values()
        cycles = {(cycle.probe.name, cycle.reach.target.key) for planned in plans for cycle in planned.cycles}
        return cycles | {(cycle.probe.name, cycle.target.key) for planned in plans for cycle in planned.combined}

    def _run(self, planned: InstancePlan) -> None:
        """Have one runner per grid of the instance follow the plan; start and end runners as grids come and go."""
        for (name, interval), (rounds, task) in list(self._rounds.items()):
            if name != planned.name:
                continue
            if interval in planned.intervals:
                rounds.plan = planned
            else:
                task.cancel()
                del self._rounds[name, interval]
        for interval in planned.intervals:
            if (planned.name, interval) not in self._rounds:
                pulse = self._own_pulse if planned.name == OBSERVER else self.pulse
                rounds = Rounds(planned, interval, self._pipeline, self._contexts.of, self._clock, pulse)
                rounds.after_round = self._after_round
                task = self._tasks.own(rounds.run, f"rounds {planned.name} {interval:g}s")
                self._rounds[planned.name, interval] = (rounds, task)

    def _context(self, cycle: Cycle) -> Context:
        login = cycle.reach.login
        session = None
        if login is not None:
            # One connection has one statement timeout; who asks first must not set it for the others.
            sharing = (
                other.timeout
                for other in self._plans[cycle.reach.target.instance].cycles
                if other.session == cycle.session
            )
            session = self._shared(cycle.session, login, max(sharing, default=cycle.timeout))
        vitals = self._vitals if cycle.reach.target.instance == OBSERVER else None
        return context_for(cycle.reach, cycle.timeout, self.http, session, vitals)

    def _shared(self, key: str, login: Login, timeout: float) -> Session:
        session = self._sessions.get(key)
        if session is None or session.login != login:
            if session is not None:
                session.drop()
            session = self._sessions[key] = Session(login, timeout)
        return session
