"""Who belongs to an instance: what its settings call it, and the nodes that Patroni's member list has shown so far."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

import structlog
from msgspec.structs import replace

from probed import discovery
from probed.board import Board
from probed.config import load
from probed.config.settings import Instance
from probed.model import Sample, Target
from probed.probes._http import HttpClient
from probed.reaching import patroni_access
from probed.store import Commit, Member

_log = structlog.get_logger(__name__)

BOOTSTRAP_SECONDS = 2.0


class Membership:
    """The members of every instance, remembered over restarts: one that vanishes from Patroni's list has failed."""

    def __init__(self, board: Board, http: HttpClient, record: Callable[[Commit], None]) -> None:
        self._board, self._http, self._record = board, http, record
        self._members: dict[str, dict[str, Member]] = {}
        self._names: dict[str, str] = {}
        self._targets: dict[str, Target] = {}
        """By instance, whom its member list is asked of."""
        self._learned: dict[str, object] = {}
        """By instance, the list that was taken in last: mostly Patroni says the same again."""

    def recover(self, members: Iterable[Member]) -> None:
        """Take up what the last daemon knew."""
        for member in members:
            self._members.setdefault(member.instance, {})[member.name] = member

    def of(self, instance: str) -> tuple[Member, ...]:
        return tuple(self._members.get(instance, {}).values())

    def name_of(self, instance: Instance) -> str:
        """What the instance is called: Patroni's scope for one that the settings leave unnamed."""
        return self._names.get(instance.name, instance.name)

    def named(self, instance: Instance) -> Instance:
        """The instance under its name."""
        return instance.model_copy(update={"name": self.name_of(instance)})

    async def bootstrap(self, instances: Sequence[Instance]) -> None:
        """Ask Patroni once who is there, so that the first rounds know their nodes and the instance its name."""
        await asyncio.gather(*(self._ask(instance) for instance in instances if instance.patroni))

    async def _ask(self, instance: Instance) -> None:
        scope, members = await discovery.discover(
            instance.patroni, self._http, BOOTSTRAP_SECONDS, instance.name, patroni_access(instance, instance.patroni)
        )
        if instance.name == load.UNNAMED:
            known = scope or next((name for name in self._members), "")
            self._names[load.UNNAMED] = known or load.UNNAMED
        name = self.name_of(instance)
        self._remember(name, [replace(member, instance=name) for member in members])

    def learn(self, name: str) -> bool:
        """Take in members that came or moved by the newest sample. Those that vanished stay: they have failed."""
        sample = self._listing(name)
        listed = sample.facts.get("members") if sample is not None else None
        if listed is None or listed is self._learned.get(name):
            return False
        self._learned[name] = listed
        news = discovery.learned(name, self.of(name), sample)
        if news:
            _log.info("members.changed", instance=name, members=[member.name for member in news])
            self._remember(name, news)
        return bool(news)

    def forget_vanished(self) -> None:
        """A reload is how an operator says that a node is gone for good."""
        gone: list[tuple[str, str]] = []
        for name, known in self._members.items():
            listed = {member.name for member in discovery.listed(name, self._listing(name))}
            gone += [(name, member) for member in known if listed and member not in listed]
        for name, member in gone:
            del self._members[name][member]
            self._learned.pop(name, None)
        if gone:
            self._record(Commit(forgotten_members=tuple(gone)))

    def _remember(self, name: str, members: Sequence[Member]) -> None:
        known = self._members.setdefault(name, {})
        news = [member for member in members if known.get(member.name) != member]
        known.update({member.name: member for member in news})
        if news:
            self._record(Commit(members=tuple(news)))

    def _listing(self, name: str) -> Sample | None:
        """The newest sample of Patroni's member list."""
        target = self._targets.get(name)
        if target is None:
            target = self._targets[name] = Target(name, "", "patroni", kind="patroni_cluster")
        return self._board.newest("patroni_cluster", target)
