from probed.errors import Blind
from probed.probes import Context, Readings, probe
from probed.probes._sql import TooManyConnections

SIZES = """
SELECT ARRAY[
    (SELECT sum(pg_database_size(oid)) FROM pg_catalog.pg_database),
    (SELECT sum(size) FROM pg_catalog.pg_ls_waldir())
]::float8[]
"""
# By oid, a database that is dropped meanwhile is no row; by name it would be an error.


@probe(
    kinds=("postgres",),
    readings={
        "database_size_bytes": "all databases together, bytes, as the server counts its files",
        "wal_size_bytes": "files in the server's WAL directory, bytes",
    },
    costly=True,
)
async def database_size(context: Context) -> Readings:
    """How large are the databases, asked of the server by SQL? For servers whose disk is out of sight.

    Not to be mixed with ``disk_usage``: logs, temporary files and whatever else shares the disk are not in it, and how
    much is left is not known. The server stats every file of every table, which takes seconds when there are many: the
    statement runs only while a policy is bound to this probe, on a connection of its own that is closed again. Give
    that policy a long interval and deadline: ``{interval: 5m, timeout: 10s}``.

    Needs a role with pg_monitor; blind without, with the GRANT that mends it.
    """
    try:
        _, sizes = await context.sql.fresh_login(SIZES)
    except TooManyConnections as error:
        raise Blind("too_many_connections", str(error)) from None
    finally:
        context.sql.forget()
    databases, wal = sizes
    return {"database_size_bytes": databases or 0.0, "wal_size_bytes": wal or 0.0}
