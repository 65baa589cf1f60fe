"""What can be reached, and how to get at it: settings + known members + policies' own questions -> reaches. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import astuple, replace

from probed.config import components, settings
from probed.config.access import TlsFiles
from probed.config.values import split_address
from probed.model import HOST, OBSERVER, Expect, HttpQuestion, Keys, Policy, Question, SqlQuestion, Target
from probed.probes import Context
from probed.probes._access import Access
from probed.probes._http import HttpClient
from probed.probes._sql import Login, Session
from probed.store import Member
from probed.vitals import Vitals

TENANT = "realtime-dev"
"""Realtime's tenant in Supabase's own compose file."""


class Reach(Struct, frozen=True):
    """A target and how to get at it."""

    target: Target
    login: Login | None = None
    urls: tuple[str, ...] = ()
    path: Path | None = None
    expect: Expect = field(default_factory=Expect)
    access: Access | None = None
    doors: tuple[tuple[str, int], ...] = ()
    paths: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    deep: str = ""
    """Who is asked about the database, once a minute; empty: nobody."""
    question: Question | None = None
    session: str = ""
    """Key of the database session that it shares with others; empty: one of its own."""

    @property
    def session_key(self) -> str:
        return self.session or self.target.key


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
        deep=reach.deep,
        question=reach.question,
        _vitals=vitals,
        paths=reach.paths,
    )


def own_machine(observer: str) -> Reach:
    """The machine that this daemon runs on, as a target beside the observer itself."""
    return Reach(Target(OBSERVER, observer, HOST, kind="host"))


def machines(instance: settings.Instance) -> tuple[Reach, ...]:
    """The nodes that this daemon runs on, as targets; their path is that of the data directory, where it is told."""
    return tuple(
        Reach(Target(instance.name, node.name, HOST, kind="host"), path=node.disk.path if node.disk else None)
        for node in instance.nodes
        if node.local
    )


def reaches(instance: settings.Instance, members: Sequence[Member]) -> Iterable[Reach]:
    """Every target of an instance. ``members`` are the nodes found through Patroni, beside the declared ones."""
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
        yield Reach(target, urls=known, access=patroni_access(instance, known))
    for url in instance.etcd:
        target = Target(instance.name, "", "etcd", url, kind="etcd", member=url)
        yield Reach(target, urls=(url,), access=_access(url, instance.etcd_access))
    if instance.haproxy is not None and (instance.haproxy.stats or instance.haproxy.frontends):
        yield _haproxy(instance.name, instance.haproxy)
    for frontend in instance.haproxy.frontends if instance.haproxy else ():
        host, port = split_address(frontend)
        login = replace(login_of(instance.postgres, "", 0), host=host, port=port)
        target = Target(instance.name, "", "haproxy", frontend, kind="frontend", member=frontend)
        yield Reach(target, login)
    for name, component in instance.components.items():
        yield _component(instance.name, name, component)


def _component(instance: str, name: str, given: components.Component) -> Reach:
    product = given.type_as(name)
    kind = "kong" if product in components.GATEWAYS else product if product in components.SERVICES else "component"
    # A query may hold a secret.
    target = Target(instance, "", name, given.url.partition("?")[0], kind=kind)
    return Reach(
        target,
        urls=(given.url, given.admin_url) if given.admin_url else (given.url,),
        expect=given.expect(product),
        access=_held(given.url, given.keys()),
        deep=(given.tenant or TENANT) if given.deep else "",
    )


def _access(url: str, given: TlsFiles | None, *also: str) -> Access | None:
    """Whom ``given`` is for: this address, and nobody else."""
    return replace(_held(url, given.keys()), also=also) if given is not None and given.given else None


def _held(url: str, keys: Keys) -> Access:
    return Access(url, *astuple(keys))


def patroni_access(instance: settings.Instance, urls: Sequence[str]) -> Access | None:
    """How Patroni's REST API is reached at these addresses, which are the members'."""
    return _access(urls[0], instance.patroni_access, *urls[1:]) if urls else None


def _haproxy(instance: str, declared: settings.HAProxy) -> Reach:
    """HAProxy itself: by its statistics where they are declared, and by the ports that it must hold open."""
    address = declared.stats or ", ".join(declared.frontends)
    target = Target(instance, "", "haproxy", address.partition("?")[0], kind="haproxy")
    doors = tuple(split_address(frontend) for frontend in declared.frontends)
    if address.startswith("unix:"):
        return Reach(target, path=Path(address[5:]), doors=doors)
    urls = (declared.stats,) if declared.stats else ()
    return Reach(target, urls=urls, doors=doors, access=_access(address, declared))


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
        yield Reach(target, urls=(node.patroni,), access=_access(node.patroni, instance.patroni_access))
    if node.disk is not None and node.local:
        target = Target(instance.name, node.name, HOST, str(node.disk.path), kind="disk")
        yield Reach(target, path=node.disk.path, paths=node.disk.more)
    if node.oom is not None and node.local:
        places = node.oom.places
        address = ", ".join(str(path) for paths in places.values() for path in paths)
        yield Reach(Target(instance.name, node.name, HOST, address, kind="oom"), paths=places)


def _discovered(instance: settings.Instance, member: Member) -> Iterable[Reach]:
    login = replace(login_of(instance.postgres, "", 0), host=member.host, port=member.port)
    yield Reach(Target(instance.name, member.name, "postgres", login.address, kind="postgres"), login)
    target = Target(instance.name, member.name, "patroni", member.api_url, kind="patroni")
    yield Reach(target, urls=(member.api_url,), access=_access(member.api_url, instance.patroni_access))


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


def asked(instance: str, known: Sequence[Reach], policies: Mapping[str, Policy]) -> Iterable[Reach]:
    """The targets of policies that bring their own question: the policy's id is their component."""
    databases = [reach for reach in known if reach.target.kind == "postgres"]
    for policy in policies.values():
        question = policy.question
        if question is None or not policy.enabled or not policy.applies_to(instance):
            continue
        if isinstance(question, HttpQuestion):
            target = Target(instance, "", policy.id, question.url.partition("?")[0], kind="http")
            access = _held(question.url, question.keys)
            yield Reach(target, urls=(question.url,), expect=question.expect, access=access, question=question)
        elif isinstance(question, SqlQuestion):
            for database in databases:
                if question.on in ("primary", "replicas", "every", database.target.node):
                    yield _statement(policy.id, question, database)
        else:
            shown = f"[{question.host}]" if ":" in question.host else question.host
            target = Target(instance, "", policy.id, f"{shown}:{question.port}", kind="tcp")
            yield Reach(target, doors=((question.host, question.port),), question=question)


def _statement(policy: str, question: SqlQuestion, database: Reach) -> Reach:
    """A statement on a node: on the node's own connection, or, elsewhere or for longer, on one of such statements."""
    assert database.login is not None
    target = replace(database.target, component=policy, kind="sql")
    if question.database in ("", database.login.database) and not question.alone:
        return Reach(target, database.login, question=question, session=database.session_key)
    login = replace(database.login, database=question.database or database.login.database)
    session = f"{database.target.key}/sql/{login.database}"
    return Reach(target, login, question=replace(question, alone=True), session=session)
