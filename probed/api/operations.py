"""What operators' machines ask: ``/-/healthy``, ``/-/ready``, ``/-/reload`` and ``/metrics``."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import hdrs, web

from probed.api.answers import as_text
from probed.api.problems import Refused
from probed.api.routing import Call, Route
from probed.api.served import Served
from probed.errors import ConfigError, Problem
from probed.exposition import Writer, one_by_one
from probed.model import Role
from probed.store import Commit

TEXT = "text/plain"

OTHERWISE = "or send SIGHUP to the daemon (systemctl reload probed)"


def routes(served: Served) -> list[Route]:
    writer = Writer()

    async def healthy(_: Call) -> web.Response:
        return as_text("ok")

    async def ready(_: Call) -> web.Response:
        return as_text("not ready", status=503) if served.unready() else as_text("ready")

    async def reload(call: Call) -> web.Response:
        try:
            await served.reload()
        except ConfigError as error:
            found = [_problem(problem) for problem in error.problems]
            raise Refused("bad-configuration", str(error), found) from None
        await served.store.append(Commit(audit=(call.audit("daemon.reload", served.settings.observer),)))
        return as_text("reloaded")

    async def scrape(call: Call) -> web.Response:
        headers = call.request.headers
        wanted = headers.get(hdrs.ACCEPT, ""), headers.get(hdrs.ACCEPT_ENCODING, "")
        written = await writer.write(served, *wanted)
        answer = {hdrs.CONTENT_TYPE: written.content_type, hdrs.VARY: "Accept, Accept-Encoding"}
        if written.zipped:
            answer[hdrs.CONTENT_ENCODING] = "gzip"
        answer[hdrs.CONTENT_LENGTH] = str(written.size)
        return web.Response(body=_sent(written.pieces), headers=answer)

    says = "Read the configuration and the policy files anew; bad ones change nothing."
    return [
        Route("GET", "/-/healthy", healthy, "Whether the process lives.", needs=None, media=TEXT),
        Route("GET", "/-/ready", ready, "Whether it does its work; 503 when not.", needs=None, media=TEXT),
        *(
            Route(
                method, "/-/reload", reload, says, needs=Role.ADMIN, media=TEXT, otherwise=OTHERWISE,
                refusals=("bad-configuration",),
            )
            for method in ("POST", "PUT")
        ),
        Route("GET", "/metrics", scrape, "Everything measured, for Prometheus.", media=TEXT),
    ]  # fmt: skip


async def _sent(pieces: list[bytes]) -> AsyncIterator[bytes]:
    """As a body whose pieces are sent with the loop's turn in between; of one they would all be copied at once."""
    for piece in one_by_one(pieces):
        yield piece


def _problem(problem: Problem) -> dict[str, object]:
    """``line`` and ``column`` are null where a problem has no place in a file."""
    return {
        "where": problem.where,
        "line": problem.line or None,
        "column": problem.column or None,
        "path": problem.path,
        "message": problem.message,
    }
