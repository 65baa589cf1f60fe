"""What is to be probed, how often, and what is judged by it: settings + policies + known members -> a plan. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from probed import cadence, topology
from probed.config import settings
from probed.model import Policy, Target
from probed.probes import AnyProbe, Combined, Context, Expect, Probe
from probed.probes._access import Access
from probed.probes._http import HttpClient
from probed.probes._sql import Login, Session
from probed.store import Member
from probed.vitals import Vitals

TIMEOUT_SHARE = 0.8
"""A cycle's deadline is at most this share of its interval, so that cycles never overlap."""


@dataclass(frozen=True, slots=True)
class Reach:
    """A target and how to get at it."""

    target: Target
    login: Login | None = None
    urls: tuple[str, ...] = ()
    path: Path | None = None
    expect: Expect = field(default_factory=Expect)
    access: Access | None = None
    doors: tuple[tuple[str, int], ...] = ()
    paths: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cycle:
    """One I/O probe on one target."""

    probe: Probe
    reach: Reach
    interval: float
    timeout: float

    @property
    def offset(self) -> float:
        """Seconds after the start of its round."""
        # One node's probes share a slot: they take turns on one connection, and read the same moment.
        return cadence.offset(self.reach.target.node or self.reach.target.key, self.interval)

    @property
    def session(self) -> str:
        """Key of its database session: the probes of a target share one, but for those that would keep it busy."""
        key = self.reach.target.key
        return f"{key}/{self.probe.name}" if self.probe.costly else key


@dataclass(frozen=True, slots=True)
class CombinedCycle:
    """One combined probe on one target; computed in the rounds of its slowest input, every ``every``-th time."""

    probe: Combined
    target: Target
    interval: float
    home: float
    """Interval of the rounds it belongs to."""

    @property
    def every(self) -> int:
        return max(1, round(self.interval / self.home))


@dataclass(frozen=True, slots=True)
class InstancePlan:
    name: str
    labels: Mapping[str, str]
    nodes: tuple[str, ...]
    reaches: tuple[Reach, ...]
    cycles: tuple[Cycle, ...]
    combined: tuple[CombinedCycle, ...]
    watches: tuple[tuple[Policy, Target], ...]
    """What is judged: every enabled policy on every target that its probe samples."""

    @property
    def intervals(self) -> tuple[float, ...]:
        """The distinct grids on which rounds of this instance start."""
        return tuple(sorted({cycle.interval for cycle in self.cycles}))


def own_plan(
    observer: str, policies: Mapping[str, Policy], catalogue: Mapping[str, AnyProbe], defaults: settings.Defaults
) -> InstancePlan:
    """What the observer watches of itself: the one target of kind ``observer``, in an instance of its own."""
    target = Target(topology.OBSERVER, observer, "probed", kind="observer")
    return _planned(topology.OBSERVER, {}, (Reach(target),), policies, catalogue, defaults)


def plan(
    instance: settings.Instance,
    members: Sequence[Member],
    policies: Mapping[str, Policy],
    catalogue: Mapping[str, AnyProbe],
    defaults: settings.Defaults,
) -> InstancePlan:
    """Everything about one instance. ``members`` are the nodes found through Patroni, beside the declared ones."""
    reaches = tuple(_reaches(instance, members))
    return _planned(instance.name, dict(instance.labels), reaches, policies, catalogue, defaults)


def _planned(
    instance: str,
    labels: Mapping[str, str],
    reaches: tuple[Reach, ...],
    policies: Mapping[str, Policy],
    catalogue: Mapping[str, AnyProbe],
    defaults: settings.Defaults,
) -> InstancePlan:
    nodes = tuple(dict.fromkeys(reach.target.node for reach in reaches if reach.target.node))
    pace = _Pace(policies, catalogue, defaults)
    cycles = tuple(
        Cycle(probe, reach, pace.interval(probe), pace.timeout(probe))
        for probe in catalogue.values()
        if isinstance(probe, Probe)
        for reach in reaches
        if reach.target.kind in probe.kinds and (not probe.costly or pace.judged(probe))
    )
    combined = tuple(_combined(instance, nodes, cycles, catalogue, pace))
    sampled: list[tuple[str, Target]] = [(cycle.probe.name, cycle.reach.target) for cycle in cycles]
    sampled += [(cycle.probe.name, cycle.target) for cycle in combined]
    watches = tuple(
        (policy, target)
        for policy in policies.values()
        if policy.enabled
        for name, target in sampled
        if name == policy.probe and _judged(policy, target)
    )
    return InstancePlan(instance, labels, nodes, reaches, cycles, combined, watches)


def context_for(
    reach: Reach, timeout: float, http: HttpClient, session: Session | None = None, vitals: Vitals | None = None
) -> Context:
    """What a probe gets to reach its target. Probes of one node share its ``session``, made here when not given.

    ``vitals`` are the observer's own, for the probes that look at it.
    """
    if session is None and reach.login is not None:
        session = Session(reach.login, timeout)
    return Context(
        reach.target,
        timeout,
        reach.urls,
        reach.path,
        http,
        session,
        expect=reach.expect,
        access=reach.access,
        doors=reach.doors,
        _vitals=vitals,
        paths=reach.paths,
    )


def own_machine(observer: str) -> Reach:
    """The machine that this daemon runs on, as a target beside the observer itself."""
    return Reach(Target(topology.OBSERVER, observer, "host", kind="host"))


def machines(instance: settings.Instance) -> tuple[Reach, ...]:
    """The nodes that this daemon runs on, as targets; their path is that of the data directory, where it is told."""
    return tuple(
        Reach(Target(instance.name, node.name, "host", kind="host"), path=node.disk.path if node.disk else None)
        for node in instance.nodes
        if node.local
    )


def _reaches(instance: settings.Instance, members: Sequence[Member]) -> Iterable[Reach]:
    urls: list[str] = list(instance.patroni)
    for node in instance.nodes:
        yield from _declared(instance, node)
        if node.patroni:
            urls.append(node.patroni)
    # A declared node says itself how it is reached, unless it says no more than what is on this machine.
    reached = [node for node in instance.nodes if node.postgres is not None or node.patroni is not None]
    for member in members:
        if not any(_is(node, member, instance.postgres) for node in reached):
            yield from _discovered(instance, member)
            urls.append(member.api_url)
    if urls:
        known = tuple(dict.fromkeys(urls))
        target = Target(instance.name, "", "patroni", known[0], kind="patroni_cluster")
        yield Reach(target, urls=known)
    for url in instance.etcd:
        yield Reach(Target(instance.name, "", "etcd", url, kind="etcd", member=url), urls=(url,))
    if instance.haproxy is not None and (instance.haproxy.stats or instance.haproxy.frontends):
        yield _haproxy(instance.name, instance.haproxy)
    for frontend in instance.haproxy.frontends if instance.haproxy else ():
        host, port = settings.split_address(frontend)
        login = replace(login_of(instance.postgres, "", 0), host=host, port=port)
        target = Target(instance.name, "", "haproxy", frontend, kind="frontend", member=frontend)
        yield Reach(target, login)
    for name, component in instance.components.items():
        yield _component(instance.name, name, component)


def _component(instance: str, name: str, given: settings.Component) -> Reach:
    product = given.type_as(name)
    kind = "kong" if product in settings.GATEWAYS else product if product in settings.SERVICES else "component"
    # A query may hold a secret.
    target = Target(instance, "", name, given.url.partition("?")[0], kind=kind)
    basic = given.basic_auth
    return Reach(
        target,
        urls=(given.url, given.admin_url) if given.admin_url else (given.url,),
        expect=Expect(product, tuple(given.expect_status or ()), given.expect_json or {}, given.expect_body or ""),
        access=Access(
            given.url, given.ca_file, given.cert_file, given.key_file, given.bearer_token_file,
            basic.username if basic else None, basic.password_file if basic else None,
        ),
    )  # fmt: skip


def _haproxy(instance: str, declared: settings.HAProxy) -> Reach:
    """HAProxy itself: by its statistics where they are declared, and by the ports that it must hold open."""
    address = declared.stats or ", ".join(declared.frontends)
    target = Target(instance, "", "haproxy", address.partition("?")[0], kind="haproxy")
    doors = tuple(settings.split_address(frontend) for frontend in declared.frontends)
    if address.startswith("unix:"):
        return Reach(target, path=Path(address[5:]), doors=doors)
    return Reach(target, urls=(declared.stats,) if declared.stats else (), doors=doors)


def _is(node: settings.Node, member: Member, inherited: settings.Postgres | None) -> bool:
    """Whether a declared node is this member, perhaps under a name of its own."""
    if node.name == member.name or (node.patroni is not None and node.patroni == member.api_url):
        return True
    login = login_of(node.postgres.over(inherited), "127.0.0.1", 5432) if node.postgres else None
    return login is not None and (login.host, login.port) == (member.host, member.port)


def _declared(instance: settings.Instance, node: settings.Node) -> Iterable[Reach]:
    if node.postgres is not None:
        login = login_of(node.postgres.over(instance.postgres), "127.0.0.1", 5432)
        yield Reach(Target(instance.name, node.name, "postgres", login.address, kind="postgres"), login)
    if node.patroni is not None:
        target = Target(instance.name, node.name, "patroni", node.patroni, kind="patroni")
        yield Reach(target, urls=(node.patroni,))
    if node.disk is not None and node.local:
        target = Target(instance.name, node.name, "host", str(node.disk.path), kind="disk")
        yield Reach(target, path=node.disk.path, paths=node.disk.more)
    if node.oom is not None and node.local:
        places = node.oom.places
        address = ", ".join(str(path) for paths in places.values() for path in paths)
        yield Reach(Target(instance.name, node.name, "host", address, kind="oom"), paths=places)


def _discovered(instance: settings.Instance, member: Member) -> Iterable[Reach]:
    login = replace(login_of(instance.postgres, "", 0), host=member.host, port=member.port)
    yield Reach(Target(instance.name, member.name, "postgres", login.address, kind="postgres"), login)
    target = Target(instance.name, member.name, "patroni", member.api_url, kind="patroni")
    yield Reach(target, urls=(member.api_url,))


def login_of(given: settings.Postgres | None, host: str, port: int) -> Login:
    """Settings as a login; ``host`` and ``port`` where the settings leave them open."""
    given = given or settings.Postgres()
    return Login(
        host=given.host or host,
        port=given.port or port,
        user=given.user or "",
        database=given.database or "postgres",
        password_file=given.password_file,
        sslmode=given.sslmode or "prefer",
        sslrootcert=given.sslrootcert,
    )


class _Pace:
    """How often each probe runs: the shortest interval of the policies that need it wins."""

    def __init__(
        self, policies: Mapping[str, Policy], catalogue: Mapping[str, AnyProbe], defaults: settings.Defaults
    ) -> None:
        self._catalogue, self._defaults = catalogue, defaults
        self._direct: dict[str, list[Policy]] = {}
        # A probe whose policies are all off still feeds metrics, at their pace.
        for policy in sorted(policies.values(), key=lambda policy: not policy.enabled):
            bound = self._direct.setdefault(policy.probe, [])
            if policy.enabled or not any(other.enabled for other in bound):
                bound.append(policy)

    def _needing(self, name: str) -> list[Policy]:
        """Policies on a probe, and on the combined probes that it feeds."""
        needing = list(self._direct.get(name, ()))
        for other in self._catalogue.values():
            if isinstance(other, Combined) and name in other.inputs:
                needing += self._direct.get(other.name, ())
        return [policy for policy in needing if policy.enabled] or needing

    def judged(self, probe: AnyProbe) -> bool:
        """Whether a policy that is on needs it."""
        return any(policy.enabled for policy in self._needing(probe.name))

    def interval(self, probe: AnyProbe) -> float:
        return min((policy.interval for policy in self._needing(probe.name)), default=self._defaults.interval)

    def timeout(self, probe: Probe) -> float:
        longest = max((policy.timeout for policy in self._needing(probe.name)), default=self._defaults.timeout)
        return min(longest, self.interval(probe) * TIMEOUT_SHARE)


def _combined(
    instance: str,
    nodes: Sequence[str],
    cycles: Sequence[Cycle],
    catalogue: Mapping[str, AnyProbe],
    pace: _Pace,
) -> Iterable[CombinedCycle]:
    for probe in catalogue.values():
        if not isinstance(probe, Combined):
            continue
        inputs = [cycle for cycle in cycles if cycle.probe.name in probe.inputs]
        if probe.scope == "instance":
            if inputs:
                target = Target(instance, "", probe.component)
                yield _combined_cycle(probe, target, inputs, pace)
            continue
        for node in nodes:
            # A node is combined when its first input is sampled on it; the others may belong to the instance.
            own = [cycle for cycle in inputs if cycle.reach.target.node == node]
            if any(cycle.probe.name == probe.inputs[0] for cycle in own):
                address = next(cycle.reach.target.address for cycle in own if cycle.probe.name == probe.inputs[0])
                target = Target(instance, node, probe.component, address)
                yield _combined_cycle(probe, target, inputs, pace)


def _combined_cycle(probe: Combined, target: Target, inputs: Sequence[Cycle], pace: _Pace) -> CombinedCycle:
    home = max(cycle.interval for cycle in inputs)
    return CombinedCycle(probe, target, max(home, pace.interval(probe)), home)


def _judged(policy: Policy, target: Target) -> bool:
    """Whether a policy judges this target of its probe: a write port has an availability, but no ping to compare."""
    return target.kind != "frontend" or policy.id == topology.DATABASE
