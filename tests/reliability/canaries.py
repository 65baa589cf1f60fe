"""Secrets that are known by sight in whatever form, and peers that say aloud whatever they were told.

``Canaries`` makes and finds the secrets; ``echoing`` and ``echoing_postgres`` are the worst that a target or a receiver
can do with one: to put it into every part of an answer.
"""

from __future__ import annotations

import base64
import contextlib
import html
import itertools
import json
import urllib.parse
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field

from tests.hostile import Behaviour, Line, Peer, error, listening, message, startup

WORD = "cAnArY"


@dataclass
class Canaries:
    """``known[name]`` is a secret; no two are alike, and each form of each is as good as the secret itself."""

    known: dict[str, str] = field(default_factory=dict)

    def hatch(self, name: str, *, plain: bool = False) -> str:
        """A new one. ``plain``: letters and digits alone, for where nothing else can stand."""
        core = f"{WORD}{name.title().replace(' ', '')}7d1f"
        self.known[name] = core if plain else f'{core}/+ö"%41\\'
        return self.known[name]

    def core(self, name: str) -> str:
        """What of it nothing changes: letters and digits."""
        secret = self.known[name]
        return secret[: secret.index("7d1f") + 4]

    def forms(self, name: str) -> Sequence[bytes]:
        """Raw, quoted as in an address, in JSON and in HTML; and base64 at each of its three alignments."""
        secret = self.known[name]
        core = self.core(name)
        texts = {
            urllib.parse.quote(secret), urllib.parse.quote_plus(secret, safe=""),
            json.dumps(secret)[1:-1], html.escape(secret),
        }  # fmt: skip
        raw = {text.encode() for text in texts} | {core.encode().hex().encode()}
        return sorted(raw | {form for text in (core, secret) for form in _base64(text.encode())})

    def found(self, said: bytes) -> list[str]:
        """Which of them are in it, in any form."""
        low = said.lower()
        return [
            name
            for name in self.known
            if self.core(name).lower().encode() in low or any(form in said for form in self.forms(name))
        ]


def _base64(secret: bytes) -> Iterator[bytes]:
    """What of it is the same whatever stands before and behind it."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + secret)
        core = encoded[(0, 2, 3)[before] : (before + len(secret)) * 8 // 6]
        yield core
        yield core.translate(bytes.maketrans(b"+/", b"-_"))


def _told(head: str, body: bytes) -> tuple[str, str]:
    """(all that a request said, the part of it that is a secret)"""
    lines = head.split("\r\n")
    word = next((line.split(" ", 2)[2] for line in lines if line.lower().startswith("authorization:")), "")
    with contextlib.suppress(ValueError):
        word += " " + base64.b64decode(word, validate=True).decode()
    word = word or lines[0].split(" ")[1]
    return f"{head}\n{body.decode(errors='replace')}", word.replace("\r", "").replace("\n", "")


def _answer(status: str, body: str, *headers: str) -> bytes:
    raw = body.encode()
    head = "\r\n".join([f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(raw)}", "", ""])
    return head.encode("utf-8") + raw


def _ways(said: str, word: str) -> Sequence[bytes]:
    last = word.rpartition(":")[2]
    fields = dict.fromkeys(
        ("status", "state", "role", "message", "msg", "error", "reason", "health", "version", "name", "hint"), last
    )
    as_json = json.dumps({**fields, "headers": said.split("\r\n"), "errors": [{"message": word}], word: word})
    kind = "Content-Type: application/json"
    return (
        _answer("200 OK", as_json, kind),
        _answer("401 Unauthorized", as_json, kind, f"WWW-Authenticate: Bearer error={last}"),
        _answer(f"500 {last}", said, f"Server: {last}", f"X-Error: {word}"),
        _answer("403 Forbidden", f"{word} may not"),
        f"HTTP/1.1 {word}\r\n\r\n".encode(),
        _answer("302 Found", "", f"Location: http://127.0.0.1:1/{last}?x={word}"),
        f"{word}\r\n\r\n".encode(),
        _answer("503 Service Unavailable", json.dumps({"message": f"no upstream for {last}"}), kind),
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{word}\r\n".encode(),
        _answer("200 OK", said),
        _answer("200 OK", f"# pxname,svname,{last}\n{word},{last},1\n"),
        f"HTTP/1.1 200 OK\r\n{word}\r\n\r\n".encode(),
        _answer("400 Bad Request", as_json, kind),
    )


def echoing(heard: list[str]) -> Behaviour:
    """HTTP: each request is answered in another way; ``heard`` is all that they said."""
    turn = itertools.count()

    async def behave(line: Line) -> None:
        while True:
            head = (await line.request()).decode("latin-1").strip()
            lengths = [row.split(":")[1] for row in head.split("\r\n") if row.lower().startswith("content-length:")]
            body = await line.reader.readexactly(int(lengths[0])) if lengths else b""
            said, word = _told(head, body)
            heard.append(f"{said}\n{word}")
            ways = _ways(said, word)
            await line.say(ways[next(turn) % len(ways)])
            if not line.peer.open:
                return

    return behave


_CODES = ("28000", "28P01", "57P03", "XX000", "3D000", "42501", "53300", "08P01", "08006", "55P03", "57014")


def echoing_postgres(heard: list[str]) -> Behaviour:
    """PostgreSQL's protocol: asks for the password as it is, and says it in an error, each time in another one."""
    turn = itertools.count()

    async def behave(line: Line) -> None:
        await startup(line)
        await line.say(message(b"R", (3).to_bytes(4)))
        await line.reader.readexactly(1)
        size = int.from_bytes(await line.reader.readexactly(4))
        password = (await line.reader.readexactly(size - 4)).rstrip(b"\0").decode()
        heard.append(password)
        code = _CODES[next(turn) % len(_CODES)]
        await line.say(error("FATAL", code, f'role "{password}" with {password} is none, says password {password}'))

    return behave


@contextlib.asynccontextmanager
async def peer(behaviour: Behaviour) -> AsyncIterator[Peer]:
    async with listening(behaviour) as found:
        yield found
