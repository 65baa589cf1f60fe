"""Two hundred targets, most of which hang or flood: who they are, and a daemon's file that has all of them probed.

Twenty instances with one honest target each; the others share its rounds. Used by the punctuality benchmark and by
``tests/reliability``.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.hostile import crowd, deaf

INSTANCES = 20
HUNG = 180
PER_INSTANCE = HUNG // INSTANCES
HONEST = "honest"
"""Name of the component in each instance that is well."""
ANSWER = b'{"state": "running", "role": "primary", "timeline": 1}'

Peers = Callable[[int], AbstractContextManager[list[int]]]


@dataclass(frozen=True)
class Way:
    """One way of not answering as one should."""

    name: str
    expected: str
    """What a sample comes to: its outcome, then the kinds that its reason may be of."""
    peers: Peers
    """So many of such servers: their ports, while the context lasts."""
    address: str = "http://127.0.0.1:{port}/"
    """Of a component; empty for a node's PostgreSQL."""

    @property
    def probe(self) -> str:
        """The probe that judges it."""
        return "component" if self.address else "postgres_liveness"


@contextlib.contextmanager
def _nobody(count: int) -> Iterator[list[int]]:
    """Ports that are taken, so that nobody else gets them, and at which nobody listens."""
    with contextlib.ExitStack() as held:
        taken = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        yield [one.getsockname()[1] for one in taken]


@contextlib.contextmanager
def _unresolvable(count: int) -> Iterator[list[int]]:
    yield list(range(count))


def _http(name: str, expected: str) -> Way:
    return Way(name, f"failed {expected}", partial(crowd, name, nice=19))


def _postgres(name: str, expected: str) -> Way:
    return Way(f"postgres:{name}", f"failed {expected}", partial(crowd, f"postgres:{name}", nice=19), address="")


WAYS = {
    way.name: way
    for way in (
        Way("refused", "failed refused", _nobody),
        Way("syn_dropped", "failed no_answer", deaf),
        Way("tls_handshake", "failed timeout", partial(crowd, "accept_and_hang", nice=19), "https://127.0.0.1:{port}/"),
        _http("accept_and_hang", "timeout"),
        _http("slow_headers", "timeout"),
        _http("slow_body", "timeout"),
        _http("hang_in_body", "timeout"),
        _http("endless_body", "too_large"),
        _http("endless_tiny_chunks", "too_large"),
        _http("endless_informational", "too_large"),
        _http("endless_headers", "protocol"),
        _http("gzip_bomb", "body"),
        _http("redirect_to_itself", "redirect"),
        _http("garbage", "protocol"),
        _http("huge_header", "protocol too_large"),
        _http("many_headers", "protocol"),
        _http("json_deep", "body"),
        _http("json_deep_object", "body"),
        _http("json_truncated", "body"),
        _http("reset_in_body", "protocol reset"),
        _postgres("accept_and_hang", "timeout"),
        _postgres("tls_then_silence", "timeout"),
        _postgres("hang_after_startup", "timeout"),
        _postgres("hang_at_query", "timeout"),
        _postgres("endless_notices", "too_large"),
        _postgres("endless_rows", "protocol too_large"),
        _postgres("huge_message", "protocol too_large"),
    )
}
DNS = Way("dns_hang", "blind dns", _unresolvable, "http://hung-{port}.example/")
"""Wants a resolver that never answers: a network namespace of its own."""


def written(
    directory: Path, hung: Sequence[tuple[Way, int]], honest: Sequence[int], interval: str, timeout: str
) -> Path:
    """``probed.yml`` in ``directory``: the hung targets (way, port) dealt to the instances of the honest ones."""
    lines = [f"storage: {{path: {directory}/store}}", f"defaults: {{interval: {interval}, timeout: {timeout}}}"]
    lines.append("instances:")
    for number, port in enumerate(honest):
        share = list(enumerate(hung[number :: len(honest)]))
        lines += [f"  - name: i{number}", f"    components:\n      {HONEST}: {_component(f'http://127.0.0.1:{port}/')}"]
        lines += [f"      h{n}: {_component(way.address.format(port=hole))}" for n, (way, hole) in share if way.address]
        nodes = [
            f"{{name: h{n}, postgres: {{host: 127.0.0.1, port: {hole}, user: probed}}}}"
            for n, (way, hole) in share
            if not way.address
        ]
        lines += [f"    nodes: [{', '.join(nodes)}]"] if nodes else []
    file = directory / "probed.yml"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def _component(url: str) -> str:
    return f'{{url: "{url}", expect_json: {{state: running}}}}'


@contextlib.contextmanager
def dealt(ways: Sequence[Way], count: int) -> Iterator[list[tuple[Way, int]]]:
    """``count`` peers, each way in turn."""
    with contextlib.ExitStack() as peers:
        holes = [
            [(way, port) for port in peers.enter_context(way.peers(len(range(number, count, len(ways)))))]
            for number, way in enumerate(ways)
        ]
        yield [holes[number % len(ways)][number // len(ways)] for number in range(count)]
