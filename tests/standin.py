"""Stand-ins for components that cannot be run here: real sockets that answer as was recorded.

The demo ships the recordings that it needs (``probed/demo/recorded``); the others are in ``tests/recorded``.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from probed.demo import recordings
from probed.demo.recordings import State
from tests.hostile import Line, Peer, listening, refusing

__all__ = ["State", "recorded", "source", "standing_in"]

RECORDED = Path(__file__).parent / "recorded"


def recorded(component: str) -> Mapping[str, State]:
    """The states of one component, by name."""
    return _recording(component).states


def source(component: str) -> str:
    """Of which version its answers were recorded, and how."""
    return _recording(component).source


def _recording(component: str) -> recordings.Recording:
    folder = RECORDED if (RECORDED / f"{component}.toml").exists() else recordings.FOLDER
    recording = recordings.read(component, folder)
    assert recording.source, f"{component}: a recording names its source"
    return recording


@contextlib.asynccontextmanager
async def standing_in(state: State, *, port: int = 0) -> AsyncIterator[Peer]:
    """The component in ``state`` on a port; a peer that nobody listens at when it does not listen."""
    if not state.listens:
        yield Peer(port=port or refusing())
        return

    async def behave(line: Line) -> None:
        while True:
            answer = state.answer(await line.request())
            if answer is None:
                await line.hang()
                return
            await line.say(answer)

    async with listening(behave, port=port) as peer:
        yield peer
