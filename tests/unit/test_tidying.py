"""The garbage collector's work is done a little and often, and everything is walked over seldom."""

from __future__ import annotations

import gc
import weakref

from probed.testing import FakeClock
from probed.tidying import ALL_EACH, by_hand
from probed.vitals import BEAT


class Cycle:
    """Only the collector frees it."""

    def __init__(self) -> None:
        self.itself = self


def test_a_cycle_that_ends_young_goes_at_the_next_call() -> None:
    with by_hand(FakeClock()) as tidy:
        gone = weakref.ref(Cycle())
        tidy()
        assert gone() is None


def test_what_lives_longer_is_not_walked_over_again_until_everything_is() -> None:
    clock = FakeClock()
    with by_hand(clock) as tidy:
        kept: list[Cycle] = [Cycle()]
        gone = weakref.ref(kept[0])
        tidy()
        kept.clear()
        for _ in range(20):
            clock.step(BEAT)
            tidy()
        assert gone() is not None
        clock.step(ALL_EACH)
        tidy()
        assert gone() is None


def test_the_collector_is_left_as_it_was_found() -> None:
    before = gc.get_threshold()
    with by_hand(FakeClock()):
        assert gc.get_threshold() != before
    assert gc.get_threshold() == before
    assert gc.isenabled()
