from typing import cast

from probed.errors import NotApplicable
from probed.evidence import Data, Recall, collector
from probed.model import Sample
from probed.probes import Context
from probed.probes._haproxy import FRONTEND, Row
from probed.probes.haproxy_stats import haproxy_stats

INFO = ("Version", "Uptime_sec", "CurrConns", "Maxconn", "Stopping", "Process_num", "Pid")


def _told(facts: Data) -> Data | None:
    rows = cast(tuple[Row, ...], facts.get("rows") or ())
    if not rows:
        return None
    info = cast(Data, facts.get("info") or {})
    shown = [
        {
            "proxy": row.proxy, "name": row.name, "status": row.status, "check": row.check, "sessions": row.sessions,
            "limit": row.limit, "queued": row.queued, "connection_errors": row.connection_errors,
            "seconds_since_change": row.seconds_since_change, "said": row.said,
        }
        for row in sorted(rows, key=lambda row: row.type == FRONTEND)
    ]  # fmt: skip
    return {
        "write_backend": facts.get("write_backend") or "unknown",
        "rows": shown,
        **({"info": {key: info[key] for key in INFO if key in info}} if info else {}),
    }


def told(sample: Sample) -> Data | None:
    return _told(sample.facts)


def essence(data: Data) -> object:
    return [(row["proxy"], row["name"], row["status"]) for row in cast(list[Data], data["rows"])]


@collector(kinds=("haproxy",), scope="instance", recall=Recall("haproxy_stats", told, essence), recovery=True)
async def haproxy_rows(context: Context) -> Data:
    """HAProxy's view: each backend, server and frontend with its status, last check, sessions, queue and errors.

    In the write backend one server is UP by design, the others DOWN. Before: every different set of statuses.
    """
    measured = await haproxy_stats(context)
    data = _told(measured.facts)
    if data is None:
        raise NotApplicable("no statistics of HAProxy can be read (haproxy.stats)")
    return data
