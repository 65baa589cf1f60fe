from probed.errors import TargetFailed
from probed.probes import Context, Measured, Readings, probe
from probed.probes._component import READINGS, as_configured, ask, readings, require_status
from probed.probes._deep import beside


@probe(kinds=("realtime",), readings=READINGS)
async def realtime(context: Context) -> Measured | Readings:
    """Whether Realtime answers: ``GET /healthcheck``, HTTP 200 with the text ``ok``.

    Needs no token and touches no database. With ``deep: true`` and a token (signed with API_JWT_SECRET) the health of
    ``tenant`` (``/api/tenants/ID/health``) is asked once a minute, which may start its pending migrations; a
    ``healthy:false``, which comes with HTTP 200, is told beside and decides nothing. With ``expect_*`` the address is
    asked as it stands and these decide, so that ``expect_json: {data: {healthy: true}}`` with a token can watch a
    tenant.
    """
    if context.expect.given:
        return await as_configured(context)
    return await beside(context, _alive(context))


async def _alive(context: Context) -> Readings:
    answer = await ask(context, "/healthcheck")
    require_status(answer, 200)
    if answer.body.strip() != b"ok":
        raise TargetFailed("body", f'{answer.url}: HTTP 200 without the text "ok": another service answers here')
    return readings(answer)
