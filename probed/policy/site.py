"""What of the configuration bears on policies: which instances and nodes there are, and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

from msgspec import Struct

from probed.config.components import RESERVED
from probed.config.settings import Settings
from probed.model import Question, SqlQuestion
from probed.strict_yaml import did_you_mean

Complaint = tuple[tuple[str | int, ...], str]
"""(path in the policy's file, what is wrong)"""
_ROLES = ("primary", "replicas", "every")


class Site(Struct, frozen=True):
    instances: Mapping[str, Set[str] | None]
    """Name -> its nodes; ``None`` when Patroni will tell them."""
    allow_sql: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Site:
        nodes = {
            instance.name: None if instance.patroni else frozenset(node.name for node in instance.nodes)
            for instance in settings.instances
        }
        return cls(nodes, settings.policies.allow_sql)

    def complaints(
        self, identity: str, question: Question | None, instances: Sequence[str], enabled: bool
    ) -> Iterable[Complaint]:
        """Why a policy cannot work here."""
        for index, name in enumerate(instances):
            if name not in self.instances:
                hint = did_you_mean(name, sorted(self.instances))
                yield ("instances", index), f'there is no instance "{name}"{hint}'
        if question is None:
            return
        if identity in RESERVED:
            yield ("id",), f'its target would be called "{identity}", like a part of every instance; choose another id'
        if not isinstance(question, SqlQuestion):
            if not instances and len(self.instances) > 1:
                known = ", ".join(sorted(self.instances))
                yield ("probe",), f"to which instance does it belong? Write instances: [NAME]; there are: {known}"
            return
        if enabled and not self.allow_sql:
            remedy = "set policies.allow_sql: true in probed.yml if whoever writes policies may query your databases"
            yield ("probe",), f"policies that bring SQL are off; {remedy}"
        yield from self._unknown_node(question.on, instances or tuple(self.instances))

    def _unknown_node(self, on: str, instances: Sequence[str]) -> Iterable[Complaint]:
        nodes: set[str] = set()
        for name in instances:
            known = self.instances.get(name)
            if known is None:  # of an instance whose members Patroni tells, or that there is not
                return
            nodes |= known
        if on not in (*_ROLES, *nodes):
            hint = did_you_mean(on, sorted({*_ROLES, *nodes}))
            yield ("sql", "on"), f'expected primary, replicas, every or a node\'s name, got "{on}"{hint}'
