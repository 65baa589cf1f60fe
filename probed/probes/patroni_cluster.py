import asyncio
from typing import cast

from probed.errors import ProbeError, TargetFailed
from probed.leadership import Promotion
from probed.probes import Context, Measured, probe
from probed.probes._http import Answer
from probed.probes._patience import end, overdue
from probed.probes._patroni import ClusterMember, history_of, member_of, scheduled_of, text_of

MAX_MEMBERS = 100
HISTORY_SHARE = 0.25
"""Of the cycle's timeout: how long the history is waited for."""


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

    When the leader or its timeline is another than a cycle ago, ``GET /history`` of the same member is asked, too,
    until it tells where the old timeline ended and who led since.
    """
    answer = await _first_answer(context)
    body = answer.object()
    rows = body.get("members")
    if not isinstance(rows, list):
        raise TargetFailed("body", f'{answer.url}: HTTP {answer.status} without "members": this is not Patroni')
    members = _members(context, rows)
    paused = body.get("pause") is True
    scope = text_of(body.get("scope"))
    facts = {
        "members": members,
        "pause": paused,
        "scope": scope,
        "scheduled": scheduled_of(body.get("scheduled_switchover")),
        "history": await _history(context, answer, members),
        "body": body,
    }
    return Measured({"members": float(len(members)), "paused": 1.0 if paused else 0.0}, facts=facts)


def _members(context: Context, rows: list[object]) -> tuple[ClusterMember, ...]:
    """The members; those of the cycle before when Patroni has said the very same again."""
    said, members = cast(tuple[object, tuple[ClusterMember, ...]], context.memory.get("members", (None, ())))
    if said is not rows:
        known = {member.name: member for row in rows[:MAX_MEMBERS] if (member := member_of(row)) is not None}
        members = tuple(known.values())
        context.memory["members"] = (rows, members)
    return members


async def _history(context: Context, answer: Answer, members: tuple[ClusterMember, ...]) -> tuple[Promotion, ...]:
    """Patroni's history as last read; read anew when somebody leads, and it is another leader or timeline."""
    leads = next(((member.name, member.timeline) for member in members if member.leads), None)
    known = context.memory.get("history")
    if leads is not None and context.memory.get("leads") != leads:
        url = answer.url.removesuffix("/cluster") + "/history"
        asked = asyncio.create_task(context.http.get(url, access=context.access))
        try:
            # It adds to what is known of a switchover and decides nothing: no answer, and the next cycle asks again.
            if not await overdue(asked, context.timeout * HISTORY_SHARE):
                known = history_of(asked.result().json())
                context.memory["history"] = known
                if _is_complete(known, leads[1]):
                    context.memory["leads"] = leads
        except ProbeError:
            pass
        finally:
            await end([asked])
    return cast(tuple[Promotion, ...], known or ())


def _is_complete(history: tuple[Promotion, ...], timeline: int | None) -> bool:
    """Whether it knows how the leader's timeline came about: a new leader writes that some seconds after it leads."""
    return timeline is None or timeline <= 1 or any(line.timeline == timeline - 1 for line in history)


async def _first_answer(context: Context) -> Answer:
    """Ask the address that answered last; hedge with the next one after a share of the time, or at once on failure."""
    preferred = context.memory.get("url")
    urls = sorted(context.urls, key=lambda url: url != preferred)
    if not urls:
        raise TargetFailed("no_answer", "no member of the cluster is known")
    patience = context.timeout / (len(urls) + 1)
    asked: list[asyncio.Task[Answer]] = []
    answered: set[asyncio.Task[Answer]] = set()
    last: ProbeError | None = None
    try:
        while len(answered) < len(asked) or urls:
            if urls:
                url = urls.pop(0)
                asked.append(asyncio.create_task(context.http.get(f"{url}/cluster", access=context.access), name=url))
            waiting = [task for task in asked if task not in answered]
            done, _ = await asyncio.wait(
                waiting, timeout=patience if urls else None, return_when=asyncio.FIRST_COMPLETED
            )
            answered |= done
            for task in done:
                try:
                    answer = task.result()
                except ProbeError as error:
                    last = error
                    continue
                if answer.status == 200:
                    context.memory["url"] = task.get_name()
                    return answer
                kind = "redirect" if 300 <= answer.status < 400 else "status"
                last = TargetFailed(kind, f"{answer.url}: HTTP {answer.status}")
    finally:
        await end(asked)
    assert last is not None
    raise last
