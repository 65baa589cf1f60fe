"""What can go wrong with the stack: 21 policies and their mechanisms, and what each may bring about besides itself.

A fault knows the stack and the contract, and nothing of the product. Its *own* places are those at which an event must
be recorded, its *consequences* those at which one may be, hidden under it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.reliability.accuracy.contract import RULES, Place, T
from tests.reliability.accuracy.stack import COMPONENTS, ETCD, FRONTEND, GIB, NODES, Stack

FAILOVER = 20.0
"""Seconds after which a replica takes over from a dead primary."""

WRITE_PORT: Place = ("database_unavailable", f"haproxy/{FRONTEND}")
NO_LEADER: Place = ("no_leader", "postgres")


@dataclass(slots=True)
class Fault:
    """One fault of a schedule. What is not given is settled when it begins."""

    number: int
    kind: Kind
    mechanism: str
    node: str
    length: float
    dice: random.Random
    start: float = 0.0
    end: float = 0.0
    leader: str = ""
    """Who led when it began."""
    own: tuple[Place, ...] = ()
    consequences: frozenset[Place] = frozenset()
    amount: float = 0.0

    @property
    def on_leader(self) -> bool:
        return bool(self.node) and self.node == self.leader

    @property
    def delay(self) -> float:
        """Seconds until it is one by the policy's threshold; that a receiver starts again shows at its second start."""
        return self.kind.delay + (T if self.mechanism == "loop" else 0.0)

    def __str__(self) -> str:
        where = f" {self.node}{' (leader)' if self.on_leader else ''}" if self.node else ""
        return f"#{self.number} {self.kind.name}/{self.mechanism}{where} {self.start:.1f} .. {self.end:.1f}"


Act = Callable[[Stack, Fault], None]


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    policy: str
    """Of its own event; empty for what must not lead to any."""
    mechanisms: tuple[str, ...]
    begin: Act
    finish: Act
    on: str = ""
    """``node``, ``replica``, ``local``, or empty."""
    claims: tuple[str, ...] = ()
    """What it must have for itself; ``*`` stands for its node."""
    where: str = ""
    """Key of its event's target; ``*`` stands for its node."""
    delay: float = 0.0
    """Seconds until the fault is one by the policy's threshold."""
    brings: Callable[[Fault], Sequence[Place]] = field(default=lambda _: ())
    instant: bool = False

    def place(self, node: str) -> Place:
        return (self.policy, self.where.replace("*", node))


# --- how they begin and end -----------------------------------------------------------------------------------


def _set(name: str) -> tuple[Act, Act]:
    """A mechanism in one of the stack's tables, under the fault's node."""

    def begin(stack: Stack, fault: Fault) -> None:
        stack.changing()
        getattr(stack, name)[fault.node] = fault.mechanism

    def finish(stack: Stack, fault: Fault) -> None:
        stack.changing()
        getattr(stack, name).pop(fault.node)

    return begin, finish


def _patroni_fails(stack: Stack, fault: Fault) -> None:
    if fault.mechanism == "missing" and fault.on_leader:
        fault.mechanism = "refused"  # who holds the leader's lock is in the list
    stack.patroni[fault.node] = fault.mechanism


def _patroni_works(stack: Stack, fault: Fault) -> None:
    del stack.patroni[fault.node]


def _database_ends(stack: Stack, fault: Fault) -> None:
    stack.changing()
    stack.database.pop(fault.node)
    if fault.mechanism in ("refused", "starting"):
        stack.started[fault.node] = 1_790_000_000.0 + stack.now  # it was started again


def _machine_dies(stack: Stack, fault: Fault) -> None:
    stack.changing()
    stack.database[fault.node] = stack.patroni[fault.node] = "timeout"


def _machine_returns(stack: Stack, fault: Fault) -> None:
    stack.changing()
    stack.patroni.pop(fault.node)
    _database_ends(stack, fault)
    stack.started[fault.node] = 1_790_000_000.0 + stack.now


def _receiver_stops(stack: Stack, fault: Fault) -> None:
    stack.receiver[fault.node] = fault.mechanism
    stack.frozen[fault.node] = stack.wal()


def _receiver_starts(stack: Stack, fault: Fault) -> None:
    stack.receiver.pop(fault.node)
    stack.frozen.pop(fault.node)


def _replay_pauses(stack: Stack, fault: Fault) -> None:
    stack.frozen[fault.node] = stack.wal()


def _replay_goes_on(stack: Stack, fault: Fault) -> None:
    del stack.frozen[fault.node]


def _nobody_leads(stack: Stack, _: Fault) -> None:
    stack.changing()
    stack.led = False


def _somebody_leads(stack: Stack, _: Fault) -> None:
    stack.changing()
    stack.led = True


def _etcd_fails(stack: Stack, fault: Fault) -> None:
    word = "refused" if fault.mechanism == "demotes" else fault.mechanism
    stack.etcd = dict.fromkeys(ETCD[:2], word)
    if fault.mechanism == "demotes":
        _nobody_leads(stack, fault)


def _etcd_works(stack: Stack, fault: Fault) -> None:
    stack.etcd = {}
    if fault.mechanism == "demotes":
        _somebody_leads(stack, fault)


def _haproxy(stack: Stack, fault: Fault) -> None:
    stack.haproxy = fault.mechanism


def _deadlocks(stack: Stack, fault: Fault) -> None:
    stack.deadlocks[fault.node] += fault.amount


def _component(name: str) -> tuple[Act, Act]:
    def begin(stack: Stack, fault: Fault) -> None:
        stack.component[name] = fault.mechanism

    def finish(stack: Stack, _: Fault) -> None:
        del stack.component[name]

    return begin, finish


def _killed(stack: Stack, _: Fault) -> None:
    stack.oom_kills += 1


def _nothing(_: Stack, __: Fault) -> None:
    pass


def switch(stack: Stack, node: str) -> None:
    """Another node leads from now on."""
    stack.changing()
    stack.leader, stack.led, stack.timeline = node, True, stack.timeline + 1


# --- what they bring about ------------------------------------------------------------------------------------


def _receivers(*without: str) -> list[Place]:
    return [("wal_receiver_interrupted", f"{node}/postgres") for node in NODES if node not in without]


def _database_brings(fault: Fault) -> Sequence[Place]:
    patroni = [("patroni_node_abnormal", f"{fault.node}/patroni")]
    if not fault.on_leader:
        return patroni
    return [*patroni, NO_LEADER, WRITE_PORT, ("rest_unavailable", "rest"), *_receivers(fault.node)]


def _leaderless_brings(_: Fault) -> Sequence[Place]:
    return [WRITE_PORT, ("rest_unavailable", "rest"), *_receivers()]


def _etcd_brings(fault: Fault) -> Sequence[Place]:
    return [NO_LEADER, *_leaderless_brings(fault)] if fault.mechanism == "demotes" else []


_REFUSALS = ("refused", "timeout", "reset", "status")
_LEADERSHIP = "leadership"


def _kinds() -> list[Kind]:
    database, *_ = _set("database")
    kinds = [
        Kind("database", "database_unavailable", ("refused", "timeout", "starting"), database, _database_ends, "node",
             ("database:*",), "*/postgres", brings=_database_brings),
        Kind("machine", "database_unavailable", ("dead",), _machine_dies, _machine_returns, "node",
             ("database:*", "patroni:*", _LEADERSHIP), "*/postgres", brings=_database_brings),
        Kind("no_leader", "no_leader", ("demoted",), _nobody_leads, _somebody_leads, "", (_LEADERSHIP,), "postgres",
             brings=_leaderless_brings),
        Kind("switchover", "ha_switchover", ("planned",), _nobody_leads, _nothing, "replica",
             (_LEADERSHIP, "calm"), "postgres", instant=True),
        Kind("receiver", "wal_receiver_interrupted", ("gone", "waiting", "loop"), _receiver_stops, _receiver_starts,
             "replica", ("replay:*",), "*/postgres",
             brings=lambda fault: [("replication_lag_high", f"{fault.node}/postgres")]),
        Kind("lag", "replication_lag_high", ("paused",), _replay_pauses,
             _replay_goes_on, "replica", ("replay:*",), "*/postgres", delay=30.0),
        Kind("patroni", "patroni_node_abnormal", ("refused", "timeout", "start failed", "missing"),
             _patroni_fails, _patroni_works, "node", ("patroni:*",), "*/patroni"),
        Kind("patroni_starts", "patroni_node_abnormal", ("starting",), *_set("patroni"), "replica", ("patroni:*",),
             "*/patroni", delay=60.0),
        Kind("etcd", "etcd_unavailable", ("refused", "timeout", "alarm", "demotes"), _etcd_fails, _etcd_works, "",
             ("etcd", _LEADERSHIP), "etcd", brings=_etcd_brings),
        Kind("connections", "connections_high", ("used", "slots"), *_set("full"), "node", ("full:*",), "*/postgres"),
        Kind("deadlocks", "deadlocks_frequent", ("many",), _deadlocks, _nothing, "node", ("deadlocks:*",),
             "*/postgres", instant=True),
        Kind("cache", "cache_hit_ratio_low", ("cold",), lambda s, f: s.cold.add(f.node),
             lambda s, f: s.cold.discard(f.node), "node", ("cache:*",), "*/postgres"),
        Kind("ping", "ping_latency_high", ("slow",), lambda s, f: s.slow.add(f.node),
             lambda s, f: s.slow.discard(f.node), "node", ("ping:*",), "*/postgres"),
        Kind("disk", "capacity_high", ("full",), lambda s, _: setattr(s, "disk", 12.0 * GIB),
             lambda s, _: setattr(s, "disk", 5.0 * GIB), "local", ("disk",), "*/host"),
        Kind("oom", "oom_killed", ("killed",), _killed, _nothing, "local", ("oom:*",), "*/host", instant=True),
        Kind("haproxy", "haproxy_unavailable", ("refused", "timeout"), _haproxy,
             lambda s, _: setattr(s, "haproxy", ""), "", ("haproxy",), "haproxy", brings=lambda _: [WRITE_PORT]),
        # What must not lead to anything.
        Kind("blind", "", ("auth",), database, _database_ends, "node", ("database:*",)),
        Kind("etcd_member", "", ("refused", "timeout"), *_component(ETCD[2]), "",
             ("etcd", _LEADERSHIP)),
        Kind("few_deadlocks", "", ("few",), _deadlocks, _nothing, "node", ("deadlocks:*",), instant=True),
    ]  # fmt: skip
    for name in COMPONENTS:
        policy = {"kong": "api_gateway_unavailable", "meta": "component_abnormal"}.get(name, f"{name}_unavailable")
        kinds.append(Kind(name, policy, _REFUSALS, *_component(name), "", (f"component:{name}",), name))
    return kinds


KINDS = {kind.name: kind for kind in _kinds()}
"""Those whose policy is not shipped are left out of a schedule."""
LENGTHS = (0.2, 0.9, 1.1, 2.0, 10.0)


def schedule(seed: int, count: int, kinds: Sequence[Kind]) -> list[Fault]:
    """``count`` faults in the order in which they want to begin; each kind comes about equally often."""
    dice = random.Random(seed)
    drawn: list[Kind] = []
    while len(drawn) < count:
        drawn += dice.sample(kinds, len(kinds))
    faults = []
    for number, kind in enumerate(drawn[:count], start=1):
        rule = RULES.get(kind.policy, RULES["database_unavailable"])
        length = 0.0 if kind.instant else kind.delay + dice.choice(LENGTHS) * rule.opens_within
        node = NODES[0] if kind.on == "local" else dice.choice(NODES) if kind.on else ""
        fault = Fault(number, kind, dice.choice(kind.mechanisms), node, length, random.Random(dice.random()))
        if kind.policy == "deadlocks_frequent":
            fault.amount = dice.randint(5, 20)
        elif kind.name == "few_deadlocks":
            fault.amount = dice.randint(1, 4)
        faults.append(fault)
    return faults
