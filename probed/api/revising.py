"""How a request changes policies: by the editor, audited, with its refusals as answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from probed.api.problems import Refused
from probed.api.routing import Call, invalid
from probed.api.served import Served
from probed.editing import Wanted
from probed.errors import ConfigError, Problem
from probed.policy.library import Misfit, Signed
from probed.revisions import Revision, RevisionKind
from probed.store import AuditRecord


async def revised(
    served: Served,
    call: Call,
    kind: RevisionKind,
    wanted: Wanted,
    *,
    reason: str,
    dry: bool = False,
    explained: Callable[[Misfit], Sequence[Problem]] = lambda error: error.problems,
) -> Revision | None:
    """Change policies on behalf of the caller; ``None`` when nothing changes. Refused with every problem.

    ``explained`` says where in the request the problems of policies as they would become stand.
    """

    def audits(revision: Revision) -> list[AuditRecord]:
        return [
            call.audit(f"policy.{kind.value}", item.policy, reason=reason, before=item.before, after=item.after)
            for item in revision.touched
        ]

    by = Signed(call.now, call.who.name, call.who.via, reason)
    try:
        return await served.editor.revise(kind, wanted, by, audits, dry=dry)
    except Misfit as error:
        raise refusal(explained(error)) from None
    except ConfigError as error:
        raise refusal(error.problems) from None


def refusal(problems: Sequence[Problem], kind: str = "refused-by-rule") -> Refused:
    """Problems as an answer, each with its path, and with its line where there is one."""
    answer = invalid(problems, kind)
    placed = [
        {**item, "line": problem.line, "column": problem.column} if problem.line else item
        for item, problem in zip(answer.errors, problems, strict=True)
    ]
    return replace(answer, errors=placed)
