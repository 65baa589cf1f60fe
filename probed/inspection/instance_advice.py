"""What the configuration of an instance, its Patroni and its etcd should be. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from probed.inspection import Item, Verdict
from probed.inspection.configured import Configured
from probed.inspection.remedies import advised, edit, patroni_also
from probed.model import Reading
from probed.quantity import human_bytes

LAG_LIMIT_BYTES = 1 << 30
"""Of maximum_lag_on_failover: more would be lost for certain."""
AT_LEAST_ON_STANDBY = (
    "max_connections", "max_locks_per_transaction", "max_prepared_transactions", "max_wal_senders",
    "max_worker_processes",
)  # fmt: skip
"""A standby with less of it than its primary does not start, or stops replaying."""


def _versions(found: Configured) -> Iterator[Item]:
    versions = {server.node: server.version for server in found.known if server.version}
    if len(versions) < 2:
        return
    title = "One version on all nodes"
    if len(set(versions.values())) > 1:
        why = ", ".join(f"{node} runs {version}" for node, version in sorted(versions.items()))
        advice = "bring the older nodes up to the newest minor release, the standbys first"
        yield advised("versions", title, found.instance, Verdict.WARN, why, advice)
    else:
        yield advised("versions", title, found.instance, Verdict.PASS, f"all run {next(iter(versions.values()))}")


def _standby_limits(found: Configured) -> Iterator[Item]:
    leader = found.leader
    if leader is None or len(found.known) < 2:
        return
    less = [
        f"{name} is {there:g} on {server.node} and {here:g} on {leader.node}"
        for server in found.known
        if server is not leader
        for name in AT_LEAST_ON_STANDBY
        if (here := leader.number(name)) is not None and (there := server.number(name)) is not None and there < here
    ]
    title = "Limits of standbys"
    if less:
        why = f"{'; '.join(less[:5])}: a standby with less than its primary pauses replay or does not start"
        advice = "give every node the same values" + patroni_also(found, "")
        yield advised("standby_limits", title, found.instance, Verdict.WARN, why, advice)
    else:
        yield advised("standby_limits", title, found.instance, Verdict.PASS, "no standby has less than the primary")


def _failsafe(found: Configured) -> Iterator[Item]:
    if found.patroni is None:
        return
    title = "Failsafe mode"
    if found.patroni.get("failsafe_mode") is True:
        told = "without its DCS the primary goes on while it can reach all members"
        yield advised("failsafe_mode", title, found.patroni_target, Verdict.PASS, told)
    else:
        why = "failsafe_mode is off: when etcd is away the primary demotes itself, although nothing is wrong with it"
        remedy = edit("failsafe_mode=true") + " (Patroni 3.0 or newer, on every member)"
        yield advised("failsafe_mode", title, found.patroni_target, Verdict.WARN, why, remedy)


def _synchronous(found: Configured) -> Iterator[Item]:
    if found.patroni is None or len(found.servers) < 2:
        return
    title, config = "Synchronous replication", found.patroni
    mode = config.get("synchronous_mode")
    leader = found.leader
    if mode in (None, False, "off"):
        limit = config.get("maximum_lag_on_failover", 1 << 20)
        told = "replication is asynchronous: a failover may lose the newest commits"
        if isinstance(limit, float | int):
            told += f", {human_bytes(limit)} of WAL at the most (maximum_lag_on_failover)"
            if limit > LAG_LIMIT_BYTES:
                remedy = edit("maximum_lag_on_failover=1048576")
                yield advised("synchronous_mode", title, found.patroni_target, Verdict.WARN, told, remedy)
                return
        choice = f"where no commit may be lost: {edit('synchronous_mode=true')}; each then waits for a standby"
        yield advised("synchronous_mode", title, found.patroni_target, Verdict.PASS, told, choice)
        return
    problems = []
    if config.get("synchronous_mode_strict") and len(found.servers) < 3:
        problems.append(
            ("synchronous_mode_strict with one standby: writes stop when it does", "synchronous_mode_strict=false")
        )
    if leader is not None and leader.settings.get("synchronous_commit") in ("off", "local"):
        value = leader.settings["synchronous_commit"]
        problems.append(
            (
                f"synchronous_mode is on, but synchronous_commit is {value}: no commit waits for a standby",
                "postgresql.parameters.synchronous_commit=on",
            )
        )
    if leader is not None and not any(row.get("sync_state") in ("sync", "quorum") for row in leader.senders):
        problems.append(("synchronous_mode is on, and no standby is synchronous at present", ""))
    if problems:
        why, key = problems[0]
        remedy = edit(key) if key else "see why no standby streams; until then a failover may lose commits"
        yield advised("synchronous_mode", title, found.patroni_target, Verdict.WARN, why, remedy)
    else:
        yield advised("synchronous_mode", title, found.patroni_target, Verdict.PASS, "every commit waits for a standby")


def _paused(found: Configured) -> Iterator[Item]:
    if found.patroni is not None and found.patroni.get("pause"):
        why = "Patroni is paused: nobody is promoted when the primary fails"
        remedy = "when the maintenance is over: patronictl resume"
        yield advised("paused", "Maintenance mode", found.patroni_target, Verdict.WARN, why, remedy)


def _timing(found: Configured) -> Iterator[Item]:
    config = found.patroni or {}
    ttl, wait, retry = (config.get(name) for name in ("ttl", "loop_wait", "retry_timeout"))
    if not all(isinstance(value, float | int) for value in (ttl, wait, retry)):
        return
    assert isinstance(ttl, float | int)
    assert isinstance(wait, float | int)
    assert isinstance(retry, float | int)
    needed = wait + 2 * retry
    title = "Patroni's timing"
    told = f"ttl is {ttl:g} s, loop_wait + 2 x retry_timeout is {needed:g} s"
    if ttl < needed:
        why = f"{told}: a slow answer of etcd costs the primary its lock"
        yield advised("timing", title, found.patroni_target, Verdict.WARN, why, edit(f"ttl={needed:g}"))
    else:
        yield advised("timing", title, found.patroni_target, Verdict.PASS, told)


def _quorum(found: Configured) -> Iterator[Item]:
    members = found.etcd_members
    if not members:
        return
    title, borne = "Members of etcd", (members - 1) // 2
    evidence: dict[str, Reading | None] = {"members": members}
    if borne < 1 or members % 2 == 0:
        why = f"{members} {'member bears' if members == 1 else 'members bear'} the loss of {borne or 'none'}"
        why += ": the cluster's memory is a single point of failure" if borne < 1 else ", no more than one less would"
        advice = "run three or five members, each on a machine of its own"
        yield advised("etcd_members", title, found.instance, Verdict.WARN, why, advice, evidence)
    else:
        told = f"{members} members bear the loss of {borne}"
        yield advised("etcd_members", title, found.instance, Verdict.PASS, told, evidence=evidence)


def _alone(found: Configured) -> Iterator[Item]:
    if found.patroni_target and len(found.servers) == 1:
        why = f"{found.servers[0].node} is the only node: there is nobody to fail over to"
        advice = "add a standby with Patroni on a machine of its own"
        yield advised("standby", "A standby", found.instance, Verdict.WARN, why, advice)


RULES: tuple[Callable[[Configured], Iterator[Item]], ...] = (
    _versions, _standby_limits, _failsafe, _synchronous, _paused, _timing, _quorum, _alone,
)  # fmt: skip
