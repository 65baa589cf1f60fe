"""Server-sent events from the daemon, over as many connections as it takes."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from probed.errors import ApiError

if TYPE_CHECKING:
    from probed.cli.client import Client

SILENCE_SECONDS = 40.0
"""The daemon speaks every 15 s; one that is silent for so long is gone."""
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0
MAX_LINE = 4 * 1024 * 1024


class Follower(Struct):
    """Follows ``/api/v1/events/stream``. ``lost`` is told of each connection that ended, before the next is tried."""

    client: Client
    query: Mapping[str, object | None]
    last_id: str = ""
    lost: Callable[[str], None] = lambda _: None
    pause: Callable[[float], None] = time.sleep
    _failures: int = 0

    def messages(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(kind, data), each once and in order, for ever. ApiError when the very first connection is refused."""
        reached = False
        while True:
            try:
                for message in self._connection():
                    reached = True
                    if message is not None:
                        yield message
                self.lost("the daemon ended the stream")
            except ApiError as error:
                if not reached:
                    raise
                self.lost(str(error))
            except (OSError, http.client.HTTPException) as error:
                self.lost(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
            self._failures += 1
            self.pause(min(PAUSE_SECONDS * 2 ** (self._failures - 1), LONGEST_PAUSE_SECONDS))

    def _connection(self) -> Iterator[tuple[str, dict[str, Any]] | None]:
        """Messages of one connection; ``None`` for what is none, such as a heartbeat."""
        headers = {"Last-Event-ID": self.last_id} if self.last_id else {}
        with self.client.stream("/api/v1/events/stream", self.query, headers, SILENCE_SECONDS) as response:
            block: dict[str, str] = {}
            while line := response.readline(MAX_LINE):
                name, _, value = line.decode("utf-8", "replace").rstrip("\r\n").partition(":")
                if name or value:
                    block[name] = value.removeprefix(" ")
                    continue
                self._failures = 0
                self.last_id = block.get("id", self.last_id)
                yield (block.get("event", ""), json.loads(block["data"])) if "data" in block else None
                block = {}
