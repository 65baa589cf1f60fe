"""The board keeps the newest samples of what is probed, counts all of them, and forgets what is not probed any more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from probed.board import RING, Board, Entry
from probed.model import Outcome, Target
from probed.testing import TARGET, make_sample

PROBE = "postgres_liveness"
OTHER = Target("orders", "node-b", "postgres", "10.0.0.2:5432", kind="postgres")


def board_of(*targets: Target) -> Board:
    board = Board()
    for target in targets:
        board.expect(PROBE, target, 5.0)
    return board


def only(board: Board) -> Entry:
    (entry,) = board.entries()
    return entry


@given(st.lists(st.sampled_from(Outcome), max_size=60))
def test_cycles_are_counted_by_outcome_and_the_newest_kept_whatever_follows_what(outcomes: list[Outcome]) -> None:
    board = board_of(TARGET)
    samples = [make_sample(outcome, mono=float(n)) for n, outcome in enumerate(outcomes)]
    for number, sample in enumerate(samples, 1):
        before = samples[number - 2].outcome if number > 1 else None
        assert board.put(sample) == (before if before is not sample.outcome else None)
        assert only(board).runs == {one: outcomes[:number].count(one) for one in Outcome}
    assert board.ring(PROBE, TARGET) == tuple(samples[-RING:])
    assert only(board).newest == (samples[-1] if samples else None)


def test_since_when_an_outcome_lasts_is_the_time_of_its_first_sample() -> None:
    board = board_of(TARGET)
    for mono, outcome in enumerate((Outcome.OBSERVED, Outcome.FAILED, Outcome.FAILED, Outcome.FAILED)):
        board.put(make_sample(outcome, mono=float(mono)))
    assert (only(board).outcome, only(board).since, only(board).run) == (Outcome.FAILED, make_sample(mono=1.0).at, 3)


def test_a_sample_of_what_nobody_expects_is_let_go() -> None:
    board = board_of(TARGET)
    assert board.put(make_sample(target=OTHER)) is None
    assert board.put(make_sample(probe="sql")) is None
    assert (board.newest(PROBE, OTHER), board.newest("sql", TARGET), only(board).newest) == (None, None, None)


def test_what_is_no_longer_probed_is_forgotten_and_begins_anew_when_it_comes_back() -> None:
    board = board_of(TARGET, OTHER)
    for target in (TARGET, OTHER):
        board.put(make_sample(target=target))
    board.keep_only({(PROBE, TARGET.key)})
    assert [entry.target for entry in board.entries()] == [TARGET]
    assert (board.knows(PROBE, TARGET.key), board.knows(PROBE, OTHER.key)) == (True, False)
    assert board.put(make_sample(target=OTHER)) is None
    board.expect(PROBE, OTHER, 5.0)
    assert (board.knows(PROBE, OTHER.key), board.newest(PROBE, OTHER)) == (True, None)


def test_a_reload_moves_a_target_and_keeps_what_is_known_of_it() -> None:
    board = board_of(TARGET)
    board.put(make_sample())
    board.expect(PROBE, replace(TARGET, address="10.0.0.9:5432"), 30.0)
    entry = only(board)
    assert (entry.target.address, entry.interval, len(entry.ring)) == ("10.0.0.9:5432", 30.0, 1)
