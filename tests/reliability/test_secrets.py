"""No secret leaves the daemon but to whom it is for: every one that can be configured, through a run in which all fails.

Targets and receivers say aloud whatever they are told, in every part of an answer. Swept is all that anybody can see.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urljoin

import aiohttp
import bcrypt
import pytest
import pytest_asyncio

from tests.daemons import DaemonProcess
from tests.reliability.canaries import WORD, Canaries, echoing, echoing_postgres, peer
from tests.unit.certificates import Authority
from tests.unit.people import basic, bearer

PLAIN = (
    "fleet dsn", "hook path", "hook query", "file path", "file query", "heartbeat path", "heartbeat query", "apprise",
    "hook token", "door token", "shop token", "wrong token", "signing key",
)  # fmt: skip
PASSWORDS = (
    "database", "standby", "alertmanager", "etcd", "haproxy", "studio", "auth", "own policy", "mail", "web", "wrong login",
)  # fmt: skip
POLICY = "id: {name}\ninterval: 300ms\ntimeout: 150ms\n"
QUICK = (
    "component_abnormal", "etcd_unavailable", "haproxy_unavailable", "studio_unavailable", "auth_unavailable",
    "database_unavailable", "rest_unavailable", "api_gateway_unavailable",
)  # fmt: skip


@dataclass
class Sweep(DaemonProcess):
    """A daemon with every secret there is, and what was seen of it."""

    canaries: Canaries = field(default_factory=Canaries)
    heard: list[str] = field(default_factory=list)
    """What targets and receivers were told: they are to know."""
    seen: dict[str, bytes] = field(default_factory=dict)
    """What everybody can see, by where."""
    target: str = ""
    database: int = 0
    deaf: str = ""
    url: str = ""

    def file(self, name: str, text: str | None = None) -> Path:
        path = self.directory / f"{name.replace(' ', '-')}.secret"
        path.write_text((self.canaries.known[name] if text is None else text) + "\n")
        return path

    def configure(self) -> None:
        for name in PLAIN:
            self.canaries.hatch(name, plain=True)
        for name in PASSWORDS:
            self.canaries.hatch(name)
        known = self.canaries.known
        authority = Authority(self.directory)
        issued, client = authority.issue("server"), authority.issue("client")
        hashed = bcrypt.hashpw(known["web"].encode(), bcrypt.gensalt(4)).decode()
        web = self.directory / "web-config.yml"
        web.write_text(
            f"tls_server_config: {{cert_file: {issued.cert}, key_file: {issued.key}}}\nbasic_auth_users: {{anna: {hashed}}}\n"
        )
        policies = self.directory / "policies.d"
        policies.mkdir()
        for name in QUICK:
            (policies / f"{name}.yaml").write_text(POLICY.format(name=name))
        (policies / "own.yaml").write_text(f"""
id: own
name: One of our own
severity: normal
probe: http
http:
  url: {self.target}/own
  basic_auth: {{username: own, password_file: {self.file("own policy")}}}
detect: {{type: threshold, when: failed, count: 2}}
interval: 300ms
timeout: 150ms
evidence: [component_answer]
""")
        base, files = self.target, self.directory
        self.file("fine", f"{base}/{known['file path']}?key={known['file query']}")
        self.file("beat", f"{base}/{known['heartbeat path']}?key={known['heartbeat query']}")
        host = base.removeprefix("http://")
        self.file(
            "chat", f"json://mailer:{known['apprise']}@{host}/{known['apprise']}\njson://{host}/{known['apprise']}"
        )

        def basic(user: str, name: str) -> str:
            return f"basic_auth: {{username: {user}, password_file: {self.file(name)}}}"

        self.config.write_text(f"""
observer: eye
web:
  listen: ["127.0.0.1:{self.web}"]
  external_url: https://probed.example
  config_file: {web}
  roles: {{anna: admin}}
storage: {{path: {files}/store, fleet: "postgresql://fleet:{known["fleet dsn"]}@127.0.0.1:1/events"}}
policies: {{directory: {policies}}}
defaults: {{interval: 1s, timeout: 500ms}}
instances:
  - name: orders
    postgres: {{password_file: {self.file("database")}}}
    nodes:
      - {{name: node-a, postgres: {{host: 127.0.0.1, port: {self.database}}}}}
      - {{name: node-b, postgres: {{host: 127.0.0.1, port: {self.database}, password_file: {self.file("standby")}}}}}
    etcd: ["{base}"]
    etcd_access: {{{basic("root", "etcd")}}}
    haproxy: {{stats: "{base}/stats", {basic("admin", "haproxy")}}}
    components:
      door: {{url: "{base}/door", expect_status: [204], bearer_token_file: {self.file("door token")}}}
      shop: {{url: "{base}/shop", expect_json: {{ok: true}}, bearer_token_file: {self.file("shop token")}}}
      studio: {{url: "{base}", {basic("studio", "studio")}}}
      auth: {{url: "{base}", {basic("auth", "auth")}}}
      rest: {{url: "{base}", admin_url: "{base}"}}
      kong: {{url: "{base}"}}
      tls: {{url: "https://{host}", expect_status: [200], cert_file: {client.cert}, key_file: {client.key}}}
notifications:
  runbook_url: https://wiki.example/{{event}}
  alertmanager: [{{url: "{base}", name: am, {basic("am", "alertmanager")}}}]
  webhooks:
    - name: hook
      url: {base}/{known["hook path"]}?key={known["hook query"]}
      secret_file: {self.file("signing key", "whsec_" + known["signing key"])}
      bearer_token_file: {self.file("hook token")}
    - {{name: filed, url_file: {files}/fine.secret, {basic("mail", "mail")}}}
    - {{name: lost, url: "{self.deaf}/{known["hook path"]}?key={known["hook query"]}"}}
  apprise: [{{name: chat, url_file: {files}/chat.secret}}]
  heartbeat: {{url_file: {files}/beat.secret, interval: 500ms}}
""")
        for key in (issued.key, client.key):
            body = "".join(line for line in key.read_text().splitlines() if not line.startswith("-"))
            self.canaries.known[f"{key.stem} key"] = body[40:80] + "7d1f"

    def was_told(self, name: str) -> bool:
        return any(self.canaries.core(name) in said for said in self.heard)

    # --- looking -----------------------------------------------------------------------------------------------

    def note(self, where: str, what: str | bytes) -> None:
        self.seen[where] = what.encode("utf-8", "surrogateescape") if isinstance(what, str) else what

    async def run(self, *arguments: str) -> None:
        """A command of ours, whatever its exit code."""
        done = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "probed", *arguments, stdout=-1, stderr=-1,
            env={"PROBED_SOCKET": str(self.directory / "store" / "probed.sock"), "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        out, err = await asyncio.wait_for(done.communicate(), 60)
        assert out + err, arguments
        self.note(f"probed {' '.join(arguments)}", out + err)

    @contextlib.asynccontextmanager
    async def asking(self, **headers: str) -> AsyncIterator[aiohttp.ClientSession]:
        async with aiohttp.ClientSession(
            f"https://127.0.0.1:{self.web}", connector=aiohttp.TCPConnector(ssl=False), headers=headers
        ) as session:
            yield session

    async def look(self, session: aiohttp.ClientSession, path: str) -> str:
        async with session.get(path, allow_redirects=False) as answer:
            body = await answer.text()
            self.note(f"GET {path}", f"{answer.status} {answer.headers} {body}")
            return body

    def everything(self) -> dict[str, bytes]:
        files = [*(self.directory / "store").rglob("*"), *self.directory.glob("backup*")]
        stored = {str(file): file.read_bytes() for file in files if file.is_file()}
        return {**self.seen, "the log": self.log.encode("utf-8", "surrogateescape"), **stored}


@pytest_asyncio.fixture
async def sweep(tmp_path: Path) -> AsyncIterator[Sweep]:
    made = Sweep(tmp_path)
    async with (
        peer(echoing(made.heard)) as target,
        peer(echoing_postgres(made.heard)) as database,
        peer(lambda line: line.hang()) as deaf,
    ):
        made.target, made.database, made.deaf = target.url, database.port, deaf.url
        made.configure()
        yield made
        if made.process is not None and made.process.returncode is None:
            await made.kill()


def test_the_sweep_finds_what_it_looks_for_in_every_form() -> None:
    canaries = Canaries()
    secret = canaries.hatch("pass word")
    for form in canaries.forms("pass word"):
        assert canaries.found(b"x" + form + b"y") == ["pass word"]
    assert canaries.found(secret.encode()) == ["pass word"]
    assert canaries.found(b"user:pass") == []


@pytest.mark.timeout(600)
async def test_no_secret_is_seen_by_anybody_whom_it_is_not_for(sweep: Sweep) -> None:
    known = sweep.canaries.known
    await sweep.start()
    assert not sweep.process_ended, sweep.log[-3000:]
    needed = {"database", "standby", "etcd", "haproxy", "studio", "auth", "own policy", "door token", "shop token",
              "alertmanager", "hook token", "hook query", "mail", "file query", "heartbeat query", "apprise"}  # fmt: skip
    for name in needed:
        await sweep.until(partial(sweep.was_told, name), f"somebody is told {name}")
    await sweep.until(lambda: len(sweep.heard) > 400, "every way of every answer", 60)
    await every_page_and_route(sweep)
    await every_command(sweep)

    # What fails at a reload, in the middle of everything.
    right = sweep.config.read_text()
    sweep.config.write_text(right.replace("min_severity", "").replace("heartbeat: {url_file", "heartbeat: {url_fil"))
    assert sweep.process is not None
    sweep.process.send_signal(signal.SIGHUP)
    await sweep.until(lambda: "reload_failed" in sweep.log or "reload.failed" in sweep.log, "a reload that is refused")
    sweep.config.write_text(right)
    kept = {file: file.read_text() for file in sweep.directory.glob("*.secret")}
    for name in ("signing key", "chat", "fine", "beat", "hook token", "etcd"):
        sweep.file(name, f"gopher://{known['apprise']}:\n{known['signing key']} {known['hook token']}")
    before = len(sweep.heard)
    await sweep.until(lambda: len(sweep.heard) > before + 50, "files that are no use")
    await asyncio.gather(
        *(sweep.run("notify", "test", receiver) for receiver in ("hook", "filed", "chat", "lost")),
        sweep.run("check", str(sweep.config)),
    )
    for file, text in kept.items():
        file.write_text(text)

    await sweep.kill()
    await sweep.start()
    assert not sweep.process_ended, sweep.log[-3000:]
    async with sweep.asking(**basic("anna", known["web"])) as session:
        for path in (
            "/metrics",
            "/api/v1/status",
            "/api/v1/events?limit=200",
            "/api/v1/notifications?limit=200",
            "/",
            "/events",
        ):
            await sweep.look(session, path)
    await sweep.stop()
    shown = sweep.everything()
    assert len(known) >= 24
    assert len(shown) > 120, "pages, routes, commands, files"
    leaks = {where: found for where, what in shown.items() if (found := sweep.canaries.found(what))}
    for where, names in leaks.items():
        at = shown[where].find(WORD.encode())
        print(where, names, shown[where][max(0, at - 200) : at + 60])
    assert not leaks


async def every_page_and_route(sweep: Sweep) -> None:
    """All that an administrator sees: every route that can be got, and every page that a link leads to."""
    known = sweep.canaries.known
    async with sweep.asking(**basic("anna", known["web"])) as session:
        await sweep.look(session, "/metrics")
        described = json.loads(await sweep.look(session, "/api/v1/openapi.json"))
        values = {"events": await some(sweep, session, "/api/v1/events?limit=8"), "silences": []}
        values["policies"] = ["own", "database_unavailable", "component_abnormal"]
        for path, methods in described["paths"].items():
            if "get" in methods and "stream" not in path:
                kind = path.split("/")[3] if path.count("/") > 3 else ""
                for value in values.get(kind, []) if "{" in path else [""]:
                    await sweep.look(session, re.sub(r"\{\w+\}", value, path))
        for query in (
            "?target=orders/node-a/postgres&probe=postgres_liveness",
            "?target=orders/door&probe=component_http",
        ):
            await sweep.look(session, f"/api/v1/samples{query}")
        await crawl(sweep, session)
        async with session.post("/api/v1/notifications/test", json={"receiver": "hook"}) as answer:
            sweep.note("POST test", await answer.text())
    for wrong in (basic("anna", known["wrong login"]), bearer(known["wrong token"])):
        async with sweep.asking(**wrong) as session:
            await sweep.look(session, "/api/v1/status")
            await sweep.look(session, f"/api/v1/{known['wrong token']}?token={known['wrong token']}")
            async with session.post("/login", data={"user": "anna", "password": known["wrong login"]}) as answer:
                sweep.note("POST /login", f"{answer.status} {answer.headers} {await answer.text()}")
    # What one asked for oneself is not a leak when it is said back; in the log it would be.
    for where in [where for where in sweep.seen if WORD in where]:
        del sweep.seen[where]


async def some(sweep: Sweep, session: aiohttp.ClientSession, path: str) -> list[str]:
    return [item["id"] for item in json.loads(await sweep.look(session, path))["items"]]


async def crawl(sweep: Sweep, session: aiohttp.ClientSession) -> None:
    todo, done = ["/"], set[str]()
    while todo and len(done) < 60:
        path = todo.pop(0)
        done.add(path)
        body = await sweep.look(session, path)
        links = re.findall(r'href="([^"#]+)', body)
        for link in links:
            there = urljoin(f"https://x{path}", html.unescape(link))
            if there.startswith("https://x/") and "/static/" not in there and there[9:] not in {*todo, *done}:
                todo.append(there[9:])


async def every_command(sweep: Sweep) -> None:
    config = ("--config.file", str(sweep.config))
    first = next(path.rpartition("/")[2] for path in sweep.seen if re.fullmatch(r"GET /api/v1/events/[\w-]{30,}", path))
    runs = [
        ["check", str(sweep.config)], ["check", "web-config", str(sweep.directory / "web-config.yml")], ["doctor", *config],
        ["status"], ["status", "-o", "json"], ["events", "list", "-o", "json"], ["events", "export"], ["events", "daily"],
        ["events", "show", first], ["events", "show", first, "-o", "json"], ["explain", first], ["policy", "list"],
        ["policy", "show", "own"], ["policy", "export"], ["policy", "history"], ["silence", "list"], ["notify", "list"],
        ["notify", "list", "-o", "json"], ["token", "list"], ["db", "status", "--storage.path", str(sweep.directory / "store")],
        ["db", "backup", str(sweep.directory / "backup.db"), "--storage.path", str(sweep.directory / "store")],
        *(["probe", "run", probe, *config, "-v", "--log.level", "debug"] for probe in (
            "postgres_liveness", "etcd_health", "haproxy_stats", "component_http", "http", "studio", "auth", "ha_role")),
    ]  # fmt: skip
    for start in range(0, len(runs), 4):
        await asyncio.gather(*(sweep.run(*arguments) for arguments in runs[start : start + 4]))
