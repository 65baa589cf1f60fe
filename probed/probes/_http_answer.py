"""The bytes of one HTTP/1.1 answer, as they come, to a bounded answer. No I/O, no judging.

Written for peers that may be hostile: everything is counted before it is looked at, and what is malformed ends the
answer. What is lenient is what real servers need: a bare line feed, a folded header, no reason phrase.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

MAX_BODY = 64 * 1024
MAX_HEADER = 8190
"""Bytes of one line."""
MAX_HEADERS = 100
MAX_ANSWER = MAX_BODY + 64 * 1024
"""Bytes of one answer with its headers, chunk sizes and informational answers before it."""
CHUNK_COST = 128
"""What each chunk counts for beside its bytes: a step of this parser, be it of one byte."""
MAX_DIGITS = 18
"""Of the length of a body."""
MAX_INFORMATIONAL = 4
"""Informational answers (1xx) before the one that counts."""

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: [^\0\r\n]*)?\r?\n")
_FIELDS = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\0\r\n]*\r?\n(?:[ \t][^\0\r\n]*\r?\n)*)*")
_HEAD = re.compile(rb"%b(%b)\r?\n" % (_STATUS.pattern, _FIELDS.pattern))
"""Both, and the empty line: what nearly every answer begins with, seen at one go."""
_FOLD = re.compile(rb"\r?\n[ \t]+")
_OF_BODY = re.compile(rb"(?m)^(content-length|transfer-encoding|connection):[ \t]*([^\r\n]*)")
"""Of headers in lower case."""
_HEAD_ENDS = re.compile(rb"\n\r?\n")
_HEX = re.compile(rb"[0-9A-Fa-f]{1,16}")
_START = b"HTTP/1."
_SWITCHING, _NO_CONTENT, _NOT_MODIFIED = 101, 204, 304


class Malformed(ValueError):
    """Not an answer, or more than one may be. ``kind`` is a sample's: ``protocol`` or ``too_large``."""

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        super().__init__(text)


class Headers(Mapping[str, str]):
    """Header fields by name in any case; of one that came several times the first. Few ask, so they are read late."""

    __slots__ = ("_fields", "_lines")

    def __init__(self, lines: bytes) -> None:
        """``lines``: well-formed, each with its end."""
        self._lines = lines
        self._fields: dict[str, str] | None = None

    def __getitem__(self, name: str) -> str:
        return self._read()[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def _read(self) -> dict[str, str]:
        if self._fields is None:
            self._fields = {}
            for line in self._lines.decode("utf-8", "surrogateescape").split("\n")[:-1]:
                name, _, value = line.partition(":")
                self._fields.setdefault(name.lower(), value.strip(" \t\r"))
        return self._fields


_NO_HEADERS = Headers(b"")


class Incoming:
    """One answer on its way. ``feed`` it what the peer sends until it says that the answer is whole."""

    __slots__ = (
        "_allowance", "_body_of_head", "_chunked", "_informational", "_left", "_rest", "body", "headers", "keeps",
        "status", "truncated", "whole",
    )  # fmt: skip

    def __init__(self, *, to_head: bool = False) -> None:
        """``to_head``: the question was a HEAD, whose answer has no body whatever its headers say."""
        self.status = 0
        """0 until the head of the answer is there."""
        self.headers: Mapping[str, str] = _NO_HEADERS
        self.body = bytearray()
        """Its first 64 KiB."""
        self.truncated = False
        """Whether there was more."""
        self.keeps = False
        """Whether the connection can be asked again, once the answer is whole."""
        self.whole = False
        self._body_of_head = not to_head
        self._rest = b""
        """What came and does not make sense yet."""
        self._left: int | None = None
        """Bytes of the body, or of its chunk, that are still to come; None: it ends with the connection."""
        self._chunked = False
        self._allowance, self._informational = MAX_ANSWER, MAX_INFORMATIONAL

    @property
    def begun(self) -> bool:
        """Whether anything has come."""
        return self.status > 0 or bool(self._rest)

    def feed(self, data: bytes) -> bool:
        """Take more in; whether the answer is whole. Malformed when there can be no answer any more."""
        size = len(data)
        if size > self._allowance:
            data = data[: self._allowance]
        self._allowance -= size
        if self._rest:
            data = self._rest + data
            self._rest = b""
        elif not self.status and (head := _HEAD.match(data)) is not None:
            self._understand(head[1], int(head[2]), head.start(3), head[3])
            data = data[head.end() :]
        while not self.status and data:
            end = _HEAD_ENDS.search(data)
            if end is None:
                self._wait_for_head(data)
                data = b""
                break
            self._head(data[: end.start() + 1])
            data = data[end.end() :]
        if self.status and not self.whole:
            data = self._chunks(data) if self._chunked else self._plain(data)
        if self._allowance < 0 and not self.whole:
            self._too_large()
        if self.whole and data and not self.truncated:
            if data.startswith(_START):
                raise Malformed("too_large", "more answers than questions")
            self.keeps = False  # more than was asked for: the next answer on this connection could be anybody's
        return self.whole

    def end(self) -> None:
        """The peer has hung up, which is how some answers end. Malformed when this one was not over."""
        if self.status and self._left is None and not self._chunked:
            self.whole = True
        if not self.whole:
            raise Malformed("protocol", "the answer broke off")

    def _too_large(self) -> None:
        """The peer has sent all that it may: what is here must do, if it has a status."""
        if not self.status:
            raise Malformed("too_large", f"the answer is larger than {MAX_ANSWER} bytes")
        self._cut()

    def _cut(self) -> None:
        """There is more than we take; what is here must do."""
        del self.body[MAX_BODY:]
        self.truncated = self.whole = True
        self.keeps = False

    # --- head ---------------------------------------------------------------------------------------------

    def _wait_for_head(self, data: bytes) -> None:
        """Not all of it is here: see to it that it still can become one."""
        start = data[: len(_START)]
        if not _START.startswith(start):
            raise _not_http(data)
        if data.count(b"\n") > MAX_HEADERS + 1:
            raise Malformed("protocol", f"more than {MAX_HEADERS} headers")
        _bounded(len(data) - data.rfind(b"\n") - 1)
        self._rest = data

    def _head(self, head: bytes) -> None:
        """A status line and headers, up to and with the last header's line end."""
        line = _STATUS.match(head)
        if line is None:
            raise _not_http(head)
        lines = head[line.end() :]
        if _FIELDS.fullmatch(lines) is None:
            raise Malformed("protocol", "a malformed header")
        self._understand(line[1], int(line[2]), line.end(), lines)

    def _understand(self, version: bytes, status: int, first: int, lines: bytes) -> None:
        """A well-formed head: its status line, of ``first`` bytes, and its headers."""
        if first + len(lines) > MAX_HEADER:
            _bounded(max(first - 1, *map(len, lines.split(b"\n"))))
        if b"\n " in lines or b"\n\t" in lines:
            lines = _FOLD.sub(b" ", lines)
        if lines.count(b"\n") > MAX_HEADERS:
            raise Malformed("protocol", f"more than {MAX_HEADERS} headers")
        if 100 <= status < 200 and status != _SWITCHING:
            self._informational -= 1
            if self._informational < 0:
                raise Malformed("too_large", f"more than {MAX_INFORMATIONAL} informational answers")
            return
        self.status, self.headers = status, Headers(lines)
        self.keeps = version == b"1"
        length = coding = None
        said = b""
        for name, value in _OF_BODY.findall(lines.lower()):
            if name == b"connection":
                said += b"," + value
            elif length is not None or coding is not None:
                raise Malformed("protocol", "the length of the body is not clear")
            elif name == b"content-length":
                length = value.rstrip(b" \t")
            else:
                coding = value.rstrip(b" \t")
        if said:
            words = {word.strip(b" \t") for word in said.split(b",")}
            self.keeps = b"close" not in words if self.keeps else b"keep-alive" in words
        self._expect_body(status, length, coding)

    def _expect_body(self, status: int, length: bytes | None, coding: bytes | None) -> None:
        if length is not None and not (length.isdigit() and len(length) <= MAX_DIGITS):
            raise Malformed("protocol", "the length of the body is not clear")
        if status == _SWITCHING:
            self.keeps, self.whole = False, True
        elif status in (_NO_CONTENT, _NOT_MODIFIED) or not self._body_of_head:
            self.whole = True
        elif coding is not None and coding.rpartition(b",")[2].strip() == b"chunked":
            self._chunked, self._left = True, None
        elif length is not None:
            self._left = int(length)
            self.whole = self._left == 0
        else:
            self.keeps = False

    # --- body ---------------------------------------------------------------------------------------------

    def _plain(self, data: bytes) -> bytes:
        """Take in a body that comes as it is; returns what is behind it."""
        taken = data if self._left is None else data[: self._left]
        self.body += taken
        if self._left is not None:
            self._left -= len(taken)
        if len(self.body) > MAX_BODY:
            self._cut()
        elif self._left == 0:
            self.whole = True
        return data[len(taken) :]

    def _chunks(self, data: bytes) -> bytes:
        """Take in a body that comes in chunks, and its trailers; returns what is behind them."""
        at = 0
        while not self.whole:
            if self._left is not None and self._left > 0:
                taken = data[at : at + self._left]
                self.body += taken
                self._left -= len(taken)
                at += len(taken)
                if len(self.body) > MAX_BODY:
                    self._cut()
                    break
                if self._left:
                    return b""
            line_end = data.find(b"\n", at)
            if line_end < 0:
                _bounded(len(data) - at)
                self._rest = data[at:]
                return b""
            line = data[at:line_end].removesuffix(b"\r")
            at = line_end + 1
            self._chunk_line(line)
        return data[at:]

    def _chunk_line(self, line: bytes) -> None:
        """The line end of a chunk (nothing is left of it), the size of the next one, or a trailer."""
        _bounded(len(line))
        self._allowance -= CHUNK_COST
        if self._allowance < 0:
            self._too_large()
        elif self._left == 0:
            if line:
                raise Malformed("protocol", "a chunk is longer than it says")
            self._left = None
        elif self._left == _TRAILERS:
            self.whole = not line
        else:
            size = line.partition(b";")[0].strip(b" \t")
            if _HEX.fullmatch(size) is None:
                raise Malformed("protocol", "a malformed chunk")
            self._left = int(size, 16) or _TRAILERS


_TRAILERS = -1
"""In place of a number of bytes: the last chunk has come."""


def _bounded(length: int) -> None:
    if length > MAX_HEADER:
        raise Malformed("protocol", f"a line of more than {MAX_HEADER} bytes")


def _not_http(data: bytes) -> Malformed:
    return Malformed("protocol", "it does not begin as one")
