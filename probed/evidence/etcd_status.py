import asyncio
import re
from typing import cast

from probed.errors import ProbeError
from probed.evidence import Data, Recall, collector
from probed.evidence._http import part
from probed.model import Sample
from probed.probes import Context

METRICS = (
    "etcd_server_has_leader", "etcd_server_is_leader", "etcd_server_is_learner",
    "etcd_server_leader_changes_seen_total", "etcd_server_proposals_failed_total", "etcd_server_proposals_pending",
    "etcd_server_slow_apply_total", "etcd_server_slow_read_indexes_total", "etcd_server_quota_backend_bytes",
    "etcd_mvcc_db_total_size_in_bytes", "etcd_mvcc_db_total_size_in_use_in_bytes",
    "etcd_disk_wal_fsync_duration_seconds_sum", "etcd_disk_wal_fsync_duration_seconds_count",
    "etcd_disk_backend_commit_duration_seconds_sum", "etcd_disk_backend_commit_duration_seconds_count",
    "process_open_fds", "process_max_fds",
)  # fmt: skip
_LINE = re.compile(rf"^({'|'.join(METRICS)}) (\S+)$", re.MULTILINE)


def told(sample: Sample) -> Data | None:
    body = sample.facts.get("body")
    return {"health": body} if isinstance(body, dict) else None


def essence(data: Data) -> object:
    body = cast(Data, data["health"])
    return str(body.get("health")), str(body.get("reason"))


@collector(kinds=("etcd",), scope="instance", recall=Recall("etcd_member", told, essence), recovery=True)
async def etcd_status(context: Context) -> Data:
    """Each member: what its ``/health`` says, its version, and of its metrics those that tell why.

    Leader seen, changes of leader, database size against its quota, seconds and number of WAL fsyncs and commits (a
    slow disk is the usual cause), from the first 64 KiB of ``/metrics``. Before: every different answer to /health.
    """
    health, version, metrics = await asyncio.gather(_health(context), part(context, "/version"), _metrics(context))
    if isinstance(health, ProbeError):
        if not isinstance(version, dict):
            raise health
        return {"health": f"could not be had: {health}", "version": version, "metrics": metrics}
    return {**health, "version": version, "metrics": metrics}


async def _health(context: Context) -> Data | ProbeError:
    try:
        answer = await context.http.get(f"{context.urls[0]}/health", access=context.access)
        body: object = answer.object() if answer.status in (200, 503) else None
    except ProbeError as error:
        return error
    return {"health": body, "status": answer.status}


async def _metrics(context: Context) -> object:
    try:
        answer = await context.http.get(f"{context.urls[0]}/metrics", access=context.access)
    except ProbeError as error:
        return f"could not be had: {error}"
    return {name: _number(value) for name, value in _LINE.findall(answer.body.decode("utf-8", "replace"))}


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
