"""The life of a daemon that is a process: start, first look, open doors, settle, reload when told to, and end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import structlog

from probed import systemd
from probed.config.settings import Settings
from probed.daemon import Daemon, ReadSettings
from probed.errors import ConfigError
from probed.thrift import server_alone
from probed.tidying import settle

if TYPE_CHECKING:
    from probed.api.app import Closer

_log = structlog.get_logger(__name__)

STOP_SECONDS = 4.0
"""SIGTERM ends within 5 s, whatever the targets and the disk do."""
SETTLED_AFTER = 15.0
"""Seconds after the start at which every target was probed: what exists then (sessions, rings, answers) is to stay."""


async def run(settings: Settings, read_settings: ReadSettings | None = None) -> int:
    """The daemon until SIGTERM or SIGINT; the exit code. ConfigError and StoreError come before anything runs."""
    daemon = Daemon(settings, read_settings)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await daemon.start()
        await daemon.patrol.first_look()
        # In a thread, for it takes half a second: the rounds go on meanwhile.
        serve = await asyncio.to_thread(_serving)
        close_doors = await serve(daemon, addresses=settings.web.listen, socket_path=settings.socket)
    except BaseException:  # cancellation too: a half-started daemon must not keep the store locked
        await daemon.stop()
        raise
    loop.add_signal_handler(signal.SIGHUP, daemon.tasks.own, lambda: _reload(daemon), "reload")
    _ = daemon.tasks.own(lambda: _feed_watchdog(daemon), "watchdog")
    _ = daemon.tasks.own(lambda: settle_down(daemon), "settle")
    settle()
    systemd.notify("READY=1", f"STATUS=probing {len(settings.instances)} instances")
    waits = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(daemon.tasks.failed.wait())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    systemd.notify("STOPPING=1")
    code = 0 if stop.is_set() else 1
    for wait in waits:
        wait.cancel()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await close_doors()
            await daemon.stop()
    except TimeoutError:
        _log.error("daemon.stop_timed_out", seconds=STOP_SECONDS)
    _log.info("daemon.stopped", code=code)
    return code


class _Serve(Protocol):
    async def __call__(self, served: Daemon, *, addresses: Sequence[str], socket_path: Path | None) -> Closer: ...


def _serving() -> _Serve:
    """The API and its server: as much to import as everything else, and nothing that a look needs."""
    with server_alone():
        from probed.api.app import serve
    return serve


async def settle_down(daemon: Daemon) -> None:
    """Once the first rounds are over; before, a walk over what they made would stop the loop for 0.2 s later on."""
    await daemon.clock.sleep_until(daemon.clock.mono() + SETTLED_AFTER)
    # What a visitor will want: when somebody comes, the disk may be ill, or may hold another version of us.
    await asyncio.to_thread(_visitable)
    settle()


def _visitable() -> None:
    from probed.api import table  # noqa: F401 - to have it, and the page with it


async def _reload(daemon: Daemon) -> None:
    systemd.reloading()
    with contextlib.suppress(ConfigError):  # logged, counted in a metric, and the old settings go on
        await daemon.reload()
    systemd.notify("READY=1")


async def _feed_watchdog(daemon: Daemon) -> None:
    """Have the service manager's watchdog know that work is done, while it is."""
    period = systemd.watchdog_seconds()
    while period is not None:
        if not daemon.readiness.stuck():
            systemd.notify("WATCHDOG=1", f"STATUS={_open_events(daemon)} open events")
        await asyncio.sleep(period / 3)


def _open_events(daemon: Daemon) -> int:
    return sum(watch.event is not None for state in daemon.pipeline.instances.values() for watch in state.watches)
