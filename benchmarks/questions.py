"""What the daemon asks of PostgreSQL, counted by the servers themselves: statements, connections, logins (P6).

Counts, not times: the same on any machine. The servers log every statement meanwhile, so nothing else is measured.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import contenders
from benchmarks.up import REQUESTS, Stack

_STATEMENT = re.compile(r"^\d+ probed LOG:  (?:statement|execute \S+): (.*)")
_LOGIN = re.compile(r"connection authorized: .*application_name=probed")
LOGIN_EVERY = 30.0
"""Seconds after which the daemon logs in anew on purpose: whether a client can get in is part of its question."""
CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'probed'"


@dataclass(frozen=True)
class Asked:
    """Of all nodes together, in some healthy cycles."""

    cycles: float
    nodes: int
    statements: int
    """Without those of the logins, one each."""
    logins: int
    connections: int
    """At one moment."""
    texts: Sequence[str]
    """Beginnings of the statements, by how often they came."""
    seconds: float

    @property
    def statements_per_cycle(self) -> float:
        """Of one node."""
        return self.statements / (self.cycles * self.nodes)

    @property
    def surplus(self) -> int:
        """Logins of all nodes beyond the one that each node has every 30 s."""
        return max(0, self.logins - self.nodes * (int(self.seconds / LOGIN_EVERY) + 1))


def count(stack: Stack, directory: Path, loop: str, *, interval: str, seconds: float) -> Asked:
    """Start a daemon in ``directory``, let it settle, and have the servers count for some seconds."""
    others = _connections(stack)
    with contenders.daemon(stack, directory, loop, interval=interval):
        _until_asked(stack)
        for server in stack.servers.values():
            server.set(log_statement="all")
        time.sleep(1)
        before = {node: len(server.log()) for node, server in stack.servers.items()}
        answered, since = stack.stub.answered(), time.monotonic()
        time.sleep(seconds)
        elapsed, answered = time.monotonic() - since, stack.stub.answered() - answered
        lines = [line for node, server in stack.servers.items() for line in server.log()[before[node] :]]
        connections = _connections(stack) - others
    for server in stack.servers.values():
        server.reset("log_statement")
    texts = Counter(match[1][:40] for line in lines if (match := _STATEMENT.match(line)))
    logins = sum(1 for line in lines if _LOGIN.search(line))
    told = [f"{count} x {text}" for text, count in texts.most_common()]
    cycles = answered / REQUESTS
    return Asked(cycles, len(stack.servers), texts.total() - logins, logins, connections, told, elapsed)


def _connections(stack: Stack) -> int:
    return sum(int(server.sql(CONNECTIONS)) for server in stack.servers.values())


def _until_asked(stack: Stack) -> None:
    """Until the first rounds are over: discovery, the first login, and what is asked but once."""
    seen, end = stack.stub.answered(), time.monotonic() + contenders.STARTED_WITHIN
    while stack.stub.answered() < seen + 5 * REQUESTS:
        if time.monotonic() > end:
            raise TimeoutError("the daemon asks nothing")
        time.sleep(0.1)
