from probed.errors import TargetFailed
from probed.probes import Context, Measured, Readings, probe
from probed.probes._component import READINGS, as_configured, ask, readings, require_status


@probe(kinds=("auth",), readings={**READINGS, "version": "GoTrue's version"})
async def auth(context: Context) -> Measured | Readings:
    """Whether the auth service (GoTrue) answers: ``GET /health``, by GET since it knows no HEAD.

    The answer is a constant without database access, so a stopped database leaves it healthy. Failed: no answer, a
    status other than 200, or a body that does not name GoTrue (another service on the port). GoTrue never listens when
    it was started while the database was away: that is ``refused``. With ``expect_*`` the address is asked as it
    stands and these decide.
    """
    if context.expect.given:
        return await as_configured(context)
    answer = await ask(context, "/health")
    require_status(answer, 200)
    body = answer.object()
    if body.get("name") != "GoTrue":
        raise TargetFailed("body", f'{answer.url}: HTTP 200 without the name "GoTrue": another service answers here')
    version = body.get("version")
    if not isinstance(version, str) or not version.isprintable():
        return readings(answer)
    return Measured({**readings(answer), "version": version[:30]})
