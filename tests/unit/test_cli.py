"""The command line: what it prints where, and with which exit code it ends.

The daemon it talks to is played by a small HTTP server with the API's recorded shapes; one test starts the real one.
"""

from __future__ import annotations

import http.server
import json
import logging
import os
import pty
import re
import select
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import click
import pytest
import structlog
import yaml
from click.testing import CliRunner, Result

from probed.cli import cli, client, flags, output
from probed.cli.nagios import line as nagios_line
from probed.errors import ApiError
from probed.model import Comparison, Condition, Outcome, Policy, Sample, Severity, Target, Threshold
from probed.probes import catalogue

ROOT = Path(__file__).parents[2]
ID_A, ID_B = "01a20528-7a3c-737d-88f5-d79714f52724", "01a20528-7a3c-7908-b91f-3c5aef6f03d8"


def event(event_id: str = ID_A, **changes: Any) -> dict[str, Any]:
    return {
        "id": event_id, "event": "database_unavailable", "name": "Database access unavailable", "severity": "fatal",
        "state": "open", "instance": "orders", "node": "node-a", "component": "postgres",
        "target": "orders/node-a/postgres", "opened_at": "2026-11-22T21:27:48.540Z", "first_failed_at": None,
        "resolved_at": None, "resolve_reason": None, "count": 3, "value": None, "threshold": None,
        "message": "3 of 3 samples in a row failed: 127.0.0.1:1: connection refused", "suggestion": "Look at the node.",
        "policy_version": 1, "observer": "vm", "fingerprint": "0" * 16, "caused_by": None, "suppressed": False,
        "acked_by": None, "labels": {"env": "prod"}, **changes,
    }  # fmt: skip


SAMPLE = {
    "at": "2026-11-22T21:27:43.540Z", "outcome": "failed", "readings": {}, "reason": "connection refused",
    "duration_ms": 1.2,
}  # fmt: skip


def item(collector: str, at: str, target: str | None = None, **more: Any) -> dict[str, Any]:
    place = {"collector": collector, "target": target, "taken_at": f"2026-11-22T21:{at}Z"}
    return {**place, "when": "after", "moment": "trigger", **more}


PATRONI = {"members": [{"name": "pg-1", "role": "leader", "state": "running", "timeline": 1}]}
EVIDENCE = [
    item("patroni_cluster", "27:33", "orders/patroni", when="before", data=PATRONI),
    item("patroni_cluster", "27:49", "orders/patroni", data=PATRONI),
    item("postgres_activity", "27:49", "orders/node-a/postgres", error="10.0.0.1:5432: connection refused"),
    item("postgres_replication", "27:49", "orders/node-a/postgres", error="10.0.0.1:5432: connection refused"),
    item("pressure", "27:49", error="probed does not run on node-a (nodes[].local: true)"),
    item("a_later_one", "27:50", "orders/x", data={"word\x1b[31m": "text\u202e", "rows": [{"a": 1, "b": None}]}),
    item("haproxy_rows", "27:50", "orders/haproxy", data={"rows": "of another version"}),
]
"""As the API delivers it."""
CONSEQUENCE = event(ID_B, event="patroni_node_abnormal", severity="critical", suppressed=True, caused_by=ID_A)
DETAIL = {"samples": {"before": [SAMPLE], "after": []}, "evidence": [], "deliveries": [], "consequences": []}
TARGET = {
    "component": "postgres", "probe": "postgres_liveness", "address": "127.0.0.1:1", "outcome": "failed",
    "since": "2026-11-22T21:27:38.541Z", "last_sample_at": "2026-11-22T21:27:48.540Z", "readings": {},
    "reason": "connection refused",
}  # fmt: skip
STATUS = {
    "observer": "vm",
    "instances": [
        {
            "name": "orders", "labels": {"env": "prod"}, "state": "fatal", "leader": None, "targets": [],
            "nodes": [{"name": "node-a", "role": "primary", "state": "fatal", "targets": [TARGET]}],
            "open_events": [ID_A, ID_B],
        }
    ],
}  # fmt: skip
ANSWERS: dict[str, Any] = {
    "/-/healthy": "ok\n",
    "/api/v1/status": STATUS,
    "/api/v1/events": {"items": [CONSEQUENCE, event()], "next_cursor": None},
    f"/api/v1/events/{ID_A}": {**event(), **DETAIL, "consequences": [ID_B]},
    f"/api/v1/events/{ID_B}": {**CONSEQUENCE, **DETAIL},
    "/api/v1/events/daily": {
        "tz": "UTC",
        "items": [
            {"date": "2026-11-22", "event": "no_leader", "instance": "orders", "severity": "fatal", "count": 2}
        ],
    },
    "/api/v1/policies/database_unavailable": {
        "id": "database_unavailable", "rule": "failed in 3 samples in a row", "params": {"failure_count": 3},
        "version": 2,
    },
}  # fmt: skip


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Any = self.server
        parts = urlsplit(self.path)
        server.asked.append((parts.path, {key: values[0] for key, values in parse_qs(parts.query).items()}))
        answer = server.answers.get(parts.path)
        status, kind = (200, "application/json") if answer is not None else (404, "application/problem+json")
        if callable(answer):
            status, answer = answer(self)
        if answer is None:
            answer = {"title": "There is no such thing", "status": 404, "detail": f"nothing at {parts.path}"}
        body = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


class Daemon(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    asked: list[tuple[str, dict[str, str]]]
    answers: dict[str, Any]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class SocketDaemon(Daemon):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", 0

    def get_request(self) -> tuple[socket.socket, Any]:
        request, _ = super().get_request()
        return request, ("local", 0)


def started(server: Daemon) -> Iterator[Daemon]:
    server.asked, server.answers = [], dict(ANSWERS)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    yield from started(Daemon(("127.0.0.1", 0), Handler))


@pytest.fixture
def by_socket(tmp_path: Path) -> Iterator[Daemon]:
    address: Any = str(tmp_path / "probed.sock")
    yield from started(SocketDaemon(address, Handler))


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers, root.level = before


def run(*arguments: str, env: Mapping[str, str | None] | None = None) -> Result:
    names = [name for name in os.environ if name.startswith("PROBED_")]
    runner = CliRunner(env={**dict.fromkeys(names), **(env or {})})
    return runner.invoke(cli, list(arguments), prog_name="probed")


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


# --- starting fast ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["healthcheck", "version"])
def test_a_command_that_containers_repeat_imports_nothing_heavy(command: str) -> None:
    program = f"""
import sys
from probed.cli import cli
try:
    cli(["{command}", *{["--url", "http://127.0.0.1:1"] if command == "healthcheck" else []}])
except SystemExit:
    pass
heavy = {{"aiohttp", "asyncpg", "pydantic", "structlog", "rich", "yaml", "asyncio"}} & set(sys.modules)
sys.exit(f"imported: {{heavy}}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- flags --------------------------------------------------------------------------------------------------------


def every_option() -> Iterator[tuple[str, click.Option]]:
    def below(context: click.Context) -> Iterator[tuple[str, click.Option]]:
        command = context.command
        yield from ((context.command_path, option) for option in command.params if isinstance(option, click.Option))
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None
                yield from below(click.Context(found, info_name=name, parent=context))

    yield from below(click.Context(cli, info_name="probed"))


def test_every_flag_has_an_environment_variable_of_its_name() -> None:
    options = list(every_option())
    assert len(options) > 40
    for path, option in options:
        long = next(name for name in option.opts if name.startswith("--"))
        assert option.envvar == flags.variable(long), f"{path} {long}"


def test_names_of_variables_are_those_of_the_contract() -> None:
    assert flags.variable("--config.file") == "PROBED_CONFIG_FILE"
    assert flags.variable("--web.listen-address") == "PROBED_WEB_LISTEN_ADDRESS"


def test_a_flag_is_read_from_its_variable(daemon: Daemon) -> None:
    result = run("events", "list", env={"PROBED_URL": daemon.url, "PROBED_LIMIT": "7", "PROBED_SUPPRESSED": "true"})
    assert result.exit_code == 0
    assert daemon.asked == [("/api/v1/events", {"limit": "7", "suppressed": "true"})]


def test_what_a_command_is_for_stands_whole_in_the_list_of_commands() -> None:
    def cut(command: click.Command, *path: str) -> list[str]:
        if not isinstance(command, click.Group):
            return []
        with click.Context(command, info_name="probed", terminal_width=80) as context:
            shown = [line for line in command.get_help(context).splitlines() if line.endswith("...")]
            below = [(name, command.get_command(context, name)) for name in command.list_commands(context)]
        inner = [line for name, found in below if found is not None for line in cut(found, *path, name)]
        return [" ".join((*path, line)) for line in shown if "Usage" not in line and "ARGS" not in line] + inner

    assert cut(cli) == []


def test_a_mistyped_command_is_a_usage_error_with_a_hint() -> None:
    result = run("stauts")
    assert result.exit_code == 2
    assert "Did you mean 'status'?" in result.stderr


# --- finding the daemon -------------------------------------------------------------------------------------------


def test_the_daemon_is_asked_over_its_socket(by_socket: Daemon, tmp_path: Path) -> None:
    result = run("healthcheck", "--socket", str(tmp_path / "probed.sock"))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "healthy\n", "")


def test_a_known_socket_comes_before_the_port_and_a_dead_one_is_passed_by(by_socket: Daemon, tmp_path: Path) -> None:
    dead = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(dead))
    alive = tmp_path / "probed.sock"
    assert [str(item) for item in client.addresses(None, None, known=[tmp_path / "none", dead, alive])] == [
        f"unix:{dead}", f"unix:{alive}", "http://127.0.0.1:7432"
    ]  # fmt: skip
    assert client.Client(known=[dead, alive]).get("/api/v1/status") == STATUS


def test_no_daemon_is_told_with_where_and_remedy() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    for command in (["healthcheck"], ["status"], ["events", "list"], ["events", "show", ID_A], ["policy", "list"]):
        result = run(*command, "--url", url)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert f"no probed answers at {url}: Connection refused" in result.stderr
        assert "probed run" in result.stderr and "--socket" in result.stderr


def test_a_refusal_is_told_in_the_daemons_words(daemon: Daemon) -> None:
    problem = {"title": "The query is not valid", "status": 400, "detail": "since: expected a time"}
    daemon.answers["/api/v1/events"] = lambda _: (400, problem)
    result = run("events", "list", "--since", "junk", "--url", daemon.url)
    assert result.exit_code == 1
    assert "400 The query is not valid: since: expected a time" in result.stderr


@pytest.mark.parametrize("body", ["<html>", "", "[" * 100_000])
def test_an_answer_that_is_not_json_is_told(daemon: Daemon, body: str) -> None:
    daemon.answers["/api/v1/status"] = lambda _: (200, body)
    result = run("status", "--url", daemon.url)
    assert result.exit_code == 1
    assert "expected JSON" in result.stderr


def test_a_daemon_that_never_answers_is_not_awaited_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        result = run("healthcheck", "--url", f"http://127.0.0.1:{mute.getsockname()[1]}")
    assert result.exit_code == 1
    assert "gave no answer within 0.2 s" in result.stderr


def test_a_daemon_that_drips_is_not_awaited_for_ever(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT", 0.3)

    def drip(handler: Handler) -> tuple[int, str]:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        for _ in range(100):
            try:
                handler.wfile.write(b" ")
                handler.wfile.flush()
            except OSError:
                break
            time.sleep(0.05)
        raise ConnectionAbortedError

    daemon.handle_error = lambda *_: None  # type: ignore[method-assign]
    daemon.answers["/-/healthy"] = drip
    started_at = time.monotonic()
    result = run("healthcheck", "--url", daemon.url)
    assert result.exit_code == 1
    assert time.monotonic() - started_at < 2


def test_an_unhealthy_daemon_is_exit_1(daemon: Daemon) -> None:
    daemon.answers["/-/healthy"] = lambda _: (503, "stuck\n")
    result = run("healthcheck", "--url", daemon.url)
    assert result.exit_code == 1
    assert "503 stuck" in result.stderr


# --- output -------------------------------------------------------------------------------------------------------


def test_json_is_the_apis_own_answer(daemon: Daemon) -> None:
    for command, path in (
        (["status"], "/api/v1/status"),
        (["events", "list"], "/api/v1/events"),
        (["events", "daily"], "/api/v1/events/daily"),
        (["events", "show", ID_A], f"/api/v1/events/{ID_A}"),
    ):
        as_json = run(*command, "--url", daemon.url, "-o", "json")
        as_yaml = run(*command, "--url", daemon.url, "-o", "yaml")
        assert json.loads(as_json.stdout) == ANSWERS[path]
        assert yaml.safe_load(as_yaml.stdout) == ANSWERS[path]


def test_tsv_is_one_line_per_row_and_one_field_per_column_whatever_the_text(daemon: Daemon) -> None:
    daemon.answers["/api/v1/events"] = {"items": [event(message="a\tb\nc\x1b[31m\u202e")], "next_cursor": None}
    result = run("events", "list", "-o", "tsv", "--url", daemon.url)
    head, row = result.stdout.splitlines()
    assert len(head.split("\t")) == len(row.split("\t"))
    assert row.split("\t")[head.split("\t").index("message")] == "a\\tb\\nc\\x1b[31m\\u202e"


@pytest.mark.parametrize("form", ["table", "json", "yaml", "tsv"])
def test_text_of_a_target_cannot_drive_the_terminal(daemon: Daemon, form: str) -> None:
    daemon.answers["/api/v1/events"] = {"items": [event(message="\x1b]0;x\x07\u202e\x9b31m")], "next_cursor": None}
    result = run("events", "list", "-o", form, "--url", daemon.url)
    assert result.stdout.replace("\n", "").replace("\t", "").isprintable()


def test_a_table_that_is_piped_is_aligned_and_cuts_nothing(daemon: Daemon) -> None:
    long = "x" * 3000
    daemon.answers["/api/v1/events"] = {"items": [event(message=long), CONSEQUENCE], "next_cursor": None}
    result = run("events", "list", "--url", daemon.url)
    head, first, second = result.stdout.splitlines()
    assert long in first and ID_A in first and "\x1b" not in result.stdout
    at = head.index("SEVERITY")
    assert first[at:].startswith("fatal") and second[at:].startswith("critical")
    assert first.startswith("2026-11-22T21:27:48Z")
    assert "open (held back)" in second


def test_an_empty_list_says_what_it_means(daemon: Daemon) -> None:
    daemon.answers["/api/v1/events"] = {"items": [], "next_cursor": None}
    daemon.answers["/api/v1/events/daily"] = {"tz": "UTC", "items": []}
    assert "No events. Nothing that was watched has failed" in run("events", "list", "--url", daemon.url).stdout
    assert "No event was triggered" in run("events", "daily", "--url", daemon.url).stdout
    assert run("events", "list", "-o", "tsv", "--url", daemon.url).stdout.count("\n") == 1


def test_status_shows_the_tree_and_what_is_open(daemon: Daemon) -> None:
    result = run("status", "--url", daemon.url)
    assert result.exit_code == 0
    assert result.stdout.startswith("orders  fatal  env=prod\n")
    assert re.search(r"node-a +primary +postgres +postgres_liveness +failed +2026-11-22T21:27:38Z +conn", result.stdout)
    assert "open events (1 more held back as consequences)" in result.stdout
    assert ID_A in result.stdout and ID_B not in result.stdout


def test_status_of_one_instance_leaves_out_the_others(daemon: Daemon) -> None:
    assert json.loads(run("status", "--instance", "none", "-o", "json", "--url", daemon.url).stdout)["instances"] == []
    assert "There is no instance none" in run("status", "--instance", "none", "--url", daemon.url).stdout


def on_a_terminal(*arguments: str, **environ: str) -> str:
    """stdout of ``probed`` on a pseudo-terminal of 100 columns."""
    leader, follower = pty.openpty()
    env = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "COLUMNS": "100", "LANG": "C.UTF-8", **environ}
    with subprocess.Popen(
        [sys.executable, "-m", "probed", *arguments], cwd=ROOT, env=env, stdout=follower, stderr=subprocess.PIPE
    ) as process:
        os.close(follower)
        shown = b""
        while select.select([leader], [], [], 20)[0]:
            try:
                chunk = os.read(leader, 65536)
            except OSError:  # Linux: the last writer has left
                break
            if not chunk:
                break
            shown += chunk
        os.close(leader)
        assert process.wait() == 0, process.stderr.read() if process.stderr else ""
    return shown.decode()


def test_a_terminal_gets_colour_and_folding_and_no_colour_when_it_wants_none(daemon: Daemon) -> None:
    daemon.answers["/api/v1/events"] = {"items": [event(message="word " * 60)], "next_cursor": None}
    coloured = on_a_terminal("events", "list", "--url", daemon.url)
    plain = on_a_terminal("events", "list", "--url", daemon.url, NO_COLOR="1")
    assert "\x1b[1;31mfatal" in coloured
    assert re.search(r"\x1b\[[0-9;]*3[0-7]m", plain) is None
    bare = re.sub(r"\x1b\[[0-9;]*m", "", plain)
    assert all(len(line) <= 100 for line in bare.splitlines())
    assert ID_A[:8] in plain and plain.count("word") == 60


def test_watching_asks_again_until_ctrl_c_and_outlives_a_daemon_that_is_away() -> None:
    calls: list[int] = []

    def show() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise ApiError("away")

    def pause(seconds: float) -> None:
        assert seconds == 2.0
        if len(calls) == 3:
            raise KeyboardInterrupt

    output.repeat(2.0, show, pause=pause)
    assert len(calls) == 3


# --- events -------------------------------------------------------------------------------------------------------


def test_filters_of_the_list_are_the_apis(daemon: Daemon) -> None:
    result = run(
        "events", "list", "--instance", "orders", "--event", "no_leader", "--severity", "fatal", "--state", "open",
        "--since", "-24h", "--until", "2026-11-22T00:00:00Z", "--no-suppressed", "--limit", "5", "--url", daemon.url,
    )  # fmt: skip
    assert result.exit_code == 0
    assert daemon.asked[0][1] == {
        "instance": "orders", "event": "no_leader", "severity": "fatal", "state": "open", "since": "-24h",
        "until": "2026-11-22T00:00:00Z", "suppressed": "false", "limit": "5",
    }  # fmt: skip


def test_a_long_list_is_read_page_by_page_up_to_the_limit(daemon: Daemon) -> None:
    def page(handler: Handler) -> tuple[int, Any]:
        query = parse_qs(urlsplit(handler.path).query)
        first = int(query.get("cursor", ["0"])[0])
        size = int(query["limit"][0])
        return 200, {"items": [event() for _ in range(size)], "next_cursor": str(first + size)}

    daemon.answers["/api/v1/events"] = page
    answer = json.loads(run("events", "list", "--limit", "1200", "-o", "json", "--url", daemon.url).stdout)
    assert len(answer["items"]) == 1200
    assert [query["limit"] for _, query in daemon.asked] == ["500", "500", "200"]


def test_the_beginning_of_an_id_is_enough_when_it_is_the_only_one(daemon: Daemon) -> None:
    result = run("events", "show", ID_A[:18], "--url", daemon.url)
    assert result.exit_code == 0
    listed, shown = daemon.asked
    assert listed[1]["since"] == "2026-11-22T21:27:48.540Z" and listed[1]["until"] == "2026-11-22T21:27:48.541Z"
    assert shown[0] == f"/api/v1/events/{ID_A}"


def test_the_beginning_of_several_ids_names_them(daemon: Daemon) -> None:
    result = run("events", "show", ID_A[:8], "--url", daemon.url)
    assert result.exit_code == 1
    assert ID_A in result.stderr and ID_B in result.stderr and "give more of it" in result.stderr


def test_an_id_that_is_none_is_told(daemon: Daemon) -> None:
    assert "first 8 characters" in run("events", "show", "../status", "--url", daemon.url).stderr
    assert daemon.asked == []
    unknown = run("events", "show", ID_A[:-1] + "0", "--url", daemon.url)
    assert unknown.exit_code == 1 and "404 There is no such thing" in unknown.stderr


def test_one_event_is_shown_with_its_samples_and_what_to_do(daemon: Daemon) -> None:
    shown = run("events", "show", ID_A, "--url", daemon.url).stdout
    assert shown.startswith("FATAL  Database access unavailable  orders/node-a  open\n")
    assert "samples up to the trigger" in shown and "connection refused" in shown
    assert "what to do\n  Look at the node." in shown


def test_evidence_is_shown_whole_with_its_age_and_what_could_not_be_had_with_its_reason(daemon: Daemon) -> None:
    daemon.answers[f"/api/v1/events/{ID_A}"] = {**event(), **DETAIL, "evidence": EVIDENCE}
    shown = run("events", "show", ID_A, "--url", daemon.url).stdout
    assert "evidence: patroni_cluster orders/patroni  before, -16 s, 2026-11-22T21:27:33Z\n  members:\n" in shown
    assert "    name  role    state    timeline\n    pg-1  leader  running  1\n" in shown
    assert "what could not be had\n  postgres_activity orders/node-a/postgres, postgres_replication" in shown
    assert "  pressure: probed does not run on node-a (nodes[].local: true)\n" in shown
    assert "\x1b" not in shown and "\u202e" not in shown


def test_explain_reads_like_a_report_with_a_digest_of_the_evidence(daemon: Daemon) -> None:
    ended = {"state": "resolved", "resolved_at": "2026-11-22T21:29:18.540Z", "resolve_reason": "recovered"}
    again = item("patroni_cluster", "29:19", "orders/patroni", moment="recovery", data={"members": []})
    detail = {**event(**ended, first_failed_at="2026-11-22T21:27:38Z"), **DETAIL, "evidence": [*EVIDENCE, again]}
    daemon.answers[f"/api/v1/events/{ID_A}"] = detail
    told = run("explain", ID_A, "--url", daemon.url).stdout
    parts = ["what happened", "rule", "samples up to the trigger", "evidence", "what could not be had", "what to do"]
    places = [told.index(f"\n{part}") for part in parts]
    assert places == sorted(places)
    assert "resolved          2026-11-22T21:29:18Z (recovered), 1 min 41 s after it began" in told
    digest = (
        "  patroni_cluster orders/patroni\n"
        "    -16 s:      pg-1: leader running, timeline 1\n"
        "    +0 s:       as before\n"
        "    end +0 s:   nothing\n"
    )
    assert digest in told
    assert "rows=of another version" in told  # what no digest can read is outlined
    assert "\x1b" not in told and "\u202e" not in told


def test_explain_tells_how_a_new_leader_got_there_and_what_it_cost(daemon: Daemon) -> None:
    story = {
        "class": "automatic_failover", "confidence": "high", "signals": ["Patroni of node-a does not answer"],
        "old_leader": "node-a", "new_leader": "node-b", "old_timeline": 3, "new_timeline": 4, "scheduled": False,
        "inferred": False, "write_outage_seconds": 25.0, "lost_bytes": 4096.0, "switchovers": 1,
    }  # fmt: skip
    switched = event(event="ha_switchover", state="occurred", details={"switchover": story})
    daemon.answers[f"/api/v1/events/{ID_A}"] = {**switched, **DETAIL}
    told = run("explain", ID_A, "--url", daemon.url).stdout
    section = told[told.index("\nthe switchover") :]
    for line in (
        "what it was  automatic failover (confidence high)", "leader       node-a -> node-b", "timeline     3 -> 4",
        "no writes    for at most 25 s", "WAL lost     at least 4.0 KiB", "- Patroni of node-a does not answer",
    ):  # fmt: skip
        assert line in section, section


def test_status_tells_how_the_observer_itself_is(daemon: Daemon) -> None:
    isolated = event("0" * 36, event="observer_isolated", instance="observer", node="vm", target="observer/vm/probed")
    oneself = {"state": "fatal", "open_events": [isolated["id"]], "targets": []}
    daemon.answers["/api/v1/status"] = {**STATUS, "self": oneself}
    daemon.answers["/api/v1/events"] = {"items": [isolated], "next_cursor": None}
    told = run("status", "--url", daemon.url).stdout
    assert "observer vm  fatal\n" in told
    assert "observer_isolated" in told[told.index("observer vm") :]


def test_explain_tells_rule_cause_and_consequences(daemon: Daemon) -> None:
    cause = run("explain", ID_A, "--url", daemon.url).stdout
    assert "rule (version 2 now, 1 when it opened)\n  failed in 3 samples in a row" in cause
    assert "consequences\n  2026-11-22T21:27:48Z critical patroni_node_abnormal orders/node-a (open, held" in cause
    consequence = run("explain", ID_B, "--url", daemon.url).stdout  # its policy is not there any more
    assert "caused by\n  2026-11-22T21:27:48Z fatal database_unavailable" in consequence


# --- run: where settings come from --------------------------------------------------------------------------------

GOOD = """
instances:
  - name: orders
    nodes: [{name: node-a, local: true, postgres: {host: 127.0.0.1, port: 1}, disk: {path: /}}]
"""


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_bad_settings_are_exit_78_with_every_problem_on_its_own_line(tmp_path: Path) -> None:
    file = write(tmp_path / "probed.yml", "webb: {}\ninstances: [{name: a, patroni: [ftp://x]}]\n")
    result = run("run", "--config.file", file)
    assert result.exit_code == 78
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first == f'{file}:1:1: webb: unknown key "webb"; did you mean "web"?'
    assert second.startswith(f"{file}:2:33: instances[0].patroni[0]: expected an address")


def test_without_the_default_file_the_three_ways_to_start_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("probed.config.settings.DEFAULT_FILE", tmp_path / "probed.yml")
    result = run("run")
    assert result.exit_code == 78
    assert all(way in result.stderr for way in ("--config.file", "--patroni http://", "--postgres postgresql://"))
    assert str(tmp_path / "probed.yml") in result.stderr


def test_two_sources_of_settings_are_a_usage_error() -> None:
    result = run("run", "--patroni", "http://127.0.0.1:8008", "--postgres", "postgresql://127.0.0.1")
    assert result.exit_code == 2
    assert "--patroni and --postgres exclude each other" in result.stderr


def test_what_stands_on_the_command_line_beats_the_environment(tmp_path: Path) -> None:
    bad = write(tmp_path / "bad.yml", "x: 1")
    result = run("doctor", "--postgres", "postgresql://probed@127.0.0.1:1/x", env={"PROBED_CONFIG_FILE": bad})
    assert result.exit_code == 1
    assert "connection refused" in result.stdout


def test_a_password_in_an_argument_is_refused() -> None:
    result = run("run", "--postgres", "postgresql://probed:hunter2@127.0.0.1/x")
    assert result.exit_code == 78
    assert "hunter2" not in result.stderr and "PGPASSWORD" in result.stderr


def test_a_listener_from_a_flag_is_checked_like_one_from_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "probed.yml", GOOD)
    for address, complaint in (("0.0.0.0:7432", "without authentication"), ("nowhere", "expected host:port")):
        result = run("run", "--config.file", file, "--web.listen-address", address)
        assert result.exit_code == 78
        assert complaint in result.stderr and "--web.listen-address" in result.stderr


# --- check --------------------------------------------------------------------------------------------------------


def test_check_finds_out_itself_what_a_file_is_and_is_quiet_about_good_ones(tmp_path: Path) -> None:
    policies = tmp_path / "policies.d"
    policies.mkdir()
    override = write(policies / "a.yaml", "{id: deadlocks_frequent, enabled: true}")
    config = write(tmp_path / "probed.yml", GOOD + f"policies: {{directory: {policies}}}\n")
    built_in = str(ROOT / "policies" / "ha_switchover.yaml")
    result = run("check", config, override, built_in)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{config}: ok\n{override}: ok\n{built_in}: ok\n"


def test_check_takes_every_policy_that_the_page_about_ones_own_shows(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "own-policies.md").read_text()
    shown = re.findall(r"```yaml\n(id: .*?)```", page, re.DOTALL)
    files = [write(tmp_path / f"{index}.yml", text) for index, text in enumerate(shown)]
    result = run("check", *files)
    assert (result.exit_code, result.stderr) == (0, "")
    assert len(files) >= 4


def test_check_reports_the_policies_of_a_configuration_too(tmp_path: Path) -> None:
    policies = tmp_path / "policies.d"
    policies.mkdir()
    write(policies / "a.yaml", "{id: deadlocks_frequent, enabeld: true}")
    config = write(tmp_path / "probed.yml", GOOD + f"policies: {{directory: {policies}}}\n")
    result = run("check", config)
    assert result.exit_code == 1
    assert result.stderr == f'{policies}/a.yaml:1:26: enabeld: unknown key "enabeld"; did you mean "enabled"?\n'


def test_check_runs_the_examples_of_a_policy(tmp_path: Path) -> None:
    text = (ROOT / "policies" / "no_leader.yaml").read_text().replace("id: no_leader", "id: no_leader_of_mine")
    assert run("check", write(tmp_path / "good.yaml", text)).exit_code == 0
    result = run("check", write(tmp_path / "bad.yaml", text.replace("no_leader_count: 2", "no_leader_count: 3")))
    assert result.exit_code == 1
    assert "example does not come out as written" in result.stderr


def test_a_changed_rule_is_not_held_against_the_built_in_examples(tmp_path: Path) -> None:
    override = write(tmp_path / "a.yaml", "{id: database_unavailable, params: {failure_count: 2}}")
    assert run("check", override).exit_code == 0
    result = run("policy", "test", override)
    assert result.exit_code == 0 and "do not apply" in result.stdout


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("basic_auth_users: {a: b}", "expected a bcrypt hash"),
        ("colour: red", "cannot tell what kind of file it is"),
        ("", "cannot tell what kind of file it is"),
        ("a: [", "not valid YAML"),
    ],
)
def test_check_refuses_what_it_cannot_vouch_for(tmp_path: Path, text: str, complaint: str) -> None:
    result = run("check", write(tmp_path / "file.yml", text))
    assert result.exit_code == 1
    assert complaint in result.stderr and result.stdout == ""


def test_check_takes_the_kind_when_it_is_named(tmp_path: Path) -> None:
    result = run("check", "config", write(tmp_path / "file.yml", "id: x"))
    assert result.exit_code == 1 and 'required key "instances" is missing' in result.stderr


# --- policies and probes ------------------------------------------------------------------------------------------


def test_every_built_in_example_comes_out_as_written() -> None:
    result = run("policy", "test")
    assert result.exit_code == 0
    assert result.stdout.endswith(" examples, 0 failed\n") and "FAIL" not in result.stdout


def test_a_failed_example_shows_what_was_expected_and_got_under_each_other(tmp_path: Path) -> None:
    text = (ROOT / "policies" / "no_leader.yaml").read_text().replace("id: no_leader", "id: mine")
    text = re.sub(
        r"examples:.*", "examples:\n- {says: wrong, samples: 1 0 0 1, events: O . . .}\n", text, flags=re.DOTALL
    )
    result = run("policy", "test", write(tmp_path / "mine.yaml", text))
    assert result.exit_code == 1
    assert result.stdout == (
        "mine\n  FAIL  wrong\n"
        "        samples   1 0 0 1\n        expected  O . . .\n        got       . . O .\n1 examples, 1 failed\n"
    )


def test_policies_can_be_seen_without_a_daemon() -> None:
    items = json.loads(run("policy", "list", "--local", "-o", "json").stdout)["items"]
    assert {item["id"] for item in items} >= {"database_unavailable", "no_leader"}
    shown = run("policy", "show", "deadlocks_frequent", "--local").stdout
    assert "deadlocks rises by 5 or more within 1 min" in shown and "suggestion\n" in shown
    wrong = run("policy", "show", "deadlock_frequent", "--local")
    assert wrong.exit_code == 1 and 'did you mean "deadlocks_frequent"?' in wrong.stderr


def test_every_probe_has_a_manual() -> None:
    names = [line.split("\t")[0] for line in run("probe", "list", "-o", "tsv").stdout.splitlines()[1:]]
    assert names == sorted(catalogue())
    for name in names:
        shown = run("probe", "show", name).stdout
        assert shown.startswith(f"{name}\n\n") and "\nreadings\n" in shown


def test_a_probe_runs_once_against_its_targets(tmp_path: Path) -> None:
    file = write(tmp_path / "probed.yml", GOOD)
    good = run("probe", "run", "disk_usage", "--config.file", file)
    assert good.exit_code == 0 and "disk_usage on orders/node-a/host (/)" in good.stdout and "used_bytes" in good.stdout
    bad = run("probe", "run", "postgres_liveness", "--config.file", file, "--format", "json")
    assert bad.exit_code == 1
    (item,) = json.loads(bad.stdout)["items"]
    assert (item["outcome"], item["kind"], item["target"]) == ("failed", "refused", "orders/node-a/postgres")


def test_a_combined_probe_runs_after_its_inputs_and_shows_them_when_asked(tmp_path: Path) -> None:
    file = write(tmp_path / "probed.yml", GOOD)
    result = run("probe", "run", "connections", "-v", "--config.file", file)
    assert result.stdout.index("postgres_stats on") < result.stdout.index("connections on")


def test_a_probe_without_a_matching_target_says_which_there_are(tmp_path: Path) -> None:
    file = write(tmp_path / "probed.yml", GOOD)
    none = run("probe", "run", "disk_usage", "--target", "node-z", "--config.file", file)
    assert none.exit_code == 1 and "there are: orders/node-a/host" in none.stderr
    never = run("probe", "run", "patroni_rest", "--config.file", file)
    assert never.exit_code == 1 and "yield no target for patroni_rest" in never.stderr
    assert run("probe", "run", "disk_usage", "--target", "orders/*", "--config.file", file).exit_code == 0


def test_nagios_gets_its_exit_codes(tmp_path: Path) -> None:
    file = write(tmp_path / "probed.yml", GOOD)
    ok = run("probe", "run", "disk_usage", "--format", "nagios", "--config.file", file)
    assert ok.exit_code == 0 and re.fullmatch(r"PROBED OK - disk_usage: 1 observed \| 'used_bytes'=\d+B.*\n", ok.stdout)
    down = run("probe", "run", "postgres_liveness", "--format", "nagios", "--config.file", file)
    assert down.exit_code == 2 and down.stdout.startswith("PROBED CRITICAL - postgres_liveness: node-a: ")
    lost = run("probe", "run", "nope", "--format", "nagios", "--config.file", file)
    assert lost.exit_code == 3 and lost.stdout.startswith("PROBED UNKNOWN - nope: ")


def judged(outcome: Outcome, lag: float | None, severity: Severity) -> tuple[str, int]:
    when = Condition((Comparison("lag_seconds", ">=", 30.0, "lag_threshold_sec"),))
    policy = Policy("lag", "Lag", "", severity, "replication_lag", Threshold(when, 2))
    readings = {} if lag is None else {"lag_seconds": lag}
    sample = Sample(Target("o", "b", "postgres"), "replication_lag", outcome, 0.0, 0.0, 0.0, readings, "a|b\n")
    return nagios_line(catalogue()["replication_lag"], [sample], {"lag": policy})


@pytest.mark.parametrize(
    "outcome, lag, severity, code, words",
    [
        (
            Outcome.OBSERVED,
            1.5,
            Severity.CRITICAL,
            0,
            "PROBED OK - replication_lag: 1 observed | 'lag_seconds'=1.5s;;30",
        ),
        (Outcome.OBSERVED, 31.0, Severity.CRITICAL, 2, "PROBED CRITICAL - replication_lag: b: Lag (a/b\\n) | "),
        (Outcome.OBSERVED, 31.0, Severity.NORMAL, 1, "PROBED WARNING"),
        (Outcome.FAILED, None, Severity.NORMAL, 2, "PROBED CRITICAL"),
        (Outcome.BLIND, None, Severity.NORMAL, 3, "PROBED UNKNOWN"),
        (Outcome.NOT_APPLICABLE, None, Severity.NORMAL, 0, "PROBED OK"),
    ],
)
def test_a_sample_is_judged_by_the_policies_on_its_probe(
    outcome: Outcome, lag: float | None, severity: Severity, code: int, words: str
) -> None:
    text, got = judged(outcome, lag, severity)
    assert got == code and text.startswith(words)
    assert text.count("|") <= 1 and "\n" not in text


# --- doctor -------------------------------------------------------------------------------------------------------


def test_doctor_reaches_every_target_once_and_says_what_is_wrong(tmp_path: Path) -> None:
    file = write(tmp_path / "probed.yml", GOOD)
    result = run("doctor", "--config.file", file)
    assert result.exit_code == 1
    assert re.search(r"orders/node-a/postgres +postgres_liveness +failed .*connection refused", result.stdout)
    assert re.search(r"orders/node-a/host +disk_usage +observed", result.stdout)
    assert "need a hand" in result.stdout


def test_doctor_tells_problems_of_the_settings_first(tmp_path: Path) -> None:
    result = run("doctor", "--config.file", write(tmp_path / "probed.yml", "x: 1"))
    assert result.exit_code == 1
    assert 'unknown key "x"' in result.stderr and result.stdout == ""


def test_doctor_is_content_when_everything_is_observed(tmp_path: Path) -> None:
    file = write(tmp_path / "p.yml", "instances: [{name: a, nodes: [{name: n, local: true, disk: {path: /}}]}]")
    result = run("doctor", "--config.file", file)
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "all 1 are fine")


# --- the rest -----------------------------------------------------------------------------------------------------


def test_schemas_name_their_draft_and_take_the_files_we_ship() -> None:
    config, policy = (json.loads(run("schema", kind).stdout) for kind in ("config", "policy"))
    assert config["$schema"] == policy["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    interval = config["$defs"]["Defaults"]["properties"]["interval"]
    assert interval["type"] == "string" and re.fullmatch(interval["pattern"], interval["default"])
    override, complete = policy["anyOf"]
    assert override["required"] == ["id"] and "detect" in complete["required"]
    for file in (ROOT / "policies").glob("*.yaml"):
        document = yaml.safe_load(file.read_text())
        assert set(complete["required"]) <= set(document) <= set(complete["properties"])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_for_the_shell(shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0 and "_PROBED_COMPLETE" in result.stdout


def test_the_help_names_every_command_without_cutting_its_line() -> None:
    shown = run("--help").stdout
    assert "..." not in shown.split("Commands:")[1]
    assert "Exit codes: 0 ok, 1 failure, 2 usage, 78 bad configuration." in shown


def test_the_real_daemon_answers_every_client_command(tmp_path: Path) -> None:
    port = free_port()
    file = write(
        tmp_path / "probed.yml",
        GOOD + "defaults: {interval: 200ms, timeout: 100ms}\n"
        f"storage: {{path: {tmp_path / 'store'}}}\nweb: {{listen: ['127.0.0.1:{port}']}}\n",
    )
    command = [sys.executable, "-m", "probed", "run", "--config.file", file]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        env = {"PROBED_SOCKET": str(tmp_path / "store" / "probed.sock")}
        items: list[dict[str, Any]] = []
        deadline = time.monotonic() + 20
        while not items and time.monotonic() < deadline and process.poll() is None:
            result = run("events", "list", "--event", "database_unavailable", "-o", "json", env=env)
            items = json.loads(result.stdout)["items"] if result.exit_code == 0 else []
            time.sleep(0.05)
        try:
            assert [item["state"] for item in items] == ["open"]
            assert "database_unavailable" in run("status", env=env).stdout
            assert "connection refused" in run("events", "show", items[0]["id"][:23], env=env).stdout
            assert "failed in 3 samples in a row" in run("explain", items[0]["id"], env=env).stdout
            assert "database_unavailable" in run("events", "daily", env=env).stdout
            assert "failed in 3 samples in a row" in run("policy", "list", env=env).stdout
            assert run("healthcheck", "--url", f"http://127.0.0.1:{port}").exit_code == 0
        finally:
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=10)
    assert process.returncode == 0, err
    assert out == ""
    assert {"daemon.started", "event.opened", "daemon.stopped"} <= {
        json.loads(line)["msg"] for line in err.splitlines()
    }
