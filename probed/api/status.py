"""``GET /api/v1/status``: instances, nodes, targets with their newest samples, and what is open."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiohttp import web

from probed.api import schemas, shapes, states
from probed.api.answers import as_json
from probed.api.routing import Call, Route
from probed.api.served import Served
from probed.board import Entry
from probed.model import OBSERVER, EventState
from probed.store import EventQuery

MAX_OPEN = 10_000


def routes(served: Served) -> list[Route]:
    async def status(_: Call) -> web.Response:
        # Ids come from the store: what was named to anybody must survive a crash. States come from memory, so that
        # they are right also while the disk refuses.
        recorded = await served.store.events(EventQuery(state=EventState.OPEN, limit=MAX_OPEN))
        open_events: dict[str, list[str]] = {}
        for event in recorded:
            open_events.setdefault(event.target.instance, []).append(event.id)
        entries: dict[str, list[Entry]] = {name: [] for name in served.pipeline.instances}
        for entry in served.pipeline.board.entries():
            entries.setdefault(entry.target.instance, []).append(entry)
        instances = []
        own_entries = entries.pop(OBSERVER, [])
        for name, own in entries.items():
            instances.append(_instance(served, name, own, open_events.get(name, ())))
            await asyncio.sleep(0)  # a fleet is not told in one breath: probes come first
        oneself = _instance(served, OBSERVER, own_entries, open_events.get(OBSERVER, ()))
        return as_json(
            {
                "observer": served.settings.observer,
                "instances": instances,
                "self": {key: oneself[key] for key in ("state", "open_events")}
                | {"targets": [target for node in oneself["nodes"] for target in node["targets"]]},
            }
        )

    says = "Instances, nodes and targets with their newest samples, and what is open."
    return [Route("GET", "/api/v1/status", status, says, gives=schemas.Status)]


def _instance(served: Served, name: str, entries: Sequence[Entry], open_events: Sequence[str]) -> shapes.Json:
    now = served.clock.mono()
    known = served.pipeline.instances.get(name)
    labels = known.labels if known else next((i.labels for i in served.settings.instances if i.name == name), {})
    events = [watch.event for watch in known.watches if watch.event is not None] if known else []
    declared = known.shape.nodes if known else ()
    nodes: dict[str, list[Entry]] = {node: [] for node in declared}
    for entry in entries:
        if entry.target.node:
            nodes.setdefault(entry.target.node, []).append(entry)
    certain = states.leader(entries, "", now)
    return {
        "name": name,
        "labels": dict(labels),
        "state": states.state(entries, events, now).value,
        "leader": states.leader(entries, known.shape.leader if known else "", now),
        "paused": known.paused if known else None,
        "nodes": [
            shapes.node(
                node,
                states.role(own, certain == node, now),
                states.state(own, [event for event in events if event.target.node == node], now).value,
                own,
            )
            for node, own in nodes.items()
        ],
        "targets": [shapes.target(entry) for entry in entries if not entry.target.node],
        "open_events": list(open_events),
    }
