"""Nodes from Patroni's own member list: asked once at start, then read from every cluster sample."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import cast

from probed.errors import ProbeError
from probed.model import Outcome, Sample, Target
from probed.probes import Context
from probed.probes._access import Access
from probed.probes._http import HttpClient
from probed.probes._patroni import ClusterMember, name_of
from probed.probes.patroni_cluster import patroni_cluster
from probed.store import Member


async def discover(
    urls: Sequence[str], http: HttpClient, timeout: float, instance: str, access: Access | None = None
) -> tuple[str, tuple[Member, ...]]:
    """(scope, members) by one question to Patroni; ("", ()) when nobody answers within ``timeout`` seconds."""
    target = Target(instance, "", "patroni", kind="patroni_cluster")
    context = Context(target, timeout, tuple(urls), None, http, access=access)
    try:
        async with asyncio.timeout(timeout):
            measured = await patroni_cluster(context)
    except (ProbeError, TimeoutError):
        return "", ()
    facts = getattr(measured, "facts", {})
    # The scope becomes an instance's name, and with it part of target keys.
    return name_of(facts.get("scope")), _members(instance, facts["members"])


def learned(instance: str, known: Iterable[Member], sample: Sample | None) -> tuple[Member, ...]:
    """Members that are new or have moved, by a cluster sample. One that vanished stays known: it has failed."""
    before = {member.name: member for member in known}
    return tuple(member for member in listed(instance, sample) if before.get(member.name) != member)


def listed(instance: str, sample: Sample | None) -> tuple[Member, ...]:
    """The members that a cluster sample lists; empty when it says nothing."""
    if sample is None or sample.outcome is not Outcome.OBSERVED:
        return ()
    return _members(instance, cast(tuple[ClusterMember, ...], sample.facts["members"]))


def _members(instance: str, rows: Iterable[ClusterMember]) -> tuple[Member, ...]:
    return tuple(
        Member(instance, row.name, row.host, row.port, row.api_url) for row in rows if row.host and row.api_url
    )
