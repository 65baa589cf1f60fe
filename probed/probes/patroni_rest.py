from typing import Any

from probed.errors import TargetFailed
from probed.model import Reading
from probed.probes import Context, Measured, probe
from probed.probes._patroni import MAX_TIMELINE, name_of, text_of


@probe(
    kinds=("patroni",),
    readings={
        "state": "Patroni's word for PostgreSQL's state: running, streaming, start failed …",
        "role": "primary (master before Patroni 4), standby_leader, replica, sync_standby, quorum_standby",
        "timeline": "PostgreSQL's timeline as Patroni knows it",
    },
)
async def patroni_rest(context: Context) -> Measured:
    """What a node's own Patroni says of its PostgreSQL: ``GET /patroni``.

    Answered from memory and one query of Patroni's, with status 200 or 503 whatever the state: the body decides. The
    address needs no credentials. Failed: refused, no answer in time, not Patroni.
    """
    answer = await context.http.get(f"{context.urls[0]}/patroni", access=context.access)
    body = answer.object()
    state = body.get("state")
    if not isinstance(state, str):
        raise TargetFailed("body", f'{answer.url}: HTTP {answer.status} without a "state": this is not Patroni')
    readings: dict[str, Reading] = {"state": text_of(state)[:60]}
    role = text_of(body.get("role"))
    if role:
        readings["role"] = "primary" if role == "master" else role[:30]
    timeline = body.get("timeline")
    if isinstance(timeline, int) and not isinstance(timeline, bool):
        readings["timeline"] = float(min(timeline, MAX_TIMELINE))
    about = body.get("patroni")
    name = name_of(about.get("name")) if isinstance(about, dict) else ""
    facts: dict[str, Any] = {"pause": body.get("pause") is True, "name": name or None, "body": body}
    return Measured(readings, facts=facts)
