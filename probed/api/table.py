"""Every route: those of the API and those of the page."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from probed.api import (
    acks,
    audits,
    backtests,
    events,
    inspection_files,
    inspections,
    notifications,
    openapi,
    operations,
    policies,
    policy_exchange,
    policy_history,
    proposals,
    samples,
    sessions,
    shadows,
    silences,
    status,
    streams,
    tokens,
)
from probed.api.doorkeeping import KnownPeople
from probed.api.routing import Route
from probed.api.served import Served
from probed.web import pages


def table(served: Served, feed: streams.Feed, people: KnownPeople) -> list[Route]:
    """Every route of the API; the page's are no part of what it describes."""
    routes = [
        *operations.routes(served),
        *status.routes(served),
        *streams.routes(feed),
        *events.routes(served),
        *policy_history.routes(served),  # before the policies, whose {id} would take their paths
        *policy_exchange.routes(served),
        *acks.routes(served),
        *proposals.routes(served),
        *shadows.routes(served),
        *policies.routes(served),
        *backtests.routes(served),
        *silences.routes(served),
        *samples.routes(served),
        *inspections.routes(served),
        *inspection_files.routes(served),
        *audits.routes(served),
        *notifications.routes(served),
        *tokens.routes(served, people),
        *sessions.routes(),
    ]
    return [*routes, openapi.route(routes)]


class Visits:
    """The routes of the API and of the page for visitors of a daemon, and what they hold open."""

    def __init__(self, served: Served, people: KnownPeople) -> None:
        self._feed = streams.Feed(served.store)
        served.pipeline.on_announce(lambda _: self._feed.wake())
        self._rendering = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pages")
        api = [*table(served, self._feed, people), *sessions.doors(served, people)]
        self.routes = [*api, *pages.routes(served, self._rendering, api)]

    def end_streams(self) -> None:
        """Once nobody else is let in."""
        self._feed.close()

    def close(self) -> None:
        self._rendering.shutdown(wait=False)
