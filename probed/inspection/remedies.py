"""The exact statement or command that mends a setting, and items of advice. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from probed.inspection import Item, Section, Verdict
from probed.inspection.configured import Configured
from probed.model import Reading


def edit(assignment: str) -> str:
    """Of Patroni's dynamic configuration."""
    return f"patronictl edit-config -s {assignment}"


def patroni_also(found: Configured, assignment: str) -> str:
    """The same where there is a Patroni, to be said after something else."""
    return f"; {edit(assignment)}" if found.patroni_target and assignment else ""


def setting(found: Configured, name: str, value: str, *, restart: bool = False) -> str:
    """The statement or command that sets it: under Patroni the cluster's configuration is the one that lasts."""
    if found.patroni_target:
        after = ", then patronictl restart CLUSTER" if restart else ""
        return f"{edit(f'postgresql.parameters.{name}={value}')}{after}"
    after = " (takes effect after a restart)" if restart else " SELECT pg_reload_conf();"
    return f"ALTER SYSTEM SET {name} = '{value}';{after}"


def advised(
    id_: str,
    title: str,
    target: str,
    verdict: Verdict,
    finding: str,
    suggestion: str = "",
    evidence: Mapping[str, Reading | None] | None = None,
) -> Item:
    """An item of advice."""
    return Item(Section.ADVICE, id_, title, target, verdict, finding, suggestion, evidence=dict(evidence or {}))
