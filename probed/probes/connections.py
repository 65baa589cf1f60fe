from probed.errors import Blind
from probed.model import Outcome
from probed.probes import Measured, Readings, View, combined


@combined(
    scope="node",
    component="postgres",
    inputs=("postgres_stats",),
    readings={
        "connections_used": "client sessions",
        "connections_usable": "sessions that ordinary roles can have: max_connections without the reserved ones",
        "connections_used_pct": "used of usable, per cent",
    },
)
def connections(view: View) -> Readings | Measured:
    """How full a server is, as an ordinary role meets it.

    Used are client backends; usable is max_connections - superuser_reserved_connections - reserved_connections
    (PostgreSQL 16 and newer). A login refused because no slot is free (SQLSTATE 53300) is 100 per cent.

    Blind: without pg_monitor other sessions' kind cannot be seen.
    """
    stats = view.of("postgres_stats")
    if stats is None:
        return {}
    if stats.kind == "too_many_connections":
        if 'for role "' in stats.reason or 'for database "' in stats.reason:
            # Our own role's or database's limit says nothing of the server's.
            raise Blind("too_many_connections", stats.reason)
        return Measured({"connections_used_pct": 100.0}, reason=stats.reason)
    if stats.outcome is not Outcome.OBSERVED:
        raise Blind("no_input", f"postgres_stats: {stats.reason}")
    facts = stats.facts
    if not facts["may_read"]:
        raise Blind("privilege", str(facts["remedy"]))
    exact = facts["client_backends"]
    used, usable = exact if isinstance(exact, int) else facts["backends"], facts["usable"]
    assert isinstance(used, int) and isinstance(usable, int)
    return {
        "connections_used": float(used),
        "connections_usable": float(usable),
        "connections_used_pct": 100.0 * used / usable if usable > 0 else 100.0,
    }
