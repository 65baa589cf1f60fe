"""Reports as PDF, looked at as pictures: how many pages, whether all of the text is on them, whether the charts are there."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import pytest
from msgspec.structs import replace

from probed.errors import MissingExtra, Unprintable
from probed.inspection import NodeLine, Report
from probed.inspection.pdf import pdf
from probed.inspection.printing import Form, Press
from probed.inspection.sheets import paper
from tests.unit.reports import fleet, ill, kept, report, well

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("weasyprint") is None, reason="needs the extra: pip install 'pg-probed[pdf]'"),
    pytest.mark.skipif(shutil.which("pdftoppm") is None, reason="needs poppler-utils: apt-get install poppler-utils (make system)"),
    pytest.mark.timeout(600),
]  # fmt: skip

A4 = (595, 842)
"""Points, rounded."""
MARGIN = 17.0
"""Of the paper, in points: 6 mm, which no printer needs more of."""
ACCENT, RULE = (0x0B, 0x57, 0xA4), (0xA0, 0x3F, 0x00)
"""What lines and thresholds are drawn in."""


@dataclass(frozen=True)
class Word:
    page: int
    left: float
    top: float
    right: float
    bottom: float
    text: str


class Printed:
    """A PDF as readers of it see it."""

    def __init__(self, body: bytes, place: Path) -> None:
        self.body, self.place = body, place
        self.file = place / "report.pdf"
        self.file.write_bytes(body)
        boxes = self._run("pdftotext", "-bbox", str(self.file), "-")
        self.pages = [(float(w), float(h)) for w, h in re.findall(r'<page width="(.*?)" height="(.*?)">', boxes)]
        self.words = list(self._words(boxes))
        self.text = "".join(self._run("pdftotext", "-raw", str(self.file), "-").split())
        """Without blanks: where lines are broken says nothing."""

    def _run(self, *command: str) -> str:
        return subprocess.run(command, cwd=self.place, capture_output=True, text=True, check=True).stdout

    def _words(self, boxes: str) -> Iterator[Word]:
        for number, page in enumerate(boxes.split("<page ")[1:]):
            for left, top, right, bottom, text in re.findall(
                r'<word xMin="(.*?)" yMin="(.*?)" xMax="(.*?)" yMax="(.*?)">(.*?)</word>', page
            ):
                yield Word(number, float(left), float(top), float(right), float(bottom), unescape(text))

    def pixels(self, page: int) -> tuple[int, int, bytes]:
        """Width, height and RGB of a page, a pixel a point."""
        self._run(
            "pdftoppm",
            "-r",
            "72",
            "-f",
            str(page + 1),
            "-l",
            str(page + 1),
            "-singlefile",
            str(self.file),
            f"page{page}",
        )
        head, rest = (self.place / f"page{page}.ppm").read_bytes().split(b"\n255\n", 1)
        width, height = map(int, head.split()[1:3])
        return width, height, rest

    def count(self, page: int, top: float, bottom: float, colour: tuple[int, int, int]) -> int:
        """Pixels in that colour, or nearly, on part of a page."""
        width, _, rgb = self.pixels(page)
        part = rgb[3 * width * int(top) : 3 * width * int(bottom)]
        near = (max(abs(part[at + index] - colour[index]) for index in range(3)) for at in range(0, len(part), 3))
        return sum(distance < 60 for distance in near)


async def printed(made: Report, place: Path) -> Printed:
    return Printed(await Press().file(kept(made), Form.PDF), place)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Printed:
    """An instance in trouble."""
    return Printed(asyncio.run(Press().file(kept(report(ill())), Form.PDF)), tmp_path_factory.mktemp("ill"))


def texts(made: Report, sheets: int | None = None) -> list[str]:
    """Everything that a report says, piece by piece."""
    page = paper(made, sheets)
    found = [page.subject, page.when, page.told, page.problem, page.note, page.rest]
    found += [text for pair in page.made for text in pair]
    if page.is_fleet:
        found += [text for row in page.rows for text in (row.instance, row.reason, row.turned)]
    for sheet in page.sheets:
        found += [sheet.instance, sheet.row.reason, sheet.compared]
        found += [text for node in sheet.nodes for text in (node.name, node.role, node.version)]
        found += [text for one in sheet.wrong for text in (one.title, one.place, one.finding, one.suggestion)]
        found += [
            text for change in sheet.changes for text in (change.turn, change.title, change.place, change.finding)
        ]
        for part in sheet.parts:
            found += [part.name, *(text for one in part.findings for pair in one.values for text in pair)]
            found += [text for one in part.findings for text in (one.title, *one.events)]
            for drawing in part.drawings:
                found += [drawing.title, drawing.rule_label, *(label for _, label in drawing.levels)]
                found += [tick.label for tick in drawing.ticks]
                found += [text for line in drawing.lines for text in (line.label, line.least, line.most, line.last)]
        found += [
            text
            for fine in sheet.fine
            for row in fine.rows
            for text in (row.title, *(said for one in row.said for said in one[1:]))
        ]
    return found


def lost(seen: Printed, said: list[str]) -> list[str]:
    return [text for text in said if "".join(text.split()) not in seen.text]


def outside(seen: Printed) -> list[Word]:
    return [
        word
        for word in seen.words
        for width, height in [seen.pages[word.page]]
        if word.left < MARGIN or word.right > width - MARGIN or word.top < MARGIN or word.bottom > height - MARGIN
    ]


def test_an_instance_in_trouble_is_four_pages_of_a4_with_nothing_lost_or_cut(seen: Printed) -> None:
    assert {(round(width), round(height)) for width, height in seen.pages} == {A4}
    assert len(seen.pages) == 4
    assert lost(seen, texts(report(ill()))) == []
    assert outside(seen) == []
    for number in range(4):
        assert f"page{number + 1}of4" in seen.text
    heads = [word for word in seen.words if word.top < 50 and word.text == "orders"]
    assert [word.page for word in heads] == [1, 2, 3], (
        "the running head names the instance, the first page does in its title"
    )


def test_the_charts_are_there_with_their_thresholds(seen: Printed) -> None:
    titles = [drawing.title for part in paper(report(ill())).sheets[0].parts for drawing in part.drawings]
    assert len(titles) == 4
    for title in titles:
        head = f"{title} threshold".split()
        first = next(
            word
            for index, word in enumerate(seen.words)
            if [one.text for one in seen.words[index : index + len(head)]] == head
        )
        foot = min(
            one.top for one in seen.words if one.page == first.page and one.text == "Least" and one.top > first.top
        )
        assert 90 < foot - first.bottom < 200, title
        assert seen.count(first.page, first.bottom + 2, foot, ACCENT) > 150, f"no line in the chart {title}"
        assert seen.count(first.page, first.bottom + 2, foot, RULE) > 100, f"no threshold in the chart {title}"


async def test_no_heading_stands_alone_at_the_foot_of_a_page(tmp_path: Path) -> None:
    made = report(ill(), well())
    seen = await printed(made, tmp_path)
    headings = {"Evidence", "History", "Trends", "Configuration", "Switchovers"}
    for number in range(len(seen.pages)):
        body = [word for word in seen.words if word.page == number and 50 < word.top < 790]
        last = max(word.bottom for word in body)
        assert not headings & {word.text for word in body if word.bottom > last - 3 and word.left < 60}, number


async def test_a_fleet_begins_with_all_instances_and_repeats_the_head_of_its_table(tmp_path: Path) -> None:
    made = report(*(replace(one, charts=(), items=one.items[:3]) for one in fleet(45, drawn=False).instances))
    seen = await printed(made, tmp_path)
    first_sheet = min(word.page for word in seen.words if word.text == "Nodes" or word.text == "Node")
    table = range(first_sheet)
    assert len(table) >= 2, "forty-five instances do not fit on one page"
    for number in table:
        assert [word for word in seen.words if word.page == number and word.text == "Instance"], (
            f"page {number + 1} has no head"
        )
    assert lost(seen, [row.instance for row in paper(made).rows]) == []
    assert "The30worstfollowinfull" in seen.text and "db-029" in seen.text
    assert outside(seen) == []
    assert len([word for word in seen.words if word.text == "Node"]) == 30, "each sheet has its nodes"


async def test_long_words_wrap_and_are_never_cut(tmp_path: Path) -> None:
    long = "x" * 200
    one = replace(
        ill(f"{long}-instance"), grade_reason=f"{long}-reason", nodes=(NodeLine(f"{long}-node", "leader", "16.4", "pass"),),
        labels={f"{long}-label": long},
        items=tuple(replace(item, title=f"{long}-title", target=f"{long}-target", finding=f"{long}-finding") for item in ill().items),
    )  # fmt: skip
    made = report(one, well(), note=f"{long}-note", name=f"{long}-name", author=long)
    seen = await printed(made, tmp_path)
    assert outside(seen) == []
    assert (
        lost(seen, [f"{long}-{what}" for what in ("instance", "reason", "node", "title", "target", "finding", "note")])
        == []
    )


async def test_the_same_report_gives_the_same_bytes() -> None:
    made = replace(well(), charts=well().charts[:1], items=well().items[:3])
    first, second = [await Press().file(kept(report(made)), Form.PDF) for _ in range(2)]
    assert first == second


# --- what it may do, and what it may cost


@pytest.fixture
async def asked() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that notes everything it is asked."""
    seen: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readline())
        writer.close()

    server = await asyncio.start_server(note, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], seen
    server.close()
    await server.wait_closed()


async def test_nothing_is_fetched_whatever_a_document_asks_for(asked: tuple[int, list[bytes]], tmp_path: Path) -> None:
    port, seen = asked
    secret = tmp_path / "secret.svg"
    secret.write_text('<svg xmlns="http://www.w3.org/2000/svg"><text>s3cret</text></svg>')
    address = f"http://127.0.0.1:{port}"
    document = f"""<link rel=stylesheet href="{address}/a.css"><style>@import url({address}/b.css); p {{ background: url({address}/c.png) }}
        @font-face {{ font-family: x; src: url({address}/d.woff) }}</style><p style="font-family: x">kept
        <img src="{address}/e.png"><img src="file://{secret}"><object data="{address}/f.svg"></object>
        <link rel=attachment href="file://{secret}"><svg><image href="{address}/g.png"/><use href="{address}/h.svg#x"/></svg>"""
    body = await asyncio.to_thread(pdf, document)
    assert seen == []
    found = Printed(body, tmp_path)
    assert "kept" in found.text and "s3cret" not in found.text and b"EmbeddedFile" not in body


async def test_without_weasyprint_or_pango_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fault in (
        "raise ModuleNotFoundError(\"No module named 'weasyprint'\")",
        "raise OSError(\"cannot load library 'libpango-1.0-0'\")",
    ):
        (tmp_path / "weasyprint.py").write_text(fault)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        with pytest.raises(MissingExtra, match=r"pip install 'pg-probed\[pdf\]'.*libpango-1.0-0 libpangoft2-1.0-0"):
            await Press().file(kept(report(well())), Form.PDF)
        assert await Press().file(kept(report(well())), Form.MARKDOWN)


async def test_what_takes_too_long_is_ended_and_said(tmp_path: Path) -> None:
    with pytest.raises(Unprintable, match="not ready after 0"):
        await Press(max_seconds=0.01).file(kept(report(ill())), Form.PDF)


async def test_a_report_that_cannot_be_read_is_said_to_be_so() -> None:
    broken = kept(report(well()))
    broken = replace(broken, parts=(replace(broken.parts[0], body=b"x"),))
    with pytest.raises(Unprintable, match="cannot be read"):
        await Press().file(broken, Form.HTML)
