"""``/api/v1/events/stream``: server-sent events, one for each transition, in their order, from any number on.

Everything is read from the numbered transitions of the store: a reader that was away goes on where it was, loses
nothing and gets nothing twice. What many readers follow live is read and rendered once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Sequence
from itertools import islice

import structlog
from aiohttp import hdrs, web
from msgspec import Struct

from probed.api import schemas, shapes
from probed.api.events import EVENT, INSTANCE, SEVERITY, SUPPRESSED
from probed.api.guarding import HEADERS
from probed.api.problems import Refused
from probed.api.query import Parameter
from probed.api.routing import Call, Route
from probed.model import Event
from probed.store import Numbering, Store, TransitionRecord

_log = structlog.get_logger(__name__)

MAX_STREAMS = 32
HEARTBEAT_SECONDS = 15.0
STALLED_SECONDS = 20.0
"""How long a reader may take nothing of what is sent before it is cut off; it can go on where it was."""
RETRY_SECONDS = 2.0
"""After which a browser connects again."""
BATCH = 50
"""Transitions that are read, rendered and sent at a stretch: some 3 ms of the loop's time."""
RECENT = 256
"""Frames kept for those who follow live."""
MEDIA = "text/event-stream"


class LastEventId(Parameter[int | None]):
    __slots__ = ()

    def read(self, text: str, now: float) -> int:
        if text.isascii() and text.isdigit() and len(text) < 19:
            return int(text)
        raise ValueError(f"expected the id of an event of this stream, a whole number, got {json.dumps(text)}")

    def absent(self) -> None:
        return None

    def schema(self) -> dict[str, object]:
        return {"type": "integer", "minimum": 0}


LAST_EVENT_ID = LastEventId(
    "last_event_id", "Go on after this one; 0: from the beginning. The header Last-Event-ID comes first."
)


class Frame(Struct, frozen=True):
    """One transition as it is sent."""

    seq: int
    event: Event
    text: bytes


class Feed:
    """The transitions of a store for any number of readers."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._recent: deque[Frame] = deque(maxlen=RECENT)
        self._newest = 0
        """Number of the newest transition that was read for those who follow live."""
        self._reading = asyncio.Lock()
        self._news = asyncio.Event()
        self.readers = 0
        self.closed = False

    def wake(self) -> None:
        """A transition became durable."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    def close(self) -> None:
        """End all streams."""
        self.closed = True
        self.wake()

    async def join(self) -> Numbering:
        """One more reader; ``leave`` when it goes. What the first one does not need is not read again."""
        self.readers += 1
        numbering = await self._store.numbering()
        if self.readers == 1:
            self._recent.clear()
            self._newest = numbering.newest
        return numbering

    def leave(self) -> None:
        self.readers -= 1

    async def after(self, seq: int, patience: float) -> Sequence[Frame]:
        """What comes next after ``seq``, at most ``BATCH``; nothing after ``patience`` seconds, or when closed."""
        news = self._news
        found = await self._next(seq)
        if found or self.closed:
            return found
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await news.wait()
        return await self._next(seq)

    async def _next(self, seq: int) -> Sequence[Frame]:
        if seq >= self._newest:
            await self._read_on(seq)
        if seq >= self._newest:
            return []
        if not self._recent or seq < self._recent[0].seq - 1:
            return [_frame(record) for record in await self._store.transitions(seq, BATCH)]
        return list(islice((frame for frame in self._recent if frame.seq > seq), BATCH))

    async def _read_on(self, seq: int) -> None:
        async with self._reading:
            while seq >= self._newest:  # unless somebody else did, meanwhile
                records = await self._store.transitions(self._newest, BATCH)
                for record in records:
                    self._recent.append(_frame(record))
                    self._newest = record.seq
                if len(records) < BATCH:
                    return


def _frame(record: TransitionRecord) -> Frame:
    data = json.dumps(shapes.streamed(record), allow_nan=False)
    text = f"id: {record.seq}\nevent: {record.kind}\ndata: {data}\n\n"
    return Frame(record.seq, record.event, text.encode())


def routes(feed: Feed) -> list[Route]:
    async def stream(call: Call) -> web.StreamResponse:
        wanted = _wanted(call)
        response = web.StreamResponse(headers={**HEADERS, hdrs.CONTENT_TYPE: MEDIA, "X-Accel-Buffering": "no"})
        if call.request.method == hdrs.METH_HEAD:
            return web.Response(headers=response.headers)
        if feed.readers >= MAX_STREAMS:
            detail = f"{MAX_STREAMS} streams are open already, which is all that there are; close one, or try later"
            raise Refused("too-many", detail, headers={hdrs.RETRY_AFTER: f"{HEARTBEAT_SECONDS:.0f}"})
        numbering = await feed.join()
        try:
            await response.prepare(call.request)
            await _send(call, response, feed, numbering, wanted)
        except ConnectionError:  # the reader has gone
            return response
        except TimeoutError:
            _log.warning("api.stream_cut_off", client=call.request.remote, seconds=STALLED_SECONDS)
            if call.request.transport is not None:
                call.request.transport.abort()
        finally:
            feed.leave()
        return response

    route = Route(
        "GET", "/api/v1/events/stream", stream,
        "Transitions of events as they come, as server-sent events: id is the transition's number, event its kind.",
        takes=(LAST_EVENT_ID, INSTANCE, EVENT, SEVERITY, SUPPRESSED), gives=schemas.StreamedEvent, media=MEDIA,
        endless=True, headers=("Last-Event-ID",), refusals=("too-many",),
    )  # fmt: skip
    return [route]


async def _send(call: Call, response: web.StreamResponse, feed: Feed, numbering: Numbering, wanted: int | None) -> None:
    seq, told = _begin(numbering, wanted)
    await _write(response, f"retry: {RETRY_SECONDS * 1000:.0f}\nid: {seq}\n\n{told}".encode())
    clock = asyncio.get_running_loop().time
    wrote_at = clock()
    while not feed.closed:
        frames = await feed.after(seq, max(0.01, wrote_at + HEARTBEAT_SECONDS - clock()))
        text = b"".join(frame.text for frame in frames if _fits(call, frame.event))
        if frames:
            seq = frames[-1].seq
        if not text and clock() - wrote_at >= HEARTBEAT_SECONDS:
            text = f": still here\nid: {seq}\n\n".encode()
        if text and call.still_may is not None and not await call.still_may():
            return  # the token was revoked, the session ended, the user removed
        if text:
            await _write(response, text)
            wrote_at = clock()
        await asyncio.sleep(0)  # a long backlog must not keep the probes waiting


def _begin(numbering: Numbering, wanted: int | None) -> tuple[int, str]:
    """(number after which to go on, what is to be said first)."""
    if wanted is None:
        return numbering.newest, ""
    if wanted > numbering.newest:  # of another store, or of one that was restored
        return numbering.newest, _reset("unknown", numbering)
    if wanted < numbering.purged and wanted:
        return wanted, _reset("purged", numbering)
    return wanted, ""


def _reset(reason: str, numbering: Numbering) -> str:
    """What was missed cannot be told: who keeps a list is to read it anew."""
    data = {"reason": reason, "purged": numbering.purged, "newest": numbering.newest}
    return f"event: reset\ndata: {json.dumps(data)}\n\n"


async def _write(response: web.StreamResponse, text: bytes) -> None:
    async with asyncio.timeout(STALLED_SECONDS):
        await response.write(text)


def _wanted(call: Call) -> int | None:
    """A browser that connects again sends the header, and the address of its first time."""
    text = call.request.headers.get("Last-Event-ID", "").strip()
    if not text:
        return call.query[LAST_EVENT_ID]
    try:
        return LAST_EVENT_ID.read(text[:20], call.now)
    except ValueError as error:
        raise Refused("bad-query", f"Last-Event-ID: {error}") from None


def _fits(call: Call, event: Event) -> bool:
    query = call.query
    return (
        query[INSTANCE] in (None, event.target.instance)
        and query[EVENT] in (None, event.event)
        and query[SEVERITY] in (None, event.severity)
        and query[SUPPRESSED] in (None, event.suppressed)
    )
