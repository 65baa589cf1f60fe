"""The page in a real browser while a real cluster loses its primary: an operator's way through the outage.

One outage for all of it, because a failover takes its time: each of the parts below says what it promises.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import yaml
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from probed.demo.faults import FAULTS
from probed.demo.lab import Lab
from tests.acceptance.watching import GRACE, INTERVAL, TIMEOUT, Json, Watcher, configure, until
from tests.unit.people import PASSWORDS, USERS, as_user

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium (make system)"),
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(600),
]

OUTAGE, SWITCHOVER, POLICY = (
    "Database access unavailable",
    "Database HA primary/replica switchover",
    "wal_receiver_interrupted",
)
SECONDS = 1000.0
"""Playwright counts in milliseconds."""
DETECTED = (4 * INTERVAL + TIMEOUT + GRACE) * SECONDS
SHOWN = 6 * INTERVAL * SECONDS
"""How long the page may take to show what the API knows: it is told at once, and asks every 10 s by itself."""


class Office:
    """A browser, and the daemon that it looks at."""

    def __init__(self, watcher: Watcher, browser: Browser) -> None:
        self.watcher, self.browser = watcher, browser

    async def sit_down(self, path: str = "/", **options: object) -> Page:
        """A browser of its own for Olga, an operator, who signs in on the way to ``path``."""
        defaults: dict[str, object] = {"viewport": {"width": 1280, "height": 900}, "accept_downloads": True}
        context = await self.browser.new_context(**{**defaults, **options})  # type: ignore[arg-type] # by name
        page = await context.new_page()
        await self.go(page, path)
        await expect(page).to_have_title(re.compile("Sign in"))
        await page.get_by_label("User").fill("olga")
        await page.get_by_label("Password").fill(PASSWORDS["olga"])
        await page.get_by_role("button", name="Sign in").click()
        await page.wait_for_url(self.watcher.url + path)
        return page

    async def go(self, page: Page, path: str) -> None:
        await page.goto(self.watcher.url + path)

    async def newest(self, event: str) -> Json:
        """Of this type and announced, by the API."""
        [found, *_] = (await self.watcher.get("/api/v1/events", event=event, suppressed="false"))["items"]
        return dict(found)


@pytest_asyncio.fixture(loop_scope="session")
async def office(place: Path, lab: Lab) -> AsyncIterator[Office]:
    file = place / "web-config.yml"
    file.write_text(USERS)
    config = configure(place / "page", lab, web=f"config_file: {file}, roles: {{olga: operator}}", declared=True)
    watcher = Watcher(config, headers=as_user("olga"))
    await watcher.start()
    try:
        await until(watcher.healthy, 60, "a healthy picture of a healthy cluster")
        async with async_playwright() as playwright:
            # Under root Chromium refuses its sandbox; it sees our own pages only.
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            yield Office(watcher, browser)
            await browser.close()
    finally:
        await watcher.stop()


async def test_an_operator_goes_through_an_outage_in_the_page(office: Office, lab: Lab) -> None:
    wall = await office.sit_down()
    await expect(wall.get_by_role("heading", name="All is well")).to_be_visible(timeout=SHOWN)
    await wall.get_by_text("● live").wait_for(timeout=SHOWN)
    await wall.evaluate("window.sameDocument = true")
    fault = FAULTS["primary-kill"]
    await fault.break_(lab)
    try:
        await it_comes_without_a_reload(wall)
        desk = await office.sit_down("/events?state=open&suppressed=false")
        await its_evidence_shows_what_was_before_and_what_was_at_the_trigger(office, desk)
        await cause_and_consequences_lead_to_each_other(office, desk)
        await it_is_acknowledged(wall, desk)
        await a_policy_is_changed_tried_saved_exported_and_rolled_back(office, desk)
        await events_are_exported_as_they_are_listed(office, desk)
        await it_is_silenced_and_the_silence_ended(office, desk)
        await expect(wall.get_by_role("link", name=SWITCHOVER)).to_be_visible(timeout=DETECTED)
        await all_of_it_goes_without_scripts(office)
        await all_of_it_goes_by_the_keyboard(office)
        await every_view_is_for_everybody_in_light_and_dark_and_on_a_telephone(office)
        await office.go(desk, f"/events/{(await office.newest('database_unavailable'))['id']}")
        await desk.evaluate("window.sameDocument = true")
    finally:
        await fault.heal(lab)
    for page in (wall, desk):
        await expect(page.locator("#lately, #head").get_by_text("resolved").first).to_be_visible(timeout=DETECTED)
        await expect(page.locator("#counts")).to_contain_text("nothing open", timeout=DETECTED)
        assert await page.evaluate("window.sameDocument"), "it was loaded anew"
    await who_signs_out_sees_nothing_more(office, desk)


# --- its parts, in their order ----------------------------------------------------------------------------------


async def it_comes_without_a_reload(wall: Page) -> None:
    await expect(wall.locator("#open").get_by_role("link", name=OUTAGE)).to_be_visible(timeout=DETECTED)
    await expect(wall.locator("#counts")).to_contain_text("1 fatal", timeout=SHOWN)
    await expect(wall).to_have_title(re.compile("^1 fatal"), timeout=SHOWN)
    await expect(wall.locator("#verdict h1")).to_contain_text("1 fatal")
    assert await wall.evaluate("window.sameDocument")


async def its_evidence_shows_what_was_before_and_what_was_at_the_trigger(office: Office, desk: Page) -> None:
    """It may come after the page was opened."""
    await desk.locator("#records-section").get_by_role("link", name=OUTAGE).click()
    event = await office.newest("database_unavailable")
    await desk.wait_for_url(f"**/events/{event['id']}")
    cluster = desk.locator("details.exhibit", has_text="patroni_cluster")
    await expect(cluster).to_have_attribute("open", "", timeout=SHOWN)
    before, trigger = (
        cluster.locator(".sides > div", has=desk.get_by_role("heading", name=name))
        for name in ("Before", "At the trigger")
    )
    await expect(before).to_contain_text(f"{event['node']}: leader running", timeout=SHOWN)
    await expect(trigger).to_be_visible(timeout=SHOWN)
    await expect(desk.locator("#evidence-section")).to_contain_text("connection refused", timeout=SHOWN)
    await expect(desk.get_by_role("heading", name="What could not be had")).to_be_visible()
    await expect(desk.locator("#samples-section")).to_contain_text("connection refused")
    await expect(desk.locator(".plot .failing").first).to_be_attached()
    kept = (await office.watcher.get(f"/api/v1/events/{event['id']}"))["evidence"]
    [first, *_] = [item for item in kept if item["collector"] == "patroni_cluster" and item["when"] == "before"]
    await cluster.get_by_text("all of it").click()
    for member in first["data"]["members"]:
        await expect(cluster.locator("details pre").first).to_contain_text(member["name"])


async def cause_and_consequences_lead_to_each_other(office: Office, desk: Page) -> None:
    """Patroni of the dead machine is silent, too: held back, and told with its cause."""
    outage = await office.newest("database_unavailable")
    below = desk.locator("#chain-section .tree ul").get_by_role("link")
    await expect(below.first).to_be_visible(timeout=DETECTED)
    await below.first.click()
    await expect(desk.get_by_text("It was held back")).to_be_visible()
    await desk.locator("#chain-section").get_by_role("link", name=OUTAGE).click()
    await desk.wait_for_url(f"**/events/{outage['id']}")


async def it_is_acknowledged(wall: Page, desk: Page) -> None:
    await desk.get_by_label("Comment").fill("on my way")
    await desk.get_by_role("button", name="Acknowledge", exact=True).click()
    await expect(desk.get_by_text("acknowledged by olga")).to_be_visible()
    await expect(desk.get_by_role("button", name="Acknowledge", exact=True)).to_have_count(0)
    await expect(wall.locator("#open").get_by_text("acknowledged by olga")).to_be_visible(timeout=SHOWN)


async def a_policy_is_changed_tried_saved_exported_and_rolled_back(office: Office, desk: Page) -> None:
    async def count() -> float:
        return float((await office.watcher.get(f"/api/v1/policies/{POLICY}"))["params"]["sample_count"])

    await office.go(desk, "/policies")
    name = (await office.watcher.get(f"/api/v1/policies/{POLICY}"))["name"]
    await desk.get_by_role("link", name=name).click()
    await desk.get_by_text("Edit", exact=True).click()
    before, field = await count(), desk.get_by_label("sample_count")
    await field.fill("0")
    await desk.get_by_role("button", name="Save").click()
    wrong = desk.locator("div", has=field).locator(".problem")
    await expect(wrong).to_have_text("expected a whole number from 1 to 1000, got 0")
    await expect(field).to_have_value("0")
    assert await count() == before
    await field.fill("4")
    await desk.get_by_label("Reason").fill("a slow night")
    await desk.get_by_role("button", name="Preview").click()
    await expect(desk.get_by_text("would become")).to_contain_text("recorded sample", timeout=SHOWN)
    assert await count() == before
    await desk.get_by_role("button", name="Save").click()
    await expect(desk.locator("#history + div")).to_contain_text("a slow night")
    await expect(desk.locator("#history + div")).to_contain_text(f"{before:g} → 4")
    assert await count() == 4
    await office.go(desk, "/policies")
    differs = await downloaded(desk, desk.get_by_role("link", name="what differs").first)
    [exported] = [each for each in yaml.safe_load(differs)["policies"] if each["id"] == POLICY]
    assert exported["params"] == {"sample_count": 4}
    await desk.get_by_role("button", name="Roll back").first.click()
    await expect(desk.locator("#history + div tbody tr").first).to_contain_text("rollback")
    assert await count() == before


async def events_are_exported_as_they_are_listed(office: Office, desk: Page) -> None:
    outage = (await office.newest("database_unavailable"))["id"]
    await office.go(desk, "/events?suppressed=false&severity=fatal")
    listed = await desk.locator("#records-section tbody tr").count()
    rows = list(csv.DictReader(io.StringIO(await downloaded(desk, desk.get_by_role("link", name="CSV")))))
    items = json.loads(await downloaded(desk, desk.get_by_role("link", name="JSON")))["items"]
    assert [row["id"] for row in rows] == [item["id"] for item in items]
    assert len(rows) == listed
    [row] = [row for row in rows if row["id"] == outage]
    assert (row["event"], row["state"], row["acked_by"]) == ("database_unavailable", "open", "olga")
    assert "connection refused" in row["message"]


async def it_is_silenced_and_the_silence_ended(office: Office, desk: Page) -> None:
    outage = await office.newest("database_unavailable")
    await office.go(desk, f"/events/{outage['id']}")
    await desk.get_by_role("link", name="Silence it").click()
    await expect(desk.get_by_label("Instance")).to_have_value("orders")
    await expect(desk.get_by_label("Node")).to_have_value(outage["node"])
    await desk.get_by_label("For").fill("10m")
    await desk.get_by_label("Why").fill("the machine is being replaced")
    await desk.get_by_role("button", name="Silence").click()
    row = desk.locator("#listed-section tbody tr", has_text="the machine is being replaced")
    await expect(row).to_contain_text("active")
    [silence] = (await office.watcher.get("/api/v1/silences"))["items"]
    assert (silence["author"], silence["nodes"]) == ("olga", [outage["node"]])
    await row.get_by_role("button", name="End").click()
    await expect(desk.locator("#listed-section tbody tr").first).to_contain_text("expired")


async def all_of_it_goes_without_scripts(office: Office) -> None:
    """The event is there after a reload; it is acknowledged by its form."""
    page = await office.sit_down(java_script_enabled=False)
    await expect(page.locator("#open").get_by_role("link", name=OUTAGE)).to_be_visible()
    await page.locator("#lately").get_by_role("link", name=SWITCHOVER).first.click()
    await expect(page.get_by_text("automatic failover").first).to_be_visible()
    await page.get_by_label("Comment").fill("seen")
    await page.get_by_role("button", name="Acknowledge", exact=True).click()
    await expect(page.get_by_text("acknowledged by olga")).to_be_visible()
    await page.context.close()


async def all_of_it_goes_by_the_keyboard(office: Office) -> None:
    """A consequence is unfolded, opened and acknowledged; where one is can be seen all along."""
    page = await office.sit_down()

    async def tab_to(what: str) -> None:
        for _ in range(60):
            await page.keyboard.press("Tab")
            if await page.evaluate("(what) => document.activeElement.matches(what)", what):
                assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
                return
        raise AssertionError(f"sixty presses of Tab do not lead to {what}")

    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")  # past the navigation
    await tab_to("#open summary")
    await page.keyboard.press("Enter")
    await tab_to("#open .held a")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/events/*")
    await tab_to("#ack-comment")
    await page.keyboard.type("with its cause")
    await tab_to("button")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("acknowledged by olga")).to_be_visible()
    await page.context.close()


async def every_view_is_for_everybody_in_light_and_dark_and_on_a_telephone(office: Office) -> None:
    """Contrasts in the dark where there is most to see; tests/integration/test_page_browser.py has them all on a stage."""
    outage, switchover = [(await office.newest(event))["id"] for event in ("database_unavailable", "ha_switchover")]
    views = [
        "/", f"/events/{outage}", f"/policies/{POLICY}", "/policies", "/instances/orders", "/events", "/silences",
        "/readings?target=orders/node1/postgres&probe=postgres_liveness&since=-1h", f"/events/{switchover}",
        "/notifications", "/about", "/view", "/policies/no_such_policy",
    ]  # fmt: skip
    page = await office.sit_down()
    for number, path in enumerate(views):
        await page.set_viewport_size({"width": 1280, "height": 900})
        await page.emulate_media(color_scheme="light")
        await office.go(page, path)
        assert await violations(page) == [], path
        if number < 3:
            await page.emulate_media(color_scheme="dark")
            assert await violations(page, {"runOnly": ["color-contrast"]}) == [], path
        for width in (1280, 390):
            await page.set_viewport_size({"width": width, "height": 844})
            assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, (path, width)
            assert await page.evaluate(OUT_OF_REACH) == [], (path, width)
    await page.context.close()


async def who_signs_out_sees_nothing_more(office: Office, desk: Page) -> None:
    await desk.get_by_role("button", name="sign out").click()
    for path in ("/", "/events", "/policies"):
        await office.go(desk, path)
        await expect(desk).to_have_title(re.compile("Sign in"))


OUT_OF_REACH = """[...document.querySelectorAll('a[href], button, input:not([type=hidden]), select, summary')]
    .filter((each) => each.checkVisibility() && !each.closest('.scroll, .skip'))
    .filter((each) => { const box = each.getBoundingClientRect(); return box.right > innerWidth + 1 || box.left < -1 || !box.width; })
    .map((each) => each.outerHTML.slice(0, 200))"""


async def violations(page: Page, options: Json | None = None) -> list[str]:
    """What axe finds, a line each."""
    results = await Axe().run(page, options={"resultTypes": ["violations"], **(options or {})})
    return [
        f"{one['id']}: {node['html'][:160]} {[item['message'] for item in node['any']]}"
        for one in results.response["violations"]
        for node in one["nodes"]
    ]


async def downloaded(page: Page, link: Locator) -> str:
    async with page.expect_download() as coming:
        await link.click()
    return (await (await coming.value).path()).read_text()
