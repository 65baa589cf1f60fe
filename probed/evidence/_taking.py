"""One snapshot: a deadline around the collector, redaction and a cap behind it, a text in every case."""

from __future__ import annotations

import asyncio
import json

import structlog
from msgspec import Struct

from probed.errors import ProbeError
from probed.evidence import Collector, Data, Recall
from probed.model import Sample
from probed.probes import Context
from probed.probes._sql import TooManyConnections
from probed.redaction import clean, clean_tree

_log = structlog.get_logger(__name__)

MAX_BYTES = 32 * 1024
"""Of one snapshot as JSON."""
MAX_ERROR = 500
_SHAPES = ((50, 1024), (50, 200), (20, 200), (5, 100))
"""(rows, characters of a text) tried in turn until a snapshot fits."""


class Taken(Struct, frozen=True):
    at: float
    """Wall time at which it was begun."""
    data: str = ""
    """JSON."""
    error: str = ""
    full: bool = False
    """Whether it failed because the server has no connection left."""


async def take(collector: Collector, context: Context, deadline: float, at: float) -> Taken:
    """Run a collector once, at most ``deadline`` seconds long. Only cancellation passes through."""
    try:
        async with asyncio.timeout(deadline):
            data = await collector.take(context)
    except ProbeError as error:
        return Taken(at, error=clean(str(error), MAX_ERROR), full=isinstance(error, TooManyConnections))
    except TimeoutError:
        return Taken(at, error=f"{context.target.address or context.target.key}: no answer within {deadline:g} s")
    except Exception as error:  # noqa: BLE001 - as in take_sample: a bug in a collector costs its snapshot and nothing else
        _log.exception("collector.bug", collector=collector.name, target=context.target.key)
        return Taken(at, error=clean(f"the collector itself failed: {type(error).__name__}: {error}", MAX_ERROR))
    return encoded(data, at)


def recalled(recall: Recall, sample: Sample) -> tuple[Data | None, object]:
    """(what a sample shows, its essence); ``None`` when it shows nothing."""
    try:
        data = recall.tell(sample)
        return data, recall.essence(data) if data is not None and recall.essence is not None else None
    except Exception:  # noqa: BLE001 - as above: facts come from a peer, and an event must be told whatever they hold
        _log.exception("recall.bug", probe=recall.probe, target=sample.target.key)
        return None, None


def encoded(data: Data, at: float) -> Taken:
    """What was seen, redacted and made to fit."""
    for rows, text in _SHAPES:
        shown = json.dumps(clean_tree(data, rows=rows, text=text), ensure_ascii=False, separators=(",", ":"))
        if len(shown.encode()) <= MAX_BYTES:
            return Taken(at, shown)
    return Taken(at, error=f"left out: larger than {MAX_BYTES} bytes however it is cut")
