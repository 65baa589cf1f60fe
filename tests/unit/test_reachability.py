"""Which machines can be heard: a refusal is an answer, silence of one is its own, silence of most is ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probed.model import Outcome, Sample, Target
from probed.reachability import Reachability, Sight, host_of, is_here, merged, sight

OK, F, B = Outcome.OBSERVED, Outcome.FAILED, Outcome.BLIND


def sample(address: str, outcome: Outcome, kind: str = "", *, node: str = "", component: str = "postgres") -> Sample:
    return Sample(Target("orders", node, component, address), "probe", outcome, 0.0, 0.0, kind=kind)


def silent(*hosts: str) -> list[Sample]:
    return [sample(f"{host}:5432", F, "no_answer", node=host) for host in hosts]


def heard(*hosts: str) -> list[Sample]:
    return [sample(f"{host}:5432", OK, node=host) for host in hosts]


@pytest.mark.parametrize(
    "address, host",
    [
        ("10.0.0.1:5432", "10.0.0.1"), ("db.example:5432", "db.example"), ("[::1]:5432", "::1"),
        ("http://10.0.0.1:8008", "10.0.0.1"), ("https://[fe80::1]:2379/health", "fe80::1"),
        ("tcp://10.0.0.3:6432", "10.0.0.3"), ("10.0.0.9:5000, 10.0.0.8:5000", "10.0.0.9"),
        ("", ""), ("/var/run/postgresql:5432", ""), ("unix:/run/haproxy.sock", ""), ("http://[::1", ""),
    ],
)  # fmt: skip
def test_the_machine_in_an_address_is_found_in_every_form(address: str, host: str) -> None:
    assert host_of(address) == host


def test_loopback_is_here() -> None:
    assert [is_here(host) for host in ("127.0.0.1", "127.8.0.1", "::1", "localhost", "10.0.0.1", "db")] == [
        True, True, True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["refused", "reset", "closed", "protocol", "status", "starting", "read_only", "tls"])
def test_a_machine_that_fails_in_words_has_been_heard(kind: str) -> None:
    seen = sight([sample("10.0.0.1:5432", F, kind)])
    assert (set(seen.heard), set(seen.silent)) == ({"10.0.0.1"}, set())


@pytest.mark.parametrize("outcome, kind", [(F, "no_answer"), (B, "network"), (B, "dns")])
def test_a_machine_from_which_nothing_comes_back_is_silent(outcome: Outcome, kind: str) -> None:
    seen = sight([sample("10.0.0.1:5432", outcome, kind)])
    assert (set(seen.heard), set(seen.silent)) == (set(), {"10.0.0.1"})


def test_one_answer_from_a_machine_breaks_its_silence() -> None:
    seen = sight([sample("10.0.0.1:5432", F, "no_answer"), sample("http://10.0.0.1:8008", OK, component="patroni")])
    assert (set(seen.heard), set(seen.silent)) == ({"10.0.0.1"}, set())


def test_a_connection_that_is_open_and_mute_says_nothing_of_the_network() -> None:
    """The target may hang, and the network may have been cut a moment ago: the next cycle will tell."""
    assert sight([sample("10.0.0.1:5432", F, "timeout")]) == Sight(dark=frozenset({"10.0.0.1"}), parts=1)


@pytest.mark.parametrize(
    "silent_hosts, heard_hosts, cut_off",
    [
        ("ab", "", True),
        ("a", "b", False),
        ("ab", "cd", False),
        ("abc", "de", True),
        ("", "ab", False),
        ("a", "", False),
    ],
)
def test_more_than_half_of_at_least_two_machines_must_be_silent(
    silent_hosts: str, heard_hosts: str, cut_off: bool
) -> None:
    assert sight([*silent(*silent_hosts), *heard(*heard_hosts)]).cut_off is cut_off


def test_where_everything_is_on_one_machine_all_of_three_or_more_must_be_silent() -> None:
    def on_one(*kinds: str) -> Sight:
        outcomes = [F if kind else OK for kind in kinds]
        return sight([
            sample("10.0.0.1:1", outcome, kind, node=f"n{index}")
            for index, (outcome, kind) in enumerate(zip(outcomes, kinds, strict=True))
        ])  # fmt: skip

    assert on_one("no_answer", "no_answer", "no_answer").cut_off
    assert not on_one("no_answer", "no_answer", "").cut_off
    assert not on_one("no_answer", "no_answer", "timeout").cut_off
    assert not on_one("no_answer", "no_answer").cut_off


def test_a_machine_is_dark_when_every_target_on_it_fails_in_whatever_way() -> None:
    failing = [sample("10.0.0.1:5432", F, "timeout"), sample("http://10.0.0.1:8008", F, "refused")]
    assert sight(failing).dark == {"10.0.0.1"}
    assert sight([*failing, sample("http://10.0.0.1:3000", OK)]).dark == frozenset()
    assert sight([*failing, sample("http://10.0.0.1:3000", B, "auth")]).dark == frozenset(), "it refused us: it is up"


def test_over_all_instances_a_machine_that_one_of_them_heard_is_not_silent() -> None:
    seen = Reachability()
    seen.see("orders", silent("a", "b"))
    assert seen.whole.cut_off
    seen.see("billing", heard("a", "c", "d"))
    assert seen.whole.silent == {"b"}
    assert not seen.whole.cut_off
    seen.forget("billing")
    assert seen.whole.cut_off


def test_names_that_do_not_resolve_are_told() -> None:
    seen = Reachability()
    seen.see("orders", [sample("db.example:5432", B, "dns"), *heard("a")])
    seen.see("billing", [sample("http://kong.example:8000", B, "dns")])
    assert seen.whole.unresolved == {"db.example", "kong.example"}


def test_samples_without_an_address_and_of_nothing_there_say_nothing() -> None:
    nothing = [
        sample("", F, "no_answer"),
        sample("10.0.0.1:5432", Outcome.NOT_APPLICABLE),
        sample("/data", B, "config"),
    ]
    assert sight(nothing) == Sight()


@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from("ab"), st.sampled_from([OK, F, B]), st.sampled_from(["", "no_answer", "dns"])),
            max_size=3,
        ),
        max_size=12,
    )
)
def test_each_round_is_seen_as_if_it_were_the_first(rounds: list[list[tuple[str, Outcome, str]]]) -> None:
    seen = Reachability()
    for said in rounds:
        samples = [sample(f"{host}:5432", outcome, kind, node=host) for host, outcome, kind in said]
        assert seen.see("orders", samples) == sight(samples) == seen.by_instance["orders"]
        assert seen.whole == merged([sight(samples)])
