from probed.errors import TargetFailed
from probed.probes import Context, Measured, Readings, probe
from probed.probes._component import READINGS, as_configured, ask, readings, require_status
from probed.probes._deep import beside


@probe(kinds=("storage",), readings=READINGS)
async def storage(context: Context) -> Measured | Readings:
    """Whether the storage service answers: ``GET /status``, HTTP 200 with an empty body.

    Touches no database. ``/health`` does, but answers HTTP 200 also when it says ``healthy:false``, and 400 without a
    token: with ``deep: true`` and ``bearer_token_file`` it is asked once a minute, and told beside. To have it decide,
    give ``url: http://…/health``, ``expect_json: {healthy: true}`` and the token. With ``expect_*`` the address is
    asked as it stands and these decide.
    """
    if context.expect.given:
        return await as_configured(context)
    return await beside(context, _alive(context))


async def _alive(context: Context) -> Readings:
    answer = await ask(context, "/status")
    require_status(answer, 200)
    if answer.body:
        raise TargetFailed("body", f"{answer.url}: HTTP 200 with a body: another service answers here")
    return readings(answer)
