from typing import cast

from probed.evidence import Data, Recall, collector
from probed.model import Sample
from probed.probes import Context


def told(sample: Sample) -> Data | None:
    body = sample.facts.get("body")
    return cast(Data, body) if isinstance(body, dict) else None


def essence(body: Data) -> object:
    return str(body.get("state")), str(body.get("role")), str(body.get("timeline")), body.get("pending_restart")


@collector(kinds=("patroni",), recall=Recall("patroni_rest", told, essence), recovery=True)
async def patroni_node(context: Context) -> Data:
    """What a node's own Patroni says of it: state, role, timeline, WAL positions, age of its view of the DCS, failsafe.

    ``GET /patroni``. Before: every answer that differed in state, role or timeline, from the samples.
    """
    return (await context.http.get(f"{context.urls[0]}/patroni", access=context.access)).object()
