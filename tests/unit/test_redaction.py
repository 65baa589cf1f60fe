"""No secret, no control character and no flood gets out as text."""

from __future__ import annotations

import base64
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probed.redaction import MAX_BYTES, clean, is_secret, redact, visible

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
    started = time.perf_counter()
    clean(part * 200_000)
    assert time.perf_counter() - started < 0.25


@given(st.text(), st.integers(10, 4000))
def test_cutting_keeps_the_limit_and_valid_text(text: str, limit: int) -> None:
    assert len(clean(text, limit).encode("utf-8")) <= limit
    json.dumps(clean(text, limit))


def test_fields_are_secret_by_their_name() -> None:
    assert all(map(is_secret, ("password", "PGPASSWORD", "api_key", "Authorization", "cookie", "client_secret", "dsn")))
    assert not any(map(is_secret, ("password_file", "target", "reason", "event_id")))
