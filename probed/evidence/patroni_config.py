from probed.evidence import Data, collector
from probed.evidence._http import first_answer
from probed.probes import Context

KEYS = (
    "ttl", "loop_wait", "retry_timeout", "maximum_lag_on_failover", "maximum_lag_on_syncnode", "synchronous_mode",
    "synchronous_mode_strict", "synchronous_node_count", "failsafe_mode", "pause", "check_timeline",
    "primary_start_timeout", "master_start_timeout", "primary_stop_timeout", "standby_cluster",
)  # fmt: skip


@collector(kinds=("patroni_cluster",), scope="instance")
async def patroni_config(context: Context) -> Data:
    """What decides how Patroni fails over: ttl, loop_wait, retry_timeout, synchronous mode, failsafe (``/config``)."""
    body = (await first_answer(context, "/config")).object()
    return {key: body[key] for key in KEYS if key in body}
