"""What components answered that cannot be run here, byte for byte and state by state: the files in ``recorded/``.

A file names its ``source``; each table after it is a state, in which a request line (without the version) has the
answer that was recorded, or ``hang``. ``listens = false``: nobody is at the port. Standard library only.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

FOLDER = Path(__file__).with_name("recorded")
HEALTHY = "healthy"
HANG = "hang"
NOT_RECORDED = b"HTTP/1.1 404 Not Found\r\nContent-Length: 12\r\n\r\nnot recorded"


class State(Struct, frozen=True):
    """What a component answers in one state: request line without the version -> the bytes, or ``None`` for a hang."""

    listens: bool
    answers: Mapping[str, bytes | None]

    def answer(self, head: bytes) -> bytes | None:
        """To the head of a request; ``None`` when the component hangs."""
        return self.answers.get(head.partition(b" HTTP/")[0].decode(errors="replace"), NOT_RECORDED)


class Recording(Struct, frozen=True):
    """One component: where its answers are from, and its states by name."""

    source: str
    states: Mapping[str, State]


def read(component: str, folder: Path = FOLDER) -> Recording:
    """The recording of a component. FileNotFoundError when there is none."""
    data = tomllib.loads((folder / f"{component}.toml").read_text(encoding="utf-8"))
    source = str(data.pop("source"))
    return Recording(source, {name: _state(dict(found)) for name, found in data.items()})


def _state(found: dict[str, str | bool]) -> State:
    listens = found.pop("listens", True)
    assert isinstance(listens, bool)
    return State(listens, {request: _bytes(request, str(text)) for request, text in found.items()})


def _bytes(request: str, text: str) -> bytes | None:
    if text == HANG:
        return None
    head, _, body = text.partition("\n\n")
    lines = head.strip("\n").split("\n")
    content = b"" if request.startswith("HEAD ") else body.encode()
    if " 204 " not in lines[0] and not any(line.lower().startswith("content-length:") for line in lines):
        lines.append(f"Content-Length: {len(body.encode())}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content
