"""What is told of policies in their layers, as ``policy_schemas`` promises."""

from __future__ import annotations

import hashlib
import json

from probed.api import policy_schemas as schemas
from probed.api import shapes
from probed.policy.library import Library, Origin
from probed.revisions import Revision, Touched


def listed(library: Library, policy_id: str) -> schemas.ListedPolicy:
    problems: list[schemas.PolicyProblem] = [
        {"path": problem.path, "detail": problem.message} for problem in library.problems.get(policy_id, ())
    ]
    policy = shapes.policy(library.policies[policy_id])
    return {**policy, "layers": list(library.layers(policy_id)), "problems": problems}


def detail(library: Library, policy_id: str) -> schemas.PolicyDetail:
    return {
        **listed(library, policy_id),
        "patch": dict(library.patch(policy_id).values),
        "origin": {path: origin(item) for path, item in library.origins(policy_id).items()},
    }


def origin(item: Origin) -> schemas.Origin:
    shown: schemas.Origin = {"layer": item.layer}
    if item.where:
        shown["where"] = item.where
    if item.mark is not None:
        shown["version"], shown["author"] = item.mark.version, item.mark.author
    return shown


def etag(detail: schemas.PolicyDetail) -> str:
    """Strong: another one for every change of the effective policy, whatever made it."""
    text = json.dumps(detail, sort_keys=True)
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def strangers(library: Library) -> list[schemas.StrangerPatch]:
    return [
        {"id": name, "version": patch.version, "patch": dict(patch.values)} for name, patch in library.strangers.items()
    ]


def revision(made: Revision) -> schemas.Revision:
    return {
        "version": made.version,
        "at": shapes.instant(made.at),
        "author": made.author,
        "via": made.via,
        "kind": made.kind.value,
        "reason": made.reason,
        "policies": [_touched(item) for item in made.touched],
    }


def _touched(item: Touched) -> schemas.TouchedPolicy:
    differences: list[schemas.Difference] = [
        {"path": each.path, "before": each.before, "after": each.after} for each in item.differences
    ]
    return {"id": item.policy, "before": dict(item.before), "after": dict(item.after), "differences": differences}
