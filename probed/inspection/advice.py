"""What the configuration should be for events to be seen, and for failovers to go well: facts and remedies. Pure.

Each rule gives an item where it applies, and none where there is no such component. Times and limits that the rules
name are PostgreSQL's and Patroni's own.
"""

from __future__ import annotations

from datetime import UTC, datetime

from probed.inspection import Item, Verdict, instance_advice, server_advice
from probed.inspection.configured import Configured, Server
from probed.inspection.remedies import advised
from probed.redaction import clean


def advice(found: Configured, now: float) -> list[Item]:
    """Every item of every rule. ``now``: Unix seconds."""
    today = datetime.fromtimestamp(now, UTC).date()
    items = [item for server in found.known for rule in server_advice.RULES for item in rule(found, server)]
    items += [item for server in found.known for item in server_advice.end_of_life(server, today)]
    return items + [item for rule in instance_advice.RULES for item in rule(found)]


def silent(server: Server) -> Item:
    """In place of the items of a server that did not say how it is configured, for no reason that is told elsewhere."""
    return advised(
        "settings", "Settings", server.target, Verdict.WARN, f"they cannot be read: {clean(server.error, 300)}",
        "mend what it says; probed doctor names the statement",
    )  # fmt: skip
