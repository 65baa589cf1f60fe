"""``/api/v1/silences``: what people do not want to be told of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import structlog
from aiohttp import web
from pydantic import Field

from probed import incidents, quantity
from probed.api import schemas, shapes
from probed.api.answers import as_json
from probed.api.problems import Refused, shown
from probed.api.query import Choice, Flag, cursor, limit
from probed.api.routing import Call, Route, invalid
from probed.api.served import Served
from probed.config.silences import Scoped, unknown_event
from probed.errors import Problem
from probed.model import OBSERVER, Event, Role
from probed.silences import CLOCK_ERROR_SECONDS, Scope, Silence, SilenceState, wrong_span
from probed.store import Commit
from probed.strict_yaml import did_you_mean

_log = structlog.get_logger(__name__)

PATH = "/api/v1/silences"
LIMIT = limit()
CURSOR = cursor("silences", str)
STATE = Choice("state", "Only in this state.", SilenceState)
DRY_RUN = Flag("dry_run", "Only say what it would do: which open events it covers, and what is wrong with it.")
MAX_LISTED = 10_000
MAX_LIVE = 1000
"""Silences that may hold or wait at once."""

_When = Annotated[str, Field(max_length=40, examples=["2026-11-28T22:00:00Z", "+30m"])]


class NewSilence(Scoped):
    """The body of a POST. It ends at ``ends_at``, or ``duration`` after its start."""

    starts_at: _When | None = Field(default=None, description="RFC 3339, or from now: +30m. Default: now.")
    ends_at: _When | None = Field(default=None, description="RFC 3339, or from now: +2h.")
    duration: Annotated[str, Field(max_length=40, examples=["2h"])] | None = Field(
        default=None, description="From the start on, in place of ends_at."
    )


def routes(served: Served) -> list[Route]:
    async def listing(call: Call) -> web.Response:
        wanted, after, limit = call.query[STATE], call.query[CURSOR], call.query[LIMIT]
        stored = await served.store.silences(MAX_LISTED)
        declared = [silence for silence in served.pipeline.silencing.all() if silence.origin == "file"]
        found = [  # file:… comes after every id that begins with its time
            silence
            for silence in sorted((*declared, *stored), key=lambda silence: silence.id, reverse=True)
            if (after is None or silence.id < after) and (wanted is None or _state(served, silence) is wanted)
        ]
        more = CURSOR.at(found[limit - 1].id) if len(found) > limit else None
        return as_json(shapes.page([_shape(served, silence) for silence in found[:limit]], more))

    async def add(call: Call) -> web.Response:
        silence = _silence(served, call, call.body)
        warnings = _doubts(served, silence.scope)
        if call.query[DRY_RUN]:
            made = {**_shape(served, silence), "id": None, "warnings": warnings}
            return as_json(made)
        silencing = served.pipeline.silencing
        silencing.forget_expired(call.now - CLOCK_ERROR_SECONDS)
        live = [one for one in silencing.all() if one.state_at(call.now) is not SilenceState.EXPIRED]
        if len(live) >= MAX_LIVE:
            raise Refused("conflict", f"{MAX_LIVE} silences hold or wait already; end some, or name more in one")
        shape = _shape(served, silence)
        record = call.audit("silence.add", silence.id, reason=silence.comment, after=_told(shape))
        await served.store.append(Commit(silences=(silence,), audit=(record,)))
        silencing.put(silence)
        _log.info("silence.added", id=silence.id, by=silence.author, covers=str(silence.scope), why=silence.comment)
        made = {**_shape(served, silence), "warnings": warnings}
        return as_json(made, status=201, headers={"Location": f"{PATH}/{silence.id}"})

    async def one(call: Call) -> web.Response:
        return as_json(_shape(served, await _find(served, call.path("id"))))

    async def expire(call: Call) -> web.Response:
        silence = await _find(served, call.path("id"))
        if silence.origin == "file":
            detail = f"{silence.id} is declared at {silence.where}; take it out there and reload (probed check, SIGHUP)"
            raise Refused("refused-by-rule", detail)
        # Whoever did not get the first answer asks again, and is told the same.
        if _state(served, silence) is not SilenceState.EXPIRED:
            before, silence = _told(_shape(served, silence)), silence.end(call.now, call.who.name)
            record = call.audit("silence.expire", silence.id, before=before, after=_told(_shape(served, silence)))
            await served.store.append(Commit(silences=(silence,), audit=(record,)))
            served.pipeline.silencing.put(silence)
            _log.info("silence.expired", id=silence.id, by=silence.ended_by)
        return as_json(_shape(served, silence))

    return [
        Route(
            "GET", PATH, listing, "Silences: those of the configuration, then the newest first.",
            takes=(STATE, LIMIT, CURSOR), gives=schemas.Page[schemas.Silence],
        ),
        Route(
            "POST", PATH, add, "Have people not be told of what it covers, for a time.",
            needs=Role.OPERATOR, takes=(DRY_RUN,), body=NewSilence, gives=schemas.SilenceMade,
            status=201, statuses=(200,), refusals=("conflict",),
        ),
        Route("GET", f"{PATH}/{{id}}", one, "One silence.", gives=schemas.Silence, refusals=("not-found",)),
        Route(
            "DELETE", f"{PATH}/{{id}}", expire, "End a silence now; it stays listed. Again is the same answer.",
            needs=Role.OPERATOR, gives=schemas.Silence, refusals=("not-found", "refused-by-rule"),
        ),
    ]  # fmt: skip


async def _find(served: Served, wanted: str) -> Silence:
    """What the store knows is newer than what is held, should the disk refuse; else it is held alone."""
    silence = served.pipeline.silencing.get(wanted)
    if silence is None and wanted.isprintable():
        silence = await served.store.silence(wanted)
    if silence is None:
        raise Refused("not-found", f"no silence has the id {shown(wanted)}; GET {PATH} lists them")
    return silence


def _silence(served: Served, call: Call, body: NewSilence) -> Silence:
    """The silence that a body asks for. Refused with everything that is wrong with it."""
    now = call.now
    problems: list[Problem] = []
    starts_at = now if body.starts_at is None else _moment("starts_at", body.starts_at, now, problems)
    starts_at = max(starts_at, now)  # nothing that was told can be taken back
    ends_at = None if body.ends_at is None else _moment("ends_at", body.ends_at, now, problems)
    if body.duration is not None:
        if ends_at is not None:
            problems.append(Problem("body", "stands beside ends_at; name one of them", path="duration"))
        try:
            ends_at = starts_at + quantity.seconds(body.duration)
        except ValueError as error:
            problems.append(Problem("body", str(error), path="duration"))
    problems += [
        Problem("body", unknown_event(name, served.policies), path=f"events[{index}]")
        for index, name in enumerate(body.events)
        if name not in served.policies
    ]
    if not problems:
        wrong = wrong_span(starts_at, ends_at, body.recurrence, now)
        named = "duration" if body.duration is not None else "ends_at"
        problems += [Problem("body", text, path=named if key == "ends_at" else key) for key, text in wrong]
    if problems:
        raise invalid(problems)
    return Silence(
        incidents.new_id(now), body.scope, body.comment, call.who.name, now, starts_at, ends_at, body.recurrence
    )


def _moment(key: str, text: str, now: float, problems: list[Problem]) -> float:
    try:
        if text.startswith("+"):
            return now + quantity.seconds(text[1:])
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None or len(text) < 16:
            raise ValueError(text)
        return moment.timestamp()
    except (ValueError, OverflowError):
        form = "expected a time with its offset such as 2026-11-28T22:00:00Z, or one from now such as +2h"
        problems.append(Problem("body", f"{form}, got {shown(text)}", path=key))
        return now


def _doubts(served: Served, scope: Scope) -> list[str]:
    """Names that nothing has now. They may be of what is to come, so they are taken; a slip shows all the same."""
    known = served.pipeline.instances
    nodes = sorted({node for state in known.values() for node in state.shape.nodes})
    doubts = []
    for what, names, there in (("instance", scope.instances, sorted(known)), ("node", scope.nodes, nodes)):
        others = [name for name in there if name != OBSERVER]
        doubts += [f'no {what} is called "{name}"{did_you_mean(name, others)}' for name in names if name not in there]
    return doubts


def _state(served: Served, silence: Silence) -> SilenceState:
    return served.pipeline.silencing.state(silence, served.clock.wall(), served.clock.mono())


def _shape(served: Served, silence: Silence) -> schemas.Silence:
    covered = [event.id for event in _open(served) if silence.scope.covers(event)]
    window = silence.window_at(served.clock.wall())
    return shapes.silence(silence, _state(served, silence), window, covered)


def _open(served: Served) -> Sequence[Event]:
    states = served.pipeline.instances.values()
    return [watch.event for state in states for watch in state.watches if watch.event is not None]


def _told(shape: schemas.Silence) -> dict[str, object]:
    """For the record: what of it does not change by itself."""
    return {key: value for key, value in shape.items() if key not in ("open_events", "window", "state")}
