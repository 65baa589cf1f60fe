import asyncio

from probed.errors import Blind, ProbeError, TargetFailed
from probed.probes import Context, Measured, probe
from probed.probes._http import Answer
from probed.probes._patience import end, overdue
from probed.probes._patroni import text_of

PATIENCE_SHARE = 0.4
"""Of the cycle's deadline: how long the linearizable check may take before the member is asked for itself, too."""
DECISION_SHARE = 0.85
"""Of the cycle's deadline: when a member that answers for itself, but not with its cluster, is called unhealthy."""
ALONE = ("health?serializable=true", "version")
"""What a member answers without its cluster; the first since etcd 3.5."""


@probe(
    kinds=("etcd",),
    readings={
        "healthy": "1 when the member can read and write with its cluster, 0 when it says or shows that it cannot",
        "serving": "1: the member itself answers; a member that does not has failed",
    },
)
async def etcd_member(context: Context) -> Measured:
    """Is this etcd member healthy by its own word? ``GET /health``, and the body decides, not the status.

    etcd answers after a look at its alarms, its leader and a linearizable read, which takes a quorum; no credentials
    are needed. The reason is etcd's own (3.5 and later): ``ALARM NOSPACE``, ``ALARM CORRUPT``, ``RAFT NO LEADER`` …

    When that read takes long, the member is also asked for what it can answer alone (``?serializable=true``, and
    ``/version`` for versions without it): an answer means that the member is up and its quorum is not, which is
    ``healthy`` 0. No answer to anything is a failed member.

    Blind: a certificate that does not verify, or one that etcd demands of us (``--client-cert-auth``): give it in
    ``etcd_access``, or the address of ``--listen-metrics-urls``, which answers ``/health`` without.
    """
    url = context.urls[0]
    read = asyncio.create_task(context.http.get(f"{url}/health", access=context.access))
    alone: list[asyncio.Task[Answer]] = []
    try:
        late = await overdue(read, context.timeout * PATIENCE_SHARE)
        if late:
            alone = [asyncio.create_task(context.http.get(f"{url}/{path}", access=context.access)) for path in ALONE]
            late = await overdue(read, context.timeout * (DECISION_SHARE - PATIENCE_SHARE))
        if late and any(_answered(task) for task in alone):
            reason = f"{url}: the member answers, but cannot read with its cluster in time (no quorum, or a slow disk)"
            return Measured({"healthy": 0.0, "serving": 1.0}, reason=reason, facts={"kind": "timeout"})
        return _judged(await read)
    finally:
        await end((read, *alone))


def _answered(task: asyncio.Task[Answer]) -> bool:
    """Whether etcd said anything of its own."""
    if not task.done():
        return False
    try:
        body = task.result().object()
    except ProbeError:
        return False
    return "health" in body or "etcdserver" in body


def _judged(answer: Answer) -> Measured:
    if answer.status in (401, 403):
        raise Blind("auth", f"{answer.url}: HTTP {answer.status}; /health of etcd itself needs no credentials")
    if answer.status == 400 and b"HTTPS server" in answer.body:
        raise Blind("config", f"{answer.url}: it speaks TLS; write https:// in instances[].etcd")
    if answer.status not in (200, 503) and not 300 <= answer.status < 400:
        raise TargetFailed("status", f"{answer.url}: HTTP {answer.status}")
    body = answer.object()
    match body.get("health"):
        case "true" | True if answer.status == 200:
            return Measured({"healthy": 1.0, "serving": 1.0}, facts={"body": body})
        case "false" | False:
            said = text_of(body.get("reason")) or "no reason given: an alarm, or no leader"
            reason = f"{answer.url}: the member is unhealthy: {said}"
            return Measured({"healthy": 0.0, "serving": 1.0}, reason=reason, facts={"body": body})
        case _:
            raise TargetFailed("body", f'{answer.url}: HTTP {answer.status} without a "health": this is not etcd')
