import re

from probed.errors import TargetFailed
from probed.probes import Context, Measured, Readings, probe
from probed.probes._component import (
    READINGS,
    as_configured,
    ask,
    readings,
    require_credential,
    require_status,
    unexpected,
)
from probed.probes._deep import beside
from probed.probes._http import Answer

_CODE = re.compile(r"PGRST\d{3}")


@probe(kinds=("rest",), readings=READINGS)
async def rest(context: Context) -> Measured | Readings:
    """Whether the REST service (PostgREST) serves requests.

    With ``admin_url``: ``GET /live`` of the admin server, which never looks at the database; 500 means that the main
    port is dead; with ``deep: true`` its ``/ready`` is asked once a minute and told beside. Without: ``HEAD /`` on the
    main port (the body would be the whole API description); every answer of PostgREST's below 500 is alive, and after a
    503 or 504 a GET learns the PGRST code: 000 to 002 without the database, 003 when no connection of the pool came
    free. Both fail the sample; an open event of the primary is their cause. With ``expect_*`` the address is asked as
    it stands and these decide.
    """
    if context.expect.given:
        return await as_configured(context)
    if len(context.urls) > 1:
        return await beside(context, _live(context))
    answer = await ask(context, "/", method="HEAD", refusal=False)
    if answer.status in (503, 504):
        # An answer to HEAD has no body; the error's own is short.
        answer = await ask(context, "/", refusal=False)
    if answer.status >= 500:
        raise _error(answer)
    if 300 <= answer.status < 400:
        raise unexpected(answer, "an answer of PostgREST")
    if not _is_postgrest(answer):
        raise TargetFailed(
            "body",
            f"{answer.url}: HTTP {answer.status} from something that does not call itself PostgREST (Server header); "
            "if a proxy hides it, set expect_status",
        )
    require_credential(context, answer)
    return readings(answer)


async def _live(context: Context) -> Readings:
    answer = await ask(context, "/live", door=1)
    if answer.status == 500:
        raise TargetFailed("status", f"{answer.url}: HTTP 500: PostgREST's main port does not answer")
    require_status(answer, 200)
    if answer.body:
        raise TargetFailed("body", f"{answer.url}: HTTP 200 with a body: this is not PostgREST's admin server")
    return readings(answer)


def _is_postgrest(answer: Answer) -> bool:
    headers = answer.headers
    return (
        headers.get("Server", "").lower().startswith("postgrest")
        or "openapi" in headers.get("Content-Type", "")
        or "postgrest" in headers.get("Proxy-Status", "").lower()
    )


def _error(answer: Answer) -> TargetFailed:
    try:
        body = answer.object()
    except TargetFailed:
        return unexpected(answer, "an answer below 500")
    code, message = body.get("code"), body.get("message")
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        return unexpected(answer, "an answer below 500")
    text = message[:200].rstrip(".") if isinstance(message, str) else ""
    side = "; the pool is exhausted" if code == "PGRST003" else "; PostgREST is up, its database is not"
    return TargetFailed("state", f"{answer.url}: HTTP {answer.status} {code}: {text}{side}")
