import asyncio
from collections.abc import Mapping

from probed.errors import ProbeError, TargetFailed
from probed.probes import Context, Measured, Readings, probe
from probed.probes._component import READINGS, as_configured, ask, readings, unexpected
from probed.probes._http import Answer

ADMIN_SHARE = 0.25
"""Of the cycle's timeout: how long the admin door, which only annotates, is waited for after the main one answered."""
_READY = {"kong": "/status/ready", "envoy": "/ready"}


@probe(kinds=("kong",), readings=READINGS)
async def api_gateway(context: Context) -> Measured | Readings:
    """Whether the API gateway takes requests: ``GET /auth/v1/health`` without any key.

    The gateway itself refuses a request without a key (401 or 403), which proves its listener, its routes and its
    plugins and touches no service behind it; 200 is right where the route is open. Failed: no answer, and 404 ``no
    Route matched``, since the gateway has lost its configuration (``config_lost``). A 502, 503 or 504 that carries
    the gateway's headers is the fault of the service behind it: observed, with a word. ``type`` is ``kong`` (2.8 to
    3.9), ``envoy`` or ``generic``, which is asked no headers. With ``admin_url`` (Kong's status listener, Envoy's
    admin) what ``/status/ready`` or ``/ready`` says is told beside; it decides nothing. With ``expect_*`` the address
    is asked as it stands and these decide.
    """
    if context.expect.given:
        return await as_configured(context)
    admin = asyncio.create_task(_admin(context)) if len(context.urls) > 1 else None
    try:
        answer = await ask(context, "/auth/v1/health", refusal=False)
        told = [_verdict(answer, context.expect.type or "kong")]
        if admin is not None:
            told.append(await _in_time(admin, context.timeout * ADMIN_SHARE))
    finally:
        if admin is not None:
            admin.cancel()
            await asyncio.wait({admin})
    return Measured(readings(answer), reason="; ".join(part for part in told if part))


def _verdict(answer: Answer, type_: str) -> str:
    """What there is to say of a gateway that is alive. TargetFailed when it is not."""
    speaker, proxied = _speaker(answer.headers)
    status = answer.status
    if status in (401, 403):
        return ""
    if status == 200:
        if speaker != type_ and answer.object().get("name") != "GoTrue":
            raise TargetFailed("body", f"{answer.url}: HTTP 200 from neither the gateway nor GoTrue")
        return ""
    if status == 404 and not proxied and _lost(answer, speaker):
        raise TargetFailed(
            "config_lost", f"{answer.url}: HTTP 404: the gateway has no routes: its configuration is lost"
        )
    known = speaker == type_ or type_ == "generic"
    if status in (502, 503, 504) and known and "x-envoy-overloaded" not in answer.headers:
        return f"HTTP {status}: the gateway is alive, the service behind it is not"
    if 400 <= status < 500 and known and (status != 404 or proxied):
        return f"HTTP {status}: the gateway is alive"
    raise unexpected(answer, "401, 403 or 200 from the gateway")


def _speaker(headers: Mapping[str, str]) -> tuple[str, bool]:
    """(whose headers these are: kong, envoy or nobody's; whether a service behind it has answered)."""
    server = headers.get("Server", "").lower()
    if "X-Kong-Upstream-Latency" in headers or "X-Kong-Proxy-Latency" in headers:
        return "kong", True
    if "X-Kong-Response-Latency" in headers or server.startswith("kong/"):
        return "kong", False
    # A service behind Kong may bring Envoy's headers of its own, hence Kong's first.
    if "x-envoy-upstream-service-time" in headers:
        return "envoy", True
    return ("envoy", False) if server == "envoy" else ("", False)


def _lost(answer: Answer, speaker: str) -> bool:
    # Envoy without a route sends no body.
    if speaker == "envoy":
        return not answer.body
    return "no route matched" in _text_of(answer, "message").lower()


def _text_of(answer: Answer, key: str) -> str:
    try:
        value = answer.object().get(key)
    except TargetFailed:
        return ""
    return value if isinstance(value, str) else ""


async def _admin(context: Context) -> str:
    """What the admin door says, when it is not simply ready; never raises for the gateway's sake."""
    path = _READY.get(context.expect.type or "kong")
    if path is None:
        return ""
    try:
        answer = await ask(context, path, door=1, refusal=False)
        if answer.status == 200:
            return ""
        if answer.status != 503:
            return f"admin: HTTP {answer.status}"
        return f"admin: {_text_of(answer, 'message') or answer.body[:100].decode(errors='replace').strip()}"
    except ProbeError as error:
        return f"admin: {error}"


async def _in_time(admin: "asyncio.Task[str]", seconds: float) -> str:
    done, _ = await asyncio.wait({admin}, timeout=seconds)
    return admin.result() if done else "admin: no answer"
