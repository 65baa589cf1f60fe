"""Most of the targets hang, each in a way of its own: the others are sampled as if nothing were, the hung ones in time."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import structlog

from probed.config import load
from probed.daemon import Daemon
from probed.model import Outcome, Sample
from probed.probes import Probe
from tests.hostile import answering, listening
from tests.leaks import eventually
from tests.starvation import starvation
from tests.ways import ANSWER, HONEST, HUNG, INSTANCES, WAYS, Way, dealt, written

INTERVAL, TIMEOUT = 4.0, 1.5
"""Of every cycle. Generous: this machine may be busy, and this is not about milliseconds."""
SLOTS = 4
WALL = 0.5
"""Seconds after its deadline at which a cycle must have ended, less those in which this process got no processor."""


@contextlib.asynccontextmanager
async def watching(tmp_path: Path, hung: list[tuple[Way, int]]) -> AsyncIterator[Daemon]:
    """A daemon on all of them; the honest ones are served here."""
    async with contextlib.AsyncExitStack() as peers:
        honest = [await peers.enter_async_context(listening(answering(ANSWER))) for _ in range(INSTANCES)]
        ports = [peer.port for peer in honest]
        file = written(tmp_path, hung, ports, f"{INTERVAL:g}s", f"{TIMEOUT * 1000:g}ms")
        daemon = Daemon(load.load_file(file))
        await daemon.start()
        try:
            yield daemon
        finally:
            await daemon.stop()


async def test_hung_targets_cost_the_others_no_sample_and_end_in_time_themselves(tmp_path: Path) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with dealt(list(WAYS.values()), HUNG) as hung:
        async with starvation() as starved, watching(tmp_path, hung) as daemon:
            honest = [entry for entry in daemon.board.entries() if entry.target.component == HONEST]
            await eventually(lambda: all(sum(entry.runs.values()) >= SLOTS for entry in honest), within=90.0)
            samples = {(entry.probe, entry.target.key): tuple(entry.ring) for entry in daemon.board.entries()}
            io = {name for name, probe in daemon.catalogue.items() if isinstance(probe, Probe)}
    structlog.reset_defaults()

    assert len(honest) == INSTANCES
    for entry in honest:
        ring = samples[entry.probe, entry.target.key]
        assert {sample.outcome for sample in ring if sample.kind != "lag"} == {Outcome.OBSERVED}, ring
        assert [round((after.mono - before.mono) / INTERVAL) for before, after in pairwise(ring)] == [1] * (
            len(ring) - 1
        )

    expected: dict[str, str] = {}
    for number, (way, _) in enumerate(hung):
        instance, place = f"i{number % INSTANCES}", f"h{number // INSTANCES}"
        expected[f"{instance}/{place}" if way.address else f"{instance}/{place}/postgres"] = way.expected
    found_of: dict[str, list[Sample]] = defaultdict(list)
    for (probe, key), ring in samples.items():
        if probe in io and key in expected:
            # What this machine starved says nothing of the target.
            found_of[key] += [sample for sample in ring if sample.kind != "lag"]
    assert len(expected) == HUNG
    wrong: Counter[str] = Counter()
    for key, said in expected.items():
        outcome, *kinds = said.split()
        assert found_of[key], f"{key} was never sampled"
        for sample in found_of[key]:
            # A busy machine does not even let a flood come in time.
            in_words = sample.outcome.value == outcome and sample.kind in (*kinds, "timeout", "no_answer")
            wrong[f"{key}: {sample.outcome.value} {sample.kind}, expected {said}: {sample.reason}"] += not in_words
            waited = starved.between(sample.mono, sample.mono + sample.duration)
            assert sample.duration - waited <= TIMEOUT + WALL, f"{waited:.2f} s without a processor in {sample}"
    assert +wrong == Counter()
