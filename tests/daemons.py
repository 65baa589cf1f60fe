"""A whole daemon as a process of its own, seen from outside: its log, its commands, its pages."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from probed.demo.ports import free_port


@dataclass
class DaemonProcess:
    """``probed run`` on ``probed.yml`` of a directory, its store in ``store``; it logs at debug level."""

    directory: Path
    web: int = field(default_factory=free_port)
    """The port that its file has it listen at."""
    process: asyncio.subprocess.Process | None = None

    @property
    def config(self) -> Path:
        return self.directory / "probed.yml"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    async def start(self) -> None:
        before = self.log.count("daemon.started") if (self.directory / "log").exists() else 0
        with (self.directory / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "probed", "run", "--config.file", str(self.config), "--log.level", "debug",
                stdout=log, stderr=log,
            )  # fmt: skip
        await self.until(lambda: self.log.count("daemon.started") > before or self.process_ended, "the start")
        await self.until(lambda: self._listens() or self.process_ended, "somebody at its port")

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.web), timeout=1):
            return True
        return False

    @property
    def process_ended(self) -> bool:
        return self.process is not None and self.process.returncode is not None

    async def kill(self) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 15)

    async def until(self, condition: Callable[[], Any], what: str, seconds: float = 30) -> None:
        for _ in range(int(seconds / 0.05)):
            if condition():
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"never: {what}\n{self.log[-4000:]}")

    async def command(self, *arguments: str, code: int = 0) -> str:
        """Output of a command of ours, on the daemon's socket."""
        command = [sys.executable, "-m", "probed", *arguments]
        environ = {**os.environ, "PROBED_SOCKET": str(self.directory / "store" / "probed.sock")}
        done = await asyncio.to_thread(subprocess.run, command, env=environ, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    async def get(self, path: str) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.web)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.web}\r\nConnection: close\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
        return answer
