"""Times in which a place cannot be judged: something else keeps the product from looking, or may explain what it sees."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tests.reliability.accuracy.contract import RULES, SERVICES, SLOW, TIMEOUT, E, Place, T
from tests.reliability.accuracy.faults import NO_LEADER, WRITE_PORT, Fault
from tests.reliability.accuracy.simulation import GRACE, Run

OF_A_SERVER = ("replication_lag_high", "wal_receiver_interrupted", "connections_high", "deadlocks_frequent",
               "cache_hit_ratio_low", "ping_latency_high")  # fmt: skip
"""What is known only while the server can be asked."""
GRACED = (*(name for name in OF_A_SERVER if name != "deadlocks_frequent"), "patroni_node_abnormal")
OFF_THE_LEADER = ("replication_lag_high", "wal_receiver_interrupted")
WARM = 600.0
"""Seconds after a start or promotion in which the cache is not judged."""


@dataclass(frozen=True, slots=True)
class Span:
    start: float
    end: float

    def meets(self, other: Span) -> bool:
        return self.start < other.end and other.start < self.end


def veils_of(run: Run, place: Place, without: Fault | None = None) -> list[Span]:
    """Times in which a place may be unseen, held, or explained by something else."""
    policy, key = place
    node = key.partition("/")[0]
    tail = RULES[policy].interval if policy in RULES else T
    spans = []
    for fault in run.faults:
        if fault is without or not fault.start:
            continue
        long = _veil_of(fault, place, node)
        if long is not None:
            spans.append(Span(fault.start - E, fault.end + long + tail))
    for at, _, new in run.switchovers:
        if policy in GRACED:
            spans.append(Span(at - T, at + GRACE + 2 * T + TIMEOUT + E))
        if policy == "cache_hit_ratio_low" and node == new:
            spans.append(Span(at, at + WARM + 2 * SLOW))
        if place in (NO_LEADER, WRITE_PORT) or policy in SERVICES:
            spans.append(Span(at - 2 * T, at + 2 * T))
    return spans


def _veil_of(fault: Fault, place: Place, node: str) -> float | None:
    """How long after its end a fault still stands before a place; ``None`` when it never does."""
    policy, _ = place
    here = fault.node == node and bool(node)
    away = fault.kind.name in ("database", "machine", "blind")
    until = RULES["database_unavailable"].resolves_within + T
    if away:
        if policy == "cache_hit_ratio_low" and here and fault.kind.name != "blind":
            return WARM + 2 * SLOW
        if policy == "deadlocks_frequent" and here:
            return SLOW + until
        if here and (policy in OF_A_SERVER or policy == "database_unavailable"):
            return until
        if here and policy == "patroni_node_abnormal" and fault.kind.name != "blind":
            return until
        if fault.on_leader and (policy in OFF_THE_LEADER or place in (NO_LEADER, WRITE_PORT) or policy in SERVICES):
            return until
    if fault.kind.name == "connections" and here and policy in (*OF_A_SERVER, "database_unavailable"):
        return until if fault.mechanism == "slots" and policy != "connections_high" else None
    if fault.kind.name == "connections" and fault.on_leader and policy in OFF_THE_LEADER and fault.mechanism == "slots":
        return until
    if NO_LEADER in (*fault.own, *fault.consequences):
        if policy == "cache_hit_ratio_low" and node == fault.leader:
            return WARM + 2 * SLOW  # it was promoted again
        if policy in (*OFF_THE_LEADER, *SERVICES) or place in (NO_LEADER, WRITE_PORT):
            return until + T
    if fault.kind.name == "etcd":
        return until if policy == "patroni_node_abnormal" or place == NO_LEADER else None
    if fault.kind.name == "haproxy":
        return until if place == WRITE_PORT or policy in SERVICES else None
    if fault.kind.name == "receiver" and here and policy == "replication_lag_high":
        return until
    if fault.kind.name in ("patroni", "patroni_starts") and fault.on_leader and place == NO_LEADER:
        return until
    return None


def clear_of(span: Span, veils: Iterable[Span]) -> list[Span]:
    """What of a span is not behind a veil."""
    left = [span]
    for veil in veils:
        rest = []
        for part in left:
            if not part.meets(veil):
                rest.append(part)
                continue
            rest += [
                piece for piece in (Span(part.start, veil.start), Span(veil.end, part.end)) if piece.start < piece.end
            ]
        left = rest
    return left
