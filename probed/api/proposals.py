"""``/api/v1/policies/proposals``: policies that tell too much or nothing, and a value that the recording speaks for."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web
from msgspec import Struct
from msgspec.structs import asdict

from probed.api import backtest_schemas as schemas
from probed.api import backtest_shapes as shapes
from probed.api.answers import as_json
from probed.api.backtests import refuse_while_busy
from probed.api.query import Whole
from probed.api.routing import Call, Route
from probed.api.served import Served
from probed.api.shapes import instant
from probed.backtest.proposing import Proposal, Survey, propose
from probed.backtest.reporting import Request
from probed.errors import ConfigError
from probed.model import Policy
from probed.policy.library import Library

DAYS = Whole("days", "How many days of the recording to look at.", 1, 90, 14)
FRESH_SECONDS = 600.0
"""An answer stands for so long, while no policy changes: it takes many seconds to find."""


class _Found(Struct, frozen=True):
    version: int
    days: int
    at: float
    answer: schemas.Proposals


def routes(served: Served) -> list[Route]:
    found: list[_Found] = []

    async def listing(call: Call) -> web.Response:
        library, days = served.editor.library, call.query[DAYS]
        for known in found:
            fresh = 0 <= call.now - known.at < FRESH_SECONDS
            if fresh and (known.version, known.days) == (library.version, days):
                return as_json(known.answer)
        refuse_while_busy(served)
        answer = await _answer(served, library, call.now, days)
        found[:] = [_Found(library.version, days, call.now, answer)]
        return as_json(answer)

    return [
        Route(
            "GET", "/api/v1/policies/proposals", listing,
            "Policies that tell too much, or never anything, with a change that the recorded samples speak for.",
            takes=(DAYS,), gives=schemas.Proposals, refusals=("too-many",), endless=True,
        ),
    ]  # fmt: skip


async def _answer(served: Served, library: Library, now: float, days: int) -> schemas.Proposals:
    since, until = now - days * 86_400.0, now + 1
    grace = served.pipeline.switchover_grace
    policies = [policy for _, policy in sorted(library.policies.items()) if policy.enabled]
    await served.archive.written()
    surveys = await served.beside.surveys([Request(policy, policy, since, until, grace) for policy in policies])
    proposed = [
        (proposal, survey)
        for policy, survey in zip(policies, surveys, strict=True)
        if (proposal := propose(survey, policy, _count_key(library, policy.id))) is not None
    ]
    tried = [(proposal, survey, _tried(library, proposal)) for proposal, survey in proposed]
    requests = [
        Request(library.policies[proposal.policy], changed, since, until, grace)
        for proposal, _, changed in tried
        if changed is not None
    ]
    reports = {report["policy"]: report for report in (await served.beside.reports(requests) if requests else [])}
    items: list[schemas.Proposal] = [
        _item(proposal, survey, reports.get(proposal.policy), fits=changed is not None)
        for proposal, survey, changed in tried
    ]
    return {"items": items, "since": instant(since), "until": instant(until), "computed_at": instant(now)}


def _tried(library: Library, proposal: Proposal) -> Policy | None:
    """The changed policy; ``None`` when there is no change, or its value is out of the parameter's bounds."""
    if proposal.patch is None:
        return None
    try:
        return library.tried(proposal.policy, proposal.patch)
    except ConfigError:
        return None


def _count_key(library: Library, policy_id: str) -> Sequence[str]:
    """Where the number of samples is written: a parameter, or in the rule itself."""
    data = library.documents[policy_id].data
    count = data["detect"].get("count")
    return ("params", count) if isinstance(count, str) else ("detect", "count")


def _item(proposal: Proposal, survey: Survey, report: dict[str, object] | None, *, fits: bool) -> schemas.Proposal:
    told = None if report is None else shapes.backtest(report, proposal.patch or {})
    return {
        "policy": proposal.policy,
        "kind": proposal.kind,
        "says": proposal.says if fits or proposal.patch is None else f"{proposal.says} (beyond what is allowed)",
        "patch": dict(proposal.patch) if fits and proposal.patch is not None else None,
        "targets": survey.targets,
        "samples": survey.samples,
        "present": shapes.figures(asdict(survey.figures)),
        "changed": None if told is None else told["changed"],
        "gained": None if told is None else told["gained"],
        "lost": None if told is None else told["lost"],
        "moved": None if told is None else told["moved"],
    }
