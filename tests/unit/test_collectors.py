"""What collectors of evidence return: of the machine from files, of components from real sockets, of samples as values."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from probed import evidence
from probed.errors import Blind, NotApplicable
from probed.evidence import _proc, disk, kernel_log, postgres_blocking, pressure, top_memory
from probed.evidence.haproxy_rows import essence, told
from probed.model import Expect, Target
from probed.probes import Context
from probed.probes._access import Access
from probed.probes._haproxy import rows
from probed.probes._http import HttpClient
from probed.testing import make_sample
from tests.hostile import accept_and_hang, answering, listening, refusing

HOST = Target("orders", "node-a", "host", kind="host")
SECRET = "Zq7hunter2x"


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


def component(http: HttpClient, kind: str, *urls: str, timeout: float = 5.0, **more: Any) -> Context:
    return Context(Target("orders", "", kind, urls[0], kind=kind), timeout, urls, None, http, **more)


async def taken(name: str, context: Context) -> Mapping[str, Any]:
    return await evidence.find(name).take(context)


# --- all of them ------------------------------------------------------------------------------------------------


def test_every_collector_has_a_manual_and_is_found_by_its_file() -> None:
    found = evidence.catalogue()
    assert set(found) == evidence.names()
    assert all(one.manual and one.kinds and one.name == name for name, one in found.items())
    with pytest.raises(KeyError):
        evidence.find("postgres_locks")


def test_a_collector_must_be_named_like_its_file_and_have_a_manual() -> None:
    async def nameless(context: Context) -> evidence.Data:
        return {}

    with pytest.raises(ValueError, match="docstring"):
        evidence.collector(kinds=("host",))(nameless)
    nameless.__doc__ = "A manual."
    with pytest.raises(ValueError, match="in a module of its name"):
        evidence.collector(kinds=("host",))(nameless)


# --- the machine ------------------------------------------------------------------------------------------------

MACHINE = {
    "pressure/memory": "some avg10=12.50 avg60=3.00 avg300=1.00 total=1\nfull avg10=8.00 avg60=2.00 avg300=0.50 total=1\n",
    "pressure/io": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    "loadavg": "4.20 3.10 2.00 5/431 12345\n",
    "meminfo": "MemTotal:       16384000 kB\nMemAvailable:     102400 kB\nHugePages_Total:       0\n",
    "vmstat": "oom_kill 3\npgmajfault 77\nnr_free_pages 1\n",
    "self/mounts": "proc /proc proc rw 0 0\n/dev/sda1 / ext4 rw 0 0\n/dev/sda1 /again ext4 rw 0 0\n",
    "17/statm": "1000 500 10 1 0 1 0",
    "17/comm": "postgres\n",
    "17/cgroup": "0::/system.slice/postgresql.service\n",
    "17/oom_score": "700\n",
    "18/statm": "1000 900 10 1 0 1 0",
    "18/comm": "beam.smp\n",
    "19/statm": "",
}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in MACHINE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(_proc, "PROC", tmp_path)
    return tmp_path


def test_pressure_tells_stalls_load_memory_and_oom_kills_and_what_the_kernel_does_not(machine: Path) -> None:
    seen = pressure.read()
    assert seen["memory"] == MACHINE["pressure/memory"].splitlines()
    assert "PSI is off" in str(seen["cpu"])
    assert seen["load"] == {"1m": "4.20", "5m": "3.10", "15m": "2.00", "tasks": "5/431"}
    assert seen["memory_kib"] == {"MemTotal": 16384000, "MemAvailable": 102400, "HugePages_Total": 0}
    assert seen["events_since_boot"] == {"oom_kill": 3, "pgmajfault": 77}


def test_a_machine_without_proc_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_proc, "PROC", tmp_path / "none")
    with pytest.raises(Blind, match="cannot be read"):
        pressure.read()


def test_the_largest_processes_come_first_and_none_shows_its_command_line(machine: Path) -> None:
    (machine / "17/cmdline").write_text(f"postgres\0password={SECRET}\0")
    seen = top_memory.read()
    assert seen["processes"] == 3
    largest: Any = seen["largest"]
    assert [row["name"] for row in largest] == ["beam.smp", "postgres"]
    assert largest[1] == {
        "pid": 17, "resident_bytes": 500 * os.sysconf("SC_PAGE_SIZE"), "name": "postgres", "oom_score": "700",
        "cgroup": "/system.slice/postgresql.service",
    }  # fmt: skip
    assert SECRET not in str(seen)


async def test_disks_are_shown_once_per_device_and_the_data_directory_first(machine: Path, tmp_path: Path) -> None:
    seen = await disk.disk(Context(HOST, 5.0, path=tmp_path))
    mounts: Any = seen["mounts"]
    assert [row["mount"] for row in mounts] == [str(tmp_path), "/"]
    assert 0 <= mounts[0]["used_pct"] <= 100


async def test_a_mount_that_hangs_is_named_and_the_others_are_shown(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine / "self/mounts").write_text("/dev/a / ext4 rw 0 0\nserver:/x /stale nfs4 rw 0 0\n")
    statvfs, released = os.statvfs, asyncio.Event()
    loop = asyncio.get_running_loop()

    def stale(path: str) -> os.statvfs_result:
        if path == "/stale":
            asyncio.run_coroutine_threadsafe(released.wait(), loop).result()
        return statvfs("/")

    monkeypatch.setattr(disk.os, "statvfs", stale)  # type: ignore[attr-defined]
    context = Context(HOST, 0.3)
    seen = await disk.disk(context)
    released.set()
    assert seen["hangs"] == "/stale"
    assert [row["mount"] for row in seen["mounts"]] == ["/"]  # type: ignore[attr-defined]
    call: Any = context.memory["call"]
    await call.ended


KMSG = """\
6,100,100000000,-;usb 1-1: new device
 SUBSYSTEM=usb
3,101,399000000,-;Out of memory: Killed process 17 (postgres) total-vm:1kB
4,102,399500000,-;EXT4-fs (sda1): error \\x0a in line
garbage
"""


def test_the_kernel_log_shows_the_last_five_minutes_by_age_and_level(tmp_path: Path) -> None:
    file = tmp_path / "kmsg"
    file.write_text(KMSG)
    seen = kernel_log.read(file, now=401.0)
    assert seen["lines"] == [
        "-2.0 s err: Out of memory: Killed process 17 (postgres) total-vm:1kB",
        "-1.5 s warning: EXT4-fs (sda1): error \\x0a in line",
    ]


def test_a_kernel_log_keeps_its_newest_lines(tmp_path: Path) -> None:
    file = tmp_path / "kmsg"
    file.write_text("".join(f"6,{i},{400000000 + i},-;line {i}\n" for i in range(80)))
    seen = kernel_log.read(file, now=401.0)
    lines: Any = seen["lines"]
    assert len(lines) == 50 and lines[-1].endswith("line 79")
    assert seen["left_out"] == 30


def test_a_kernel_log_that_is_hidden_or_forbidden_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(Blind, match="PrivateDevices"):
        kernel_log.read(tmp_path / "kmsg")
    with pytest.raises(Blind, match="CAP_SYSLOG"):
        kernel_log.read(tmp_path)  # a directory can be opened and not read


# --- components -------------------------------------------------------------------------------------------------


async def test_a_components_answer_shows_who_spoke_and_what(http: HttpClient) -> None:
    head = b"HTTP/1.1 503 X\r\nServer: kong/3.9\r\nX-Kong-Upstream-Status: 502\r\nSet-Cookie: a=b\r\n"
    async with listening(answering(b'{"message": "failure"}', head)) as peer:
        seen = await taken("component_answer", component(http, "auth", peer.url))
    assert (seen["status"], seen["url"]) == (503, f"{peer.url}/health")
    assert seen["headers"]["Server"] == "kong/3.9"
    assert "Set-Cookie" not in seen["headers"]
    assert seen["body"] == '{"message": "failure"}'


async def test_a_hung_component_is_told_from_a_dead_one_by_its_port(http: HttpClient) -> None:
    async with listening(accept_and_hang) as peer:
        hung = await taken("component_answer", component(http, "storage", peer.url, timeout=0.5))
    assert hung == {"failed": "no answer within 0.3 s", "port": "accepts connections"}
    port = refusing()
    dead = await taken("component_answer", component(http, "storage", f"http://127.0.0.1:{port}"))
    assert "refused" in dead["failed"] and "refused" in dead["port"]


async def test_a_component_is_asked_with_its_credentials_and_they_are_not_shown(
    http: HttpClient, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(SECRET)
    async with listening(answering(b"ok")) as peer:
        access = Access(peer.url, bearer_token_file=token)
        context = component(http, "component", f"{peer.url}/x?key={SECRET}", access=access, expect=Expect("mine"))
        seen = await taken("component_answer", context)
    assert SECRET not in json.dumps(seen)
    assert seen["status"] == 200


async def test_a_tcp_component_shows_whether_it_accepts(http: HttpClient) -> None:
    async with listening(accept_and_hang) as peer:
        url = peer.url.replace("http:", "tcp:")
        assert await taken("component_answer", component(http, "component", url)) == {"port": "accepts connections"}


# --- Patroni, etcd, HAProxy -------------------------------------------------------------------------------------


async def test_patronis_history_keeps_its_newest_lines_whether_or_not_they_are_complete(http: HttpClient) -> None:
    lines: list[list[object]] = [[n, n * 1000, "no recovery target specified", "2026-01-01", "pg-1"] for n in range(15)]
    lines.append([15, 99, "no recovery target specified"])
    async with listening(answering(json.dumps(lines).encode())) as peer:
        context = component(http, "patroni_cluster", "http://127.0.0.1:1", peer.url)
        seen = await taken("patroni_history", context)
    assert seen["older"] == 6
    assert len(seen["switches"]) == 10
    assert seen["switches"][-1] == {"timeline": 15, "lsn": 99, "reason": "no recovery target specified"}


async def test_patronis_configuration_shows_only_what_decides_failover(http: HttpClient) -> None:
    body = {"ttl": 30, "failsafe_mode": True, "postgresql": {"parameters": {"x": SECRET}, "pg_hba": []}}
    async with listening(answering(json.dumps(body).encode())) as peer:
        seen = await taken("patroni_config", component(http, "patroni_cluster", peer.url))
    assert seen == {"ttl": 30, "failsafe_mode": True}


METRICS = b"""# HELP etcd_server_has_leader Whether or not a leader exists. 1 is existence, 0 is not.
etcd_server_has_leader 1
etcd_server_leader_changes_seen_total 4
etcd_mvcc_db_total_size_in_bytes 2.0480e+06
go_goroutines 90
"""


async def test_etcds_metrics_are_reduced_to_those_that_tell_why(http: HttpClient) -> None:
    async with listening(answering(METRICS)) as peer:
        context = component(http, "etcd", peer.url)
        with pytest.raises(Exception, match="not JSON"):
            await taken("etcd_status", context)  # this peer answers /health and /version with metrics, too
        from probed.evidence.etcd_status import _metrics

        assert await _metrics(context) == {
            "etcd_server_has_leader": 1.0,
            "etcd_server_leader_changes_seen_total": 4.0,
            "etcd_mvcc_db_total_size_in_bytes": 2048000.0,
        }


HEADER = "# pxname,svname,qcur,scur,slim,econ,status,lastchg,type,check_status,last_chk,"
STATISTICS = f"""{HEADER}
primary,FRONTEND,,1,100,,OPEN,,0,,,
primary,node1,0,1,100,2,UP,11,2,* L7OK,fine,
primary,BACKEND,0,1,20,0,UP,11,1,,,
"""


def test_haproxys_rows_put_servers_before_frontends_and_differ_by_status_alone() -> None:
    def facts(text: str) -> Mapping[str, object]:
        return {"rows": rows(text, "x"), "info": {"Uptime_sec": "7", "node": "x"}, "write_backend": "primary"}

    seen: Any = told(make_sample(facts=facts(STATISTICS)))
    assert [row["name"] for row in seen["rows"]] == ["node1", "BACKEND", "FRONTEND"]
    assert seen["rows"][0] == {
        "proxy": "primary", "name": "node1", "status": "UP", "check": "L7OK", "sessions": 1.0, "limit": 100.0,
        "queued": 0.0, "connection_errors": 2.0, "seconds_since_change": 11.0, "said": "fine",
    }  # fmt: skip
    assert seen["info"] == {"Uptime_sec": "7"}
    later: Any = told(make_sample(facts=facts(STATISTICS.replace(",11,", ",99,"))))
    down: Any = told(make_sample(facts=facts(STATISTICS.replace("UP,11,2", "DOWN,1,2"))))
    assert essence(seen) == essence(later) != essence(down)


async def test_a_haproxy_without_statistics_says_nothing(http: HttpClient) -> None:
    assert told(make_sample()) is None
    async with listening(accept_and_hang) as peer:
        context = component(http, "haproxy", peer.url)
        context.urls, context.doors = (), (("127.0.0.1", int(peer.url.rpartition(":")[2])),)
        with pytest.raises(NotApplicable):
            await taken("haproxy_rows", context)


# --- who blocks whom --------------------------------------------------------------------------------------------


def test_the_tree_hangs_those_who_wait_below_those_who_hold() -> None:
    sessions: dict[int, dict[str, Any]] = {
        1: {"pid": 1, "query": "UPDATE a"},
        2: {"pid": 2, "blocked_by": [1]},
        3: {"pid": 3, "blocked_by": [2]},
        4: {"pid": 4, "blocked_by": [99]},
    }
    assert postgres_blocking.tree(sessions) == [
        {"pid": 1, "query": "UPDATE a", "blocks": [{"pid": 2, "blocks": [{"pid": 3}]}]},
        {"pid": 99, "blocks": [{"pid": 4}]},
    ]


def test_a_ring_of_blocked_sessions_ends() -> None:
    ring: dict[int, dict[str, Any]] = {1: {"pid": 1, "blocked_by": [2]}, 2: {"pid": 2, "blocked_by": [1]}}
    assert postgres_blocking.tree(ring) == [{"pid": 2, "blocks": [{"pid": 1}]}]


def test_a_long_chain_is_cut() -> None:
    chain: dict[int, dict[str, Any]] = {n: {"pid": n, "blocked_by": [n - 1] if n else []} for n in range(50)}
    assert len(json.dumps(postgres_blocking.tree(chain))) < 50_000
