"""The lab's stand-ins: one process that listens on a port for each component that cannot be run here.

Run as ``python -m probed.demo.standin DIRECTORY``. Which component is in which state stands in lab.json; SIGHUP has it
read anew. Every answer is the recorded one, byte for byte; a state that does not listen closes the port, as a process
that has ended does. Standard library only, and one process for all of them: they cost what one small one costs.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from pathlib import Path

from probed.demo.ledger import Ledger
from probed.demo.ports import HOST
from probed.demo.recordings import Recording, State, read

REQUEST_BYTES = 16 * 1024


class StandIn:
    """One component on its port."""

    def __init__(self, recording: Recording, port: int) -> None:
        self._recording = recording
        self._port = port
        self._name = ""
        self._server: asyncio.Server | None = None
        self._lines: set[asyncio.StreamWriter] = set()

    async def enter(self, name: str) -> None:
        """Be in the state of this name from now on; connections from before are dropped, like those of a restart."""
        if name == self._name:
            return
        self._name = name
        self._drop()
        listens = self._recording.states[name].listens
        if not listens:
            self._shut()
        elif self._server is None:
            self._server = await asyncio.start_server(self._serve, HOST, self._port, limit=REQUEST_BYTES)

    async def close(self) -> None:
        """Nobody is at the port any more, nor on a line."""
        self._shut()
        self._drop()

    def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _drop(self) -> None:
        for writer in self._lines:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._lines.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                await _converse(self._recording.states[self._name], reader, writer)
        finally:
            self._lines.discard(writer)
            writer.transport.abort()


async def _converse(state: State, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        answer = state.answer(await reader.readuntil(b"\r\n\r\n"))
        if answer is None:
            await reader.read()  # hangs until the other side goes away
            return
        writer.write(answer)
        await writer.drain()


async def stand_in(directory: Path) -> None:
    """Serve until killed."""
    ledger = Ledger(directory)
    changed = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, changed.set)
    stand_ins: dict[str, StandIn] = {}
    while True:
        changed.clear()
        for name, entry in ledger.read().components.items():
            if entry.state:
                stand_in = stand_ins.setdefault(name, StandIn(read(name), entry.port))
                await stand_in.enter(entry.state)
        await changed.wait()


if __name__ == "__main__":
    asyncio.run(stand_in(Path(sys.argv[1])))
