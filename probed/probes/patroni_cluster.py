import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from probed.errors import ProbeError, TargetFailed
from probed.probes import Context, Measured, probe
from probed.probes._http import Answer

LEADER_ROLES = frozenset({"leader", "master", "standby_leader", "primary"})
MAX_MEMBERS = 100


@dataclass(frozen=True, slots=True)
class ClusterMember:
    """One row of ``/cluster``. ``lag`` is bytes, or ``None`` when Patroni does not know it."""

    name: str
    role: str
    state: str
    host: str
    port: int
    api_url: str
    timeline: int | None
    lag: int | None

    @property
    def leads(self) -> bool:
        return self.role in LEADER_ROLES


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
    members = [member for row in rows[:MAX_MEMBERS] if (member := _member(row)) is not None]
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


def _member(row: object) -> ClusterMember | None:
    """A row in our words; ``None`` when it does not even have a name."""
    if not isinstance(row, dict) or not isinstance(row.get("name"), str) or not row["name"]:
        return None
    text: Mapping[str, Any] = row
    api_url = _text(text.get("api_url"))
    return ClusterMember(
        name=_text(text["name"]),
        role=_text(text.get("role")),
        state=_text(text.get("state")),
        host=_text(text.get("host")) or (urlsplit(api_url).hostname or "" if api_url else ""),
        port=_int(text.get("port")) or 5432,
        api_url=_base(api_url),
        timeline=_int(text.get("timeline")),
        lag=_int(text.get("lag")),
    )


def _text(value: object) -> str:
    return value[:200] if isinstance(value, str) else ""


def _int(value: object) -> int | None:
    # "unknown" is a string where Patroni does not know; true is not a number.
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _base(api_url: str) -> str:
    try:
        parts = urlsplit(api_url)
        return f"{parts.scheme}://{parts.netloc}" if parts.scheme in ("http", "https") and parts.hostname else ""
    except ValueError:
        return ""


def leaders(members: Sequence[ClusterMember]) -> list[ClusterMember]:
    return [member for member in members if member.leads]
