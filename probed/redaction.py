"""What may leave this process as text: without secrets, without control characters, bounded. Standard library only."""

from __future__ import annotations

import base64
import html
import json
import math
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote, quote_plus, unquote, urlsplit

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
    # As an environment names them: SECRET_KEY_BASE=…, AWS_SECRET_ACCESS_KEY=…, PG_DSN=…
    (
        re.compile(
            r"(?<![A-Z0-9_])([A-Z0-9_]*(?:SECRET|PASS|TOKEN|CREDENTIAL|PRIVATE|_KEY|APIKEY|DSN)[A-Z0-9_]*=)"
            rf"(?:{_QUOTED}|[^\s,;&]+)"
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}-----|\Z)", re.DOTALL), MASK),
    (re.compile(r"\beyJ[\w-]{4,}\.[\w-]+\.[\w-]*"), MASK),
    # Our own API tokens, of which the part before the secret may be shown; bcrypt hashes.
    (re.compile(r"\b(probed_[0-9a-f]{16}_)[\w-]+"), rf"\1{MASK}"),
    (re.compile(r"(\$2[aby]\$\d\d\$)[./A-Za-z0-9]+"), rf"\1{MASK}"),
)
_SUSPICIOUS = re.compile(r"[=:]|,\s*[\"']|(?i:bearer)|eyJ|-----BEGIN|probed_|\$2")
"""Without any of these no pattern can match; most texts have none."""
_CUT_URL = re.compile(r"(?<=://)([^\s:@/]*):\S*\Z")
_CUT_JWT = re.compile(r"\beyJ[\w.-]*\Z")
_SECRET_KEY = re.compile(rf"(?i){_SECRET_WORD}$|authorization$|cookie$|^dsn$")


def is_secret(key: str) -> bool:
    """Whether a field of this name holds a secret, whatever its value looks like."""
    return _SECRET_KEY.search(key) is not None


# --- what this process knows to be secret ------------------------------------------------------------------------

MAX_KNOWN = 2000
"""Forms of secrets that are looked for; those remembered first go first."""
MIN_KNOWN = 8
"""Characters: what is shorter cannot be told from other words."""
_PLAIN = re.compile(r"[a-z]+|[A-Z]+|[0-9]+")
_known: dict[str, str] = {}
"""Form -> so much of it as is known for it; text that was cut may hold no more."""


def remember(secret: str) -> None:
    """Have a secret that is about to be shown to somebody masked in every text from now on, whoever says it.

    Peers repeat what they are told, without any word beside it that tells what it is. One plain word (``postgres``) is
    none that can be looked for: texts are full of it.
    """
    if secret in _known or len(secret) < MIN_KNOWN or _PLAIN.fullmatch(secret):
        return
    for form in (secret, *_forms(secret)):
        if len(form) >= MIN_KNOWN:
            _known[form] = form[: max(MIN_KNOWN, len(form) // 2)]
    while len(_known) > MAX_KNOWN:
        del _known[next(iter(_known))]


def remember_address(url: str) -> None:
    """The same of whatever may be secret in an address: its login, the parts of its path, the values of its query."""
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0]
    for piece in (login, *re.split(r"[/:&=;]", f"{login}/{parts.path}/{parts.query}/{parts.fragment}")):
        remember(piece)
        remember(unquote(piece))


def _forms(secret: str) -> Iterator[str]:
    """As it stands in addresses, in JSON, in HTML and in base64, there with anything before and behind it."""
    yield from (quote(secret), quote_plus(secret, safe=""), html.escape(secret))
    yield from (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1])
    raw = secret.encode("utf-8", "replace")
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw).decode("ascii")
        core = encoded[(0, 2, 3)[before] : (before + len(raw)) * 8 // 6]
        yield from (core, core.replace("+", "-").replace("/", "_"))


def _without_known(text: str) -> str:
    for form in _known:
        if form in text:
            text = text.replace(form, MASK)
    # What is left of one may have been cut; only now, for several may begin alike.
    for form, head in _known.items():
        at = text.find(head)
        while at >= 0:
            end = at + len(head)
            while end < len(text) and end - at < len(form) and text[end] == form[end - at]:
                end += 1
            text = f"{text[:at]}{MASK}{text[end:]}"
            at = text.find(head, at + len(MASK))
    return text


def redact(text: str) -> str:
    """``text`` with passwords, tokens and credentials in URLs masked. Looks at the first 4096 characters."""
    if len(text) > _MAX_INPUT:
        # What tells these two from plain words may stand behind the cut: they go as they are begun.
        text = _CUT_URL.sub(rf"\1:{MASK}", _CUT_JWT.sub(MASK, text[:_MAX_INPUT])) + "…"
    text = _without_known(text)
    if _SUSPICIOUS.search(text) is None:
        return text
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


# --- trees of values -------------------------------------------------------------------------------------------

MAX_DEPTH = 12
MAX_ROWS = 50
MAX_TEXT = 1024


def clean_tree(value: object, *, rows: int = MAX_ROWS, text: int = MAX_TEXT, depth: int = MAX_DEPTH) -> object:
    """What a server said as JSON's own types: texts clean, secrets masked by the name of their field, all bounded.

    Lists and maps keep their first ``rows`` items and say how many more there were; what lies deeper than ``depth``
    is left out. Numbers that JSON does not know become null.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 10**19 else float(f"{value:.15g}") if abs(value) < 10**300 else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return clean(value, text)
    if depth == 0:
        return "…"
    if isinstance(value, Mapping):
        kept: dict[str, object] = {}
        for key, item in list(value.items())[:rows]:
            name = clean(str(key), 100)
            # An empty value is no secret, and that it is empty may be the finding.
            hidden = is_secret(str(key)) and item not in (None, "", False, True)
            kept[name] = MASK if hidden else clean_tree(item, rows=rows, text=text, depth=depth - 1)
        if len(value) > rows:
            kept["…"] = f"and {len(value) - rows} more"
        return kept
    if isinstance(value, list | tuple):
        items = [clean_tree(item, rows=rows, text=text, depth=depth - 1) for item in value[:rows]]
        return [*items, f"… and {len(value) - rows} more"] if len(value) > rows else items
    return clean(str(value), text)


# --- SQL -------------------------------------------------------------------------------------------------------

# What PostgreSQL takes in a name: ASCII letters, _ and whatever is no ASCII; said by what is not in it, for sets of
# characters up to the last one take Python 15 ms to compile.
_LETTER, _WORD, _NAME = r"[^\x00-@\[-^`{-\x7f]", r"[^\x00-/:-@\[-^`{-\x7f]", r"[^\x00-\x23%-/:-@\[-^`{-\x7f]"
_SQL_TOKEN = re.compile(
    rf"""
      (?P<blank>[ \t\n\r\f\v]+|--[^\n\r]*)
    | (?P<comment>/\*)
    | (?P<dollar>\$(?:{_LETTER}{_WORD}*)?\$)
    | (?P<literal>[eEbBxXnN]?')
    | (?P<kept>\$[0-9]+|{_LETTER}{_NAME}*|"(?:[^"]|"")*")
    | (?P<number>\.?[0-9][0-9A-Za-z_.]*)
    | (?P<cut>")
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_PLAIN_END = re.compile(r"(?:[^'\\]|''|\\[^'])*(?P<end>'|\\'|\\?\Z)", re.DOTALL)
_ESCAPED_END = re.compile(r"(?:[^'\\]|''|\\.)*(?P<end>'|\\?\Z)", re.DOTALL)
_COMMENT_EDGE = re.compile(r"/\*|\*/")


def without_literals(sql: str) -> str:
    """A statement as a fingerprint: literals and numbers become ``?``, comments go, blanks are folded.

    It reads as PostgreSQL's scanner does. A text that was cut inside a literal is hidden from there on, and so is one
    whose end depends on ``standard_conforming_strings``. Looks at the first 4096 characters.
    """
    shown: list[str] = []
    at: int | None = 0
    given = sql[:_MAX_INPUT]
    while at is not None and at < len(given):
        match = _SQL_TOKEN.match(given, at)
        assert match is not None, "the last alternative takes any character"
        at = match.end()
        match match.lastgroup:
            case "blank":
                shown.append(" ")
            case "comment":
                shown.append(" ")
                at = _comment_end(given, at)
            case "dollar":
                shown.append("?")
                closing = given.find(match[0], at)
                at = None if closing < 0 else closing + len(match[0])
            case "literal":
                shown.append("?")
                at = _literal_end(given, at, escaped=match[0] in ("e'", "E'"))
            case "number":
                shown.append("?")
            case "cut":
                at = None
            case _:
                shown.append(match[0])
    text = " ".join("".join(shown).split())
    return text if at is not None and len(sql) <= _MAX_INPUT else f"{text} …"


def _literal_end(sql: str, at: int, *, escaped: bool) -> int | None:
    """Behind the closing quote of a literal whose text begins at ``at``; ``None`` when it is not certain."""
    match = (_ESCAPED_END if escaped else _PLAIN_END).match(sql, at)
    return match.end() if match is not None and match["end"] == "'" else None


def _comment_end(sql: str, at: int) -> int | None:
    """Behind a comment, which may hold others; ``None`` when it does not end."""
    depth = 1
    for edge in _COMMENT_EDGE.finditer(sql, at):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    return None
