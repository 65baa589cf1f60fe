from probed.errors import TargetFailed
from probed.probes import Context, Readings, probe
from probed.probes._component import READINGS, as_configured, ask, readings, require_status


@probe(kinds=("storage",), readings=READINGS)
async def storage(context: Context) -> Readings:
    """Whether the storage service answers: ``GET /status``, HTTP 200 with an empty body.

    Touches no database. ``/health`` does, but answers HTTP 200 also when it says ``healthy:false``, and 400 without a
    token: give ``url: http://…/health``, ``expect_json: {healthy: true}`` and ``bearer_token_file`` to watch that
    instead. With ``expect_*`` the address is asked as it stands and these decide.
    """
    if context.expect.given:
        return await as_configured(context)
    answer = await ask(context, "/status")
    require_status(answer, 200)
    if answer.body:
        raise TargetFailed("body", f"{answer.url}: HTTP 200 with a body: another service answers here")
    return readings(answer)
