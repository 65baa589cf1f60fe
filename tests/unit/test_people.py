"""Who may do what over HTTP: deny by default, on every route that there is, by every way of saying who one is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sqlite3
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog
from aiohttp import ClientError, FormData

from probed.api import listening
from probed.api.app import serve
from probed.api.doorkeeping import KnownPeople
from probed.api.guarding import MAX_HEADERS
from probed.api.routing import Route
from probed.api.table import Visits
from probed.clock import SystemClock
from probed.model import Role
from probed.store import Commit
from tests.unit.certificates import Authority, Issued
from tests.unit.people import HASHES, PASSWORDS, USERS, Visitor, as_user, basic, bearer, give_token, know
from tests.unit.serving import NOON, Stack, free_port, stack
from tests.unit.test_web_config import replace_file


@pytest_asyncio.fixture
async def seen(tmp_path: Path) -> AsyncIterator[Stack]:
    made = await stack(tmp_path / "store")
    yield made
    await made.store.close()


@contextlib.asynccontextmanager
async def visiting(seen: Stack) -> AsyncIterator[Visitor]:
    address = f"127.0.0.1:{free_port()}"
    close = await serve(seen, addresses=[address], socket_path=None)
    try:
        async with Visitor(f"http://{address}") as made:
            yield made
    finally:
        await close()


@pytest_asyncio.fixture
async def visitor(seen: Stack, tmp_path: Path) -> AsyncIterator[Visitor]:
    """Of a daemon that knows the three users."""
    know(seen, tmp_path)
    async with visiting(seen) as made:
        yield made


@pytest_asyncio.fixture
async def stranger(seen: Stack) -> AsyncIterator[Visitor]:
    """Of a daemon without web.config_file."""
    async with visiting(seen) as made:
        yield made


def every_route(seen: Stack) -> list[tuple[str, str, Route]]:
    """(method, path that can be asked for, route) of every route, whoever added it."""
    routes = Visits(seen, KnownPeople(seen)).routes
    found = []
    for route in routes:
        path = "/".join("x" if part.startswith("{") else part for part in route.path.split("/"))
        found.append((route.method, path, route))
        if route.method == "GET":
            found.append(("HEAD", path, route))
    return found


# --- the walk -----------------------------------------------------------------------------------------------------


async def test_every_route_refuses_whoever_may_not_and_only_them(seen: Stack, tmp_path: Path) -> None:
    """No credentials, wrong ones of each kind, each role by password and token, revoked, expired: all of it, everywhere."""
    know(seen, tmp_path)
    tokens = {role: await give_token(seen, f"a-{role}", role) for role in ("viewer", "operator", "admin")}
    revoked = await give_token(seen, "revoked", "admin", revoked_at=NOON)
    expired = await give_token(seen, "expired", "admin", expires_at=NOON)
    for_metrics = await give_token(seen, "scraper", "viewer", scopes=("metrics",))
    nobody: dict[str, dict[str, str]] = {
        "none": {},
        "wrong password": basic("anna", "guess"),
        "no such user": basic("nobody", PASSWORDS["anna"]),
        "no pair": {"Authorization": "Basic !!!"},
        "another scheme": {"Authorization": "Digest x"},
        "made up": bearer("probed_0123456789abcdef_" + "A" * 43),
        "revoked": bearer(revoked),
        "expired": bearer(expired),
        "no session": {"Cookie": "probed_session=AAAA"},
    }
    somebody: dict[str, tuple[Role, dict[str, str]]] = {
        "vera": (Role.VIEWER, as_user("vera")),
        "olga": (Role.OPERATOR, as_user("olga")),
        "anna": (Role.ADMIN, as_user("anna")),
        **{f"token of a {role}": (Role(role), bearer(text)) for role, text in tokens.items()},
    }
    walked = 0
    async with visiting(seen) as visitor:
        for method, path, route in every_route(seen):
            for kind, headers in nobody.items():
                seen.clock.step(7)  # failed logins are limited, which is another test
                status = await visitor.status(path, method, headers)
                if route.needs is None:
                    assert status not in (401, 403) or path == "/-/login", (method, path, kind)
                else:
                    led_to_login = route.refuse is not None and method == "GET" and status == 303
                    assert status == 401 or led_to_login, (method, path, kind)
                walked += 1
            own = {"Sec-Fetch-Site": "same-origin"} if route.refuse is not None else {}  # a form of the page itself
            for kind, (role, headers) in somebody.items():
                status = await visitor.status(path, method, {**headers, **own})
                if route.needs is not None and role.rank < route.needs.rank:
                    assert status == 403, (method, path, kind)
                elif path != "/-/login":
                    assert status not in (401, 403, 500), (method, path, kind)
                walked += 1
            if route.needs is not None:
                expected = {True: 200, False: 403}[path == "/metrics"]
                assert await visitor.status(path, method, bearer(for_metrics)) == expected, (method, path)
        # What is no route, and what a route does not take, tells strangers nothing.
        for path, method in (("/nope", "GET"), ("/api/v1/status", "DELETE"), ("/-/healthy/x", "GET"), ("/", "TRACE")):
            assert await visitor.status(path, method) == 401, (method, path)
            assert await visitor.status(path, method, as_user("vera")) in (404, 405), (method, path)
    assert walked > 300


def test_only_health_and_the_doors_are_open(seen: Stack) -> None:
    open_to_all = {(route.method, route.path) for _, _, route in every_route(seen) if route.needs is None}
    assert {path for _, path in open_to_all if not path.startswith("/static/")} == {
        "/-/healthy", "/-/ready", "/-/login", "/-/logout",
    }  # fmt: skip


def test_reading_is_a_viewers_and_changing_is_not(seen: Stack) -> None:
    for method, path, route in every_route(seen):
        if route.needs is not None and method not in ("GET", "HEAD") and "backtest" not in path:
            assert route.needs.rank >= Role.OPERATOR.rank, (method, path)


async def test_without_people_a_loopback_listener_reads_for_all_and_changes_for_tokens(
    seen: Stack, stranger: Visitor
) -> None:
    for method, path, route in every_route(seen):
        if route.needs is None:
            continue
        status = await stranger.status(path, method)
        if route.needs is Role.VIEWER:
            assert status not in (401, 403), (method, path)
        else:
            assert status == 403, (method, path)
    assert await stranger.status("/api/v1/status", headers=basic("anna", "x")) == 401


# --- passwords ----------------------------------------------------------------------------------------------------


async def test_a_refusal_never_tells_what_was_wrong(visitor: Visitor) -> None:
    answers = [
        await visitor.ask("/api/v1/status", headers=headers)
        for headers in (basic("anna", "guess"), basic("nobody", "guess"), bearer("x"), basic("anna", ""))
    ]
    assert len({json.dumps(body) for _, _, body in answers}) == 1
    assert {headers["WWW-Authenticate"] for _, headers, _ in answers} == {'Basic realm="probed", charset="UTF-8"'}
    _, headers, _ = await visitor.ask("/api/v1/status", headers={"Sec-Fetch-Mode": "cors"})
    assert headers["WWW-Authenticate"] == 'Bearer realm="probed"'  # a script's browser asks nobody for a password


async def test_the_eleventh_wrong_password_of_a_minute_is_not_looked_at(seen: Stack, visitor: Visitor) -> None:
    for number in range(10):
        assert await visitor.status("/metrics", headers=basic("anna", f"guess {number}")) == 401
    status, headers, problem = await visitor.ask("/metrics", headers=as_user("anna"))
    assert (status, problem["type"], int(headers["Retry-After"])) == (429, "urn:probed:too-many", 60)
    seen.clock.step(60)
    assert await visitor.status("/metrics", headers=as_user("anna")) == 200


async def test_failed_logins_are_counted_and_recorded_and_a_flood_of_them_is_one_record(
    seen: Stack, visitor: Visitor
) -> None:
    for _ in range(3):
        await visitor.status("/metrics", headers=basic("anna", "guess"))
    await visitor.status("/metrics", headers=basic("my-password-in-the-wrong-field", ""))
    for _ in range(50):
        await visitor.status("/metrics", headers=bearer("made up"))
    seen.clock.step(60)
    await visitor.status("/metrics", headers=bearer("made up"))
    _, _, scrape = await visitor.ask("/metrics", headers=as_user("vera"))
    assert 'probed_login_failures_total{reason="password"} 4' in scrape
    assert 'probed_login_failures_total{reason="token"} 51' in scrape
    await seen.store.append(Commit())  # commits are made in their order
    _, _, page = await visitor.ask("/api/v1/audit", headers=as_user("anna"))
    failed = [(item["who"], item["via"], item["after"]["failures"]) for item in page["items"]]
    assert failed == [("", "token", 50), ("", "token", 1), ("anna", "password", 1)]
    assert "wrong-field" not in json.dumps(page)


async def test_people_change_while_the_daemon_runs(seen: Stack, visitor: Visitor, tmp_path: Path) -> None:
    assert await visitor.status("/metrics", headers=as_user("vera")) == 200
    replace_file(tmp_path / "web-config.yml", USERS.replace("  vera: ", "  vivi: "))
    seen.clock.step(1)
    assert await visitor.status("/metrics", headers=as_user("vera")) == 401
    assert await visitor.status("/metrics", headers=basic("vivi", PASSWORDS["vera"])) == 200
    replace_file(tmp_path / "web-config.yml", "basic_auth_users: {vera: oops}")
    seen.clock.step(1)
    assert await visitor.status("/metrics", headers=basic("vivi", PASSWORDS["vera"])) == 200
    _, _, scrape = await visitor.ask("/metrics", headers=basic("vivi", PASSWORDS["vera"]))
    assert "probed_web_config_last_reload_successful 0.0" in scrape
    assert 'probed_web_config_reloads_total{outcome="failed"} 1' in scrape


async def test_a_flood_of_logins_leaves_the_loop_to_the_probes(
    seen: Stack, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By design, not by time: one worker at a time, a bounded queue, and turns of the loop while it works."""
    from probed.access import passwords

    running, most = 0, 0

    def watched(password: str, hashed: str) -> bool:
        nonlocal running, most
        running += 1
        most = max(most, running)
        SystemClock().mono()
        running -= 1
        return False

    monkeypatch.setattr(passwords, "_check", watched)
    flood = [visitor.status("/metrics", headers=basic("anna", f"guess {number}")) for number in range(100)]
    statuses = await asyncio.gather(*flood)
    assert statuses.count(401) == 10 and statuses.count(429) == 90
    assert most == 1


# --- tokens -------------------------------------------------------------------------------------------------------


async def test_a_token_is_made_shown_once_used_and_revoked(seen: Stack, visitor: Visitor) -> None:
    anna = as_user("anna")
    wanted = {"name": "ci", "role": "operator", "scopes": ["api"], "expires_in": "90d", "reason": "deploys"}
    status, _, made = await visitor.ask("/api/v1/tokens", "POST", anna, json=wanted)
    assert status == 201 and made["state"] == "live" and made["expires_at"] == "2027-02-16T12:00:00.000Z"
    text = made["token"]
    assert await visitor.status("/api/v1/tokens", "POST", anna, json=wanted) == 409
    _, _, who = await visitor.ask("/api/v1/whoami", headers=bearer(text))
    assert who == {"name": "ci", "role": "operator", "via": "token", "csrf": None}
    assert await visitor.status("/metrics", headers=bearer(text)) == 403
    seen.clock.step(90)
    await visitor.status("/api/v1/status", headers=bearer(text))
    _, _, page = await visitor.ask("/api/v1/tokens", headers=anna)
    [listed] = page["items"]
    assert listed["used_at"] == "2026-11-18T12:00:00.000Z"  # some minutes exact: not each use is a write
    assert text not in json.dumps(page) and "digest" not in json.dumps(page)
    assert await visitor.status("/api/v1/tokens/ci", "DELETE", anna) == 204
    assert await visitor.status("/api/v1/status", headers=bearer(text)) == 401
    assert await visitor.status("/api/v1/tokens/ci", "DELETE", anna) == 404
    assert await visitor.status("/api/v1/tokens", "POST", anna, json=wanted) == 201
    _, _, audit = await visitor.ask("/api/v1/audit", headers=anna)
    told = [(item["who"], item["action"], item["subject"]) for item in audit["items"] if item["via"] == "password"]
    assert [action for _, action, _ in told] == ["token.add", "token.revoke", "token.add"]
    assert {(who, subject) for who, _, subject in told} == {("anna", "ci")}
    assert audit["items"][-1]["reason"] == "deploys" and audit["items"][-1]["after"]["role"] == "operator"


async def test_tokens_outlive_the_daemon_and_so_does_their_end(seen: Stack, visitor: Visitor) -> None:
    anna = as_user("anna")
    texts = {}
    for name in ("kept", "gone"):
        _, _, made = await visitor.ask("/api/v1/tokens", "POST", anna, json={"name": name, "role": "viewer"})
        texts[name] = made["token"]
    await visitor.status("/api/v1/tokens/gone", "DELETE", anna)
    address = f"127.0.0.1:{free_port()}"
    close = await serve(seen, addresses=[address], socket_path=None)  # its memory is what the store holds
    async with Visitor(f"http://{address}") as later:
        assert await later.status("/api/v1/status", headers=bearer(texts["kept"])) == 200
        assert await later.status("/api/v1/status", headers=bearer(texts["gone"])) == 401
    await close()


async def test_the_audit_log_is_filtered_and_a_cursor_keeps_to_the_filters(seen: Stack, visitor: Visitor) -> None:
    anna = as_user("anna")
    for name in ("a", "b", "c"):
        await visitor.ask("/api/v1/tokens", "POST", anna, json={"name": name, "role": "viewer"})
        seen.clock.step(60)
    await visitor.status("/api/v1/tokens/b", "DELETE", anna)

    async def subjects(query: str) -> list[str]:
        status, _, page = await visitor.ask(f"/api/v1/audit?{query}", headers=anna)
        assert status == 200
        return [item["subject"] for item in page["items"]]

    assert await subjects("action=token") == ["b", "c", "b", "a"]
    assert await subjects("action=token.add") == ["c", "b", "a"] and await subjects("action=toke") == []
    assert await subjects("subject=b") == ["b", "b"] and await subjects("who=olga") == []
    assert await subjects("since=-90s&until=-30s") == ["c"]
    _, _, page = await visitor.ask("/api/v1/audit?action=token.add&limit=2", headers=anna)
    assert await subjects(f"action=token.add&cursor={page['next_cursor']}") == ["a"]
    assert await visitor.status("/api/v1/audit?action=", headers=anna) == 400


async def test_a_revoked_token_is_dead_even_when_the_disk_refuses(
    seen: Stack, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, made = await visitor.ask("/api/v1/tokens", "POST", as_user("anna"), json={"name": "t", "role": "viewer"})
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    monkeypatch.setattr(seen.store, "append", lambda _: never)
    revoking = asyncio.ensure_future(visitor.status("/api/v1/tokens/t", "DELETE", as_user("anna")))
    for _ in range(200):
        await asyncio.sleep(0.01)
        if await visitor.status("/api/v1/status", headers=bearer(made["token"])) == 401:
            break
    else:
        pytest.fail("the token still opens the door")
    assert not revoking.done()
    revoking.cancel()


async def test_a_stream_ends_with_the_token_that_opened_it(seen: Stack, visitor: Visitor) -> None:
    _, _, made = await visitor.ask("/api/v1/tokens", "POST", as_user("anna"), json={"name": "t", "role": "viewer"})
    async with visitor.open("/api/v1/events/stream", headers=bearer(made["token"])) as answer:
        assert (await answer.content.readuntil(b"\n\n")).startswith(b"retry:")
        await seen.outage("node-a")
        assert b"database_unavailable" in await answer.content.readuntil(b"\n\n")
        assert await visitor.status("/api/v1/tokens/t", "DELETE", as_user("anna")) == 204
        await seen.outage("node-b")
        assert await answer.content.read() == b""


@pytest.mark.parametrize(
    "body, path",
    [
        ({"name": "a b", "role": "viewer"}, "name"),
        ({"name": "ok", "role": "root"}, "role"),
        ({"name": "ok", "role": "viewer", "scopes": ["everything"]}, "scopes[0]"),
        ({"name": "ok", "role": "viewer", "scopes": []}, "scopes"),
        ({"name": "ok", "role": "viewer", "expires_in": "soon"}, "expires_in"),
        ({"name": "ok", "role": "viewer", "expire": "90d"}, "expire"),
        ({"role": "viewer"}, "name"),
    ],
)
async def test_a_wrong_wish_for_a_token_names_its_path(visitor: Visitor, body: Any, path: str) -> None:
    status, _, problem = await visitor.ask("/api/v1/tokens", "POST", as_user("anna"), json=body)
    assert (status, [item["path"] for item in problem["errors"]]) == (422, [path])


async def test_no_secret_reaches_the_log_the_store_or_an_answer(
    seen: Stack, visitor: Visitor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Canaries: a token, a password, a session, in every request that can go wrong with them."""
    caplog.set_level(logging.DEBUG)
    answers: list[str] = []
    with structlog.testing.capture_logs() as logged:
        _, _, made = await visitor.ask("/api/v1/tokens", "POST", as_user("anna"), json={"name": "t", "role": "viewer"})
        secret = made["token"].split("_", 2)[2]
        async with visitor.open("/-/login", "POST", json={"username": "anna", "password": PASSWORDS["anna"]}) as answer:
            cookie = answer.cookies["probed_session"].value
        shown = [
            bearer(made["token"]), bearer(made["token"][:-1]), basic(made["token"], secret), as_user("anna"),
            basic("anna", PASSWORDS["anna"] + " "), {"Cookie": f"probed_session={cookie}"},
            {"Authorization": made["token"]}, {"Cookie": f"probed_session={cookie[:-1]}"},
        ]  # fmt: skip
        for headers in shown:
            for path in ("/api/v1/status", "/nope", "/api/v1/audit", "/api/v1/tokens", "/metrics"):
                answers.append(json.dumps((await visitor.ask(path, headers=headers))[2]))
    await seen.settle()
    await seen.store.status()
    connection = sqlite3.connect(tmp_path / "store" / "probed.db")
    dumped = "\n".join(connection.iterdump())
    connection.close()
    everywhere = "\n".join([*answers, str(logged), caplog.text, dumped])
    for canary in (secret, cookie, PASSWORDS["anna"], *HASHES.values()):
        assert canary not in everywhere
    assert "t" in dumped and "access.failed" in str(logged)


# --- sessions -----------------------------------------------------------------------------------------------------


def cookie_of(headers: Any) -> dict[str, str]:
    return {"Cookie": headers["Set-Cookie"].partition(";")[0]}


SAME = {"Sec-Fetch-Site": "same-origin"}


async def test_a_form_logs_in_and_out(visitor: Visitor) -> None:
    status, headers, text = await visitor.ask("/-/login?back=events?state=open")
    assert status == 200 and 'name="back" value="events?state=open"' in text and "<script" not in text
    assert "form-action 'self'" in headers["Content-Security-Policy"]
    form = {"username": "olga", "password": PASSWORDS["olga"], "back": "events?state=open"}
    status, headers, _ = await visitor.ask("/-/login", "POST", SAME, data=form)
    assert (status, headers["Location"]) == (303, "../events?state=open")
    attributes = headers["Set-Cookie"].split("; ")[1:]
    assert attributes == ["Path=/", "Max-Age=604800", "HttpOnly", "SameSite=Strict"]
    cookie = cookie_of(headers)
    _, _, who = await visitor.ask("/api/v1/whoami", headers=cookie)
    assert (who["name"], who["role"], who["via"]) == ("olga", "operator", "session")
    form = {"csrf": who["csrf"]}
    status, headers, _ = await visitor.ask("/-/logout", "POST", {**cookie, **SAME}, data=form)
    assert (status, headers["Location"]) == (303, "../") and "Max-Age=0" in headers["Set-Cookie"]
    assert await visitor.status("/api/v1/whoami", headers=cookie) == 401


async def test_a_wrong_login_shows_the_form_again_and_makes_no_session(visitor: Visitor) -> None:
    form = {"username": "olga", "password": "guess", "back": '"><script>alert(1)</script>'}
    status, headers, text = await visitor.ask("/-/login", "POST", SAME, data=form)
    assert status == 401 and "Set-Cookie" not in headers and "<script" not in text
    assert "The credentials are not right." in text
    status, headers, problem = await visitor.ask("/-/login", "POST", json={"username": "olga", "password": "guess"})
    assert (status, problem["detail"]) == (401, "the credentials are not right") and "Set-Cookie" not in headers


@pytest.mark.parametrize(
    "back",
    ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "..//evil", "\nx", "/x"],
)
async def test_a_login_leads_nowhere_else(visitor: Visitor, back: str) -> None:
    form = {"username": "olga", "password": PASSWORDS["olga"], "back": back}
    _, headers, _ = await visitor.ask("/-/login", "POST", SAME, data=form)
    assert headers["Location"] == "../"


async def test_a_session_ends_when_its_user_does(seen: Stack, visitor: Visitor, tmp_path: Path) -> None:
    login = {"username": "olga", "password": PASSWORDS["olga"]}
    _, headers, body = await visitor.ask("/-/login", "POST", json=login)
    assert (body["name"], body["role"], body["via"]) == ("olga", "operator", "session") and body["csrf"]
    cookie = cookie_of(headers)
    assert await visitor.status("/api/v1/status", headers=cookie) == 200
    replace_file(tmp_path / "web-config.yml", USERS.replace(HASHES["olga"], HASHES["anna"]))
    seen.clock.step(1)
    assert await visitor.status("/api/v1/status", headers=cookie) == 401


async def test_behind_a_proxy_the_cookie_is_bound_to_its_path_and_to_tls(seen: Stack, tmp_path: Path) -> None:
    know(seen, tmp_path, external_url="https://ops.example/probed/")
    address = f"127.0.0.1:{free_port()}"
    close = await serve(seen, addresses=[address], socket_path=None)
    login = {"username": "olga", "password": PASSWORDS["olga"]}
    async with Visitor(f"http://{address}") as visitor:
        outside = {"Host": "ops.example", "Origin": "https://ops.example"}
        _, headers, _ = await visitor.ask("/-/login", "POST", outside, json=login)
        assert "Path=/probed/;" in headers["Set-Cookie"] and headers["Set-Cookie"].endswith("; Secure")
        _, headers, _ = await visitor.ask("/-/login", "POST", json=login)
        assert "Path=/;" in headers["Set-Cookie"] and "Secure" not in headers["Set-Cookie"]
    await close()


CROSS_SITE: list[tuple[dict[str, str], Any]] = [
    ({"Sec-Fetch-Site": "cross-site"}, None),
    ({"Sec-Fetch-Site": "same-site"}, None),
    ({"Sec-Fetch-Site": "cross-site", "Content-Type": "application/json"}, b"{}"),
    ({"Sec-Fetch-Site": "same-site", "Content-Type": "text/plain"}, b"{}"),
    ({"Sec-Fetch-Site": "weird"}, None),
    ({"Sec-Fetch-Site": ""}, None),
    ({"Origin": "https://evil.example"}, None),
    ({"Origin": "https://evil.example", "Content-Type": "application/json"}, b"{}"),
    ({"Origin": "null"}, None),
    ({"Origin": ""}, None),
    ({"Origin": "http://127.0.0.1"}, None),
    ({"Origin": "http://127.0.0.1:1"}, None),
    ({"Origin": "http://localhost.evil.example:80"}, None),
    ({"Origin": "file://"}, None),
    ({"Origin": "ftp://HOST"}, None),
    ({"Origin": "https://evil.example", "Referer": "http://HOST/"}, None),
    ({"Origin": "https://evil.example#http://HOST"}, None),
    ({"Origin": "https://evil.example", "Content-Type": "multipart/form-data; boundary=x"}, b"--x--"),
    ({"Origin": "https://evil.example", "Content-Type": "application/x-www-form-urlencoded"}, b"a=b"),
    ({"Origin": "https://evil.example", "X-Forwarded-Host": "evil.example"}, None),
]


@pytest.mark.parametrize("headers, body", CROSS_SITE)
async def test_what_another_site_has_a_browser_send_is_refused_whatever_it_carries(
    seen: Stack, visitor: Visitor, headers: dict[str, str], body: bytes | None
) -> None:
    host = visitor._url.removeprefix("http://")
    headers = {name: value.replace("HOST", host) for name, value in headers.items()}
    login = {"username": "anna", "password": PASSWORDS["anna"]}
    _, answered, _ = await visitor.ask("/-/login", "POST", json=login)
    for credentials in (cookie_of(answered), as_user("anna"), {}):
        for path in ("/-/reload", "/-/login", "/api/v1/tokens"):
            status, _, problem = await visitor.ask(path, "POST", {**headers, **credentials}, data=body)
            assert (status, problem["type"]) == (403, "urn:probed:cross-site")
    assert seen.reloads == 0


async def test_a_session_alone_changes_nothing(seen: Stack, visitor: Visitor) -> None:
    """A cookie needs a browser's word that its own page asks, and a form needs what only that page can know."""
    login = {"username": "anna", "password": PASSWORDS["anna"]}
    _, headers, who = await visitor.ask("/-/login", "POST", json=login)
    cookie, own = cookie_of(headers), {"Origin": visitor._url}
    assert await visitor.status("/-/reload", "POST", cookie) == 403
    assert await visitor.status("/-/reload", "POST", {**cookie, **own}, data={"csrf": "x"}) == 403
    assert await visitor.status("/-/reload", "POST", {**cookie, **own}, data=FormData({"a": "b"})) == 403
    assert seen.reloads == 0
    assert await visitor.status("/-/reload", "POST", {**cookie, **own}) == 200
    assert await visitor.status("/-/reload", "POST", {**cookie, **SAME}, data={"csrf": who["csrf"]}) == 200
    assert await visitor.status("/-/reload", "POST", as_user("anna")) == 200  # a program
    assert await visitor.status("/-/reload", "POST", {**as_user("anna"), "Sec-Fetch-Site": "none"}) == 200
    assert seen.reloads == 4


# --- names and limits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host, answers",
    [
        ("127.0.0.1", True), ("127.0.0.1:7432", True), ("localhost", True), ("LOCALHOST.:99", True), ("[::1]:7432", True),
        ("probed.localhost", True), ("ops.example", True), ("OPS.example:443", True), ("inner.example:7432", True),
        ("evil.example", False), ("ops.example.evil.example", False), ("xops.example", False), ("10.0.0.1", False),
        ("127.0.0.1.nip.io", False), ("", False), ("ops.example@evil.example", False), ("localhost:80@evil.example", False),
        ("169.254.169.254", False),
    ],
)  # fmt: skip
async def test_only_names_of_this_daemon_are_answered(
    seen: Stack, tmp_path: Path, visitor: Visitor, host: str, answers: bool
) -> None:
    know(seen, tmp_path, external_url="https://ops.example", allowed_hosts=["Inner.Example"])
    status = await visitor.status("/-/healthy", headers={"Host": host})
    assert status == (200 if answers else 421)


async def test_an_address_that_others_reach_answers_to_its_names_once_it_knows_them(
    seen: Stack, tmp_path: Path
) -> None:
    async def status_of(host: str) -> int:
        port = free_port()
        close = await serve(seen, addresses=[f"0.0.0.0:{port}"], socket_path=None)
        async with Visitor(f"http://127.0.0.1:{port}") as visitor:
            status = await visitor.status("/-/healthy", headers={"Host": host})
        await close()
        return status

    assert await status_of("anything.example") == 200
    know(seen, tmp_path, allowed_hosts=["ops.example"], listen=["0.0.0.0:1"], insecure=True)
    assert [await status_of(host) for host in ("ops.example", "10.0.0.7:7432", "localhost")] == [200, 200, 200]
    assert await status_of("evil.example") == 421


async def test_headers_have_a_limit_in_all(visitor: Visitor) -> None:
    fine = {f"X-{number}": "x" * 4000 for number in range(3)}
    assert await visitor.status("/-/healthy", headers=fine) == 200
    status, _, problem = await visitor.ask("/-/healthy", headers={f"X-{n}": "x" * (MAX_HEADERS // 4) for n in range(4)})
    assert (status, problem["type"]) == (431, "urn:probed:headers-too-large")


async def test_a_connection_that_does_not_come_to_the_point_is_closed(
    seen: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "SPEECHLESS_SECONDS", 0.3)
    before = set(listening.SPEECHLESS)  # of other tests, whose loops ended first
    port = free_port()
    close = await serve(seen, addresses=[f"127.0.0.1:{port}"], socket_path=None)
    slow = await asyncio.open_connection("127.0.0.1", port)
    slow[1].write(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
    quick = await asyncio.open_connection("127.0.0.1", port)
    quick[1].write(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert await slow[0].read() == b""  # until the daemon closes it
    await quick[0].readuntil(b"ok\n")
    quick[1].write(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await quick[0].readuntil(b"ok\n")  # who has spoken stays
    for _, writer in (slow, quick):
        writer.close()
    await close()
    assert before >= listening.SPEECHLESS


async def test_headers_of_the_file_are_on_every_answer(seen: Stack, tmp_path: Path, visitor: Visitor) -> None:
    text = USERS + "http_server_config: {headers: {X-Frame-Options: deny, Strict-Transport-Security: max-age=60}}\n"
    replace_file(tmp_path / "web-config.yml", text)
    seen.clock.step(1)
    for path in ("/-/healthy", "/nope", "/-/login"):
        _, headers, _ = await visitor.ask(path)
        assert (headers["X-Frame-Options"], headers["Strict-Transport-Security"]) == ("deny", "max-age=60")
        assert headers["X-Content-Type-Options"] == "nosniff" and "default-src" in headers["Content-Security-Policy"]


# --- TLS ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path)
    made.issue("server")
    return made


def trusting(authority: Authority, shown: Issued | None = None, **more: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.file)
    if shown is not None:
        context.load_cert_chain(shown.cert, shown.key)
    for name, value in more.items():
        setattr(context, name, value)
    return context


@pytest_asyncio.fixture
async def secure(seen: Stack, tmp_path: Path, authority: Authority) -> AsyncIterator[Any]:
    """serve(web-config text) -> https address"""
    closers = []

    async def start(more: str = "", users: str = USERS, **settings: object) -> str:
        know(
            seen,
            tmp_path,
            f"tls_server_config: {{cert_file: server.pem, key_file: server.key{more}}}\n{users}",
            **settings,
        )
        address = f"127.0.0.1:{free_port()}"
        closers.append(await serve(seen, addresses=[address], socket_path=None))
        return f"https://{address}"

    yield start
    for close in closers:
        await close()


async def test_passwords_and_tokens_work_over_tls_and_plain_requests_do_not(
    seen: Stack, secure: Any, authority: Authority
) -> None:
    url = await secure(roles={"olga": "operator"})
    async with Visitor(url, trusting(authority)) as visitor:
        assert await visitor.status("/metrics") == 401
        assert await visitor.status("/metrics", headers=as_user("vera")) == 200
        assert await visitor.status("/-/reload", "POST", as_user("olga")) == 403
        _, headers, _ = await visitor.ask("/-/login", "POST", json={"username": "vera", "password": PASSWORDS["vera"]})
        assert headers["Set-Cookie"].endswith("; Secure")
    async with Visitor(url, trusting(authority, maximum_version=ssl.TLSVersion.TLSv1_2)) as visitor:
        assert await visitor.status("/-/healthy") == 200
    port = int(url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"200" not in await reader.read()
    writer.close()


async def test_a_renewed_certificate_serves_the_next_connection(
    seen: Stack, secure: Any, authority: Authority, tmp_path: Path
) -> None:
    url = await secure()
    port = int(url.rpartition(":")[2])

    async def shown() -> str:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(authority))
        subject = dict(pair for part in writer.get_extra_info("peercert")["subject"] for pair in part)
        writer.close()
        return str(subject["commonName"])

    async with Visitor(url, trusting(authority)) as kept:
        assert await shown() == "server"
        fresh = authority.issue("fresh")
        replace_file(tmp_path / "server.pem", fresh.cert.read_text())
        replace_file(tmp_path / "server.key", fresh.key.read_text())
        assert await shown() == "server"
        seen.clock.step(1)
        assert await shown() == "fresh"
        (tmp_path / "server.key").write_text("garbage")
        seen.clock.step(1)
        assert await shown() == "fresh"
        assert await kept.status("/-/healthy") == 200


async def test_a_client_is_known_by_its_certificate(seen: Stack, secure: Any, authority: Authority) -> None:
    olga = authority.issue("olga", san="DNS:olga.example")
    by_san = authority.issue("unknown", san="DNS:backup.example,email:ops@example.org")
    other = authority.issue("somebody")
    more = ", client_ca_file: ca.pem, client_auth_type: VerifyClientCertIfGiven"
    url = await secure(more, roles={"olga": "operator", "ops@example.org": "admin"})
    expected = {olga: ("olga", "operator"), by_san: ("ops@example.org", "admin"), other: ("somebody", "viewer")}
    for issued, (name, role) in expected.items():
        async with Visitor(url, trusting(authority, issued)) as visitor:
            _, _, who = await visitor.ask("/api/v1/whoami")
            assert (who["name"], who["role"], who["via"]) == (name, role, "certificate")
            assert await visitor.status("/api/v1/whoami", headers=basic("anna", "guess")) == 401  # what it says, counts
            assert await visitor.status("/-/reload", "POST") == (200 if role == "admin" else 403)
    async with Visitor(url, trusting(authority)) as visitor:
        assert await visitor.status("/api/v1/whoami") == 401
        assert await visitor.status("/api/v1/whoami", headers=as_user("vera")) == 200


async def test_a_certificate_of_another_authority_or_without_an_allowed_name_does_not_get_in(
    seen: Stack, secure: Any, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "foreign").mkdir()
    foreign = Authority(tmp_path / "foreign").issue("olga")
    right, wrong = authority.issue("a", san="DNS:a.example"), authority.issue("b", san="DNS:b.example")
    more = ", client_ca_file: ca.pem, client_auth_type: RequireAndVerifyClientCert, client_allowed_sans: [a.example]"
    url = await secure(more, users="", default_role="operator")
    async with Visitor(url, trusting(authority, right)) as visitor:
        assert (await visitor.ask("/api/v1/whoami"))[2]["role"] == "operator"
    for shown in (foreign, wrong, None):
        async with Visitor(url, trusting(authority, shown)) as visitor:
            with pytest.raises(ClientError):
                await visitor.status("/-/healthy")


async def test_who_was_let_in_by_an_authority_that_was_replaced_is_known_no_longer(
    seen: Stack, secure: Any, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "next").mkdir()
    successor = Authority(tmp_path / "next")
    more = ", client_ca_file: clients.pem, client_auth_type: VerifyClientCertIfGiven"
    (tmp_path / "clients.pem").write_text(authority.file.read_text())
    url = await secure(more, users="")
    context = trusting(authority, authority.issue("olga"))
    host, port = url.removeprefix("https://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)

    async def ask() -> bytes:
        writer.write(b"GET /api/v1/whoami HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split()[0])
        await reader.readexactly(length)
        return head.split(b"\r\n")[0]

    assert await ask() == b"HTTP/1.1 200 OK"
    renewed = authority.issue("renewed")
    replace_file(tmp_path / "server.pem", renewed.cert.read_text())
    replace_file(tmp_path / "server.key", renewed.key.read_text())
    seen.clock.step(1)
    assert await ask() == b"HTTP/1.1 200 OK"  # another certificate of ours says nothing of theirs
    replace_file(tmp_path / "clients.pem", successor.file.read_text())
    seen.clock.step(1)
    assert await ask() == b"HTTP/1.1 401 Unauthorized"
    writer.close()


async def test_handshakes_that_do_not_end_take_no_more_than_their_share(
    seen: Stack, secure: Any, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "MAX_CONNECTIONS", 5)
    monkeypatch.setattr(listening, "HANDSHAKE_SECONDS", 0.5)
    url = await secure()
    port = int(url.rpartition(":")[2])
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert (await reader.read()).startswith(b"HTTP/1.1 503")  # in clear, as there is no room to shake hands
    writer.close()
    for reader, writer in silent:
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
    async with Visitor(url, trusting(authority)) as visitor:
        assert await visitor.status("/-/healthy") == 200
