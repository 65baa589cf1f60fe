from time import perf_counter

from probed.probes import Context, Readings, probe
from probed.probes._tcp import accept


@probe(kinds=("tcp",), readings={"connect_seconds": "until the connection was accepted, seconds"})
async def tcp(context: Context) -> Readings:
    """A port of your own: a policy with ``probe: tcp`` says it as ``tcp: {address: "10.0.0.5:25"}``.

    Connects and hangs up; nothing is sent. Failed: refused, no answer. Blind: DNS, no permission to connect.
    """
    started = perf_counter()
    for host, port in context.doors:
        await accept(context, host, port)
    return {"connect_seconds": perf_counter() - started}
