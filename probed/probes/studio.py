from probed.errors import TargetFailed
from probed.probes import Context, Measured, Readings, probe
from probed.probes._component import READINGS, as_configured, ask, readings, require_status


@probe(kinds=("studio",), readings=READINGS)
async def studio(context: Context) -> Measured | Readings:
    """Whether Studio serves: ``GET /api/platform/profile``, HTTP 200 with the profile of the one local user.

    The profile is a constant: neither the database nor postgres-meta is asked. A 401 where no credentials are
    configured is the gateway in front of Studio asking for them, and counts as alive. With ``expect_*`` the address is
    asked as it stands and these decide, for a Studio without that route.
    """
    if context.expect.given:
        return await as_configured(context)
    answer = await ask(context, "/api/platform/profile")
    if answer.status == 401:
        return Measured(readings(answer), reason="asks for credentials, so only what stands in front of Studio is seen")
    require_status(answer, 200)
    if "primary_email" not in answer.object():
        raise TargetFailed("body", f'{answer.url}: HTTP 200 without "primary_email": another service answers here')
    return readings(answer)
