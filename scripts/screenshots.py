"""The pictures of the README, of a real outage: ``.venv/bin/python scripts/screenshots.py`` writes docs/images anew.

A lab of its own with the daemon on it, as ``probed demo`` has; its primary is killed, and what the page then shows is
what happened. Nothing is waited for by the clock but by what the API says. Some two minutes; needs Debian's chromium.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import aiohttp
import bcrypt
from PIL import Image
from playwright.async_api import Browser, Page, async_playwright

from probed.demo import configuration
from probed.demo.errors import LabError
from probed.demo.faults import FAULTS
from probed.demo.lab import Lab, find_haproxy
from probed.demo.ports import free_port
from probed.demo.waiting import until

IMAGES = Path(__file__).parent.parent / "docs" / "images"
MAX_BYTES = 1_200_000
"""Of all pictures together: they are cloned by everybody."""
COLOURS = 256
USER, PASSWORD = "olga", "turns the valves"
ENOUGH_SAMPLES = 12
CONFIGURATION = """\
web: {{listen: ["{listen}"], config_file: {directory}/web-config.yml, roles: {{{user}: operator}}}}
storage: {{path: {directory}/store}}
policies: {{directory: {directory}/policies.d}}
defaults: {{switchover_grace: 15s}}
observer: watcher
instances:
"""


@dataclass(frozen=True, slots=True)
class Picture:
    """One file of docs/images: where it is taken, and of how much of the page. Sizes in CSS pixels."""

    name: str
    path: str
    width: int = 1280
    height: int = 800
    scheme: str = "light"


@dataclass
class Scene:
    """A lab, the daemon on it, and what is asked of its API."""

    lab: Lab
    url: str
    session: aiohttp.ClientSession

    async def get(self, path: str, **query: str) -> Any:
        async with self.session.get(f"{self.url}/api/v1/{path}", params=query) as response:
            response.raise_for_status()
            return await response.json()

    async def unhealthy(self) -> str:
        """What keeps the instance from being well; empty when nothing does."""
        with contextlib.suppress(aiohttp.ClientError):
            [instance] = (await self.get("status"))["instances"]
            targets = instance["targets"] + [target for node in instance["nodes"] for target in node["targets"]]
            waiting = [target["probe"] for target in targets if target["outcome"] in (None, "blind")]
            return "" if instance["state"] == "ok" and not waiting else f"{instance['state']} {' '.join(waiting)}"
        return "no answer"

    async def unrecorded(self) -> str:
        samples = await self.get("samples", target="orders/node1/postgres", probe="postgres_liveness", since="-1h")
        number = len(samples["items"])
        return "" if number >= ENOUGH_SAMPLES else f"{number} of {ENOUGH_SAMPLES} samples"

    async def untold(self) -> str:
        """What of the outage is missing: its event with evidence from after, and the switchover."""
        events = {event["event"]: event["id"] for event in (await self.get("events", suppressed="false"))["items"]}
        absent = {"database_unavailable", "ha_switchover"} - set(events)
        if absent:
            return ", ".join(sorted(absent))
        seen = [(await self.get(f"events/{event}"))["evidence"] for event in events.values()]
        return "" if all(any(each["when"] == "after" for each in one) for one in seen) else "evidence"

    async def event(self, name: str) -> str:
        return str((await self.get("events", event=name))["items"][0]["id"])


@contextlib.asynccontextmanager
async def scene(directory: Path) -> AsyncIterator[Scene]:
    """A healthy cluster that is watched; ends everything."""
    lab = await Lab.start(
        directory / "lab", haproxy=find_haproxy() is not None, etcd_members=3, components=True, progress=_say
    )
    address = f"127.0.0.1:{free_port()}"
    try:
        config = _configure(directory, lab, address)
        with (directory / "probed.log").open("wb") as log:
            daemon = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "probed", "run", "--config.file", str(config), stdout=log, stderr=log
            )
        try:
            headers = {"Authorization": aiohttp.encode_basic_auth(USER, PASSWORD)}
            async with aiohttp.ClientSession(headers=headers) as session:
                made = Scene(lab, f"http://{address}", session)
                log_file = directory / "probed.log"
                await until(made.unhealthy, what="a healthy picture", seconds=60, progress=_say, log=log_file)
                yield made
        finally:
            daemon.terminate()
            await daemon.wait()
    finally:
        await lab.stop()


def _configure(directory: Path, lab: Lab, listen: str) -> Path:
    (directory / "policies.d").mkdir()
    for name, policy in configuration.POLICIES.items():
        (directory / "policies.d" / f"{name}.yaml").write_text(policy)
    password, file = directory / "password", directory / "probed.yml"
    password.write_text(lab.monitor_password)
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (directory / "web-config.yml").write_text(f"basic_auth_users: {{{USER}: {hashed}}}\n")
    text = CONFIGURATION.format(directory=directory, listen=listen, user=USER)
    file.write_text(text + configuration.instance(lab, "orders", password, env="prod"))
    return file


async def sign_in(page: Page, url: str) -> None:
    await page.goto(url)
    await page.get_by_label("User").fill(USER)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("heading", name="Instances").wait_for()


async def backtest(page: Page) -> None:
    """On the page of a policy: what a changed value would have told of the recorded samples."""
    await page.get_by_text("Edit", exact=True).click()
    await page.get_by_label("failure_count").fill("30")
    await page.get_by_label("Reason").fill("call for long outages only")
    await page.get_by_role("button", name="Preview").click()
    await page.get_by_text("would become").wait_for()
    await page.get_by_text("Edit", exact=True).scroll_into_view_if_needed()


async def take(browser: Browser, url: str, picture: Picture) -> int:
    """Its bytes in the file. The page is what the server rendered, live or not: it does not move while it is taken."""
    options: Mapping[str, Any] = {
        "viewport": {"width": picture.width, "height": picture.height},
        "color_scheme": picture.scheme,
        "device_scale_factor": 2 if picture.width < 800 else 1.5,
    }
    context = await browser.new_context(**options)
    page = await context.new_page()
    await sign_in(page, url)
    await page.goto(url + picture.path)
    if picture.path.startswith("/policies/"):
        await backtest(page)
    for held in await page.get_by_text("held back as its consequence").all():
        await held.click()
    await page.mouse.move(0, 0)
    await page.get_by_text("● live").wait_for()
    shot = Image.open(io.BytesIO(await page.screenshot(animations="disabled"))).convert("RGB")
    await context.close()
    file = IMAGES / f"{picture.name}.png"
    _with_few_colours(shot).save(file, optimize=True)
    return file.stat().st_size


def _with_few_colours(shot: Image.Image) -> Image.Image:
    """A third of the bytes. Areas keep their colours, but for a hundredth: only shades at the edges of letters move."""
    found = sorted(shot.getcolors(shot.width * shot.height) or (), reverse=True)[:COLOURS]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for _, colour in found for part in cast(tuple[int, ...], colour)])
    return shot.quantize(palette=palette, dither=Image.Dither.NONE)


async def photograph(directory: Path, chromium: str, wanted: Sequence[str]) -> None:
    """All pictures, or those that are ``wanted`` by name."""
    async with scene(directory) as made, async_playwright() as playwright:
        await until(made.unrecorded, what="samples to test a policy on", seconds=300, progress=_say)
        await FAULTS["primary-kill"].break_(made.lab)
        await until(made.untold, what="the outage to be told", seconds=120, progress=_say)
        # Under root Chromium refuses its sandbox; it sees our own pages only.
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        outage = f"/events/{await made.event('database_unavailable')}"
        for picture in (
            Picture("overview", "/", height=870),
            Picture("overview-dark", "/", height=870, scheme="dark"),
            Picture("event", outage, height=1000),
            Picture("policy", "/policies/database_unavailable", height=1000),
            Picture("telephone", "/", 390, 844),
            Picture("telephone-event", outage, 390, 844),
        ):
            if not wanted or picture.name in wanted:
                _say(f"{picture.name}.png, {await take(browser, made.url, picture) // 1024} KiB")
        await browser.close()


def main(wanted: Sequence[str]) -> str:
    """What went wrong; empty when nothing did."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        return "needs a browser: apt-get install chromium (make system)"
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="probed-pictures-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # the database's user must reach the lab
        try:
            asyncio.run(photograph(directory, chromium, wanted))
        except LabError as error:
            return str(error)
    total = sum(file.stat().st_size for file in IMAGES.glob("*.png"))
    return f"docs/images: {total} bytes are more than {MAX_BYTES}: take less of them" if total > MAX_BYTES else ""


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("picture", nargs="*", help="Only these, by the names of their files; default: all.")
    sys.exit(main(parser.parse_args().picture) or None)
