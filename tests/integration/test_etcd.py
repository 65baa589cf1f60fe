"""etcd: a member's word as recorded, and the verdict over all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probed.clock import SystemClock
from probed.config.settings import Defaults, Instance
from probed.model import Outcome, Reading, Sample, Target
from probed.probes import Combined, View, catalogue
from probed.probes._http import HttpClient
from probed.reaching import context_for
from probed.sampling import combine, take_sample
from probed.watching import Cycle, plan
from tests.hostile import HTTP, OK, Line, answering, listening
from tests.leaks import nothing_left_behind, peak_growth, unstarved
from tests.standin import recorded, standing_in

PATIENT, DEADLINE = 10.0, 0.4
STATES = recorded("etcd")


@pytest.fixture
async def http(caplog: pytest.LogCaptureFixture) -> AsyncIterator[HttpClient]:
    async with nothing_left_behind(caplog):
        client = HttpClient()
        yield client
        await client.close()


def member(url: str) -> Cycle:
    instance = Instance.model_validate({"name": "orders", "etcd": [url]})
    (cycle,) = plan(instance, (), {}, catalogue(), Defaults()).cycles
    return cycle


async def ask(http: HttpClient, url: str, deadline: float = PATIENT) -> Sample:
    cycle = member(url)

    async def take() -> Sample:
        return await take_sample(cycle.probe, context_for(cycle.reach, deadline, http), deadline, SystemClock())

    return await unstarved(take)


# --- a member


@pytest.mark.parametrize("name", ["healthy_34", "healthy_35", "healthy_36"])
async def test_a_healthy_member_is_healthy_in_every_version(http: HttpClient, name: str) -> None:
    async with standing_in(STATES[name]) as peer:
        taken = await ask(http, peer.url)
        assert (taken.outcome, taken.readings, taken.reason) == (Outcome.OBSERVED, {"healthy": 1.0, "serving": 1.0}, "")
        assert len(peer.requests) == 1


@pytest.mark.parametrize(
    "name, reason",
    [
        ("no_space", "ALARM NOSPACE"),
        ("corrupt_36", "ALARM CORRUPT"),
        ("no_leader", "RAFT NO LEADER"),
        ("unhealthy_34", "no reason given: an alarm, or no leader"),
    ],
)
async def test_a_member_that_calls_itself_unhealthy_is_up_and_its_reason_is_told(
    http: HttpClient, name: str, reason: str
) -> None:
    async with standing_in(STATES[name]) as peer:
        taken = await ask(http, peer.url)
        assert (taken.outcome, taken.readings) == (Outcome.OBSERVED, {"healthy": 0.0, "serving": 1.0})
        assert taken.reason == f"{peer.url}/health: the member is unhealthy: {reason}"


@pytest.mark.parametrize("name", ["quorum_just_lost_34", "quorum_just_lost_36"])
async def test_a_member_that_answers_only_for_itself_has_lost_its_quorum_and_is_not_down(
    http: HttpClient, name: str
) -> None:
    async with standing_in(STATES[name]) as peer:
        taken = await ask(http, peer.url, DEADLINE)
        assert (taken.outcome, taken.readings) == (Outcome.OBSERVED, {"healthy": 0.0, "serving": 1.0})
        assert "no quorum" in taken.reason
        assert taken.duration < DEADLINE * 1.5


async def test_a_slow_read_that_ends_in_time_is_healthy(http: HttpClient) -> None:
    async def behave(line: Line) -> None:
        head = await line.request()
        if b"/health HTTP" in head:
            await asyncio.sleep(0.6)
        body = b'{"health":"true","reason":""}'
        await line.say(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    async with listening(behave) as peer:
        taken = await ask(http, peer.url, 1.0)
        assert taken.readings == {"healthy": 1.0, "serving": 1.0}, taken
        assert len(peer.requests) == 3


@pytest.mark.parametrize(
    "name, kind", [("not_listening", "refused"), ("frozen", "timeout"), ("another_service", "body")]
)
async def test_a_member_that_is_down_or_none_has_failed(http: HttpClient, name: str, kind: str) -> None:
    async with standing_in(STATES[name]) as peer:
        taken = await ask(http, peer.url, DEADLINE if kind == "timeout" else PATIENT)
        assert (taken.outcome, taken.kind) == (Outcome.FAILED, kind), taken


async def test_an_address_without_health_has_failed_by_its_status(http: HttpClient) -> None:
    async with standing_in(STATES["another_path"]) as peer:
        taken = await ask(http, peer.url)
        assert (taken.outcome, taken.kind) == (Outcome.FAILED, "status")


@pytest.mark.parametrize("name, kind", [("tls_wanted", "config"), ("proxy_wants_login", "auth")])
async def test_what_the_configuration_lacks_is_blind_with_a_remedy(http: HttpClient, name: str, kind: str) -> None:
    async with standing_in(STATES[name]) as peer:
        taken = await ask(http, peer.url)
        assert (taken.outcome, taken.kind) == (Outcome.BLIND, kind)
        assert "https://" in taken.reason or "credentials" in taken.reason


@pytest.mark.parametrize(
    "body, healthy",
    [(b'{"health": true}', 1.0), (b'{"health": "true", "more": [1]}', 1.0), (b'{"health": false, "reason": 5}', 0.0)],
)
async def test_health_is_taken_as_a_word_or_as_a_truth_value(http: HttpClient, body: bytes, healthy: float) -> None:
    async with listening(answering(body)) as peer:
        assert (await ask(http, peer.url)).readings == {"healthy": healthy, "serving": 1.0}


@pytest.mark.parametrize("body", [b'{"health": 1}', b'{"health": null}', b'{"health": "yes"}', b'{"health": ["true"]}'])
async def test_health_of_another_type_is_not_etcds(http: HttpClient, body: bytes) -> None:
    async with listening(answering(body)) as peer:
        taken = await ask(http, peer.url)
        assert (taken.outcome, taken.kind) == (Outcome.FAILED, "body")


async def test_a_healthy_body_with_an_unhealthy_status_is_no_health(http: HttpClient) -> None:
    unavailable = b"HTTP/1.1 503 Service Unavailable\r\n"
    async with listening(answering(b'{"health":"true"}', status=unavailable)) as peer:
        assert (await ask(http, peer.url)).outcome is Outcome.FAILED


@pytest.mark.parametrize("name", HTTP)
async def test_a_hostile_peer_fails_its_own_sample_and_is_never_healthy(http: HttpClient, name: str) -> None:
    hangs = name in ("accept_and_hang", "slow_headers", "slow_body", "hang_in_body")
    async with listening(HTTP["accept_and_hang"]) as other, listening(HTTP[name], elsewhere=other.url) as peer:
        deadline = DEADLINE if hangs else PATIENT
        taken = await ask(http, peer.url, deadline)
        assert taken.outcome is Outcome.FAILED, taken
        assert taken.duration < 2 * deadline
        assert taken.reason.isprintable()
        assert peer.most_open <= 3
        assert other.accepted == 0


async def test_fifty_members_that_hang_cost_little_and_end_in_time(http: HttpClient) -> None:
    async with listening(HTTP["accept_and_hang"]) as peer:
        await ask(http, peer.url, 0.05)
        samples, growth = await peak_growth(asyncio.gather(*(ask(http, peer.url, DEADLINE) for _ in range(50))))
        assert {taken.kind for taken in samples} == {"timeout"}
        assert growth < 20


# --- the verdict

QUORUM = catalogue()["etcd_quorum"]
assert isinstance(QUORUM, Combined)
H, U, F, B = "healthy", "unhealthy", "failed", "blind"


def said(number: int, word: str) -> Sample:
    url = f"http://10.0.0.{number}:2379"
    target = Target("orders", "", "etcd", url, kind="etcd", member=url)
    readings: dict[str, Reading] = {}
    if word in (H, U):
        readings = {"healthy": float(word == H), "serving": 1.0}
    outcome = {F: Outcome.FAILED, B: Outcome.BLIND}.get(word, Outcome.OBSERVED)
    reason = {F: f"{url}/health: connection refused", B: "cannot resolve", U: "RAFT NO LEADER"}.get(word, "")
    kind = {F: "refused", B: "dns"}.get(word, "")
    return Sample(target, "etcd_member", outcome, 1.0, 1.0, 0.0, readings, reason, kind)


def verdict(*words: str) -> Sample:
    assert isinstance(QUORUM, Combined)
    several: Sequence[Sample] = [said(number, word) for number, word in enumerate(words, 1)]
    view = View(Target("orders", "", "etcd"), (), {}, 1.0, 1.0, None, {"etcd_member": tuple(several)} if words else {})
    return combine(QUORUM, view)


def test_all_members_healthy_need_no_word() -> None:
    taken = verdict(H, H, H)
    assert (taken.outcome, taken.reason) == (Outcome.OBSERVED, "")
    assert taken.readings == {"healthy_members": 3.0, "members": 3.0, "quorum": 2.0}


@pytest.mark.parametrize("lost", [F, U, B])
def test_one_lost_member_of_three_is_degraded_and_no_failure(lost: str) -> None:
    taken = verdict(H, lost, H)
    assert taken.outcome is Outcome.OBSERVED
    assert taken.readings["healthy_members"] == 2.0
    assert taken.reason.startswith("degraded: 2 of 3 members are healthy: http://10.0.0.2:2379")


@pytest.mark.parametrize("words", [(F, F, H), (U, F, U), (U, U, U), (F, F, F), (F, F, B), (F, H), (H, H, F, F, F)])
def test_fewer_than_the_quorum_is_a_failure_that_names_who_is_missing(words: tuple[str, ...]) -> None:
    taken = verdict(*words)
    assert (taken.outcome, taken.kind) == (Outcome.FAILED, "state")
    assert f"{words.count(H)} of {len(words)} members are healthy" in taken.reason
    assert f"http://10.0.0.{1 + next(i for i, word in enumerate(words) if word != H)}:2379" in taken.reason


@pytest.mark.parametrize("words, kind", [((H, B, B), "dns"), ((B,), "dns"), ((H, F, B), "dns"), ((), "no_input")])
def test_where_we_could_not_ask_enough_nothing_is_said(words: tuple[str, ...], kind: str) -> None:
    taken = verdict(*words)
    assert (taken.outcome, taken.kind) == (Outcome.BLIND, kind)


@pytest.mark.parametrize("word, outcome", [(H, Outcome.OBSERVED), (U, Outcome.FAILED), (F, Outcome.FAILED)])
def test_a_single_member_decides_alone(word: str, outcome: Outcome) -> None:
    taken = verdict(word)
    assert taken.outcome is outcome
    assert "of 1" not in taken.reason


def test_of_many_lost_members_the_first_few_are_named() -> None:
    assert verdict(*[F] * 7).reason.endswith("; and 4 more")


@given(st.lists(st.sampled_from([H, U, F, B]), min_size=1, max_size=9))
def test_a_verdict_is_a_failure_exactly_when_no_unasked_member_could_save_the_quorum(words: list[str]) -> None:
    quorum = len(words) // 2 + 1
    outcome = verdict(*words).outcome
    assert (outcome is Outcome.OBSERVED) == (words.count(H) >= quorum)
    assert (outcome is Outcome.FAILED) == (words.count(H) + words.count(B) < quorum)
