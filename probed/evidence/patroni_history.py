from probed.errors import TargetFailed
from probed.evidence import Data, collector
from probed.evidence._http import first_answer
from probed.probes import Context

NEWEST = 10
COLUMNS = ("timeline", "lsn", "reason", "at", "leader")


@collector(kinds=("patroni_cluster",), scope="instance", recovery=True)
async def patroni_history(context: Context) -> Data:
    """The newest failovers and switchovers: timeline, WAL position, time and new leader (``GET /history``).

    Patroni writes the line of a promotion some seconds after it: at the trigger it may be missing still.
    """
    answer = await first_answer(context, "/history")
    lines = answer.json()
    if not isinstance(lines, list):
        raise TargetFailed("body", f"{answer.url}: expected a list")
    # The newest line has no leader yet until Patroni has enriched it.
    kept = [dict(zip(COLUMNS, line, strict=False)) for line in lines[-NEWEST:] if isinstance(line, list)]
    return {"switches": kept, "older": max(0, len(lines) - NEWEST)}
