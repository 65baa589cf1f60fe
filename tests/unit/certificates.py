"""A certificate authority for one test run, made by the openssl command, and a server with its certificates."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hostile import Behaviour, Line, Peer, answering

_CONFIG = """
[ca]
default_ca = authority
[authority]
database = index.txt
serial = serial
new_certs_dir = .
default_md = sha256
policy = names
copy_extensions = copy
unique_subject = no
[names]
commonName = supplied
"""
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Issued:
    cert: Path
    key: Path

    def server(self, *, clients_of: Path | None = None, maximum: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """A listening side with this certificate; with ``clients_of``, it wants one of that CA from its clients."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.cert, self.key)
        if clients_of is not None:
            context.load_verify_locations(clients_of)
            context.verify_mode = ssl.CERT_REQUIRED
        if maximum is not None:
            context.maximum_version = maximum
        return context


class Authority:
    """Files below ``directory``; ``file`` is the CA's own certificate."""

    def __init__(self, directory: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed")
        self._directory = directory
        self.file = directory / "ca.pem"
        (directory / "ca.cnf").write_text(_CONFIG)
        (directory / "index.txt").write_text("")
        (directory / "serial").write_text("01\n")
        self._run("req", "-x509", *_KEY, "-keyout", "ca.key", "-out", "ca.pem", "-days", "3650", "-subj", "/CN=Test CA")

    def issue(self, name: str, *, san: str = "IP:127.0.0.1", expired: bool = False) -> Issued:
        request = ("-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        self._run("req", *_KEY, *request, "-addext", f"subjectAltName={san}")
        dates = ("20200101000000Z", "20200102000000Z") if expired else ("20200101000000Z", "20991231000000Z")
        self._run(
            "ca", "-batch", "-notext", "-config", "ca.cnf", "-cert", "ca.pem", "-keyfile", "ca.key",
            "-in", f"{name}.csr", "-out", f"{name}.pem", "-startdate", dates[0], "-enddate", dates[1],
        )  # fmt: skip
        return Issued(self._directory / f"{name}.pem", self._directory / f"{name}.key")

    def _run(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self._directory, check=True, capture_output=True)


@contextlib.asynccontextmanager
async def over_tls(context: ssl.SSLContext, behaviour: Behaviour | bytes) -> AsyncIterator[str]:
    """An address that serves ``behaviour``, or this body, over TLS."""
    behave = answering(behaviour) if isinstance(behaviour, bytes) else behaviour
    tasks = set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await behave(Line(Peer(), reader, writer))
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    # What a client that breaks off in the handshake leaves behind is no error here.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
