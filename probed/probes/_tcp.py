"""Whether a TCP port accepts. Sends nothing."""

from __future__ import annotations

import asyncio
import socket

from probed import steps
from probed.errors import TargetFailed
from probed.probes import Context
from probed.probes._dns import Resolver
from probed.probes._sql_errors import translate_os_error


async def accept(context: Context, host: str, port: int) -> None:
    """Connect and hang up. TargetFailed or Blind when that cannot be done; the caller's deadline is the only one."""
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    resolver = context.memory.setdefault("resolver", Resolver())
    assert isinstance(resolver, Resolver)
    error: OSError | None = None
    for address in await resolver.addresses(host):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as door:
                door.setblocking(False)
                with steps.step(steps.CONNECT, shown):
                    await asyncio.get_running_loop().sock_connect(door, (address, port))
                return
        except OSError as raised:
            error = raised.with_traceback(None)  # which holds this frame, as the frame holds the error
    if error is None:
        raise TargetFailed("no_answer", f"{shown}: the name has no address")
    raise translate_os_error(error, shown)
