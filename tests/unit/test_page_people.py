"""The page as people of a web-config.yml use it: they sign in by its form, and send the forms that it shows them."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import aiohttp
import pytest_asyncio

from probed.api import app
from probed.couriers import Appointment
from probed.errors import Undelivered
from probed.receivers import Receiver
from probed.store import AuditQuery, Change, Commit
from tests.unit.people import PASSWORDS, know
from tests.unit.serving import free_port
from tests.unit.test_couriers import Far
from tests.unit.test_page import Seen, Site, active
from tests.unit.theatre import leave, play, stage

ADMINS = ("/tokens", "/audit", "/policies/import")
"""Pages that only an admin gets."""


class Forms(HTMLParser):
    """The forms of a page: where each goes to, and what it says when nobody changes anything."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str, list[tuple[str, str]], list[str]]] = []
        """(method, action, fields, names and values of its buttons)"""
        self._select, self._area = "", ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append((given.get("method", "get"), given["action"], [], []))
        elif not self.found:
            return
        elif tag == "input" and given.get("type") not in ("file", "submit"):
            ticked = given.get("type") not in ("checkbox", "radio") or "checked" in given
            if ticked and "name" in given:
                self._fields.append((given["name"], given.get("value", "")))
        elif tag == "select":
            self._select = given["name"]
        elif tag == "textarea":
            self._area = given["name"]
            self._fields.append((self._area, ""))
        elif tag == "button":
            self.found[-1][3].append(given.get("name", ""))
        elif tag == "option" and self._select and "selected" in given:
            self._chosen = given.get("value")

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            self._area = ""
        if tag == "select":
            self._select = ""

    def handle_data(self, data: str) -> None:
        if self._area:
            name, value = self._fields[-1]
            self._fields[-1] = (name, value + (data[1:] if not value and data.startswith("\n") else data))

    @property
    def _fields(self) -> list[tuple[str, str]]:
        return self.found[-1][2]


class Person:
    """Somebody at a browser without scripts: keeps cookies, sends forms as they stand on the page."""

    def __init__(self, site: Site, name: str = "") -> None:
        self.site, self.name = site, name
        self.cookie = ""
        self.path = "/"

    async def get(self, path: str) -> tuple[int, str]:
        status, headers, text = await self.site.get(path, headers={"Cookie": self.cookie})
        self.path = path
        self.location = urljoin(path, headers.get("Location", "")) if status == 303 else ""
        return status, text

    async def sign_in(self, password: str = "", back: str = "") -> tuple[int, str, str]:
        """(status, where it leads, text)"""
        data = {"username": self.name, "password": password or PASSWORDS[self.name], "back": back}
        status, headers, text = await self.site.send("POST", "/-/login", data=data, headers=self.own)
        if "Set-Cookie" in headers:
            self.cookie = headers["Set-Cookie"].partition(";")[0]
        return status, urljoin("/-/login", headers.get("Location", "")), text

    async def send(self, text: str, action: str, *, press: str = "", **typed: str) -> tuple[int, str, str]:
        """Send the form of a page whose address ends so. (status, where it leads, text)"""
        for method, target, fields, _ in Forms(text).found:
            path = urljoin(f"http://x{self.path}", target).removeprefix("http://x")
            if method == "post" and path.endswith(action):
                said = {**dict(fields), **typed, **({press: "1"} if press else {})}
                return await self.post(path, said)
        raise AssertionError(f"no form leads to …{action}")

    async def post(self, path: str, said: Mapping[str, str]) -> tuple[int, str, str]:
        headers = {**self.own, "Cookie": self.cookie}
        status, answered, text = await self.site.send("POST", path, data=said, headers=headers)
        self.path = path
        return status, urljoin(path, answered.get("Location", "")) if status == 303 else "", text

    @property
    def own(self) -> dict[str, str]:
        return {"Origin": f"http://{self.site.address}"}


def posts(text: str) -> set[str]:
    """Where the forms of a page lead that change something, but for the way out."""
    found = {target for method, target, _, _ in Forms(text).found if method == "post"}
    return {re.sub(r"[0-9a-f-]{36}", "ID", target.lstrip("./")) for target in found} - {"-/logout"}


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """The stage after the night, of a daemon that knows Vera, Olga and Anna."""
    made = await stage(tmp_path)
    know(made, tmp_path)
    made.watch_oneself()
    outage = await play(made)
    address = f"127.0.0.1:{free_port()}"
    close = await app.serve(made, addresses=[address], socket_path=None)
    yield Site(made, address, outage)
    await close()
    await leave(made)


async def person(site: Site, name: str) -> Person:
    made = Person(site, name)
    status, _, _ = await made.sign_in()
    assert status == 303
    return made


async def actions(site: Site, limit: int = 10) -> list[tuple[str, str]]:
    """(who, action) of the audit log, newest first."""
    return [(record.who, record.action) for record in await site.seen.store.audit(AuditQuery(limit=limit))]


# --- signing in ---------------------------------------------------------------------------------------------------


async def test_who_is_not_known_is_led_to_the_form_and_back_to_where_they_were(site: Site) -> None:
    vera = Person(site, "vera")
    for path in ("/", "/?q=orders", "/events?state=open&severity=fatal", f"/events/{site.outage}"):
        status, _ = await vera.get(path)
        assert status == 303 and vera.location.startswith("/-/login"), path
        _, form = await vera.get(vera.location)
        [(_, _, fields, _)] = Forms(form).found
        status, where, _ = await vera.sign_in(back=dict(fields)["back"])
        assert (status, where) == (303, path)
        vera.cookie = ""


async def test_a_stranger_learns_nothing_but_the_observers_name(site: Site) -> None:
    own = {"Origin": f"http://{site.address}"}
    for method, path, expected in (
        ("GET", "/-/login", 200), ("POST", "/silences", 401), ("POST", "/tokens", 401), ("GET", "/nope", 401),
    ):  # fmt: skip
        status, headers, text = await site.send(method, path, data={} if method == "POST" else None, headers=own)
        assert status == expected
        head = text.partition("<footer")[0]
        for secret in ("fatal", "orders", "events", "policies", "nothing open"):
            assert secret not in head, (path, secret)
        assert "Basic" not in headers.get("WWW-Authenticate", "") or path == "/nope"


async def test_a_wrong_password_says_so_keeps_the_name_and_asks_no_window_of_the_browser(site: Site) -> None:
    status, headers, text = await site.send(
        "POST", "/-/login", data={"username": "olga", "password": "guess", "back": "events"},
        headers={"Origin": f"http://{site.address}", "Sec-Fetch-Mode": "navigate"},
    )  # fmt: skip
    assert status == 401 and "The credentials are not right." in text
    assert 'value="olga"' in text and 'value="events"' in text and "guess" not in text
    assert headers["WWW-Authenticate"] == 'Bearer realm="probed"'


async def test_too_many_wrong_passwords_say_how_long_to_wait(site: Site) -> None:
    olga = Person(site, "olga")
    for number in range(10):
        await olga.sign_in(f"guess {number}")
    status, _, text = await olga.sign_in()
    assert status == 429 and "Too many logins failed; the next is looked at in 60 s." in text
    site.seen.clock.step(60)
    assert (await olga.sign_in())[0] == 303


async def test_the_head_says_who_looks_and_as_what_and_leads_out(site: Site) -> None:
    olga = await person(site, "olga")
    _, text = await olga.get("/policies")
    assert re.search(r"olga <span class=\"quiet\">operator</span>", text) and "sign in" not in text
    status, where, _ = await olga.send(text, "/-/logout")
    assert (status, where) == (303, "/")
    assert (await olga.get("/policies"))[0] == 303


async def test_who_is_signed_in_already_is_not_asked_again(site: Site) -> None:
    vera = await person(site, "vera")
    status, _ = await vera.get("/-/login?back=events%3Fstate%3Dopen")
    assert (status, vera.location) == (303, "/events?state=open")


async def test_a_link_in_a_message_finds_the_session_that_the_browser_first_kept_back(site: Site) -> None:
    """SameSite=Strict: the cookie does not come along from elsewhere, but with a request of our own page."""
    _, _, text = await site.get("/-/login?back=events/x", headers={"Sec-Fetch-Site": "cross-site"})
    assert '<meta http-equiv="refresh" content="0; url=login?back=events%2Fx">' in text
    _, _, text = await site.get("/-/login?back=events/x", headers={"Sec-Fetch-Site": "same-origin"})
    assert "http-equiv" not in text


async def test_a_refusal_still_shows_who_looks(site: Site) -> None:
    vera = await person(site, "vera")
    for path, status in (("/tokens", 403), ("/audit", 403), ("/events/nope", 404), ("/events?state=x", 400)):
        got, text = await vera.get(path)
        assert got == status and 'vera <span class="quiet">viewer</span>' in text, path


# --- who is offered what ------------------------------------------------------------------------------------------


async def test_each_is_offered_what_their_role_may_and_nothing_else(site: Site) -> None:
    offered = {}
    for name in ("vera", "olga", "anna"):
        visitor = await person(site, name)
        seen: set[str] = set()
        for path in (*site.pages, "/policies/proposals", f"/policies/{LAG}?patch={{}}", *ADMINS):
            status, text = await visitor.get(path)
            if path in ADMINS and name != "anna":
                assert status == 403, (name, path)
                continue
            assert status == 200, (name, path)
            assert active(text) == []
            elements = Seen(text).elements
            ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
            assert len(ids) == len(set(ids)) and len([tag for tag, _ in elements if tag == "h1"]) == 1, path
            seen |= posts(text)
            for method, target, fields, _ in Forms(text).found:
                if method == "post":
                    assert dict(fields).get("csrf"), f"{path}: the form to {target} would be refused"
        _, front = await visitor.get("/")
        assert ('href="./tokens"' in front and 'href="./audit"' in front) == (name == "anna")
        offered[name] = seen
    assert offered["vera"] == set()
    assert offered["olga"] == {"events/ID/ack", "silences", "policies/no_leader", f"policies/{LAG}", "inspections"}
    assert offered["anna"] == offered["olga"] | {"tokens", "policies/import"}


async def test_what_is_not_offered_is_refused_all_the_same(site: Site) -> None:
    tries = [
        ("vera", f"/events/{site.outage}/ack"), ("vera", f"/events/{site.outage}/unack"), ("vera", "/silences"),
        ("vera", "/policies/no_leader"), ("vera", "/policies/no_leader/shadow/promote"), ("vera", "/notifications"),
        ("vera", "/inspections"),
        ("olga", "/tokens"), ("olga", "/tokens/x/revoke"), ("olga", "/policies/import"),
    ]  # fmt: skip
    for name, path in tries:
        visitor = await person(site, name)
        status, _, text = await visitor.post(path, {"csrf": "whatever"})
        assert status == 403 and "needs the role" in text, (name, path)
    assert {action for _, action in await actions(site, 100)} == {"login"}


# --- a session that ends in the middle of something ----------------------------------------------------------------


async def test_what_was_typed_outlives_the_session(site: Site) -> None:
    olga = await person(site, "olga")
    _, text = await olga.get("/policies/replication_lag_high")
    typed = {"params.lag_threshold_sec": "45", "reason": "slow <night> batch"}
    site.seen.clock.step(13 * 3600)
    status, _, kept = await olga.send(text, "/policies/replication_lag_high", **typed)
    assert status == 401 and "You are signed out" in kept and "sign in in a new tab" in kept
    assert 'value="slow &lt;night&gt; batch"' in kept and active(kept) == []
    await olga.sign_in()  # in another tab
    status, _, again = await olga.send(kept, "/policies/replication_lag_high")
    assert status == 403 and "Not sent yet" in again and 'value="slow &lt;night&gt; batch"' in again
    status, where, _ = await olga.send(again, "/policies/replication_lag_high")
    assert (status, where) == (303, "/policies/replication_lag_high")
    assert site.seen.policies["replication_lag_high"].params["lag_threshold_sec"] == 45.0
    [record] = await site.seen.store.audit(AuditQuery(action="policy"))
    assert (record.who, record.via, record.reason) == ("olga", "session", "slow <night> batch")


async def test_a_form_of_another_session_is_shown_once_more_and_not_obeyed(site: Site) -> None:
    olga = await person(site, "olga")
    data = {"csrf": "of another time", "instances": "orders", "duration": "2h", "comment": "upgrade"}
    status, _, text = await olga.post("/silences", data)
    assert status == 403 and "Not sent yet" in text and 'value="upgrade"' in text
    assert not await site.seen.store.silences(10)
    status, where, _ = await olga.send(text, "/silences")
    assert (status, where) == (303, "/silences")
    assert [silence.author for silence in await site.seen.store.silences(10)] == ["olga"]


async def test_another_site_gets_no_second_chance(site: Site) -> None:
    olga = await person(site, "olga")
    for origin in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "same-site"}, {}):
        headers = {"Cookie": olga.cookie, **origin}
        data = {"csrf": "guess", "instances": "orders", "duration": "2h", "comment": "upgrade"}
        status, _, text = await site.send("POST", "/silences", data=data, headers=headers)
        assert status == 403 and "upgrade" not in text


async def test_a_form_that_is_too_large_is_told_as_a_page_and_without_a_session_too(site: Site) -> None:
    olga = await person(site, "olga")
    for cookie in (olga.cookie, ""):
        olga.cookie = cookie
        status, _, text = await olga.post("/silences", {"comment": "x" * 70_000})
        assert status == (413 if cookie else 401) and "<h1>" in text and active(text) == []


async def test_below_a_path_of_a_proxy_everything_leads_below_it(site: Site) -> None:
    """The proxy takes /probed off; browsers over plain HTTP say their origin, which is the proxy's."""
    web = site.seen.settings.web.model_copy(update={"external_url": "http://ops.example/probed/"})
    site.seen.settings = site.seen.settings.model_copy(update={"web": web})
    outside = {"Origin": "http://ops.example", "Host": f"{site.address}"}
    status, headers, _ = await site.get(f"/events/{site.outage}", headers={"Host": "ops.example"})
    assert urljoin(f"/probed/events/{site.outage}", headers["Location"]).startswith("/probed/-/login?back=events%2F")
    data = {"username": "olga", "password": PASSWORDS["olga"], "back": f"events/{site.outage}"}
    status, headers, _ = await site.send("POST", "/-/login", data=data, headers={**outside, "Host": "ops.example"})
    assert urljoin("/probed/-/login", headers["Location"]) == f"/probed/events/{site.outage}"
    assert "Path=/probed/;" in headers["Set-Cookie"]
    cookie = headers["Set-Cookie"].partition(";")[0]
    _, _, text = await site.get(f"/events/{site.outage}", headers={"Cookie": cookie})
    [fields] = [dict(fields) for _, target, fields, _ in Forms(text).found if target.endswith("/ack")]
    # The proxy need not pass the name on.
    status, _, _ = await site.send(
        "POST", f"/events/{site.outage}/ack", data=fields, headers={**outside, "Cookie": cookie}
    )
    assert status == 303


# --- events -------------------------------------------------------------------------------------------------------


async def test_an_event_is_acknowledged_and_given_back(site: Site) -> None:
    olga, page = await person(site, "olga"), f"/events/{site.outage}"
    _, text = await olga.get(page)
    assert (await olga.send(text, "/ack", comment="on it"))[:2] == (303, page)
    _, text = await olga.get(page)
    assert "acknowledged by olga" in text and posts(text) == {"events/ID/unack"}
    assert (await olga.send(text, "/unack"))[:2] == (303, page)
    _, text = await olga.get(page)
    assert "acknowledged by olga" not in text and posts(text) == {"events/ID/ack"}
    assert (await actions(site))[:2] == [("olga", "event.unack"), ("olga", "event.ack")]


async def test_the_list_of_events_is_filtered_by_silence_as_the_api_is(site: Site) -> None:
    olga = await person(site, "olga")
    _, text = await olga.get("/silences")
    await olga.send(text, "/silences", instances="orders", duration="2h", comment="upgrade")
    [silence] = await site.seen.store.silences(10)
    await site.seen.outage("node-b")
    _, text = await olga.get("/silences")
    assert f"silenced_by={silence.id}" in text
    for query in (f"silenced_by={silence.id}", "silenced=true", "silenced=false&state=open"):
        _, text = await olga.get(f"/events?{query}")
        _, answer = await olga.get(f"/api/v1/events?{query}&limit=100")
        ids = [item["id"] for item in json.loads(answer)["items"]]
        rows = text[text.index('id="records') :] if 'id="records' in text else text
        assert set(re.findall(r'href="\./events/([0-9a-f-]{36})"', rows)) == set(ids), query
        assert ids, query


# --- receivers ----------------------------------------------------------------------------------------------------


async def test_a_receiver_is_tested_by_a_button_that_says_what_came_of_it(site: Site) -> None:
    well, dead = Far(), Far(otherwise=Undelivered("HTTP 500 <b>"))
    await site.seen.couriers.appoint(
        [Appointment(Receiver("well"), lambda: well), Appointment(Receiver("dead"), lambda: dead)]
    )
    olga, vera = await person(site, "olga"), await person(site, "vera")
    _, text = await olga.get("/notifications")
    assert posts(text) == {"notifications"} and posts((await vera.get("/notifications"))[1]) == set()
    told = ""
    for name, says in (("well", "well took the test message"), ("dead", "dead did not take the test message")):
        status, _, told = await olga.send(text, "/notifications", receiver=name)
        assert status == 200 and says in told and active(told) == []
        assert (await actions(site))[0] == ("olga", "notifications.test")
    assert "HTTP 500 &lt;b&gt;" in told
    await site.seen.couriers.close()


async def test_dead_letters_are_sent_again_by_a_button_that_operators_have(site: Site) -> None:
    far = Far(otherwise=Undelivered("HTTP 410", final=True))
    await site.seen.couriers.appoint([Appointment(Receiver("tickets"), lambda: far)])
    event = (await site.seen.store.event(site.outage)).event  # type: ignore[union-attr]  # it is there
    change = Change(event, "opened", site.seen.clock.wall(), owed=("tickets",))
    await site.seen.store.append(Commit(changes=(change,)))
    site.seen.couriers.announced(change)
    olga, vera = await person(site, "olga"), await person(site, "vera")
    text = ""
    for _ in range(2000):
        _, text = await olga.get("/notifications")
        if text.count("Send again") == 2:
            break
        await asyncio.sleep(0.005)
    assert "what tickets did not take" in text and "of orders to tickets" in text
    assert "Send again" not in (await vera.get("/notifications"))[1]
    status, _, told = await olga.send(text, "/notifications", press="resend")
    assert status == 200 and "tickets is owed 1 notice again" in told
    assert (await actions(site))[0] == ("olga", "notifications.resend")
    await site.seen.couriers.close()


# --- policies -----------------------------------------------------------------------------------------------------

LAG = "replication_lag_high"


def document(seconds: object) -> str:
    return f"format: 1\nmodified: true\npolicies:\n- id: {LAG}\n  params:\n    lag_threshold_sec: {seconds}\n"


async def test_a_document_is_looked_at_and_then_applied(site: Site) -> None:
    anna = await person(site, "anna")
    _, text = await anna.get("/policies/import")
    status, _, looked = await anna.send(text, "/policies/import", document=document(45), reason="from staging")
    assert status == 200 and "params.lag_threshold_sec" in looked and "Nothing was changed yet" in looked
    assert site.seen.policies[LAG].params["lag_threshold_sec"] == 30.0
    status, where, _ = await anna.send(looked, "/policies/import", press="apply")
    assert (status, where) == (303, "/policies")
    assert site.seen.policies[LAG].params["lag_threshold_sec"] == 45.0
    [record] = await site.seen.store.audit(AuditQuery(action="policy"))
    assert (record.who, record.action, record.reason) == ("anna", "policy.import", "from staging")
    _, _, again = await anna.send(text, "/policies/import", document=document(45))
    assert "all that it names is so already" in again and 'name="apply"' not in again


async def test_a_document_that_is_wrong_says_where_and_comes_back_as_it_was(site: Site) -> None:
    anna = await person(site, "anna")
    _, text = await anna.get("/policies/import")
    for wrong, where in ((document("soon"), "line 6"), ("format: 1\npolicies: [\n", "line "), ("", "policies")):
        status, _, told = await anna.send(text, "/policies/import", document=wrong)
        assert status == 422 and "Nothing was changed" in told and where in told, wrong
        [fields] = [dict(fields) for _, target, fields, _ in Forms(told).found if target.endswith("import")]
        assert fields["document"] == wrong


async def test_a_file_is_uploaded_and_what_the_export_gave_changes_nothing(site: Site) -> None:
    """All policies as JSON: larger than what other forms may send, and looked at before it is applied."""
    anna = await person(site, "anna")
    _, exported = await anna.get("/api/v1/policies/export?format=json")
    exported = exported + " " * 70_000
    _, text = await anna.get("/policies/import")
    [fields] = [dict(fields) for _, target, fields, _ in Forms(text).found if target.endswith("import")]
    for content, says in (
        (exported.encode(), "all that it names is so already"),
        (document(45).encode(), "lag_threshold_sec"),
        (b"policies: \xff", "is not UTF-8 text"),
        (b" " * (1 << 20) + b"x" * 70_000, "too large"),
    ):
        data = aiohttp.FormData({**fields, "apply": "1"})
        data.add_field("file", io.BytesIO(content), filename="policies.json", content_type="application/octet-stream")
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"http://{site.address}/policies/import", data=data, headers={"Cookie": anna.cookie, **anna.own}
            ) as response,
        ):
            told = await response.text()
        assert says in told, says
        assert active(told) == []
    assert site.seen.policies[LAG].params["lag_threshold_sec"] == 30.0


async def test_a_shadow_is_started_of_an_edit_compared_and_promoted(site: Site) -> None:
    olga, page = await person(site, "olga"), f"/policies/{LAG}"
    _, text = await olga.get(page)
    status, _, told = await olga.send(text, page, press="shadow")
    assert status == 422 and "change a field first" in told
    typed = {"params.lag_threshold_sec": "60", "reason": "trying"}
    status, where, _ = await olga.send(text, page, press="shadow", **typed)
    assert (status, where) == (303, page)
    assert site.seen.policies[LAG].params["lag_threshold_sec"] == 30.0
    _, text = await olga.get(page)
    assert "A changed version that runs beside this policy" in text and "params.lag_threshold_sec: 60" in text
    _, seen = await (await person(site, "vera")).get(page)
    assert "params.lag_threshold_sec: 60" in seen and posts(seen) == set()
    assert (await olga.send(text, "/shadow/promote"))[:2] == (303, page)
    assert site.seen.policies[LAG].params["lag_threshold_sec"] == 60.0
    _, text = await olga.get(page)
    assert "A changed version that runs" not in text
    made = [action for who, action in await actions(site) if who == "olga"]
    assert made[:3] == ["shadow.promote", "policy.edit", "shadow.lay"]


async def test_a_shadow_is_ended(site: Site) -> None:
    olga, page = await person(site, "olga"), f"/policies/{LAG}"
    _, text = await olga.get(page)
    await olga.send(text, page, press="shadow", **{"params.lag_threshold_sec": "60"})
    _, text = await olga.get(page)
    assert (await olga.send(text, "/shadow/end"))[:2] == (303, page)
    assert not site.seen.shadowing.shadows


async def test_a_proposed_change_fills_the_form_in_and_changes_nothing_by_itself(site: Site) -> None:
    olga = await person(site, "olga")
    patch = {"params": {"lag_threshold_sec": 45}, "severity": "normal", "interval": "20s"}
    page = f"/policies/{LAG}"
    status, text = await olga.get(f"{page}?patch={json.dumps(patch)}")
    assert status == 200 and "interval: 20s" in text
    [fields] = [dict(fields) for _, target, fields, _ in Forms(text).found if target.endswith(LAG)]
    assert fields["params.lag_threshold_sec"] == "45" and json.loads(fields["also"]) == {"interval": "20s"}
    assert site.seen.policies[LAG].params["lag_threshold_sec"] == 30.0
    status, _, _ = await olga.send(text, page, severity="normal")
    assert status == 303
    policy = site.seen.policies[LAG]
    assert (policy.params["lag_threshold_sec"], policy.interval, policy.severity.value) == (45.0, 20.0, "normal")
    assert (await olga.get(f"{page}?patch=[]"))[0] == 400


async def test_proposals_are_a_page_of_their_own(site: Site) -> None:
    vera = await person(site, "vera")
    for path in ("/policies/proposals", f"/policies/proposals?policy={LAG}"):
        status, text = await vera.get(path)
        assert status == 200 and "Nothing to propose" in text and active(text) == []


# --- tokens and the audit log -------------------------------------------------------------------------------------


async def test_a_token_is_made_shown_once_and_revoked(site: Site) -> None:
    anna = await person(site, "anna")
    _, text = await anna.get("/tokens")
    typed = {"name": "prometheus", "role": "viewer", "expires_in": "90d", "reason": "scrapes"}
    status, _, made = await anna.send(text, "/tokens", **typed)
    [token] = re.findall(r'<pre id="made">(probed_\S+)</pre>', made)
    assert status == 201 and active(made) == []
    headers = {"Authorization": f"Bearer {token}"}
    assert (await site.get("/api/v1/status", headers=headers))[0] == 200
    _, listed = await anna.get("/tokens")
    assert "prometheus" in listed and token not in listed
    status, _, again = await anna.send(text, "/tokens", **typed)
    assert status == 422 and "a live token has the name" in again and 'value="90d"' in again
    status, where, _ = await anna.send(listed, "/revoke")
    assert (status, where) == (303, "/tokens")
    assert (await site.get("/api/v1/status", headers=headers))[0] == 401
    done = [action for who, action in await actions(site) if who == "anna"]
    assert done[:2] == ["token.revoke", "token.add"]


async def test_what_is_wrong_with_a_token_stands_beside_its_field(site: Site) -> None:
    anna = await person(site, "anna")
    _, text = await anna.get("/tokens")
    wrong: Any = {"name": "a b", "role": "viewer", "expires_in": "soon"}
    status, _, told = await anna.send(text, "/tokens", **wrong)
    assert status == 422 and 'id="wrong-name"' in told and 'id="wrong-expires_in"' in told
    assert 'value="a b"' in told


async def test_the_audit_log_is_filtered_and_goes_on_page_by_page(site: Site) -> None:
    anna = await person(site, "anna")
    olga = await person(site, "olga")
    _, text = await olga.get(f"/policies/{LAG}")
    for seconds in ("45", "50"):
        await olga.send(text, f"/policies/{LAG}", etag="*", reason="slow", **{"params.lag_threshold_sec": seconds})
    _, text = await anna.get("/audit")
    assert text.count("policy.edit") == 2 and "params.lag_threshold_sec: 45 → 50" in text and active(text) == []
    assert f'href="./policies/{LAG}"' in text
    for query, number in (
        ("who=olga", 3), ("action=policy", 2), ("action=policy.edit&who=anna", 0), (f"subject={LAG}", 2),
        ("since=-1h", 4), ("until=-1h", 0), ("who=&subject=olga", 1),
    ):  # fmt: skip
        _, text = await anna.get(f"/audit?{query}")
        assert text.count('<th scope="row">') == number, query
    assert "No record fits these filters" in (await anna.get("/audit?who=nobody"))[1]
    assert (await anna.get("/audit?since=soon"))[0] == 400
