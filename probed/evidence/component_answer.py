import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

from probed.errors import ProbeError
from probed.evidence import Data, collector
from probed.probes import Context
from probed.probes._http import Answer
from probed.probes._tcp import accept
from probed.probes.component import PRESETS

PATHS: Mapping[str, str] = {
    "kong": "/auth/v1/health", "auth": "/health", "rest": "/", "realtime": "/healthcheck", "storage": "/status",
    "studio": "/api/platform/profile",
}  # fmt: skip
"""What the probes ask, by kind of target."""
ADMIN_PATHS: Mapping[str, str] = {"kong": "/status", "envoy": "/ready", "rest": "/ready"}
HEADERS = (
    "Server", "Via", "Content-Type", "Content-Length", "Retry-After", "Location", "Proxy-Status", "WWW-Authenticate",
    "X-Kong-Response-Latency", "X-Kong-Upstream-Latency", "X-Kong-Proxy-Latency", "X-Kong-Upstream-Status",
    "X-Envoy-Upstream-Service-Time", "X-Envoy-Overloaded",
)  # fmt: skip
REQUEST_SHARE = 0.6
"""Of the deadline: the rest is for a look at the port behind which nobody answers."""


@collector(
    kinds=("kong", "auth", "rest", "realtime", "storage", "studio", "component", "http"), scope="target", recovery=True
)
async def component_answer(context: Context) -> Data:
    """What the component answers to its probe's request: status, the headers that tell who spoke, 1 kB of the body.

    When there is no answer: whether its port still accepts connections, which tells a hung service from a dead one.
    With ``admin_url`` also what that door says.
    """
    url = urlsplit(context.urls[0])
    if url.scheme == "tcp":
        return {"port": await _port(context, url.hostname or "", url.port or 0)}
    admin = ADMIN_PATHS.get(context.expect.type or context.target.kind)
    asked = [_ask(context, 0, _path(context))]
    if len(context.urls) > 1 and admin is not None:
        asked.append(_ask(context, 1, admin))
    answers = await asyncio.gather(*asked)
    shown = dict(answers[0])
    if "failed" in shown:
        shown["port"] = await _port(context, url.hostname or "", url.port or (443 if url.scheme == "https" else 80))
    return {**shown, "admin": answers[1]} if len(answers) > 1 else shown


def _path(context: Context) -> str:
    """As the probe does: an address with a path of its own, or an expectation of the operator's, is asked as it is."""
    parts = urlsplit(context.urls[0])
    if context.expect.given or parts.query:
        return ""
    preset = PRESETS.get(context.expect.type)
    if context.target.kind in ("component", "http"):
        return preset.path if preset is not None and not parts.path else ""
    return PATHS[context.target.kind]


async def _ask(context: Context, door: int, path: str) -> Data:
    # The body of PostgREST's root is the whole description of the API.
    method = context.http.head if context.target.kind == "rest" and door == 0 and path == "/" else context.http.get
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(context.timeout * REQUEST_SHARE):
            answer = await method(context.urls[door] + path, access=context.access)
    except ProbeError as error:
        return {"failed": str(error)}
    except TimeoutError:
        return {"failed": f"no answer within {context.timeout * REQUEST_SHARE:g} s"}
    return {**_shown(answer), "milliseconds": round(1000 * (asyncio.get_running_loop().time() - began), 1)}


def _shown(answer: Answer) -> Data:
    body = answer.body.decode("utf-8", "replace")
    return {
        "url": answer.url,
        "status": answer.status,
        "headers": {name: answer.headers[name] for name in HEADERS if name in answer.headers},
        "body": body,
        "body_bytes": f"more than {len(answer.body)}" if answer.truncated else len(answer.body),
    }


async def _port(context: Context, host: str, port: int) -> str:
    try:
        async with asyncio.timeout(context.timeout * (1 - REQUEST_SHARE) / 2):
            await accept(context, host, port)
    except ProbeError as error:
        return str(error)
    except TimeoutError:
        return "does not accept connections in time"
    return "accepts connections"
