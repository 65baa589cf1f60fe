"""What a daemon's start leaves out: modules that the first look, or the time before the first visitor, can do without."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from probed.demo.ports import free_port

LATE = (
    "aiohttp", "jinja2", "bcrypt", "ctypes", "probed.api", "probed.web", "probed.loopback", "probed.config.web_config",
)  # fmt: skip
"""Nobody can come in before the first look was had."""
NEVER = (
    "rich", "pygments", "greenlet", "prometheus_client", "apprise", "weasyprint",
    "brotli", "frozenlist._frozenlist",
    "probed.backtest.replaying", "probed.inspection.examining", "probed.inspection.html", "probed.demo", "probed.docs",
)  # fmt: skip
"""What only some command, receiver or visitor needs."""
MODULES = 580
"""When the first look is over, a dozen more than there are: of Python, of what it comes with, and of ours."""

RUN = """
import gc, json, os, signal, sys
gc.disable()  # as probed run does
from pathlib import Path

from probed.cli import run, sources
from probed import logs
logs.set_up("warning", "json")
from probed.config import load
from probed import life
from probed.patrol import Patrol

seen = {}
look = Patrol.first_look

async def looked(self):
    await look(self)
    seen["first look"] = sorted(sys.modules)
    seen["looked"] = self._looked.is_set()
    os.kill(os.getpid(), signal.SIGTERM)

Patrol.first_look = looked
import asyncio
code = asyncio.run(life.run(load.load_file(Path(sys.argv[1]))))
seen["end"] = sorted(sys.modules)
from aiohttp import connector
seen["authorities"] = connector._SSL_CONTEXT_VERIFIED.cert_store_stats()["x509"]
seen["patched"] = "set_default_verify_paths" in vars(connector.ssl.SSLContext)
seen["collected"] = gc.isenabled()
print(json.dumps([code, seen]))
"""


def loaded(modules: list[str], names: tuple[str, ...]) -> list[str]:
    """Those of ``modules`` that are, or belong to, one of ``names``."""
    return [module for module in modules if any(module == name or module.startswith(f"{name}.") for name in names)]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Modules at two moments of a daemon that looks at one component each second, and that nobody visits."""
    place = tmp_path_factory.mktemp("start")
    (place / "probed.yml").write_text(
        f"web: {{listen: ['127.0.0.1:{free_port()}']}}\n"
        f"storage: {{path: {place}/store}}\n"
        "defaults: {interval: 1s, timeout: 500ms}\n"
        "instances:\n"
        f"  - {{name: orders, patroni: ['http://127.0.0.1:{free_port()}'],"
        f" components: {{kong: {{url: 'http://127.0.0.1:{free_port()}'}}}}}}\n"
    )
    command = [sys.executable, "-c", RUN, str(place / "probed.yml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=place)
    assert done.returncode == 0, done.stderr
    code, found = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    assert found["looked"], "the first round was not waited for"
    return dict(found)


def test_the_first_look_needs_no_server(seen: dict[str, Any]) -> None:
    assert not loaded(seen["first look"], (*LATE, *NEVER))


def test_the_first_look_needs_no_more_modules_than_were_committed(seen: dict[str, Any]) -> None:
    count = len(seen["first look"])
    assert count <= MODULES, f"{count} modules: which of them does the first look need?"


def test_a_daemon_that_nobody_has_visited_yet_has_no_more_than_it_needs(seen: dict[str, Any]) -> None:
    assert loaded(seen["end"], ("aiohttp.web",)), "it answers"
    assert not loaded(seen["end"], NEVER)


def test_a_client_that_is_not_used_holds_no_authorities_and_ours_get_them(seen: dict[str, Any]) -> None:
    assert seen["authorities"] == 0
    assert not seen["patched"]


def test_the_collector_works_once_the_start_is_over(seen: dict[str, Any]) -> None:
    assert seen["collected"]
