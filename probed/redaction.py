"""What may leave this process as text: without secrets, without control characters, bounded. Standard library only."""

from __future__ import annotations

import re

MASK = "***"
MAX_BYTES = 2048
_MAX_INPUT = 4096
"""Characters looked at: patterns are run over hostile text too, so their work is bounded before it starts."""

_SECRET_WORD = r"(?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|credentials?)"
_QUOTED = r'"(?:\\.|[^"\\])*"?|\'(?:\\.|[^\'\\])*\'?'
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # A header's value may hold blanks: all of it goes, to its closing quote or the end of the line.
    (
        re.compile(
            rf"(?i)((?:authorization|cookie)[\"']?(?:\s*[:=]\s*|\s*,\s*(?=[\"'])))(?:{_QUOTED}|[^\r\n]+)",
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"(?i)\b(bearer)\s+[^\s,;\"']+"), rf"\1 {MASK}"),
    # postgresql://user:secret@host; the secret may hold an @ or a slash itself.
    (re.compile(r"(?<=://)([^\s:@/]*):\S*@"), rf"\1:{MASK}@"),
    (re.compile(rf"(?i)({_SECRET_WORD}[\"']?\s*[=:]\s*)(?:{_QUOTED}|[^\s,;&)\]}}]+)"), rf"\1{MASK}"),
    (re.compile(r"\beyJ[\w-]{4,}\.[\w-]+\.[\w-]*"), MASK),
)
_CUT_URL = re.compile(r"(?<=://)([^\s:@/]*):\S*\Z")
_CUT_JWT = re.compile(r"\beyJ[\w.-]*\Z")
_SECRET_KEY = re.compile(rf"(?i){_SECRET_WORD}$|authorization$|cookie$|^dsn$")


def is_secret(key: str) -> bool:
    """Whether a field of this name holds a secret, whatever its value looks like."""
    return _SECRET_KEY.search(key) is not None


def redact(text: str) -> str:
    """``text`` with passwords, tokens and credentials in URLs masked. Looks at the first 4096 characters."""
    if len(text) > _MAX_INPUT:
        # What tells these two from plain words may stand behind the cut: they go as they are begun.
        text = _CUT_URL.sub(rf"\1:{MASK}", _CUT_JWT.sub(MASK, text[:_MAX_INPUT])) + "…"
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def visible(text: str) -> str:
    """``text`` with control, direction-changing and other invisible characters escaped: always one line."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def clean(text: str, limit: int = MAX_BYTES) -> str:
    """One redacted, visible line of at most ``limit`` bytes of UTF-8."""
    line = visible(redact(text))
    raw = line.encode("utf-8")
    if len(raw) <= limit:
        return line
    return raw[: limit - 3].decode("utf-8", "ignore") + "…"
