"""What people read, and that it leaves by Apprise, the real library, to a real socket."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from probed.errors import Undelivered
from probed.model import EventState, Severity, Target
from probed.outlets import Link
from probed.outlets.apprise import AppriseOutlet
from probed.outlets.wording import digest, text, title
from probed.store.notices import Notice, Told
from tests.receiving import Sink
from tests.unit.serving import HOSTILE
from tests.unit.test_webhook import CANARY, EVENT, NOTICE

OVER = replace(EVENT, state=EventState.RESOLVED, resolved_at=EVENT.opened_at + 185, resolve_reason="recovered")
RESOLVED = Notice(8, f"{EVENT.id}-42", Told.RESOLVED, OVER, EVENT.opened_at + 185)
LINK = Link("https://probed.example")


def test_a_message_says_what_was_seen_since_when_what_to_do_and_where_to_read_on() -> None:
    assert title(NOTICE) == "[FATAL] Database access unavailable: orders/node-a/postgres"
    assert text(NOTICE, LINK).splitlines() == [
        "3 of 3 samples in a row failed: connection refused",
        f"Open since 2026-09-21 14:13:20 UTC (event {EVENT.id}, seen by node-x y)",
        "What to do: Usually heals by itself.",
        f"https://probed.example/events/{EVENT.id}",
    ]


def test_the_end_says_how_long_it_took_and_nothing_to_do() -> None:
    assert title(RESOLVED) == "[resolved] Database access unavailable: orders/node-a/postgres"
    assert text(RESOLVED, Link()).splitlines() == [
        "Resolved after 3 min 5 s. It was: 3 of 3 samples in a row failed: connection refused",
        f"Open from 2026-09-21 14:13:20 UTC to 2026-09-21 14:16:25 UTC (event {EVENT.id}, seen by node-x y)",
    ]


def test_a_storm_is_one_message_that_lists_and_counts() -> None:
    many = [replace(NOTICE, id=n, event=replace(EVENT, severity=Severity.NORMAL)) for n in range(24)]
    said, body = digest([*many, RESOLVED], LINK)
    assert said == "[NORMAL] 24 new and 1 resolved events"
    lines = body.splitlines()
    assert len(lines) == 22
    assert lines[20] == "… and 5 more; `probed events list` has all of them"
    assert lines[21] == "https://probed.example/"


@pytest.mark.parametrize("word", HOSTILE)
def test_whatever_a_peer_said_stays_in_its_line(word: str) -> None:
    hostile = replace(EVENT, message=word, target=Target("orders", "", "haproxy", member="x"))
    body = text(replace(NOTICE, event=hostile), LINK)
    assert len(body.split("\n")) == 4
    assert body.replace("\n", "").isprintable()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_apprise_delivers(tmp_path: Path) -> None:
    pytest.importorskip("apprise")
    async with Sink().listen() as sink:
        file = tmp_path / "addresses"
        file.write_text(f"# ours\njson://127.0.0.1:{sink.port}/{CANARY}\n")
        outlet = AppriseOutlet(file, link=LINK)
        assert await outlet.send([NOTICE]) == "sent"
        assert await outlet.send([RESOLVED]) == "sent"
        assert await outlet.test() == "sent"
    first, second, third = (request.json for request in sink.seen)
    assert (first["title"], first["type"]) == (title(NOTICE), "failure")
    assert first["message"] == text(NOTICE, LINK)
    assert second["type"] == "success"
    assert third["title"] == "[test] probed"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_service_that_refuses_is_no_delivery_and_its_address_is_in_no_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("apprise")
    async with Sink(otherwise="500").listen() as sink:
        file = tmp_path / "addresses"
        file.write_text(f"json://127.0.0.1:{sink.port}/{CANARY}\n")
        with pytest.raises(Undelivered) as caught:
            await AppriseOutlet(file).send([NOTICE])
        file.write_text(f"nosuchservice://{CANARY}\n")
        with pytest.raises(Undelivered, match="address 1 in url_file is none that Apprise knows"):
            await AppriseOutlet(file).send([NOTICE])
    assert str(caught.value) == "the service did not take it"
    assert CANARY not in caplog.text + "".join(capfd.readouterr())


async def test_without_the_library_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    file = tmp_path / "addresses"
    file.write_text("json://127.0.0.1\n")
    with pytest.raises(Undelivered, match=r"pip install 'pg-probed\[apprise\]'"):
        await AppriseOutlet(file).send([NOTICE])


@pytest.mark.parametrize("content", [None, "", "# nothing but words\n"])
async def test_a_file_without_addresses_is_said(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "addresses"
    if content is not None:
        file.write_text(content)
    with pytest.raises(Undelivered, match="url_file"):
        await AppriseOutlet(file).test()


async def test_a_library_that_fails_or_hangs_holds_up_nobody(tmp_path: Path) -> None:
    file = tmp_path / "addresses"
    file.write_text(f"json://{CANARY}\n")

    def fails(addresses: Sequence[str], *_: str) -> bool:
        raise RuntimeError(addresses[0])

    with pytest.raises(Undelivered) as caught:
        await AppriseOutlet(file, notify=fails).test()
    assert str(caught.value) == "the library failed with RuntimeError"
    release = threading.Event()

    def hangs(*_: object) -> bool:
        return release.wait(30)

    outlet = AppriseOutlet(file, notify=hangs)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await outlet.test()
    with pytest.raises(Undelivered, match="still busy"):
        await outlet.test()
    release.set()
