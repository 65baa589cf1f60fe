from probed.errors import TargetFailed
from probed.probes import Context, Readings, probe
from probed.probes._component import READINGS, as_configured, ask, readings, require_status


@probe(kinds=("realtime",), readings=READINGS)
async def realtime(context: Context) -> Readings:
    """Whether Realtime answers: ``GET /healthcheck``, HTTP 200 with the text ``ok``.

    Needs no token and touches no database. A tenant's own health (``/api/tenants/ID/health``) is not asked: it has
    side effects, and says ``healthy:false`` with HTTP 200. With ``expect_*`` the address is asked as it stands and
    these decide, so that ``expect_json: {data: {healthy: true}}`` with a token can watch a tenant.
    """
    if context.expect.given:
        return await as_configured(context)
    answer = await ask(context, "/healthcheck")
    require_status(answer, 200)
    if answer.body.strip() != b"ok":
        raise TargetFailed("body", f'{answer.url}: HTTP 200 without the text "ok": another service answers here')
    return readings(answer)
