"""A pipeline on a bench: two nodes, the shipped policies, a fake clock, and a store in memory that can be left behind.

One ``round`` is one slot of 5 s in which everything is sampled. What is not named in it is well.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from probed.board import Board
from probed.config.settings import Defaults
from probed.errors import StoreError
from probed.model import NO_FACTS, OBSERVER, Event, EventState, Outcome, Policy, Reading, Sample, Target
from probed.pipeline import Pipeline
from probed.policy.load import load
from probed.probes import catalogue
from probed.reachability import Reachability
from probed.silences import Silence
from probed.store import Change, Commit, Recovered
from probed.store.rows import streak_of, streak_text, worth_keeping
from probed.testing import FakeClock

SHIPPED = load(None, {name: frozenset(probe.readings) for name, probe in catalogue().items()}, Defaults())
JUDGED = (
    "cache_hit_ratio_low", "connections_high", "database_unavailable", "deadlocks_frequent", "etcd_unavailable",
    "ha_switchover", "haproxy_unavailable",
    "no_leader", "patroni_node_abnormal", "ping_latency_high", "replication_lag_high", "wal_receiver_interrupted",
)  # fmt: skip
POLICIES = {name: replace(SHIPPED[name], enabled=True) for name in JUDGED}
"""Of the shipped ones those that a database cluster gives rise to, all switched on."""

ISOLATED = SHIPPED["observer_isolated"]

OK, F, B, NA = Outcome.OBSERVED, Outcome.FAILED, Outcome.BLIND, Outcome.NOT_APPLICABLE
Said = Outcome | Mapping[str, Reading] | tuple[Outcome, str]
"""What a target's sample says: an outcome, readings, or an outcome with the kind of its reason."""
SILENT: Said = (Outcome.FAILED, "no_answer")
"""Nobody accepts a connection, and nobody refuses one."""

INSTANCE = "orders"
NODES = ("node-a", "node-b")
CLUSTER = Target(INSTANCE, "", "postgres")
ETCD = Target(INSTANCE, "", "etcd")
HAPROXY = Target(INSTANCE, "", "haproxy", "http://10.0.0.9:7000", kind="haproxy")
ONESELF = Target(OBSERVER, "bench", "probed", kind="observer")
FRONTEND = Target(INSTANCE, "", "haproxy", "10.0.0.9:5000", kind="frontend", member="10.0.0.9:5000")


def postgres(node: str) -> Target:
    return Target(INSTANCE, node, "postgres", f"{node}:5432", kind="postgres")


def patroni(node: str) -> Target:
    return Target(INSTANCE, node, "patroni", f"http://{node}:8008", kind="patroni")


class Ledger:
    """A store in memory: what is appended is durable at once, unless ``refuses``. Holds the one-open-event rule."""

    def __init__(self) -> None:
        self.commits: list[Commit] = []
        self.events: dict[str, Event] = {}
        self.streaks: dict[str, str] = {}
        self.silences: dict[str, Silence] = {}
        self.refuses = False

    def append(self, commit: Commit) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.refuses:
            done.set_exception(StoreError("the disk is full"))
            return done
        for change in commit.changes:
            self.events[change.event.id] = change.event
            prints = [event.fingerprint for event in self.open_events]
            assert len(prints) == len(set(prints)), f"two open events of one fingerprint: {change}"
        for key, streak in commit.streaks.items():
            if worth_keeping(streak):
                self.streaks[key] = streak_text(streak)
            else:
                self.streaks.pop(key, None)
        for key in commit.forgotten:
            self.streaks.pop(key, None)
        self.silences |= {silence.id: silence for silence in commit.silences}
        self.commits.append(commit)
        done.set_result(None)
        return done

    @property
    def open_events(self) -> list[Event]:
        return [event for event in self.events.values() if event.state is EventState.OPEN]

    def recovered(self, absence: float, mono_shift: float = 0.0) -> Recovered:
        switchovers = [event for event in self.events.values() if event.event == "ha_switchover"]
        return Recovered(
            open_events=tuple(self.open_events),
            streaks={key: streak_of(text) for key, text in self.streaks.items()},
            members=(),
            last_switchover={event.target.instance: event.opened_at for event in switchovers},
            absence=absence,
            mono_shift=mono_shift,
            silences=tuple(self.silences.values()),
        )


@dataclass
class Bench:
    policies: Mapping[str, Policy] = field(default_factory=lambda: dict(POLICIES))
    nodes: Sequence[str] = NODES
    frontend: bool = False
    grace: float = 60.0
    shuffle: random.Random | None = None
    clock: FakeClock = field(default_factory=FakeClock)
    ledger: Ledger = field(default_factory=Ledger)
    leader: str = "node-a"
    announced: list[Change] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    """Every change so far, as ``shown``."""

    def __post_init__(self) -> None:
        self.pipeline = self.daemon()
        self.bind()

    def daemon(self, recovered: Recovered | None = None) -> Pipeline:
        self.reachability = Reachability()
        pipeline = Pipeline(
            self.ledger, Board(), self.clock, observer="bench", switchover_grace=self.grace,
            reachability=self.reachability,
        )  # fmt: skip
        pipeline.on_announce(self.announced.append)
        if recovered is not None:
            pipeline.recover(recovered)
        return pipeline

    def bind(self) -> None:
        """As the daemon does at start and at each reload."""
        wanted = [
            (policy, target) for policy in self.policies.values() if policy.enabled for target in self.targets(policy)
        ]
        for policy, target in wanted:
            self.pipeline.board.expect(policy.probe, target, policy.interval)
        self.pipeline.bind(INSTANCE, {"env": "prod"}, self.nodes, wanted, all_policies=self.policies)
        self.pipeline.bind(OBSERVER, {}, (), [(ISOLATED, ONESELF)], all_policies=self.policies)

    def targets(self, policy: Policy) -> list[Target]:
        match policy.probe:
            case "leader":
                return [CLUSTER]
            case "etcd_quorum":
                return [ETCD]
            case "haproxy_stats":
                return [HAPROXY] if self.frontend else []
            case "patroni_member":
                return [patroni(node) for node in self.nodes]
            case "postgres_liveness" if policy.id == "database_unavailable" and self.frontend:
                return [*(postgres(node) for node in self.nodes), FRONTEND]
            case _:
                return [postgres(node) for node in self.nodes]

    def change_policy(self, identity: str, **values: object) -> None:
        """Edit a policy and reload."""
        self.policies = {**self.policies, identity: replace(self.policies[identity], **values)}
        self.bind()

    def restart(self, absence: float = 10.0, *, new_boot: bool = False) -> None:
        """The daemon is killed, and another one starts ``absence`` seconds later, perhaps on a machine that rebooted."""
        before = self.clock.mono()
        self.clock.step(absence)
        if new_boot:
            self.clock.now_mono = 50.0
        shift = self.clock.mono() - absence - before
        self.pipeline = self.daemon(self.ledger.recovered(absence, shift))
        self.bind()
        self.pipeline.forget_unknown({INSTANCE})

    def samples(
        self,
        db: Mapping[str, Said] | None = None,
        lag: Mapping[str, Said | float] | None = None,
        receiver: Mapping[str, Said | float] | None = None,
        patroni_: Mapping[str, Said | float] | None = None,
        stats: Mapping[str, Said] | None = None,
        leader: Said | str | None = None,
        port: Said = OK,
        etcd: Said = OK,
        haproxy: Said = OK,
    ) -> list[Sample]:
        """One slot's samples. ``leader``: a node's name, ``""`` for none, or an outcome."""
        if isinstance(leader, str) and leader and not isinstance(leader, Outcome):  # an outcome is a word, too
            self.leader = leader
        found = []
        for node in self.nodes:
            primary = node == self.leader
            found += [
                self.sample("postgres_liveness", postgres(node), (db or {}).get(node, {"ping_seconds": 0.001})),
                self.sample(
                    "replication_lag",
                    postgres(node),
                    _said((lag or {}).get(node, NA if primary else 0.0), "lag_seconds"),
                ),
                self.sample(
                    "wal_receiver",
                    postgres(node),
                    _said((receiver or {}).get(node, NA if primary else 1.0), "wal_receiver_streaming"),
                ),
                self.sample("patroni_member", patroni(node), _said((patroni_ or {}).get(node, 1.0), "healthy")),
                self.sample("postgres_stats", postgres(node), (stats or {}).get(node, {"deadlocks": 0.0})),
                self.sample("connections", postgres(node), {"connections_used_pct": 1.0}),
            ]
        if isinstance(leader, Outcome):
            found.append(self.sample("leader", CLUSTER, leader))
        elif leader == "":
            found.append(self.sample("leader", CLUSTER, {"has_leader": 0.0}))
        elif isinstance(leader, Mapping):
            found.append(self.sample("leader", CLUSTER, leader))
        elif leader is None or isinstance(leader, str):
            found.append(self.sample("leader", CLUSTER, {"has_leader": 1.0, "leader": self.leader}))
        found.append(self.sample("etcd_quorum", ETCD, etcd))
        if self.frontend:
            found.append(self.sample("postgres_liveness", FRONTEND, port))
            found.append(self.sample("haproxy_stats", HAPROXY, haproxy))
        return found

    def look_around(self) -> list[str]:
        """The observer's own round, which comes between those of the instances: can it see? What changed by it."""
        before = len(self.ledger.commits)
        share = self.reachability.whole.share
        self.pipeline.accept(OBSERVER, [self.sample("observer_sight", ONESELF, {"silent_hosts_pct": share})])
        return [shown(change) for commit in self.ledger.commits[before:] for change in commit.changes]

    def sample(
        self, probe: str, target: Target, said: Said, facts: Mapping[str, object] = NO_FACTS, series: str = ""
    ) -> Sample:
        outcome, readings, kind = OK, {}, ""
        match said:
            case Outcome():
                outcome = said
            case tuple():
                outcome, kind = said
            case _:
                readings = dict(said)
        at, mono = self.clock.wall(), self.clock.mono()
        return Sample(target, probe, outcome, at, mono, readings=readings, kind=kind, series=series, facts=facts)

    def accept(self, samples: Iterable[Sample]) -> list[str]:
        """Have a round judged; what changed by it."""
        before, found = len(self.ledger.commits), list(samples)
        if self.shuffle is not None:
            self.shuffle.shuffle(found)
        self.pipeline.accept(INSTANCE, found)
        changed = [shown(change) for commit in self.ledger.commits[before:] for change in commit.changes]
        self.told += changed
        return changed

    def round(
        self,
        db: Mapping[str, Said] | None = None,
        lag: Mapping[str, Said | float] | None = None,
        receiver: Mapping[str, Said | float] | None = None,
        patroni_: Mapping[str, Said | float] | None = None,
        stats: Mapping[str, Said] | None = None,
        leader: Said | str | None = None,
        port: Said = OK,
        etcd: Said = OK,
        haproxy: Said = OK,
    ) -> list[str]:
        """5 s pass, and everything is sampled and judged."""
        self.clock.step(5.0)
        return self.accept(self.samples(db, lag, receiver, patroni_, stats, leader, port, etcd, haproxy))

    def open(self) -> list[str]:
        """The open events, as ``name node severity`` with ``(suppressed)``."""
        return sorted(_place(event) for event in self.ledger.open_events)

    def event(self, identity: str, node: str = "") -> Event:
        """The newest event of a type on a node."""
        found = [e for e in self.ledger.events.values() if (e.event, e.target.node) == (identity, node)]
        return found[-1]


def _said(value: Said | float, reading: str) -> Said:
    return {reading: value} if isinstance(value, float | int) else value


def _place(event: Event) -> str:
    where = event.target.node or event.target.component
    return f"{event.event} {where} {event.severity.value}" + (" (suppressed)" if event.suppressed else "")


def shown(change: Change) -> str:
    """``opened replication_lag_high node-b critical (suppressed)``; a resolution with its reason."""
    reason = f": {change.event.resolve_reason}" if change.kind == "resolved" else ""
    return f"{change.kind} {_place(change.event)}{reason}"
