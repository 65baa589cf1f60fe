"""No secret, no control character and no flood gets out as text."""

from __future__ import annotations

import base64
import html
import json
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probed import redaction
from probed.redaction import MASK, MAX_BYTES, clean, clean_tree, is_secret, redact, visible, without_literals

SECRET = "Zq7hunter2x"


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://probed:{SECRET}@db.internal:5432/postgres",
        f"http://user:{SECRET}@10.0.0.1:8008/patroni?x=1",
        f"postgresql://probed:a@{SECRET}/b@db/postgres",
        f"redis://:{SECRET}@cache",
        f"host=db password={SECRET} user=probed",
        f"host=db password='{SECRET} with \\' blanks' user=probed",
        f"PGPASSWORD={SECRET} psql",
        f'{{"password": "{SECRET}", "user": "probed"}}',
        f"password: {SECRET}",
        f"Authorization: Basic {SECRET}",
        f"Authorization: Bearer {SECRET}",
        f'Authorization: Digest username="x", response="{SECRET}"',
        f"headers {{'Authorization': 'Basic {SECRET}', 'Host': 'a'}}",
        f"(('Cookie', 'session={SECRET}'),)",
        f"Set-Cookie: session={SECRET}; HttpOnly",
        f"sent bearer {SECRET}",
        f"GET /api?token={SECRET}&x=1",
        f"GET /api?api_key={SECRET}",
        f"client_secret={SECRET}",
        f"x{'y' * 5000} password={SECRET}",
        "jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJadDdodW50ZXIyeCJ9.Zq7hunter2x",
    ],
)
def test_a_secret_does_not_get_out(text: str) -> None:
    assert SECRET not in clean(text)
    assert base64.b64encode(SECRET.encode()).decode() not in clean(text)


@pytest.mark.parametrize(
    "text",
    [
        'password authentication failed for user "probed"',
        "correct password_file or PGPASSWORD",
        "connection refused: 10.0.0.1:5432",
        "http://10.0.0.1:8008/cluster: 503",
        "postgresql://probed@10.0.0.1/postgres",
        "3 of 3 samples in a row failed",
    ],
)
def test_what_is_no_secret_stays_as_it_is(text: str) -> None:
    assert clean(text) == text


@given(st.text(max_size=5000), st.sampled_from(["password=", "postgresql://u:", "Authorization: Basic ", "token: "]))
def test_a_secret_does_not_get_out_wherever_it_stands(before: str, marker: str) -> None:
    """Also where the text is cut: whichever part of the secret is left, its marker stands before it."""
    shown = clean(f"{before} {marker}{SECRET}@host", limit=10**6)
    assert SECRET not in shown
    assert SECRET[:6] not in shown or SECRET[:6] in before


@given(st.integers(4060, 4110))
def test_a_cut_through_a_url_leaves_nothing_of_its_password(length: int) -> None:
    text = "x" * (length - 30) + " postgresql://probed:" + SECRET * 5 + "@db/postgres"
    assert "Zq7" not in redact(text)


@given(st.text())
def test_any_text_becomes_one_bounded_visible_line(text: str) -> None:
    line = clean(text)
    assert line.isprintable()
    assert len(line.encode("utf-8")) <= MAX_BYTES


@pytest.mark.parametrize("char", ["\n", "\r", "\x1b", "\x00", "\x85", "\u2028", "\u202e", "\u200b", "\u2066", "\ud800"])
def test_a_character_that_moves_the_cursor_or_turns_the_text_is_escaped(char: str) -> None:
    assert visible(f"a{char}b").isprintable()
    assert char not in visible(f"a{char}b")


@pytest.mark.parametrize("part", ["://a:", "password=", "eyJaaaa.", "Authorization:", "a.b-c", "bearer ", "'\\", " = "])
def test_hostile_text_costs_no_more_than_it_is_long(part: str) -> None:
    started = time.process_time()
    clean(part * 200_000)
    assert time.process_time() - started < 0.25


@given(st.text(), st.integers(10, 4000))
def test_cutting_keeps_the_limit_and_valid_text(text: str, limit: int) -> None:
    assert len(clean(text, limit).encode("utf-8")) <= limit
    json.dumps(clean(text, limit))


def test_fields_are_secret_by_their_name() -> None:
    assert all(map(is_secret, ("password", "PGPASSWORD", "api_key", "Authorization", "cookie", "client_secret", "dsn")))
    assert not any(map(is_secret, ("password_file", "target", "reason", "event_id")))


@pytest.mark.parametrize(
    "text",
    [
        f"SECRET_KEY_BASE={SECRET}",
        f"AWS_SECRET_ACCESS_KEY={SECRET} AWS_REGION=eu",
        f"export JWT_SIGNING_KEY='{SECRET}'",
        f"PG_DSN={SECRET}",
        f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}",
    ],
)
def test_a_secret_of_an_environment_or_a_key_file_does_not_get_out(text: str) -> None:
    assert SECRET not in clean(text)


_PIECES = st.sampled_from(
    ["password", "=", ":", " ", "authorization", "cookie", ",", "'", '"', "bearer", "BEARER", "eyJaaaa", ".", "a", "://",
     "@", "-----BEGIN PRIVATE KEY-----", "_KEY", "SECRET", "\n"]
)  # fmt: skip


@given(st.lists(_PIECES, max_size=12))
def test_what_is_not_suspicious_would_not_be_changed_by_any_pattern(pieces: list[str]) -> None:
    text = "".join(pieces)
    shown = text
    for pattern, replacement in redaction._PATTERNS:
        shown = pattern.sub(replacement, shown)
    assert redact(text) == shown


# --- trees ------------------------------------------------------------------------------------------------------


def test_a_tree_loses_its_secrets_by_name_and_by_look() -> None:
    given = {"dsn": SECRET, "user": "u", "nested": [{"api_key": SECRET, "url": f"http://u:{SECRET}@h/"}], "token": ""}
    assert clean_tree(given) == {
        "dsn": "***",
        "user": "u",
        "nested": [{"api_key": "***", "url": "http://u:***@h/"}],
        "token": "",
    }


def test_a_tree_is_bounded_in_every_direction() -> None:
    deep: object = "leaf"
    for _ in range(100):
        deep = [deep]
    shown = clean_tree({"rows": list(range(1000)), "text": "x" * 10_000, "deep": deep, "huge": 10**400})
    assert isinstance(shown, dict)
    assert shown["rows"][-2:] == [49, "… and 950 more"]
    assert len(shown["text"]) <= 1024
    assert len(json.dumps(shown)) < 2000
    assert shown["huge"] is None


_TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(_TREES)
def test_any_tree_becomes_json_without_control_characters(value: object) -> None:
    text = json.dumps(clean_tree(value), allow_nan=False, ensure_ascii=False)
    assert text.isprintable()


@given(st.text(max_size=200), st.lists(st.sampled_from(["list", "map", "key"]), max_size=5))
def test_a_secret_does_not_survive_at_any_depth(before: str, path: list[str]) -> None:
    value: object = f"{before} password={SECRET}"
    for step in path:
        value = [value] if step == "list" else {"a": value} if step == "map" else {"client_secret": value}
    assert SECRET not in json.dumps(clean_tree(value))


# --- SQL --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql, shown",
    [
        ("SELECT * FROM t WHERE id = 42 AND name = 'it''s me'", "SELECT * FROM t WHERE id = ? AND name = ?"),
        ("UPDATE a SET b = b - 1.5e3 WHERE c IN (1, 2)", "UPDATE a SET b = b - ? WHERE c IN (?, ?)"),
        ("SELECT E'it\\'s', B'01', x'ff', N'n' FROM t1", "SELECT ?, ?, ?, ? FROM t1"),
        ("SELECT $$a 'b' $$, $tag$ $$ $tag$, $1", "SELECT ?, ?, $1"),
        ('SELECT "Weird""Name", a$b$ FROM "s"."t"', 'SELECT "Weird""Name", a$b$ FROM "s"."t"'),
        ("SELECT 1 -- who\n + 2 /* a /* b */ c */ FROM t", "SELECT ? + ? FROM t"),
        ("ALTER ROLE x PASSWORD 'geheim'; COMMIT", "ALTER ROLE x PASSWORD ?; COMMIT"),
        ("SELECT 'cut off", "SELECT ? …"),
        ("SELECT 'a\\' , 'b'", "SELECT ? …"),
        ("SELECT $x$ cut", "SELECT ? …"),
        ('SELECT "cut', "SELECT …"),
        ("SELECT /* cut", "SELECT …"),
    ],
)
def test_a_statement_is_shown_without_its_literals(sql: str, shown: str) -> None:
    assert without_literals(sql) == shown


_WORDS = st.sampled_from(
    ["SELECT ", "a", "$b$", " ", "\n", ",", "1", "$1", '"n"', '"', "'x'", "''", "E'\\''", "e", "--\n", "/* c */", "$$ $$",
     "\\", "é", "-", "/", "*", "=", ";"]
)  # fmt: skip
_LITERALS = st.sampled_from(
    [f"'{SECRET}'", f"'a''{SECRET}'", f"E'\\'{SECRET}'", f"$${SECRET}$$", f"$q$ ' {SECRET}$q$", f"/* {SECRET} */",
     f"U&'{SECRET}'", f"-- {SECRET}\n", f"E'a'\n'\\'{SECRET}'"]
)  # fmt: skip


@given(st.lists(_WORDS, max_size=12), _LITERALS, st.lists(_WORDS, max_size=6), st.integers(0, 80))
def test_a_literal_never_survives_where_postgresql_reads_one(
    before: list[str], literal: str, after: list[str], cut: int
) -> None:
    """Wherever the text is cut: PostgreSQL's own scanner is the judge of whether the secret stands in a literal."""
    head = " ".join(before)
    if not _balanced(head):
        return  # what follows an open quote is another thing than it looks
    text = f"{head} {literal} {' '.join(after)}"
    shown = without_literals(text[: len(text) - cut])
    assert SECRET[:4] not in shown


def _balanced(head: str) -> bool:
    """By a scanner of the plainest kind, character by character."""
    at = 0
    while at < len(head):
        rest = head[at:]
        if rest[0] in "'\"":
            end = head.find(rest[0], at + 1)
            if end < 0 or "\\" in head[at:end]:
                return False
            at = end + 1
        elif rest[0] == "$" or rest.startswith(("/*", "--")) or rest[0] == "\\":
            return False
        else:
            at += 1
    return True


@pytest.mark.parametrize("part", ["'", "''", "\\'", "$a$", "/*", "e'\\", '"', "a", "1", "--", "$", "\\", "''\\"])
def test_a_hostile_statement_costs_no_more_than_it_is_long(part: str) -> None:
    started = time.process_time()
    without_literals(part * 200_000)
    assert time.process_time() - started < 0.25


# --- what is known to be secret


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Nothing yet."""
    forms: dict[str, str] = {}
    monkeypatch.setattr(redaction, "_known", forms)
    return forms


ODD = 'Zq7/hunter+ö"2&x%'


@pytest.mark.parametrize("form", [
    ODD, quote(ODD), quote_plus(ODD), json.dumps(ODD), json.dumps(ODD, ensure_ascii=False), html.escape(ODD), repr(ODD),
    *(base64.b64encode(b"user:pass"[:n] + ODD.encode() + b"?").decode() for n in range(4)),
    base64.urlsafe_b64encode(ODD.encode()).decode(),
])  # fmt: skip
def test_what_was_shown_to_a_peer_is_masked_whoever_says_it_in_whatever_form(known: dict[str, str], form: str) -> None:
    said = f"no such thing as {form} here"
    assert redact(said) == said
    redaction.remember(ODD)
    assert MASK in redact(said)
    assert redact(said).startswith("no such thing as ")
    assert redact(said).endswith(" here")
    assert "hunter" not in redact(said)


@given(cut=st.integers(8, len(ODD) - 1))
def test_a_text_that_was_cut_inside_a_secret_shows_no_more_than_half_of_it(cut: int) -> None:
    redaction.remember(ODD)
    assert ODD[:9] not in redact(f"Bad status line: {ODD[:cut]}")


@pytest.mark.parametrize("word", ["", "x", "postgres", "probed", "POSTGRES", "12345678", "aB3", "a1b2c3d"])
def test_a_plain_or_short_word_is_not_masked_everywhere(known: dict[str, str], word: str) -> None:
    """It would be in the names of targets: with the password postgres nobody could read an event any more."""
    redaction.remember(word)
    assert known == {}


def test_what_may_be_secret_in_an_address_is_known(known: dict[str, str]) -> None:
    redaction.remember_address("https://user1:hunter-22@hooks.example/services/T0ab-CDEF99/x?key=Q1-w2-e3-r4&y=plain")
    for secret in ("hunter-22", "T0ab-CDEF99", "Q1-w2-e3-r4"):
        assert redact(f"saw {secret}!") == f"saw {MASK}!"
    assert redact("saw services and plain at hooks.example") == "saw services and plain at hooks.example"


def test_the_newest_secrets_are_known_and_no_number_of_them_takes_all_memory(known: dict[str, str]) -> None:
    for number in range(3000):
        redaction.remember(f"rotated-{number}-x")
    assert len(known) <= redaction.MAX_KNOWN
    assert redact("rotated-2999-x") == MASK
