"""Where log lines go and what they look like: stderr, one line each, redacted, UTC.

``auto`` is the console form on a terminal and JSON elsewhere. Under systemd each line carries its priority.
Whatever was logged, by us (structlog) or by a library (``logging``), passes the same processors.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from probed.thrift import without

# structlog imports what it finds: rich for a console form that is not used here, 6 MiB and 90 ms of every daemon, and
# greenlet for locals of a kind that nobody has here, 1 MiB.
with without("rich", "greenlet"):
    import structlog
from structlog.typing import EventDict, ExcInfo

from probed.redaction import MASK, clean, is_secret, redact, visible

Format = Literal["auto", "console", "json"]
FORMATS = ("auto", "console", "json")
LEVELS = ("debug", "info", "warning", "error")

_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}
_FIRST = ("ts", "level", "msg", "logger")
MAX_TRACE = 2000
"""Bytes kept of a traceback: its end, which names the error."""
MAX_DEPTH = 4

Render = Callable[[EventDict], str]


def set_up(
    level: str = "info",
    form: Format = "auto",
    *,
    stream: TextIO | None = None,
    environ: Mapping[str, str] | None = None,
) -> None:
    """Route all logging of this process to ``stream``, by default stderr. May be called again."""
    environ = os.environ if environ is None else environ
    number = logging.getLevelNamesMapping()[level.upper()]
    terminal = (stream or sys.stderr).isatty()
    console = form == "console" or (form == "auto" and terminal)
    colour = console and terminal and not environ.get("NO_COLOR")
    render: Render = (lambda fields: _console(fields, colour)) if console else _json
    if stream is None and _reaches_journal(environ):
        render = _with_priority(render)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, _complete, _safe, lambda _, __, fields: render(fields)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *names: _Line(stream, *names),
        cache_logger_on_first_use=False,
    )
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers = [_Handler(render, stream)]
    root.setLevel(max(number, logging.INFO))
    # Requests are counted, not logged: a hostile client must not be able to fill the disk.
    access = logging.getLogger("aiohttp.access")
    access.disabled, access.propagate = True, False


class _Line:
    """What structlog writes to; knows the name it was asked for."""

    def __init__(self, stream: TextIO | None, name: str = "") -> None:
        self._stream, self.name = stream, name

    def msg(self, line: str) -> None:
        _write(self._stream, line)

    debug = info = warning = error = critical = exception = log = fatal = msg


class _Handler(logging.Handler):
    """The standard library's records through the same processors."""

    def __init__(self, render: Render, stream: TextIO | None) -> None:
        super().__init__()
        self._render, self._stream = render, stream

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except (TypeError, ValueError):  # arguments that do not fit their format are the library's bug, not ours
            text = str(record.msg)
        fields: EventDict = {"event": text, "logger": record.name}
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        method = record.levelname.lower()
        _write(self._stream, self._render(_safe(None, method, _complete(None, method, fields))))


def _write(stream: TextIO | None, line: str) -> None:
    stream = stream or sys.stderr
    try:
        stream.write(line + "\n")
        stream.flush()
    except (OSError, ValueError):  # a full disk or a reader that left must not end the daemon
        pass


def _complete(logger: Any, method: str, fields: EventDict) -> EventDict:
    """Time, level and logger; structlog's ``event`` is our ``msg``; a traceback becomes text."""
    msg = fields.pop("event", "")
    level = {"warn": "warning", "exception": "error", "fatal": "critical"}.get(method, method)
    # An event's own ``message`` and the like stay; only these four names are ours.
    first: EventDict = {
        "ts": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level,
        "msg": msg,
        "logger": fields.pop("logger", None) or getattr(logger, "name", ""),
    }
    trace = _trace(fields.pop("exc_info", None))
    rest = {key: value for key, value in fields.items() if key not in _FIRST and value is not None}
    if trace:
        rest["exception"] = trace
    return {**first, **rest}


def _trace(exc_info: ExcInfo | BaseException | bool | None) -> str:
    if not exc_info:
        return ""
    error: BaseException | None
    if isinstance(exc_info, tuple):
        error = exc_info[1]
    else:
        error = exc_info if isinstance(exc_info, BaseException) else sys.exc_info()[1]
    if error is None:
        return ""
    # The whole is redacted before its end is cut out, so that no cut runs through a secret.
    text = visible("".join(redact(line) for line in traceback.format_exception(error)).strip())
    raw = text.encode("utf-8")
    return text if len(raw) <= MAX_TRACE else "…" + raw[-MAX_TRACE:].decode("utf-8", "ignore")


def _safe(_: Any, __: str, fields: EventDict) -> EventDict:
    """Every field redacted, visible and bounded; nothing that a target sent can forge a line or a secret leave."""
    return {visible(str(key))[:100]: MASK if is_secret(str(key)) else _value(value) for key, value in fields.items()}


def _value(value: object, depth: int = 0) -> object:
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, str):
        return clean(value)
    if depth < MAX_DEPTH:
        if isinstance(value, Mapping):
            items = list(value.items())[:100]
            return {clean(str(k), 100): MASK if is_secret(str(k)) else _value(v, depth + 1) for k, v in items}
        if isinstance(value, list | tuple | set | frozenset):
            return [_value(item, depth + 1) for item in list(value)[:100]]
    return clean(str(value))


def _json(fields: EventDict) -> str:
    return json.dumps(_bounded(fields), ensure_ascii=False, default=str)


def _bounded(fields: EventDict) -> EventDict:
    """A field that holds many values is bounded as a whole too."""
    return {
        key: clean(json.dumps(value, ensure_ascii=False, default=str)) if _is_large(value) else value
        for key, value in fields.items()
    }


def _is_large(value: object) -> bool:
    return isinstance(value, dict | list) and len(json.dumps(value, default=str)) > 2048


def _console(fields: EventDict, colour: bool) -> str:
    level = str(fields["level"])
    label = f"{level:<8}"
    if colour:
        label = f"\x1b[{_COLOURS.get(level, '0')}m{label}\x1b[0m"
    words = [str(fields["ts"]), label, str(fields["msg"])]
    rest = _bounded({key: value for key, value in fields.items() if key not in _FIRST})
    words += [f"{key}={_word(value)}" for key, value in rest.items()]
    return " ".join(words)


def _word(value: object) -> str:
    if isinstance(value, str):
        return value if value and " " not in value and '"' not in value else json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False, default=str)


def _with_priority(render: Render) -> Render:
    return lambda fields: f"<{_PRIORITY.get(str(fields['level']), 6)}>{render(fields)}"


def _reaches_journal(environ: Mapping[str, str]) -> bool:
    """systemd names the stream that it reads by device and inode; ours may have been redirected since."""
    device, colon, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    if not colon:
        return False
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))
