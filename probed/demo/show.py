"""``probed demo``: a real two-node HA stack on loopback, the daemon on it, and faults to cause on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

from probed import logs
from probed.cli.client import Client
from probed.config import load
from probed.config.settings import Settings
from probed.config.values import split_address
from probed.config.web import DEFAULT_LISTEN
from probed.daemon import Daemon
from probed.demo import configuration, recordings, screen
from probed.demo.errors import LabError
from probed.demo.faults import FAULTS, broken_faults, find_fault
from probed.demo.lab import Lab, find_haproxy
from probed.errors import ApiError

REFRESH_SECONDS = 1.0
SHOWN_EVENTS = 12

_CONFIGURATION = """\
# Written by `probed demo`; a file like yours would be.
web: {{listen: ["{listen}"]}}
storage: {{path: "{storage}"}}
policies: {{directory: "{policies}"}}
defaults: {{switchover_grace: 15s}}   # shorter than usual: the next fault shall show at once
instances:
{instance}"""


def default_directory() -> Path:
    """Where the demo lives: one per user, below the directory for temporary files."""
    return Path(tempfile.gettempdir()) / f"probed-demo-{os.getuid()}"


async def up(directory: Path, *, listen: str | None = None, seconds: float | None = None) -> int:
    """Start the stack and the daemon, show them until Ctrl-C (or for so many seconds), end everything; exit code.

    LabError when the stack cannot be started; it says what failed and where its log is.
    """
    _own(directory)
    stop = _stop_on_signals()
    print("starting etcd, PostgreSQL and Patroni on loopback …", flush=True)
    lab = await Lab.start(
        directory / "lab",
        haproxy=find_haproxy() is not None,
        components=True,
        progress=lambda text: print(f"  {text}", flush=True),
    )
    try:
        print(_cast(lab), flush=True)
        settings = load.load_file(_configure(directory, lab, listen or _free_address()))
        with _log_to(directory / "probed.log"):
            await _watch(settings, lab, directory, stop, seconds)
    finally:
        print("ending the stack …", flush=True)
        await lab.stop()
    return 0


def break_fault(directory: Path, name: str) -> None:
    """Cause a fault in the running demo. LabError when there is no such fault, no demo, or it is broken already."""
    fault = find_fault(name)
    print(f"{name}: {fault.says}")
    asyncio.run(_do(fault.break_(_attached(directory))))
    mend = f" Mend it with: {_typed(directory, f'heal {name}')}" if name in broken_faults(_attached(directory)) else ""
    print(f"done; expect: {', '.join(fault.expects)}.{mend}")


def heal_fault(directory: Path, name: str) -> None:
    """Mend a fault and wait until the cluster is healthy again. LabError when it was not broken."""
    fault = find_fault(name)
    asyncio.run(_do(fault.heal(_attached(directory))))
    others = broken_faults(_attached(directory))
    print(f"{name}: healed" + (f"; still broken: {', '.join(others)}" if others else ", the cluster is healthy again"))


def list_faults() -> Sequence[tuple[str, str, str]]:
    """(name, what it does, the events to expect)."""
    return [(fault.name, fault.says, ", ".join(fault.expects)) for fault in FAULTS.values()]


def _typed(directory: Path, deed: str) -> str:
    """The command as somebody has to type it in another terminal: from a checkout ``probed`` is on nobody's PATH."""
    called = sys.argv[0] if Path(sys.argv[0]).name == "probed" and shutil.which("probed") is None else "probed"
    where = "" if directory == default_directory() else f" --directory {directory}"
    return f"{called} demo{where} {deed}"


def _attached(directory: Path) -> Lab:
    return Lab.attach(directory / "lab", progress=lambda text: print(f"  {text}", flush=True))


async def _do(deed: Awaitable[None]) -> None:
    await deed


def _cast(lab: Lab) -> str:
    """Who plays whom: what is real in this demo, and what is a stand-in."""
    real = ["etcd", "PostgreSQL", "Patroni"]
    if lab.haproxy_write_address is not None:
        real.append("HAProxy")
    real += [f"postgres-meta ({name})" for name in lab.components if name not in lab.stand_ins]
    lines = [f"real: {', '.join(real)}", "stand-ins, which only answer as was recorded:"]
    lines += [f"  {name:<9} {recordings.read(name).source}" for name in lab.stand_ins]
    return "\n".join(lines)


def _own(directory: Path) -> None:
    """Make the directory, or make sure that it is ours: its name in a shared place can be guessed."""
    directory.mkdir(mode=0o755, exist_ok=True)
    stat = directory.lstat()
    if directory.is_symlink() or stat.st_uid != os.getuid():
        raise LabError(f"{directory} belongs to somebody else; choose another one with --directory")


def _configure(directory: Path, lab: Lab, listen: str) -> Path:
    # Another run's history is of another cluster.
    shutil.rmtree(directory / "store", ignore_errors=True)
    password, overrides = directory / "password", directory / "policies.d"
    with os.fdopen(os.open(password, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(lab.monitor_password)
    overrides.mkdir(exist_ok=True)
    for name, policy in configuration.POLICIES.items():
        (overrides / f"{name}.yaml").write_text(policy, encoding="utf-8")
    text = _CONFIGURATION.format(
        listen=listen,
        storage=directory / "store",
        policies=overrides,
        instance=configuration.instance(lab, "demo", password, env="demo"),
    )
    file_ = directory / "probed.yml"
    file_.write_text(text, encoding="utf-8")
    return file_


def _free_address() -> str:
    """The usual address, or a free port when another program has it."""
    host, port = split_address(DEFAULT_LISTEN)
    for candidate in (port, 0):
        with socket.socket() as door, contextlib.suppress(OSError):
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.bind((host, candidate))
            return f"{host}:{door.getsockname()[1]}"
    raise LabError(f"no free port on {host}")


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


@contextlib.contextmanager
def _log_to(path: Path) -> Any:
    """The daemon's log goes to a file: the terminal shows the picture."""
    with path.open("a", encoding="utf-8") as file:
        logs.set_up("info", "json", stream=file)
        yield


async def _watch(settings: Settings, lab: Lab, directory: Path, stop: asyncio.Event, seconds: float | None) -> None:
    from probed.api.app import serve

    daemon = Daemon(settings)
    await daemon.start()
    closer = await serve(daemon, addresses=settings.web.listen, socket_path=settings.socket)
    try:
        url = f"http://{settings.web.listen[0]}"
        client = Client(socket_path=settings.socket)
        hint = f"in another terminal: {_typed(directory, 'break NAME')}, heal NAME, list; Ctrl-C ends everything\n"
        hint += f"page {url}/   API {url}/api/v1/status   metrics {url}/metrics\n"
        hint += f"to change policies or silence from another terminal: export PROBED_SOCKET={settings.socket}\n"
        hint += f"configuration {directory / 'probed.yml'}   log {directory / 'probed.log'}"
        picture = _live if sys.stdout.isatty() else _plain
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await picture(client, stop, hint, lab.stand_ins)
    finally:
        await closer()
        await daemon.stop()


async def _ask(client: Client) -> tuple[Any, Any]:
    """(status, newest events), over the socket like any other client."""
    status = await asyncio.to_thread(client.get, "/api/v1/status")
    events = await asyncio.to_thread(client.get, f"/api/v1/events?limit={SHOWN_EVENTS}")
    return status, events["items"]


async def _live(client: Client, stop: asyncio.Event, hint: str, stand_ins: Sequence[str]) -> None:
    from rich.live import Live

    with Live(auto_refresh=False, screen=True) as live:
        while not stop.is_set():
            with contextlib.suppress(ApiError):
                live.update(screen.render(*await _ask(client), hint, stand_ins), refresh=True)
            await _pause(stop)


async def _plain(client: Client, stop: asyncio.Event, hint: str, stand_ins: Sequence[str]) -> None:
    """Into a pipe: the instance once it is known, then every event as it comes."""
    print(hint, flush=True)
    told: dict[str, str] = {}
    pictured = ""
    while not stop.is_set():
        with contextlib.suppress(ApiError):
            status, events = await _ask(client)
            states = ",".join(instance["state"] for instance in status["instances"])
            if "waiting" not in states and states != pictured:
                print("\n".join(screen.lines(status)), flush=True)
                pictured = states
            for event in reversed(events):
                line = screen.event_line(event)
                if told.get(event["id"]) != line:
                    told[event["id"]] = line
                    print(line, flush=True)
        await _pause(stop)


async def _pause(stop: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(REFRESH_SECONDS):
            await stop.wait()
