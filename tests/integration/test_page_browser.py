"""The page in a real browser: for everybody, with and without scripts, at every width."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from msgspec.structs import replace
from playwright.async_api import Browser, BrowserContext, Locator, Page, async_playwright, expect

from probed.access.sessions import IDLE_SECONDS
from probed.api import app
from probed.api.doorkeeping import KnownPeople
from probed.couriers import Appointment
from probed.errors import Undelivered
from probed.model import Outcome
from probed.receivers import Receiver
from probed.store import Change, Commit
from tests.unit.people import PASSWORDS, know
from tests.unit.serving import Stack, free_port
from tests.unit.test_couriers import Far, an_event
from tests.unit.test_page import PAGES, PAYLOADS, an_operator
from tests.unit.theatre import healthy, hostile_stage, leave, play, stage

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium (make system)"),
    pytest.mark.timeout(300),
]


class Shown:
    """The stage in a browser."""

    def __init__(self, seen: Stack, browser: Browser, base: str, outage: str) -> None:
        self.seen, self.browser, self.base, self.outage = seen, browser, base, outage
        self.pages = (*PAGES, f"/events/{outage}")

    async def context(self, **more: object) -> BrowserContext:
        options: dict[str, object] = {"viewport": {"width": 1280, "height": 800}, **more}
        made: BrowserContext = await self.browser.new_context(**options)  # type: ignore[arg-type] # by name
        return made

    async def open(self, path: str, **more: object) -> Page:
        page = await (await self.context(**more)).new_page()
        await page.goto(self.base + path)
        return page

    async def sign_in(self, page: Page, name: str) -> None:
        """By the form that the page leads to."""
        await page.get_by_label("User").fill(name)
        await page.get_by_label("Password").fill(PASSWORDS[name])
        await page.get_by_role("button", name="Sign in").click()


@pytest_asyncio.fixture
async def shown(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Shown]:
    if getattr(request, "param", "") == "operator":
        monkeypatch.setattr(KnownPeople, "identify", an_operator)
    made = await stage(tmp_path)
    if getattr(request, "param", "") == "people":
        know(made, tmp_path)
    made.watch_oneself()
    outage = await play(made)
    address = f"127.0.0.1:{free_port()}"
    close = await app.serve(made, addresses=[address], socket_path=None)
    async with async_playwright() as playwright:
        # Under root Chromium refuses its sandbox; it sees our own pages only.
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield Shown(made, browser, f"http://{address}", outage)
        await browser.close()
    await close()
    await leave(made)


async def complaints_of_axe(page: Page, checker: BrowserContext | None = None) -> list[str]:
    """What axe says of a page with everything unfolded. It needs scripts: ``checker`` may have them in its stead."""
    if checker is not None:
        html, url = await page.content(), page.url
        page = await checker.new_page()
        await page.route(url, lambda route: route.fulfill(body=html, content_type="text/html; charset=utf-8"))
        await page.goto(url)
        found = await complaints_of_axe(page)
        await page.close()
        return found
    await page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    results = await Axe().run(page)
    return [
        f"{page.url}: {one['id']}: {node['html'][:160]} {[item['message'] for item in node['any']]}"
        for one in results.response["violations"]
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("shown", ["viewer", "operator"], indirect=True)
async def test_axe_finds_nothing_wrong_on_any_page_in_light_and_dark(shown: Shown) -> None:
    for scheme in ("light", "dark"):
        context = await shown.context(color_scheme=scheme)
        page = await context.new_page()
        for path in shown.pages:
            await page.goto(shown.base + path)
            assert await complaints_of_axe(page) == [], scheme
        await context.close()


async def test_nothing_sticks_out_on_a_telephone_nor_at_4k(shown: Shown) -> None:
    for width in (390, 1280, 3840):
        page = await shown.open("/", viewport={"width": width, "height": 844})
        for path in shown.pages:
            await page.goto(shown.base + path)
            assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, (path, width)


async def test_without_scripts_everything_is_there(shown: Shown) -> None:
    with_scripts = await shown.open("/")
    without = await shown.open("/", java_script_enabled=False)
    for path in shown.pages:
        await with_scripts.goto(shown.base + path)
        await without.goto(shown.base + path)
        assert await without.locator("h1").inner_text() == await with_scripts.locator("h1").inner_text()
        assert await without.locator("main a").count() == await with_scripts.locator("main a").count()
    await without.goto(shown.base + "/")
    await without.get_by_text("held back as its consequence").click()
    assert await without.get_by_role("link", name="HA cluster having no Leader").is_visible()


async def test_nothing_on_any_page_is_refused_by_its_own_policy_or_fails(shown: Shown) -> None:
    page = await shown.open("/")
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    # What is under way while the next page is opened is given up by the browser: the stream, at times the icon.
    given_up = "net::ERR_ABORTED"
    page.on("requestfailed", lambda failed: complaints.append(failed.url) if failed.failure != given_up else None)
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url))
    for path in shown.pages:
        await page.goto(shown.base + path)
    assert complaints == []
    assert {url for url in asked if not url.startswith(shown.base)} == set()


async def test_the_keyboard_reaches_the_event_and_one_sees_where_one_is(shown: Shown) -> None:
    page = await shown.open("/")
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.textContent") == "Skip to the content"
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    link = page.locator(":focus")
    assert await link.inner_text() == "Database access unavailable"
    assert await link.evaluate("(each) => getComputedStyle(each).outlineStyle") == "solid"
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    assert await page.locator("details[open]").count() == 1
    await page.keyboard.press("Shift+Tab")
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"**/events/{shown.outage}")


async def test_what_happens_is_shown_at_once_and_what_was_unfolded_stays_so(shown: Shown) -> None:
    page = await shown.open("/")
    await page.get_by_text("● live").wait_for()
    await page.get_by_text("held back as its consequence: 1").click()
    for _ in range(3):
        shown.seen.clock.step(5)
        samples = [
            replace(sample, outcome=Outcome.FAILED, readings={}, reason="HTTP 503", kind="status")
            if sample.probe == "auth"
            else sample
            for sample in healthy(shown.seen, "crm")
        ]
        shown.seen.pipeline.accept("crm", samples)
    await page.get_by_role("link", name="Authentication service unavailable").first.wait_for(timeout=9_000)
    await page.locator("#counts").get_by_text("1 critical").wait_for()
    assert await page.get_by_role("link", name="HA cluster having no Leader").is_visible()


async def test_a_daemon_that_is_gone_is_told_and_what_was_seen_stays(shown: Shown) -> None:
    page = await shown.open("/")
    await page.route("**/*", lambda route: route.abort())
    await page.get_by_text("you see what was then").wait_for(timeout=20_000)
    assert await page.get_by_role("link", name="Database access unavailable").is_visible()
    await page.unroute("**/*")
    await page.get_by_text("you see what was then").wait_for(state="detached", timeout=20_000)


@pytest.mark.parametrize("shown", ["operator"], indirect=True)
async def test_a_policy_is_edited_by_its_form_and_rolled_back(shown: Shown) -> None:
    page = await shown.open("/policies/replication_lag_high", java_script_enabled=False)
    await page.get_by_text("Edit", exact=True).click()
    await page.get_by_label("lag_threshold_sec").fill("minus one")
    await page.get_by_role("button", name="Save").click()
    assert "expected" in await page.locator(".problem").first.inner_text()
    await page.get_by_label("lag_threshold_sec").fill("45")
    await page.get_by_label("Reason").fill("slow night batch")
    await page.get_by_role("button", name="Preview").click()
    assert "would become" in await page.get_by_role("status").last.inner_text()
    assert shown.seen.policies["replication_lag_high"].params["lag_threshold_sec"] == 30.0
    await page.get_by_role("button", name="Save").click()
    assert shown.seen.policies["replication_lag_high"].params["lag_threshold_sec"] == 45.0
    history = await page.locator("#history + div").inner_text()
    assert "slow night batch" in history and "olga" in history and "30 → 45" in history
    await page.goto(shown.base + "/policies")
    await page.get_by_role("button", name="Roll back").first.click()
    assert shown.seen.policies["replication_lag_high"].params["lag_threshold_sec"] == 30.0


async def test_none_of_two_hundred_hostile_texts_becomes_an_active_node(tmp_path: Path) -> None:
    """What is active in a page, with all that others wrote into it, is what is active in it without."""
    made, pages = await hostile_stage(tmp_path, PAYLOADS)
    address = f"127.0.0.1:{free_port()}"
    close = await app.serve(made, addresses=[address], socket_path=None)
    count = """[...document.querySelectorAll('script:not([src*="static/live."]),iframe,object,embed,base,style,math,img,[style]')]
        .length + [...document.querySelectorAll('*')].filter((each) => [...each.attributes].some((one) => one.name.startsWith('on')
            || ['href', 'src', 'action', 'formaction'].includes(one.name) && new URL(one.value, location).origin !== location.origin)).length"""
    complaints: list[str] = []
    asked: set[str] = set()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: asked.add(request.url))
        for path in pages:
            await page.goto(f"http://{address}{path}")
            assert await page.evaluate(count) == 0, path
        await browser.close()
    await close()
    await leave(made)
    assert complaints == []
    assert {url for url in asked if not url.startswith(f"http://{address}")} == set()


# --- people -------------------------------------------------------------------------------------------------------

LAG = "replication_lag_high"
DOCUMENT = f"modified: true\npolicies:\n- id: {LAG}\n  params:\n    lag_threshold_sec: 45\n"


@pytest.mark.parametrize("shown", ["people"], indirect=True)
@pytest.mark.parametrize(
    "browser",
    [
        {"color_scheme": "light"},
        {"color_scheme": "dark", "viewport": {"width": 390, "height": 844}, "java_script_enabled": False},
    ],
    ids=["wide", "telephone, dark, without scripts"],
)
async def test_an_admins_work_is_done_by_forms_and_axe_finds_nothing_wrong_on_the_way(
    shown: Shown, browser: dict[str, object], tmp_path: Path
) -> None:
    page = await shown.open("/tokens", **browser)
    checker = await shown.context(**{**browser, "java_script_enabled": True})
    seen: list[str] = []

    async def look() -> None:
        seen.extend(await complaints_of_axe(page, checker))
        assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, page.url

    await look()
    await page.get_by_label("User").fill("anna")
    await page.get_by_label("Password").fill("a guess")
    await page.get_by_role("button", name="Sign in").click()
    assert await page.get_by_role("alert").inner_text() == "The credentials are not right."
    await look()
    await page.get_by_label("Password").fill(PASSWORDS["anna"])
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url("**/tokens")
    await look()
    await page.get_by_label("Name").fill("prometheus")
    await page.get_by_label("Lasts").fill("soon")
    await page.get_by_role("button", name="Make it").click()
    await look()
    await page.get_by_label("Lasts").fill("90d")
    await page.get_by_role("button", name="Make it").click()
    assert (await page.locator("#made").inner_text()).startswith("probed_")
    await look()
    await page.get_by_role("button", name="Revoke the token prometheus").click()
    assert await page.get_by_text("revoked", exact=False).first.is_visible()

    await page.goto(shown.base + "/policies/import")
    await look()
    (tmp_path / "policies.yaml").write_text(DOCUMENT.replace("45", "soon"))
    await page.get_by_label("A file").set_input_files(tmp_path / "policies.yaml")
    await page.get_by_role("button", name="Show what would change").click()
    await expect(page.get_by_label("Its text")).to_have_accessible_description(re.compile("line 5, column"))
    await look()
    await page.get_by_label("Its text").fill(DOCUMENT)
    await page.get_by_role("button", name="Show what would change").click()
    assert "params.lag_threshold_sec" in await page.locator("#found + div").inner_text()
    await look()
    await page.get_by_role("button", name="Apply").click()
    await page.wait_for_url("**/policies")
    assert shown.seen.policies[LAG].params["lag_threshold_sec"] == 45.0

    await page.goto(shown.base + f"/policies/{LAG}")
    await page.get_by_text("Edit", exact=True).click()
    await page.get_by_label("lag_threshold_sec").fill("60")
    await page.get_by_role("button", name="Run as a shadow").click()
    await page.get_by_role("heading", name="Shadow", exact=True).wait_for()
    await look()
    await page.get_by_role("button", name="Make it the policy").click()
    assert shown.seen.policies[LAG].params["lag_threshold_sec"] == 60.0
    for path in ("/policies/proposals", "/audit", "/audit?action=policy", "/notifications"):
        await page.goto(shown.base + path)
        await look()
    assert seen == []


WRONG: Sequence[tuple[str, str, str, str, str]] = (
    ("/tokens", "Lasts", "soon", "Make it", "expected a duration such as .* A duration such as 90d"),
    ("/tokens", "Name", "a b", "Make it", "expected .* Who will use it"),
    ("/silences", "For", "soon", "Silence", "expected a duration such as .* A duration such as 30m"),
    (f"/policies/{LAG}", "lag_threshold_sec", "minus one", "Save", "expected .*, got"),
    (f"/policies/{LAG}", "lag_threshold_sec", "minus one", "Preview", "expected .*, got"),
    (f"/policies/{LAG}", "lag_threshold_sec", "minus one", "Run as a shadow", "expected .*, got"),
    ("/policies/import", "or its text", DOCUMENT.replace("45", "soon"), "Show what would change", "line 5, column .*"),
    ("/inspections", "Days of history", "900", "Inspect", "expected"),
    ("/view", "Time zone", "Mars/Olympus", "Set", "Expected a time zone such as .* UTC, or a name"),
)
"""(page, field, what is typed into it, button, what is to be read out with the field)"""


@pytest.mark.parametrize("shown", ["people"], indirect=True)
@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
async def test_after_a_refusal_the_first_wrong_field_has_the_focus_and_says_what_is_wrong(
    shown: Shown, scripts: bool
) -> None:
    page = await shown.open("/", java_script_enabled=scripts)
    checker = await shown.context()

    async def is_told(field: Locator, typed: str, says: str) -> None:
        await expect(field).to_be_focused()
        await expect(field).to_have_attribute("aria-invalid", "true")
        await expect(field).to_have_accessible_description(re.compile(says))
        await expect(field).to_have_value(typed)
        await expect(page.locator("main [autofocus]")).to_have_count(1)
        assert await complaints_of_axe(page, checker) == []

    await page.get_by_label("User").fill("anna")
    await page.get_by_label("Password").fill("a guess")
    await page.get_by_role("button", name="Sign in").click()
    await is_told(page.get_by_label("Password"), "", "The credentials are not right")
    await page.get_by_label("Password").fill(PASSWORDS["anna"])
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("button", name="sign out").wait_for()
    for path, label, typed, button, says in WRONG:
        await page.goto(shown.base + path)
        for folded in await page.locator("main details:not([open]) > summary").all():
            if await folded.is_visible():
                await folded.click()
        # What the browser would find by itself is for the daemon to refuse here.
        await page.locator("main form").evaluate_all("(all) => all.forEach((each) => { each.noValidate = true; })")
        if path == "/silences":
            await page.get_by_label("Instance").select_option("orders")
            await page.get_by_label("Why").fill("an upgrade")
        if path == "/tokens" and label != "Name":
            await page.get_by_label("Name").fill("prometheus")
        await page.get_by_label(label, exact=True).fill(typed)
        await page.get_by_role("button", name=button).click()
        await is_told(page.get_by_label("Its text" if path.endswith("import") else label, exact=True), typed, says)


@pytest.mark.parametrize("shown", ["people"], indirect=True)
async def test_of_several_wrong_fields_the_first_on_the_page_has_the_focus_and_all_are_marked(shown: Shown) -> None:
    page = await shown.open("/tokens")
    await shown.sign_in(page, "anna")
    await page.get_by_label("Lasts").fill("soon")
    for box in await page.get_by_role("checkbox").all():
        await box.uncheck()
    await page.get_by_label("Name").fill("prometheus")
    await page.get_by_role("button", name="Make it").click()
    boxes = page.get_by_role("group", name="For")
    await expect(boxes).to_have_accessible_description(re.compile("expected"))
    await expect(boxes.get_by_role("checkbox").first).to_be_focused()
    await expect(page.locator("[aria-invalid=true]")).to_have_count(3)
    assert await complaints_of_axe(page) == []


@pytest.mark.parametrize("shown", ["operator"], indirect=True)
async def test_what_no_field_has_to_answer_for_has_the_focus_itself(shown: Shown) -> None:
    page = await shown.open("/policies/replication_lag_high")
    await page.get_by_text("Edit", exact=True).click()
    await page.get_by_role("button", name="Run as a shadow").click()
    message = page.get_by_role("alert")
    await expect(message).to_be_focused()
    await expect(message).to_contain_text("nothing differs from the policy as it is")
    await expect(page.locator("[aria-invalid]")).to_have_count(0)
    assert await complaints_of_axe(page) == []


@pytest.mark.parametrize("shown", ["operator"], indirect=True)
async def test_dead_letters_are_sent_again_all_or_those_of_one_event(shown: Shown) -> None:
    far, letters = Far(otherwise=Undelivered("HTTP 410", final=True)), 3
    await shown.seen.couriers.appoint([Appointment(Receiver("tickets"), lambda: far)])
    events = [an_event(shown.seen.clock.wall(), node=f"node-{number}") for number in range(letters)]
    for event in events:
        change = Change(event, "opened", shown.seen.clock.wall(), owed=("tickets",))
        await shown.seen.store.append(Commit(changes=(change,)))
        shown.seen.couriers.announced(change)
    page = await shown.open("/notifications", java_script_enabled=False)
    button = page.get_by_role("button", name="Send again")
    one = page.get_by_role("button", name="Send again database_unavailable of orders to tickets")
    while await button.count() < letters + 1:
        await page.reload()
    checker = await shown.context()
    assert await complaints_of_axe(page, checker) == []
    far.otherwise = None
    await one.first.click()
    await expect(page.get_by_role("status").last).to_have_text("tickets is owed 1 notice again.")
    while await one.count() > letters - 1:
        await page.goto(shown.base + "/notifications")
    await page.get_by_role("button", name="Send again what tickets did not take").click()
    await expect(page.get_by_role("status").last).to_have_text("tickets is owed 2 notices again.")
    while await page.locator("tr", has_text="delivered").count() < letters:
        await page.goto(shown.base + "/notifications")
    assert await button.count() == 0 and await complaints_of_axe(page, checker) == []
    assert [notice.event.id for notice in far.got] == [events[-1].id, events[0].id, events[1].id]
    await shown.seen.couriers.close()


@pytest.mark.parametrize("shown", ["people"], indirect=True)
async def test_what_is_being_typed_outlives_the_session_with_and_without_scripts(shown: Shown) -> None:
    checker = await shown.context()
    for scripts in (True, False):
        page = await shown.open("/silences", java_script_enabled=scripts)
        await shown.sign_in(page, "olga")
        await page.get_by_label("Instance").select_option("orders")
        await page.get_by_label("Why").fill(f"upgrade, with scripts: {scripts}")
        shown.seen.clock.step(IDLE_SECONDS + 1)
        if scripts:  # the page notices by itself, keeps what is there, and takes the new session up
            await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
            async with page.context.expect_page() as opened:
                await page.get_by_role("link", name="sign in in a new tab").click()
            await shown.sign_in(await opened.value, "olga")
            await (await opened.value).get_by_role("button", name="sign out").wait_for()
            await page.bring_to_front()
            await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
            await page.locator("#live", has_text="signed out").wait_for(state="detached")
        await page.get_by_role("button", name="Silence", exact=True).click()
        if not scripts:
            assert await page.get_by_role("heading", name="You are signed out").is_visible()
            assert await complaints_of_axe(page, checker) == []
            async with page.context.expect_page() as opened:
                await page.get_by_role("link", name="sign in in a new tab").click()
            await shown.sign_in(await opened.value, "olga")
            await page.get_by_role("button", name="Send again").click()
            assert await complaints_of_axe(page, checker) == []
            await page.get_by_role("button", name="Send", exact=True).click()
        await page.get_by_role("cell", name=f"upgrade, with scripts: {scripts}").wait_for()
        await page.context.close()
    assert len(await shown.seen.store.silences(10)) == 2


@pytest.mark.parametrize("shown", ["people"], indirect=True)
async def test_a_link_from_elsewhere_finds_the_session_though_its_cookie_is_strict(shown: Shown) -> None:
    page = await shown.open("/")
    await shown.sign_in(page, "vera")
    await page.get_by_role("button", name="sign out").wait_for()
    link = f'<a href="{shown.base}/events/{shown.outage}">the alarm</a>'
    await page.route("http://chat.example/", lambda route: route.fulfill(body=link, content_type="text/html"))
    await page.goto("http://chat.example/")
    await page.get_by_role("link", name="the alarm").click()
    await page.get_by_role("heading", name="Database access unavailable").wait_for()
    assert page.url == f"{shown.base}/events/{shown.outage}"
    [cookie] = [one for one in await page.context.cookies() if one.get("name") == "probed_session"]
    assert (cookie.get("httpOnly"), cookie.get("sameSite")) == (True, "Strict")
