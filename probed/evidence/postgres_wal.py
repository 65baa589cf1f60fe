from probed.evidence import Data, collector
from probed.evidence._sql import answer, only, rows
from probed.probes import Context

ARCHIVER = (
    "archived_count", "last_archived_wal", "last_archived_time", "failed_count", "last_failed_wal", "last_failed_time",
)  # fmt: skip

WAL = """
SELECT json_build_object(
    'files', (SELECT count(*) FROM pg_ls_waldir()),
    'bytes', (SELECT sum(size) FROM pg_ls_waldir()),
    'max_wal_size', current_setting('max_wal_size'),
    'archive_mode', current_setting('archive_mode'),
    'archiver', (SELECT json_agg(to_jsonb(a)) FROM pg_catalog.pg_stat_archiver a)
)::text
"""


@collector(kinds=("postgres",))
async def postgres_wal(context: Context) -> Data:
    """Size of the WAL directory, and what the archiver did last: a failing one lets WAL pile up. Needs pg_monitor."""
    found = await answer(context, WAL)
    archiver = rows(found.pop("archiver", None))
    return {**found, "archiver": only(archiver[0], ARCHIVER) if archiver else None}
