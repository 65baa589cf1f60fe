"""Passwords, tokens and sessions by themselves: what is right, what it costs, and what ends it."""

from __future__ import annotations

import asyncio
import threading

import bcrypt
import pytest
from msgspec.structs import replace

from probed.access import passwords
from probed.access.limiting import IN_ALL, PER_PLACE, Limiter, place_of
from probed.access.passwords import MAX_WAITING, Later, Passwords
from probed.access.sessions import IDLE_SECONDS, LONGEST_SECONDS, MAX_SESSIONS, Sessions
from probed.access.tokens import Tokens, digest_of, mint
from probed.redaction import clean
from probed.store import TokenRecord
from probed.testing import FakeClock


def hashed(password: str, cost: int = 4) -> str:
    return bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(cost)).decode()


USERS = {"alice": hashed("correct horse"), "bob": hashed("battery staple")}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


# --- passwords ----------------------------------------------------------------------------------------------------


async def test_a_password_is_right_for_its_user_alone(clock: FakeClock) -> None:
    checker = Passwords(clock)
    assert await checker.right(USERS, "alice", "correct horse", "10.0.0.1")
    assert not await checker.right(USERS, "alice", "battery staple", "10.0.0.1")
    assert not await checker.right(USERS, "bob", "correct horse", "10.0.0.1")
    assert not await checker.right(USERS, "carol", "correct horse", "10.0.0.1")
    assert not await checker.right(USERS, "alice", "", "10.0.0.1")


async def test_what_htpasswd_and_go_make_of_long_and_foreign_passwords_is_taken(clock: FakeClock) -> None:
    users = {"long": hashed("x" * 100), "foreign": hashed("pässwörd 東京"), "y": hashed("z").replace("$2b$", "$2y$")}
    checker = Passwords(clock)
    assert await checker.right(users, "long", "x" * 100, "10.0.0.1")
    assert await checker.right(users, "foreign", "pässwörd 東京", "10.0.0.1")
    assert await checker.right(users, "y", "z", "10.0.0.1")
    assert not await checker.right(users, "y", "z\0tail", "10.0.0.1")
    assert not await checker.right(users, "y", "\ud800", "10.0.0.1")


async def test_a_right_password_is_looked_at_once_and_anew_when_its_hash_changes(clock: FakeClock) -> None:
    checker = Passwords(clock)
    for _ in range(50):
        assert await checker.right(USERS, "alice", "correct horse", "10.0.0.1")
    assert checker.checks == 1
    assert not await checker.right({"alice": hashed("another")}, "alice", "correct horse", "10.0.0.1")
    assert not await checker.right({}, "alice", "correct horse", "10.0.0.1")
    assert checker.checks == 3


async def test_an_unknown_user_costs_what_a_known_one_costs(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: bcrypt runs once for each, at a cost that is in use."""
    seen: list[bytes] = []

    def watched(password: bytes, hash_: bytes) -> bool:
        seen.append(hash_)
        return bcrypt.hashpw(password, hash_) == hash_

    monkeypatch.setattr(bcrypt, "checkpw", watched)
    checker = Passwords(clock)
    users = {"alice": hashed("a", 5), "bob": hashed("b", 5)}
    for number in range(4):
        assert not await checker.right(users, "alice", f"guess {number}", "10.0.0.1")
        assert not await checker.right(users, f"nobody {number}", "guess", "10.0.0.2")
    assert checker.checks == len(seen) == 8
    assert {text[:7] for text in seen} == {b"$2b$05$"}
    assert len(set(seen)) == 5  # alice's, and one for each name: none can be told by being asked twice


def test_with_several_costs_in_use_a_name_that_is_not_there_always_has_the_same(clock: FakeClock) -> None:
    checker = Passwords(clock)
    users = {"alice": hashed("a", 4), "bob": hashed("b", 6)}
    costs = {name: {checker._nobodys(users, name)[4:6] for _ in range(3)} for name in map(str, range(40))}
    assert all(len(found) == 1 for found in costs.values())
    assert set.union(*costs.values()) == {"04", "06"}


def test_no_two_triples_share_a_place_among_the_remembered(clock: FakeClock) -> None:
    key = Passwords(clock)._key
    assert (
        len({key("ab", "c", "d"), key("a", "bc", "d"), key("a", "b", "cd"), key("abcd", "", ""), key("", "abc", "d")})
        == 5
    )
    assert key("a", "b", "c") != Passwords(clock)._key("a", "b", "c")


async def test_the_tenth_failure_in_a_minute_silences_its_place_and_no_other(clock: FakeClock) -> None:
    checker = Passwords(clock)
    for number in range(PER_PLACE):
        assert not await checker.right(USERS, "alice", f"guess {number}", "10.0.0.1")
        clock.step(1)
    with pytest.raises(Later) as caught:
        await checker.right(USERS, "alice", "correct horse", "10.0.0.1")  # a guess cannot be tried at all
    assert caught.value.seconds == 50
    assert await checker.right(USERS, "alice", "correct horse", "10.0.0.2")
    clock.step(50)
    assert await checker.right(USERS, "alice", "correct horse", "10.0.0.1")
    assert not await checker.right(USERS, "alice", "again", "10.0.0.1")  # the first of ten has lapsed, and no more
    with pytest.raises(Later):
        await checker.right(USERS, "alice", "once more", "10.0.0.1")


async def test_a_thousand_guesses_at_once_are_not_all_let_in(clock: FakeClock) -> None:
    checker = Passwords(clock)
    guesses = [checker.right(USERS, "alice", f"guess {number}", "10.0.0.1") for number in range(1000)]
    answers = await asyncio.gather(*guesses, return_exceptions=True)
    assert checker.checks == answers.count(False) == PER_PLACE
    assert sum(isinstance(answer, Later) for answer in answers) == 1000 - PER_PLACE


async def test_guesses_from_everywhere_are_limited_and_leave_who_is_known_in(clock: FakeClock) -> None:
    checker = Passwords(clock)
    assert await checker.right(USERS, "alice", "correct horse", "10.1.0.1")
    for number in range(IN_ALL):
        assert not await checker.right(USERS, "alice", f"guess {number}", f"10.0.0.{number}")
    with pytest.raises(Later):
        await checker.right(USERS, "bob", "battery staple", "10.2.0.1")
    assert await checker.right(USERS, "alice", "correct horse", "10.1.0.1")


async def test_the_queue_is_bounded_and_many_with_the_same_password_are_one_check(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()

    def slow(password: str, hashed: str) -> bool:
        gate.wait(30)
        return bcrypt.checkpw(password.encode(), hashed.encode())

    monkeypatch.setattr(passwords, "_check", slow)
    checker = Passwords(clock)
    same = [asyncio.ensure_future(checker.right(USERS, "alice", "correct horse", "10.0.1.1")) for _ in range(50)]
    others = [
        asyncio.ensure_future(checker.right(USERS, "bob", f"guess {number}", f"10.0.0.{number}"))
        for number in range(40)
    ]
    await asyncio.sleep(0)
    same[0].cancel()  # who goes away takes nobody along
    gate.set()
    assert await asyncio.gather(*same[1:]) == [True] * 49
    answers = await asyncio.gather(*others, return_exceptions=True)
    assert answers.count(False) == MAX_WAITING - 1
    assert checker.checks == MAX_WAITING


async def test_the_loop_is_free_while_passwords_are_checked(clock: FakeClock) -> None:
    checker = Passwords(clock)
    users = {"alice": hashed("a", 12)}
    running = asyncio.ensure_future(checker.right(users, "alice", "guess", "10.0.0.1"))
    turns = 0
    while not running.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 100


@pytest.mark.parametrize(
    "address, place",
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_a_network_of_one_machine_is_one_place(address: str, place: str) -> None:
    assert place_of(address) == place


def test_what_the_limiter_remembers_is_bounded(clock: FakeClock) -> None:
    limiter = Limiter(clock)
    for number in range(20_000):
        limiter.begin(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(limiter._by_place) <= 4096


# --- tokens -------------------------------------------------------------------------------------------------------


def a_token(**values: object) -> tuple[str, TokenRecord]:
    token_id, text, digest = mint()
    record = TokenRecord(token_id, "ci", "viewer", ("metrics", "api"), digest, 100.0, "local:root")
    return text, replace(record, **values)  # fields with values of their types


def test_a_token_holds_256_random_bits_and_only_its_hash_is_kept() -> None:
    text, record = a_token()
    secret = text.split("_", 2)[2]
    assert len(secret) == 43 and text not in repr(record) and secret not in repr(record)
    assert len({mint()[1] for _ in range(1000)}) == 1000
    assert Tokens([record]).of(text, 200.0) is record


def test_what_is_not_exactly_a_live_token_is_nobody() -> None:
    text, record = a_token()
    tokens = Tokens([record])
    other_id, other_text, _ = mint()
    wrong = [
        "", text[:-1], text + "A", text.upper(), f" {text}", text[:-1] + ("A" if text[-1] != "A" else "B"),
        text.replace(record.id, other_id), other_text, record.digest, digest_of(text), "probed__", "\ud800", "é" * 70,
    ]  # fmt: skip
    assert [tokens.of(guess, 200.0) for guess in wrong] == [None] * len(wrong)


def test_an_expired_or_revoked_token_is_nobody_at_once() -> None:
    text, record = a_token(expires_at=200.0)
    tokens = Tokens([record])
    assert tokens.of(text, 199.9) is not None and tokens.of(text, 200.0) is None
    tokens.put(replace(record, expires_at=None, revoked_at=150.0))
    assert tokens.of(text, 151.0) is None and tokens.named("ci", 151.0) is None


def test_logs_and_errors_show_no_token_and_no_hash() -> None:
    text, record = a_token()
    secret = text.split("_", 2)[2]
    assert clean(f"wrong {text}!") == f"wrong probed_{record.id}_***!"
    assert secret not in clean(f"{'x' * 4060}{text}")
    assert clean(f"user alice {USERS['alice']}") == "user alice $2b$04$***"


# --- sessions -----------------------------------------------------------------------------------------------------


def test_a_session_lasts_while_it_is_used_and_a_week_at_most(clock: FakeClock) -> None:
    sessions = Sessions(clock)
    cookie, session = sessions.begin("alice", USERS["alice"])
    assert sessions.of(cookie, USERS) is session
    assert sessions.of(cookie[:-1], USERS) is None and sessions.of("", USERS) is None
    for _ in range(int(LONGEST_SECONDS / (IDLE_SECONDS / 2)) - 1):
        clock.step(IDLE_SECONDS / 2)
        assert sessions.of(cookie, USERS) is session
    clock.step(IDLE_SECONDS / 2)
    assert sessions.of(cookie, USERS) is None and len(sessions) == 0


def test_a_session_ends_when_it_is_idle_left_or_its_user_changes(clock: FakeClock) -> None:
    sessions = Sessions(clock)
    idle, left, changed, removed = (sessions.begin("alice", USERS["alice"])[0] for _ in range(4))
    sessions.end(left)
    assert sessions.of(left, USERS) is None
    assert sessions.of(changed, {"alice": hashed("new")}) is None
    assert sessions.of(removed, {}) is None
    assert sessions.of(changed, USERS) is None  # the old password coming back does not bring it back
    clock.step(IDLE_SECONDS)
    assert sessions.of(idle, USERS) is None


def test_the_longest_unused_session_gives_way(clock: FakeClock) -> None:
    sessions = Sessions(clock)
    first = sessions.begin("alice", USERS["alice"])[0]
    second = sessions.begin("alice", USERS["alice"])[0]
    clock.step(1)
    assert sessions.of(first, USERS) is not None
    for _ in range(MAX_SESSIONS - 1):
        clock.step(1)
        sessions.begin("bob", USERS["bob"])
    assert len(sessions) == MAX_SESSIONS
    assert sessions.of(first, USERS) is not None and sessions.of(second, USERS) is None
