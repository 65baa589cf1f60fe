import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from probed import steps
from probed.errors import Blind, ProbeError, TargetFailed
from probed.model import Reading
from probed.probes import Context, Measured, probe
from probed.probes._component import require_credential
from probed.probes._haproxy import FRONTEND, HEADER, SERVER, Row, is_csv, remarks, rows, write_backend
from probed.probes._patience import end, overdue
from probed.probes._patroni import text_of
from probed.probes._sql_errors import translate_os_error
from probed.probes._tcp import accept

MAX_STATISTICS = 256 * 1024
"""Bytes read from the UNIX socket; what is beyond is not looked at."""
FIRST_SHARE, SECOND_SHARE = 0.5, 0.25
"""Of the cycle's deadline: for the statistics alone, then beside a look at their door. The rest is for the ports."""


@probe(
    kinds=("haproxy",),
    readings={
        "sessions": "current sessions over all frontends",
        "servers_up": "servers that are up, over all backends",
        "write_servers_up": "servers that are up in the backend that leads to the primary; 1 is right",
    },
)
async def haproxy_stats(context: Context) -> Measured:
    """Is HAProxy itself alive? Its statistics, as CSV over HTTP or from its UNIX socket; else its frontends' ports.

    PostgreSQL behind it does not count: replicas are DOWN in the write backend by design, and a backend without any
    server up, or with two, is told in the reason and not a failure.

    Failed: the statistics refuse, hang or are none. With ``haproxy.frontends`` declared, their ports are asked, too:
    statistics that cannot be reached, while every port accepts, are a reason and not a failure; statistics that accept
    a connection and never answer are a hung HAProxy. Without ``haproxy.stats`` every port must accept; that shows a
    HAProxy that has ended, not one that hangs.

    Blind: the statistics ask for a login (``stats auth``) that ``haproxy.basic_auth`` does not give, or something else
    answers at their address.

    The write backend is the only one with servers, or the one whose name says so (primary, master, leader, write, rw).
    """
    if not context.urls and context.path is None:
        await _frontends(context)
        return Measured({})
    if not context.doors:
        return await _statistics(context)
    statistics = asyncio.create_task(_statistics(context))
    started: list[asyncio.Task[Any]] = [statistics]
    try:
        if await overdue(statistics, context.timeout * FIRST_SHARE):
            door = asyncio.create_task(_stats_door(context))
            started.append(door)
            if await overdue(statistics, context.timeout * SECOND_SHARE):
                if door.done() and door.exception() is None:
                    raise TargetFailed("timeout", f"{context.target.address}: accepts a connection and does not answer")
                return await _as_the_ports_say(context, TargetFailed("timeout", f"{context.target.address}: no answer"))
        try:
            return await statistics
        except TargetFailed as error:
            return await _as_the_ports_say(context, error)
    finally:
        await end(started)


async def _as_the_ports_say(context: Context, failure: TargetFailed) -> Measured:
    try:
        await _frontends(context)
    except ProbeError as error:
        raise TargetFailed(failure.kind, f"{failure}; {error}") from None
    return Measured({}, reason=f"degraded: the frontends accept, but the statistics cannot be read: {failure}")


async def _frontends(context: Context) -> None:
    """Every declared port accepts, or TargetFailed says which does not."""
    doors = [asyncio.create_task(accept(context, host, port)) for host, port in context.doors]
    try:
        for door in doors:
            await door
    finally:
        await end(doors)


async def _stats_door(context: Context) -> None:
    if context.path is None:
        parts = urlsplit(context.urls[0])
        await accept(context, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))


async def _statistics(context: Context) -> Measured:
    info: Mapping[str, str] = {}
    if context.path is not None:
        where = str(context.path)
        text, truncated = await _show(context.path)
        head, header, table = text.partition(HEADER)
        if not header:
            raise _no_statistics(where, text)
        text, info = header + table, _info(head)
    else:
        answer = await context.http.get(_csv_address(context.urls[0]), access=context.access)
        where, truncated = answer.url, answer.truncated
        text = answer.body.decode("utf-8", "replace")
        require_credential(context, answer)
        _must_be_statistics(where, answer.status, text)
    found = rows(text, where, truncated=truncated)
    backend = write_backend(found)
    said = remarks(found, backend) + (["it is stopping"] if info.get("Stopping") == "1" else [])
    facts = {"rows": found, "info": info, "write_backend": backend, "truncated": truncated}
    return Measured(_readings(found, backend), reason="; ".join(said), facts=facts)


def _readings(found: tuple[Row, ...], backend: str) -> Mapping[str, Reading]:
    servers = [row for row in found if row.type == SERVER]
    readings: dict[str, Reading] = {
        "sessions": sum(row.sessions for row in found if row.type == FRONTEND),
        "servers_up": float(sum(row.up for row in servers)),
    }
    if backend:
        readings["write_servers_up"] = float(sum(row.up for row in servers if row.proxy == backend))
    return readings


def _csv_address(url: str) -> str:
    if ";csv" in url:
        return url
    return f"{url};csv" if urlsplit(url).path or urlsplit(url).query else f"{url}/;csv"


def _must_be_statistics(where: str, status: int, text: str) -> None:
    if status in (401, 403):
        remedy = 'it asks for a login ("stats auth"): set haproxy.basic_auth, or give the UNIX socket'
        raise Blind("auth", f"{where}: HTTP {status}: {remedy}")
    if 300 <= status < 400:
        raise TargetFailed("redirect", f"{where}: HTTP {status}, a redirect, which probes do not follow")
    if 400 <= status < 500:
        raise Blind("config", f'{where}: HTTP {status}; correct haproxy.stats to the address of "stats uri"')
    if status != 200:
        raise TargetFailed("status", f"{where}: HTTP {status}")
    if "Statistics Report for HAProxy" in text:
        raise Blind("config", f"{where}: this is the page for people; haproxy.stats wants the one that ends in ;csv")
    if not is_csv(text):
        raise TargetFailed("body", f"{where}: the answer is not HAProxy's statistics")


async def _show(path: Path) -> tuple[str, bool]:
    """(what the socket says, whether there was more). TargetFailed or Blind."""
    said = bytearray()
    try:
        with steps.step("connect", str(path)):
            reader, writer = await asyncio.open_unix_connection(str(path))
        try:
            writer.write(b"show info;show stat\n")
            with steps.step("answer"):
                while (chunk := await reader.read(65536)) and len(said) <= MAX_STATISTICS:
                    said += chunk
        finally:
            writer.transport.abort()
    except OSError as error:
        raise translate_os_error(error, str(path)) from None
    return said[:MAX_STATISTICS].decode("utf-8", "replace"), len(said) > MAX_STATISTICS


def _no_statistics(where: str, text: str) -> ProbeError:
    if not text:
        return TargetFailed("closed", f"{where}: the connection was closed without an answer")
    if "Permission denied" in text[:200]:
        return Blind("privilege", f'{where}: HAProxy denies "show stat"; the socket needs level user or higher')
    return TargetFailed("body", f"{where}: this is not HAProxy's socket: {text_of(text)[:100]}")


def _info(text: str) -> Mapping[str, str]:
    """``show info`` as a map, as far as it is one."""
    pairs = (line.partition(": ") for line in text.splitlines()[:200])
    return {text_of(key): text_of(value) for key, colon, value in pairs if colon}
