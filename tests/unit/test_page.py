"""The page over real sockets: what every browser gets, whatever targets and people wrote into it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from msgspec.structs import replace

from probed.api import app
from probed.api.access import Principal
from probed.api.doorkeeping import KnownPeople
from probed.incidents import new_id
from probed.inspection import ReportState
from probed.model import Event, EventState, Outcome, Role, Severity, Target
from probed.store import Change, Commit
from probed.web.desk import POLICY
from tests.unit import reports
from tests.unit.serving import HOSTILE, Stack, free_port
from tests.unit.theatre import hostile_stage, leave, play, stage

PAGES = (
    "/", "/?q=orders", "/events", "/events?state=open&severity=fatal&since=-24h", "/policies", "/policies/no_leader",
    "/instances/orders", "/instances/observer", "/readings?target=orders/node-b/postgres&probe=postgres_liveness",
    "/readings?target=orders/node-b/postgres&probe=postgres_liveness&since=-24h",
    "/inspections", f"/inspections/{reports.ONE_ID}", f"/inspections/{reports.FLEET_ID}",
    "/silences", "/notifications", "/about", "/view",
)  # fmt: skip

MARKUP = tuple(
    f"{before}{payload}{after}"
    for payload in (
        "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<svg onload=alert(1)>", "<a href=javascript:alert(1)>x</a>",
        "<iframe srcdoc='<script>alert(1)</script>'>", "<form action=//evil.example><input name=p>", "<base href=//evil.example/>",
        "<meta http-equiv=refresh content=0;url=//evil.example>", "<style>*{display:none}</style>", "<link rel=stylesheet href=//evil.example>",
        "<object data=//evil.example>", "<embed src=//evil.example>", "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
        "<!--><script>alert(1)</script-->", "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>", "&lt;script&gt;alert(1)&lt;/script&gt;",
        "{{ 7 * 7 }}{% for x in y %}", "\u202e<b>", "<details open ontoggle=alert(1)>",
    )
    for before, after in (("", ""), ('">', ""), ("'>", ""), ("</title>", ""), ("</pre></textarea></select>", ""), ("]]>", "<!--"), ("\x00", "\x1b[0m"), (" autofocus onfocus=alert(1) x='", "'"))
)  # fmt: skip
PAYLOADS = (*HOSTILE, *MARKUP)


@dataclass
class Site:
    seen: Stack
    address: str
    outage: str
    reason: str = ""

    async def get(
        self, path: str, cookies: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], str]:
        return await self.send("GET", path, cookies=cookies, headers=headers)

    async def send(
        self,
        method: str,
        path: str,
        *,
        data: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Mapping[str, str], str]:
        async with (
            aiohttp.ClientSession(cookies=cookies) as session,
            session.request(
                method, f"http://{self.address}{path}", data=data, headers=headers, allow_redirects=False
            ) as response,
        ):
            return response.status, response.headers, await response.text()

    @property
    def pages(self) -> tuple[str, ...]:
        return (*PAGES, f"/events/{self.outage}")


async def an_operator(_: KnownPeople, request: web.Request) -> Principal:
    """A doorkeeper who takes everybody for the operator Olga."""
    return Principal("olga", Role.OPERATOR, "password")


@pytest_asyncio.fixture
async def site(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    """The stage after the night. ``indirect`` parameters: who looks (``operator``), or the text that targets say."""
    wanted = getattr(request, "param", "")
    if wanted == "operator":
        monkeypatch.setattr(KnownPeople, "identify", an_operator)
    made = await stage(tmp_path)
    made.watch_oneself()
    outage = await play(made)
    address = f"127.0.0.1:{free_port()}"
    close = await app.serve(made, addresses=[address], socket_path=None)
    yield Site(made, address, outage)
    await close()
    await leave(made)


class Seen(HTMLParser):
    """The elements of a page with their attributes, and what is wrong by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def all(self, *tags: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


def active(text: str) -> list[str]:
    """What in a page could run, load or send anything that is not the page's own."""
    found = []
    for tag, attributes in Seen(text).elements:
        found += [f"{tag} {name}" for name in attributes if name.startswith("on") or name in ("style", "srcdoc")]
        if tag in ("iframe", "object", "embed", "base", "style", "math", "img") or (
            tag == "meta" and "http-equiv" in attributes
        ):
            found.append(tag)
        if tag == "script" and not re.fullmatch(r"[./]*static/live\.[0-9a-f]{12}\.js", attributes.get("src", "")):
            found.append("script")
        for name in ("href", "src", "action", "formaction"):
            where = attributes.get(name, "")
            if urlsplit(where).scheme or where.startswith(("/", "\\")):
                found.append(f"{tag} {name}={where}")
    return found


async def test_every_page_is_html_with_a_policy_that_lets_nothing_of_others_run(site: Site) -> None:
    for path in site.pages:
        status, headers, text = await site.get(path)
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8"), path
        assert headers["Content-Security-Policy"] == POLICY
        assert headers["Cache-Control"] == "no-store"
        assert active(text) == [], path


async def test_every_page_names_itself_and_has_one_heading_and_the_landmarks(site: Site) -> None:
    titles = set()
    for path in site.pages:
        _, _, text = await site.get(path)
        seen = Seen(text)
        assert len(seen.all("h1")) == len(seen.all("main")) == len(seen.all("nav")) == 1, path
        ids = [attributes["id"] for _, attributes in seen.elements if "id" in attributes]
        assert len(ids) == len(set(ids)), path
        titles.add(re.findall(r"<title>(.*?)</title>", text)[0])
    assert len(titles) >= len(site.pages) - 3


async def test_every_link_of_every_page_leads_somewhere(site: Site) -> None:
    known: dict[str, int] = {}
    for path in site.pages:
        _, _, text = await site.get(path)
        for attributes in Seen(text).all("a", "link", "script"):
            where = attributes.get("href") or attributes.get("src") or ""
            target = (
                urljoin(f"http://{site.address}{path}", where).removeprefix(f"http://{site.address}").partition("#")[0]
            )
            if target not in known and "format=" not in target and "/api/v1/inspections/" not in target:
                known[target] = (await site.get(target))[0]
    assert {target: status for target, status in known.items() if status != 200} == {}
    assert len(known) > 100


async def test_addresses_are_relative_so_that_a_proxy_may_put_the_page_anywhere(site: Site) -> None:
    _, _, text = await site.get(f"/events/{site.outage}")
    links = [attributes["href"] for attributes in Seen(text).all("a", "link")]
    below = {urljoin(f"https://watch.example/some/where/events/{site.outage}", link) for link in links}
    assert all(link.startswith("https://watch.example/some/where/") for link in below)


async def test_a_file_of_the_page_is_named_by_its_content_and_kept_for_ever(site: Site) -> None:
    _, _, text = await site.get("/")
    sheet = next(item["href"] for item in Seen(text).all("link") if item["rel"] == "stylesheet")
    status, headers, _ = await site.get(sheet.removeprefix("."))
    assert (status, headers["Content-Type"]) == (200, "text/css; charset=utf-8")
    assert "immutable" in headers["Cache-Control"]
    assert (await site.get(sheet.removeprefix(".").replace(".css", "x.css")))[0] == 404


async def test_the_overview_tells_cause_consequences_and_what_cannot_be_seen(site: Site) -> None:
    _, _, text = await site.get("/")
    assert "1 fatal; 1 target cannot be seen" in text
    assert "held back as its consequence: 1" in text
    assert "HTTP 401 with the configured token" in text
    assert text.index('id="instance-orders"') < text.index('id="instance-billing"') < text.index('id="instance-crm"')


async def test_the_strip_shows_what_began_weeks_ago_and_its_columns_and_download_lead_to_it(site: Site) -> None:
    now = site.seen.clock.wall()

    async def lasting(days: int, end: float | None) -> str:
        at, state = now - days * 86400, EventState.OPEN if end is None else EventState.RESOLVED
        target = Target("crm", "node-a", "postgres", member=str(days))
        event = Event(
            new_id(at), "no_leader", "No leader", Severity.FATAL, state, target, at, "none", resolved_at=end
        )  # fmt: skip
        await site.seen.store.append(Commit(changes=(Change(event, "opened", at),)))
        return event.id

    async def columns() -> list[str]:
        _, _, text = await site.get("/instances/crm")
        return re.findall(r'<a href="([^"]*)" aria-label="[^"]*"><title>[^<]*</title><rect class="fatal"', text)

    await lasting(30, now - 30 * 3600)
    assert await columns() == []
    resolved = await lasting(20, now - 6 * 3600)
    found = await columns()
    assert len(found) in (72, 73), "18 of 24 hours"
    still_open = await lasting(50, None)
    assert len(await columns()) == 96
    _, _, text = await site.get(urljoin("/instances/crm", found[0].replace("&amp;", "&")))
    assert re.findall(r'<a href="./events/([^"]*)">No leader', text) == [resolved, still_open]
    [link] = re.findall(r'href="([^"]*format=json)"', text)
    _, _, download = await site.get(urljoin("/events", link.replace("&amp;", "&")))
    assert [item["id"] for item in json.loads(download)["items"]][-2:] == [resolved, still_open]


async def test_the_event_tells_rule_evidence_chain_and_what_to_do(site: Site) -> None:
    _, _, text = await site.get(f"/events/{site.outage}")
    for said in (
        "failed in 3 samples in a row", "node-a: leader stopped", "What could not be had", "HA cluster having no Leader",
        "A crashed primary is usually replaced by itself", "first bad sample",
    ):  # fmt: skip
        assert said in text, said


async def test_a_link_of_the_grid_leads_to_as_many_records_as_it_says(site: Site) -> None:
    _, _, text = await site.get("/events", cookies={"probed_zone": "Asia/Tokyo"})
    cells = re.findall(r'<td class="shade[1-4]"><a href="(.*?)"[^>]*>(\d+)</a>', text)
    assert len(cells) > 20
    for link, number in cells[:12]:
        _, _, found = await site.get("/" + link.removeprefix("./").replace("&amp;", "&"))
        assert found.count('<td class="nowrap"><time') == int(number)


async def test_zone_and_colours_are_kept_by_cookies_without_scripts(site: Site) -> None:
    status, headers, _ = await site.get("/view?theme=dark&zone=Asia/Tokyo&back=events%3Fstate%3Dopen&set=1")
    assert (status, headers["Location"]) == (303, "./events?state=open")
    _, _, text = await site.get("/", cookies={"probed_theme": "dark", "probed_zone": "Asia/Tokyo"})
    assert 'data-theme="dark"' in text and "2026-11-18 21:01:15 JST" in text


async def test_nobody_is_sent_elsewhere_after_a_form(site: Site) -> None:
    for back in ["//evil.example", "https://evil.example", "\\\\evil.example", "/etc", "../x", "a//b", "a:b"]:
        _, headers, _ = await site.get(f"/view?theme=dark&zone=UTC&set=1&back={back}")
        assert headers["Location"] == "./"


async def test_a_zone_that_does_not_exist_is_told_beside_its_field(site: Site) -> None:
    status, _, text = await site.get("/view?zone=Mars/Olympus&theme=dark&set=1")
    assert status == 422 and "Expected a time zone such as Europe/Berlin" in text


async def test_a_refusal_is_a_page_that_says_what_instead(site: Site) -> None:
    for path, status in [
        ("/events/nope", 404),
        ("/instances/nope", 404),
        ("/policies/nope", 404),
        ("/readings", 404),
        ("/events?state=x", 400),
        ("/?nope=1", 400),
    ]:
        got, headers, text = await site.get(path)
        assert (got, headers["Content-Type"]) == (status, "text/html; charset=utf-8")
        assert "<h1>" in text and active(text) == []


async def test_a_fragment_is_the_same_page_without_its_frame(site: Site) -> None:
    _, _, whole = await site.get("/")
    _, _, part = await site.get("/", headers={"Probed-Fragment": "1"})
    assert "<nav" not in part and len(part) < len(whole)
    lives = {item["id"] for _, item in Seen(part).elements if "data-live" in item}
    assert lives == {item["id"] for _, item in Seen(whole).elements if "data-live" in item}


async def test_who_only_reads_is_offered_no_change(site: Site) -> None:
    for path in site.pages:
        _, _, text = await site.get(path)
        assert all(form.get("method", "get") == "get" for form in Seen(text).all("form")), path
    own = {"Origin": f"http://{site.address}"}
    status, _, _ = await site.send("POST", "/policies/no_leader", data={"severity": "normal"}, headers=own)
    assert status == 403 and site.seen.policies["no_leader"].severity.value == "fatal"


@pytest.mark.parametrize("site", ["operator"], indirect=True)
async def test_a_form_of_another_site_changes_nothing(site: Site) -> None:
    data = {"instances": "orders", "duration": "2h", "comment": "x"}
    origins: list[dict[str, str]] = [
        {},
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ]
    for origin in origins:
        status, _, _ = await site.send("POST", "/silences", data=data, headers=origin)
        assert status == 403 and not await site.seen.store.silences(10)


@pytest.mark.parametrize("site", ["operator"], indirect=True)
async def test_an_operator_silences_by_a_form_and_ends_it(site: Site) -> None:
    own = {"Sec-Fetch-Site": "same-origin"}
    data = {"instances": "orders", "duration": "2h", "comment": "upgrade <b>"}
    status, headers, _ = await site.send("POST", "/silences", data=data, headers=own)
    assert (status, headers["Location"]) == (303, "silences")
    _, _, text = await site.get("/silences")
    assert "instance orders" in text and "upgrade &lt;b&gt;" in text and "olga" in text
    [silence] = await site.seen.store.silences(10)
    status, headers, _ = await site.send("POST", f"/silences/{silence.id}/expire", data={}, headers=own)
    assert status == 303 and urljoin(f"/silences/{silence.id}/expire", headers["Location"]) == "/silences"
    assert [one.ended_by for one in await site.seen.store.silences(10)] == ["olga"]


@pytest.mark.parametrize("site", ["operator"], indirect=True)
async def test_a_silence_shows_on_what_it_covers_and_says_that_people_were_told_before(site: Site) -> None:
    data = {"instances": "orders", "duration": "2h", "comment": "upgrade <b>"}
    await site.send("POST", "/silences", data=data, headers={"Sec-Fetch-Site": "same-origin"})
    node = (await site.seen.store.event(site.outage)).event.target.node  # type: ignore[union-attr]  # it is there
    site.seen.clock.step(5)
    site.seen.sample("postgres_liveness", node, Outcome.FAILED, kind="refused", reason="connection refused")
    await site.seen.settle()
    _, _, text = await site.get("/")
    assert "· silenced" in text
    _, _, text = await site.get(f"/events/{site.outage}")
    assert "silenced: upgrade &lt;b&gt; (olga); people were told of it" in text


async def test_patronis_pause_stands_beside_the_instance(site: Site) -> None:
    assert "Patroni is paused" not in (await site.get("/"))[2]
    site.seen.pipeline.instances["orders"].paused = True
    for path in ("/", "/instances/orders"):
        assert "Patroni is paused" in (await site.get(path))[2]


@pytest.mark.parametrize("site", ["operator"], indirect=True)
async def test_what_is_wrong_with_a_form_stands_beside_its_field_and_nothing_is_lost(site: Site) -> None:
    data = {"instances": "orders", "duration": "soon", "comment": "an upgrade"}
    status, _, text = await site.send("POST", "/silences", data=data, headers={"Sec-Fetch-Site": "same-origin"})
    assert status == 422
    assert 'value="an upgrade"' in text and 'value="soon"' in text and "expected a duration such as" in text


@pytest.mark.parametrize("site", ["operator"], indirect=True)
async def test_an_event_is_acknowledged_by_a_form(site: Site) -> None:
    path, own = f"/events/{site.outage}/ack", {"Sec-Fetch-Site": "same-origin"}
    status, headers, _ = await site.send("POST", path, data={"comment": "on it"}, headers=own)
    assert status == 303 and urljoin(path, headers["Location"]) == f"/events/{site.outage}"
    _, _, text = await site.get(f"/events/{site.outage}")
    assert "acknowledged by olga" in text and "Acknowledge</button>" not in text


async def test_what_people_ask_for_is_shown_back_as_text(site: Site) -> None:
    texts = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "\u202egnp.exe", "{{ 7*7 }}"]
    paths = ("/?q=", "/events?instance=", "/silences?node=", "/readings?target=", "/view?set=1&theme=x&zone=")
    for path, text in product(paths, texts):
        _, _, got = await site.get(
            path + aiohttp.helpers.quote(text) if hasattr(aiohttp.helpers, "quote") else path + text
        )
        assert active(got) == []
        assert "\u202e" not in got and ">49<" not in got


async def test_two_hundred_hostile_texts_from_targets_and_people_are_shown_as_text(tmp_path: Path) -> None:
    """As names of nodes, answers, errors, labels, policies, reasons, comments and evidence, all at once on every page."""
    assert len(set(PAYLOADS)) >= 200
    made, pages = await hostile_stage(tmp_path, PAYLOADS)
    address = f"127.0.0.1:{free_port()}"
    close = await app.serve(made, addresses=[address], socket_path=None)
    site = Site(made, address, "")
    try:
        seen = ""
        for path in pages:
            status, _, text = await site.get(path)
            assert status == 200, path
            assert active(text) == [], path
            assert not [char for char in text if not char.isprintable() and char != "\n"], path
            seen += text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in seen and "\\u202e" in seen
    finally:
        await close()
        await leave(made)


async def test_the_overview_of_a_hundred_instances_is_light(tmp_path: Path) -> None:
    made = await stage(tmp_path, tuple(f"db-{number:03}" for number in range(99)))
    made.watch_oneself()
    outage = await play(made)
    address = f"127.0.0.1:{free_port()}"
    close = await app.serve(made, addresses=[address], socket_path=None)
    try:
        status, _, text = await Site(made, address, outage).get("/")
        assert status == 200 and text.count('class="fold"') > 85
        assert len(text.encode()) <= 150 * 1024
    finally:
        await close()
        await leave(made)


def test_nobody_pays_for_templates_before_the_first_page() -> None:
    script = "import sys, probed.api.app; sys.exit('jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# --- inspections


async def test_a_report_is_shown_with_what_is_worst_first_and_can_be_had_as_files(site: Site) -> None:
    _, _, text = await site.get(f"/inspections/{reports.ONE_ID}")
    order = [text.index(said) for said in ("Grade", "node-b has not replayed", "Since the last inspection", "Evidence")]
    assert order == sorted(order) and text.count("<polyline") > 4
    for suffix in ("json", "md", "html", "pdf"):
        assert f'href="../api/v1/inspections/{reports.ONE_ID}.{suffix}"' in text
    for suffix, media, begins in (
        ("md", "text/markdown", "# Inspection of orders"),
        ("html", "text/html", "<!doctype html>"),
    ):
        status, headers, got = await site.get(f"/api/v1/inspections/{reports.ONE_ID}.{suffix}")
        assert (status, headers["Content-Type"]) == (200, f"{media}; charset=utf-8")
        assert (
            headers["Content-Disposition"]
            == f'attachment; filename="probed-inspection-nightly-20261118T030000Z.{suffix}"'
        )
        assert got.lstrip().startswith(begins)


async def test_the_instances_page_leads_to_its_last_grade(site: Site) -> None:
    _, _, text = await site.get("/instances/orders")
    link = re.findall(r'Last inspection: <a href="(.*?)">grade D</a>, 1 fail, 4 warn', text)
    assert link == [f"../inspections/{reports.ONE_ID}?instance=orders"]


async def test_a_report_of_several_shows_each_instance_whole_behind_its_name(site: Site) -> None:
    _, _, text = await site.get(f"/inspections/{reports.FLEET_ID}")
    assert "<polyline" not in text and "?instance=billing#i1" in text
    _, _, text = await site.get(f"/inspections/{reports.FLEET_ID}?instance=billing")
    assert "<polyline" in text and "the member is healthy" in text
    assert (await site.get(f"/inspections/{reports.FLEET_ID}?instance=crm"))[0] == 404
    assert (await site.get("/inspections/nope"))[0] == 404


async def test_an_inspection_that_runs_is_waited_for_also_without_scripts(site: Site) -> None:
    going = reports.report(id="019abcff-0000-7000-8000-000000000000", state=ReportState.RUNNING, ended_at=None, name="")
    await site.seen.store.append(Commit(inspections=(reports.kept(going),)))
    status, headers, _ = await site.get(f"/inspections/{going.id}")
    assert (status, headers["Location"]) == (303, f"{going.id}?watch=true")
    status, _, text = await site.get(f"/inspections/{going.id}?watch=true")
    assert (
        status == 200
        and '<noscript><meta http-equiv="refresh" content="3"></noscript>' in text
        and "data-hurry" in text
    )
    assert "running" in (await site.get("/inspections"))[2]
    done = replace(going, state=ReportState.DONE, ended_at=going.began_at + 2, instances=(reports.well(),))
    await site.seen.store.append(Commit(inspections=(reports.kept(done),)))
    status, headers, _ = await site.get(f"/inspections/{going.id}?watch=true")
    assert (status, headers["Location"]) == (303, going.id)


@pytest.mark.parametrize("site", ["operator"], indirect=True)
async def test_the_form_offers_what_is_on_and_says_what_is_wrong_beside_the_field(site: Site) -> None:
    _, _, text = await site.get("/inspections")
    assert 'name="events" value="no_leader"' in text and 'name="instances" value="orders"' in text
    off = {policy.id for policy in site.seen.policies.values() if not policy.enabled}
    assert off and not [one for one in off if f'name="events" value="{one}"' in text]
    own = {"Sec-Fetch-Site": "same-origin"}
    status, _, text = await site.send("POST", "/inspections", data={"instances": "orders", "days": "900"}, headers=own)
    assert status == 422 and 'id="wrong-days"' in text and 'value="900"' in text and 'value="orders" checked' in text
    status, _, text = await site.send("POST", "/inspections", data={"events": min(off), "days": "7"}, headers=own)
    assert status == 422 and 'id="wrong-events"' in text
    assert (await site.send("POST", "/inspections", data={"days": "7"}, headers={"Sec-Fetch-Site": "cross-site"}))[
        0
    ] == 403


async def test_without_a_report_the_list_teaches_how_to_make_one(tmp_path: Path) -> None:
    made = await stage(tmp_path)
    address = f"127.0.0.1:{free_port()}"
    close = await app.serve(made, addresses=[address], socket_path=None)
    try:
        _, _, text = await Site(made, address, "").get("/inspections")
        assert "No inspection was made yet" in text and "schedule: daily 03:00" in text
    finally:
        await close()
        await leave(made)
