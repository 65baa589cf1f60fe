"""``/api/v1/samples``: what was recorded, for charts and for whoever wants to see what a backtest sees."""

from __future__ import annotations

from aiohttp import web

from probed.api import schemas, shapes
from probed.api.answers import as_json
from probed.api.problems import Refused
from probed.api.query import SINCE, UNTIL, Whole, Word, cursor, limit, number
from probed.api.routing import Call, Route
from probed.api.served import Served
from probed.strict_yaml import did_you_mean

TARGET = Word("target", "Key of the target, such as orders/node-a/postgres.")
PROBE = Word("probe", "Name of the probe.")
LIMIT = limit(10_000, 1_000)
CURSOR = cursor("samples", number)
POINTS = Whole(
    "points",
    "Instead of pages: about so many samples that show the shape of the span, no peak lost; 0: all.",
    0,
    5_000,
    0,
)
SAYS = "Recorded samples of a probe on a target, oldest first; by default of the last hour."
HOUR = 3600.0
MAX_AHEAD = 1.0


def routes(served: Served) -> list[Route]:
    async def listing(call: Call) -> web.Response:
        query = call.query
        probe, target = await _place(call)
        since, until = query[SINCE], query[UNTIL]
        until = call.now + MAX_AHEAD if until is None else until
        since = until - HOUR if since is None else since
        if query[POINTS]:
            thinned = await served.archive.thinned(probe, target, since, until, query[POINTS])
            return as_json(shapes.page([shapes.recorded_sample(sample) for sample in thinned], None))
        limit = query[LIMIT]
        start = max(since, (query[CURSOR] or 0) / 1000)
        found = await served.archive.samples(probe, target, start, until, limit + 1)
        more = CURSOR.at(str(round(found[limit].at * 1000))) if len(found) > limit else None
        return as_json(shapes.page([shapes.recorded_sample(sample) for sample in found[:limit]], more))

    async def _place(call: Call) -> tuple[str, str]:
        """(probe, target). Refused when there are no samples of it."""
        probe, target = call.query[PROBE], call.query[TARGET]
        missing = [name for name, value in (("target", target), ("probe", probe)) if value is None]
        if probe is None or target is None:
            errors = [
                {"path": name, "detail": "expected it; GET /api/v1/samples/recorded lists what there is"}
                for name in missing
            ]
            raise Refused(
                "bad-query", f"expected {' and '.join(missing)}; GET /api/v1/samples/recorded lists them", errors
            )
        if served.pipeline.board.knows(probe, target):
            return probe, target
        known = await served.archive.recorded()
        if any((one.place.probe, one.place.target.key) == (probe, target) for one in known):
            return probe, target
        targets = sorted({one.place.target.key for one in known})
        if target not in targets:
            hint = did_you_mean(target, targets)
            raise Refused("not-found", f"no samples of a target of that name are recorded{hint}")
        probes = sorted(one.place.probe for one in known if one.place.target.key == target)
        raise Refused("not-found", f"no samples of that probe on {target} are recorded{did_you_mean(probe, probes)}")

    async def recorded(call: Call) -> web.Response:
        await served.archive.written()
        found = await served.archive.recorded(call.query[TARGET])
        return as_json(shapes.page([shapes.recorded(one) for one in found], None))

    return [
        Route(
            "GET", "/api/v1/samples", listing, SAYS,
            takes=(TARGET, PROBE, SINCE, UNTIL, LIMIT, CURSOR, POINTS), gives=schemas.Page[schemas.RecordedSample],
            refusals=("not-found",),
        ),
        Route(
            "GET", "/api/v1/samples/recorded", recorded, "Of what samples are recorded, since when, and how many.",
            takes=(TARGET,), gives=schemas.Page[schemas.Recorded],
        ),
    ]  # fmt: skip
