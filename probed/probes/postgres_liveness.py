from probed.errors import TargetFailed
from probed.model import Reading
from probed.probes import Context, Measured, probe
from probed.probes._sql import TooManyConnections

WRITABLE = "SELECT pg_is_in_recovery()"


@probe(
    kinds=("postgres", "frontend"),
    readings={
        "ping_seconds": "round trip of one statement on the warm connection, seconds; never includes the login",
        "login_seconds": "fresh connection, authentication and one statement, seconds; only in cycles with a login",
    },
)
async def postgres_liveness(context: Context) -> Measured:
    """Can a client use this PostgreSQL? ``SELECT 1`` on the warm connection each cycle, and a fresh login beside it.

    The fresh login comes every 30 s, at once when the warm connection is lost, and on every cycle while failing: a
    server whose old sessions work but that lets nobody in is not available.

    Through a write port (``haproxy.frontends``) the statement asks whether the server is in recovery: a write port
    that leads to a standby, or to nothing, has failed.

    Failed: refused, reset, no answer in time, starting up or shutting down, not PostgreSQL's protocol.
    Blind, with the remedy: wrong password, no such role or database, pg_hba.conf, DNS, certificate.
    Observed without readings: the server is alive and has no free connection (SQLSTATE 53300); that is the business
    of ``connections_high``.
    """
    session = context.sql
    frontend = context.target.kind == "frontend"
    statement = WRITABLE if frontend else "SELECT 1"
    readings: dict[str, Reading] = {}
    try:
        async with session.turn():
            if session.warm:
                try:
                    if frontend:
                        _must_be_writable(await session.value(WRITABLE), context)
                    else:
                        readings["ping_seconds"] = await session.ping()
                except TargetFailed:
                    # Lost since the last cycle (a restart, a terminated backend): whether a client can get in decides.
                    if session.warm:
                        raise
        if session.login_due:
            took, answer = await session.fresh_login(statement)
            readings["login_seconds"] = took
            if frontend:
                _must_be_writable(answer, context)
    except TooManyConnections as error:
        return Measured(readings, reason=f"alive, but full: {error}")
    return Measured(readings)


def _must_be_writable(in_recovery: object, context: Context) -> None:
    if in_recovery is True:
        context.sql.forget()
        raise TargetFailed("read_only", f"{context.target.address} leads to a standby, not to the primary")
