"""The page's routes: everything that a browser may ask for outside of the API."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

from probed.api.routing import Route
from probed.api.served import Served
from probed.web import (
    audit_pages,
    event_pages,
    exchange_pages,
    inspection_pages,
    notice_pages,
    own_pages,
    policy_pages,
    silence_pages,
    state_pages,
    token_pages,
)
from probed.web.desk import Desk


def routes(served: Served, rendering: Executor, api: Sequence[Route]) -> list[Route]:
    """Pages are rendered by ``rendering``, so that no probe waits for one; ``api`` is what they show and change."""
    desk = Desk(served, rendering, api)
    return [
        *state_pages.routes(desk),
        *event_pages.routes(desk),
        *exchange_pages.routes(desk),  # before the policies, whose {id} would take their paths
        *policy_pages.routes(desk),
        *inspection_pages.routes(desk),
        *silence_pages.routes(desk),
        *notice_pages.routes(desk),
        *audit_pages.routes(desk),
        *token_pages.routes(desk),
        *own_pages.routes(desk),
    ]
