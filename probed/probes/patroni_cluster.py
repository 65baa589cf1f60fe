import asyncio

from probed.errors import ProbeError, TargetFailed
from probed.probes import Context, Measured, probe
from probed.probes._http import Answer
from probed.probes._patroni import member_of

MAX_MEMBERS = 100


@probe(
    kinds=("patroni_cluster",),
    readings={
        "members": "members in Patroni's list",
        "paused": "1 while the cluster is in maintenance mode (patronictl pause), 0 otherwise",
    },
)
async def patroni_cluster(context: Context) -> Measured:
    """The cluster as Patroni sees it: ``GET /cluster`` of one member, the next one asked when that is slow or silent.

    Patroni reads the DCS for each answer; with the DCS away it closes the connection without one. Then this sample is
    failed, which is neither a missing leader nor a missing node.
    """
    answer = await _first_answer(context)
    body = answer.object()
    rows = body.get("members")
    if not isinstance(rows, list):
        raise TargetFailed("body", f'{answer.url}: HTTP {answer.status} without "members": this is not Patroni')
    members = [member for row in rows[:MAX_MEMBERS] if (member := member_of(row)) is not None]
    paused = body.get("pause") is True
    facts = {"members": tuple(members), "pause": paused, "scope": body.get("scope"), "body": body}
    return Measured({"members": float(len(members)), "paused": 1.0 if paused else 0.0}, facts=facts)


async def _first_answer(context: Context) -> Answer:
    """Ask the address that answered last; hedge with the next one after a share of the time, or at once on failure."""
    preferred = context.memory.get("url")
    urls = sorted(context.urls, key=lambda url: url != preferred)
    if not urls:
        raise TargetFailed("no_answer", "no member of the cluster is known")
    patience = context.timeout / (len(urls) + 1)
    waiting: set[asyncio.Task[Answer]] = set()
    last: ProbeError | None = None
    try:
        while urls or waiting:
            if urls:
                url = urls.pop(0)
                waiting.add(asyncio.create_task(context.http.get(f"{url}/cluster"), name=url))
            done, waiting = await asyncio.wait(
                waiting, timeout=patience if urls else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                error = task.exception()
                if error is None and task.result().status == 200:
                    context.memory["url"] = task.get_name()
                    return task.result()
                if isinstance(error, ProbeError):
                    last = error
                elif error is not None:
                    raise error
                else:
                    last = TargetFailed("status", f"{task.result().url}: HTTP {task.result().status}")
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    assert last is not None
    raise last
