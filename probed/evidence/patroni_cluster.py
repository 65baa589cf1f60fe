from typing import Any, cast

from probed.evidence import Data, Recall, collector
from probed.model import Sample
from probed.probes import Context
from probed.probes import patroni_cluster as probes


def told(sample: Sample) -> Data | None:
    body = sample.facts.get("body")
    return cast(Data, body) if isinstance(body, dict) else None


def essence(body: Data) -> object:
    """Lag moves with every sample; who is there, as what and how, is what tells."""
    members = body.get("members")
    rows: list[Any] = members if isinstance(members, list) else []
    keys = ("name", "role", "state", "timeline")
    return [[str(row.get(key)) for key in keys] for row in rows if isinstance(row, dict)], body.get("pause")


@collector(
    kinds=("patroni_cluster",),
    scope="instance",
    recall=Recall("patroni_cluster", told, essence),
    recovery=True,
)
async def patroni_cluster(context: Context) -> Data:
    """Patroni's own list: members with role, state, timeline and lag, scheduled switchovers, pause (``GET /cluster``).

    Before: every picture that differed in members, roles, states or timelines, from the samples.
    """
    measured = await probes.patroni_cluster(context)
    return cast(Data, getattr(measured, "facts", {})["body"])
