"""A name that does not resolve is our blindness, and never another name's."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from probed.clock import SystemClock
from probed.errors import Blind
from probed.model import Outcome, Sample, Target
from probed.probes import Context, Probe, catalogue
from probed.probes._dns import FRESH, PATIENCE, STALE, Resolver
from probed.probes._http import HttpClient
from probed.probes._sql import Login, Session
from probed.sampling import take_sample
from tests.hostile import POSTGRES, answering, listening
from tests.threads import in_calls

DEADLINE = 10.0
"""Of cycles that end long before it, on a busy machine too: one that is starved until then says nothing of the name."""


class Zone:
    """A scripted resolver: names to addresses, to an error, or to silence until ``release``."""

    def __init__(self) -> None:
        self.names: dict[str, Sequence[str] | OSError | None] = {}
        self.asked: list[str] = []
        self.release = threading.Event()
        self.now = 0.0

    def lookup(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        if self.names[host] is None:
            self.release.wait(30)
        answer = self.names[host]
        if isinstance(answer, OSError):
            raise answer
        return answer or ["10.9.9.9"]

    def resolver(self) -> Resolver:
        return Resolver(self.lookup, lambda: self.now)


@pytest.fixture
def zone() -> Iterator[Zone]:
    zone = Zone()
    yield zone
    zone.release.set()


async def test_literals_are_never_looked_up(zone: Zone) -> None:
    resolver = zone.resolver()
    for literal in ("10.0.0.1", "::1", "fe80::1%2"):
        assert list(await resolver.addresses(literal)) == [literal]
    assert zone.asked == []


async def test_an_answer_is_fresh_for_ten_seconds_and_then_asked_for_again(zone: Zone) -> None:
    zone.names["db"] = ["10.0.0.1", "10.0.0.1", "10.0.0.2"]
    resolver = zone.resolver()
    for _ in range(5):
        assert list(await resolver.addresses("db")) == ["10.0.0.1", "10.0.0.2"]
    assert zone.asked == ["db"]
    zone.now += FRESH
    zone.names["db"] = ["10.0.0.3"]
    assert list(await resolver.addresses("db")) == ["10.0.0.3"]


async def test_while_the_resolver_is_silent_or_broken_the_last_answer_serves_for_five_minutes(zone: Zone) -> None:
    for broken in (None, socket.gaierror(socket.EAI_AGAIN, "temporary failure")):
        resolver = zone.resolver()
        zone.names["db"] = ["10.0.0.1"]
        await resolver.addresses("db")
        zone.names["db"] = broken
        zone.now += STALE - 1
        assert list(await resolver.addresses("db")) == ["10.0.0.1"]
        zone.now += 1
        with pytest.raises(Blind) as raised:
            await resolver.addresses("db")
        assert raised.value.kind == "dns"


async def test_a_name_that_is_gone_is_gone_at_once(zone: Zone) -> None:
    resolver = zone.resolver()
    zone.names["db"] = ["10.0.0.1"]
    await resolver.addresses("db")
    zone.now += FRESH
    zone.names["db"] = socket.gaierror(socket.EAI_NONAME, "no such name")
    for _ in range(2):
        with pytest.raises(Blind, match="cannot resolve db: no such name"):
            await resolver.addresses("db")


async def test_an_impossible_name_is_blind(zone: Zone) -> None:
    for name in ("a" * 300, "nul\0byte", "..", "-"):
        with pytest.raises(Blind, match="cannot resolve"):
            await Resolver().addresses(name)


async def test_a_hung_lookup_costs_a_moment_once_and_one_thread(zone: Zone) -> None:
    zone.names["hung"] = None
    resolver, threads = zone.resolver(), in_calls()
    for _ in range(20):
        started = time.monotonic()
        results = await asyncio.gather(*(resolver.addresses("hung") for _ in range(10)), return_exceptions=True)
        assert all(isinstance(result, Blind) and result.kind == "dns" for result in results)
        assert time.monotonic() - started < 8 * PATIENCE
        zone.now += PATIENCE
    assert zone.asked == ["hung"]
    assert len(in_calls() - threads) == 1
    zone.names["hung"] = ["10.0.0.7"]
    zone.release.set()
    for _ in range(500):
        if resolver._known:
            break
        await asyncio.sleep(0.01)
    assert list(await resolver.addresses("hung")) == ["10.0.0.7"]


async def sample(name: str, context: Context) -> Sample:
    probe = catalogue()[name]
    assert isinstance(probe, Probe)
    return await take_sample(probe, context, context.timeout, SystemClock())


async def test_forty_hung_names_are_blind_in_time_and_delay_nobody_else(
    monkeypatch: pytest.MonkeyPatch, zone: Zone
) -> None:
    honest = socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
        if str(host).endswith(".hung.example"):
            zone.release.wait(30)
        return honest(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    http = HttpClient()
    body = b'{"state": "running"}'

    def patroni(host: str, port: int) -> Context:
        return Context(Target("i", host, "patroni"), DEADLINE, (f"http://{host}:{port}",), _http=http)

    def postgres(host: str, port: int) -> tuple[Session, Context]:
        session = Session(Login(host, port), DEADLINE)
        return session, Context(Target("i", host, "postgres", kind="postgres"), DEADLINE, _sql=session)

    async with listening(answering(body)) as web, listening(POSTGRES["one_text_column"]) as database:
        hung = [sample("patroni_rest", patroni(f"n{number}.hung.example", 8008)) for number in range(20)]
        hung += [sample("postgres_liveness", postgres(f"n{number}.hung.example", 5432)[1]) for number in range(20)]
        blind = asyncio.gather(*hung)
        await asyncio.sleep(0)
        session, context = postgres("localhost", database.port)
        named = await asyncio.gather(
            sample("patroni_rest", patroni("localhost", web.port)),
            sample("patroni_rest", patroni("127.0.0.1", web.port)),
            sample("postgres_liveness", context),
            asyncio.to_thread(time.monotonic),
        )
        assert [one.outcome for one in named[:3]] == [Outcome.OBSERVED] * 3, named
        for one in await blind:
            assert (one.outcome, one.kind) == (Outcome.BLIND, "dns"), one
            assert one.duration < DEADLINE
        session.drop()
        await http.close()


async def test_a_kernel_call_that_hangs_is_blind_and_gets_no_second_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, threads = threading.Event(), in_calls()

    def statvfs(path: Path) -> None:
        release.wait(30)

    context = Context(Target("i", "n", "host", str(tmp_path), kind="disk"), 0.3, path=tmp_path)
    good = await sample("disk_usage", context)
    assert good.outcome is Outcome.OBSERVED
    assert 0 < float(good.readings["used_pct"]) <= 100
    with monkeypatch.context() as patch:
        patch.setattr("os.statvfs", statvfs)
        for _ in range(5):
            hung = await sample("disk_usage", context)
            assert (hung.outcome, hung.kind) == (Outcome.BLIND, "timeout")
        assert len(in_calls() - threads) <= 1
    release.set()
    for _ in range(500):
        good = await sample("disk_usage", context)
        if good.outcome is Outcome.OBSERVED:
            break
        await asyncio.sleep(0.01)
    assert good.outcome is Outcome.OBSERVED


async def test_a_missing_directory_is_blind_with_its_reason(tmp_path: Path) -> None:
    context = Context(Target("i", "n", "host", kind="disk"), DEADLINE, path=tmp_path / "none")
    taken = await sample("disk_usage", context)
    assert (taken.outcome, taken.kind) == (Outcome.BLIND, "config")
    assert "No such file or directory" in taken.reason


async def test_the_second_address_of_a_name_is_tried_when_the_first_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(POSTGRES["one_text_column"]) as database, listening(answering(b'{"state": "running"}')) as web:

        async def addresses(self: Resolver, host: str) -> Sequence[str]:
            return ("127.0.0.2", "127.0.0.1")

        monkeypatch.setattr(Resolver, "addresses", addresses)
        session = Session(Login("db.example", database.port), DEADLINE)
        await session.fresh_login()
        assert session.warm
        session.drop()
        http = HttpClient()
        assert (await http.get(f"http://db.example:{web.port}")).status == 200
        await http.close()
