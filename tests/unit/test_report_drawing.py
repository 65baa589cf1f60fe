"""Reports as people read them: Markdown and HTML of every kind of report, whatever targets wrote into it."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from html import unescape
from html.parser import HTMLParser
from itertools import cycle, pairwise
from pathlib import Path
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import pytest
from markdown_it import MarkdownIt
from msgspec.structs import replace

from probed.inspection import Chart, Item, NodeLine, Report, ReportState, Section, Series, Verdict
from probed.inspection.charts import GROUND, LEFT, RIGHT, TOP, drawings
from probed.inspection.html import DIRECTORY, html
from probed.inspection.markdown import escaped, markdown
from probed.inspection.sheets import paper
from probed.model import Reading
from probed.redaction import visible
from probed.web.assets import DIRECTORY as STATIC
from tests.unit.reports import DAY, DIFFERENCES, NIGHT, by_section, fleet, ill, report, series, well
from tests.unit.serving import HOSTILE
from tests.unit.test_page import PAYLOADS

UTC = ZoneInfo("UTC")
LONG = "x" * 300
RENDER = MarkdownIt("commonmark").enable("table")
"""As GitHub reads it, raw HTML included."""

REPORTS: dict[str, Callable[[], Report]] = {
    "well": lambda: report(well()),
    "ill": lambda: report(ill()),
    "fleet": lambda: report(ill(), well()),
    "empty": report,
    "running": lambda: report(state=ReportState.RUNNING, ended_at=None),
    "failed": lambda: report(state=ReportState.FAILED, error="the disk is full"),
    "nothing recorded": lambda: report(replace(well(), charts=(Chart("lag", "Replication lag", "seconds", ()),))),
    "nothing chosen": lambda: report(replace(well(), items=(), charts=(), nodes=(), labels={}), chosen=()),
}


class Text(HTMLParser):
    """What a reader sees of a document, and what in it is not text."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self._hidden = 0
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._hidden += tag in ("style", "title")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("style", "title")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def hostile(texts: Sequence[str]) -> Report:
    """A report in which everything that people or targets may write is one of ``texts``."""
    items, changed, nodes = [], [], []
    for text, like in zip(texts, cycle(ill().items), strict=False):
        said: dict[str, Reading | None] = {text: text, f"{text}_seconds": 1.0}
        events = (text,) if like.events else ()
        items.append(
            replace(like, title=text, target=text, finding=text, suggestion=text, evidence=said, events=events)
        )
        changed.append(replace(DIFFERENCES[0], title=text, target=text, finding=text))
        nodes.append(NodeLine(text, text, text, text))
    points = ((NIGHT, 1.0), (NIGHT + 60, 2.0))
    charts = tuple(Chart(text, text, text, (Series(text, points),), 3.0) for text in texts[::10])
    bad = replace(
        ill(), instance="".join(texts[:9]), labels=dict(zip(texts, texts, strict=True)), grade_reason="".join(texts),
        nodes=tuple(nodes), items=by_section(items), differences=tuple(changed), charts=charts,
    )  # fmt: skip
    every = " ".join(texts)
    return report(
        bad, well(), name=every, author=every, observer=every, zone=texts[0], chosen=tuple(texts), note=every, id=every,
        version=every, state=ReportState.FAILED, error=every,
    )  # fmt: skip


@pytest.mark.parametrize("kind", REPORTS)
def test_the_same_report_always_gives_the_same_characters(kind: str) -> None:
    first, second = REPORTS[kind](), REPORTS[kind]()
    assert markdown(first) == markdown(second)
    assert html(first) == html(second)


@pytest.mark.parametrize("kind", REPORTS)
def test_a_document_needs_nothing_else_and_runs_nothing(kind: str) -> None:
    document = html(REPORTS[kind]())
    seen = Text(document)
    assert not {tag for tag, _ in seen.tags} & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert not re.search(r"(?i)url\(|@import|https?://", document)
    assert all(attributes["href"].startswith("#i") for attributes in seen.all("a"))
    ids = [attributes["id"] for _, attributes in seen.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) and len(seen.all("h1")) == 1
    assert {each["href"][1:] for each in seen.all("a")} <= set(ids)


def test_the_page_begins_with_the_grade_and_why_and_what_is_worst() -> None:
    for text in (Text(html(report(ill()))).text, markdown(report(ill())).replace("*", "")):
        order = [
            text.index(said)
            for said in (
                "Inspection of orders", "2026-11-18 04:00:00 CET", "A replica is behind by more than it may be",
                "What is wrong, and what to do", "node-b has not replayed", "2 automatic failovers", "triggered 14 times", "nobody knows",
                "Since the last inspection", "other than in the inspection of 2026-11-17 04:00:00 CET", "the delay was 0.2 s", "failsafe_mode was turned on",
                "Evidence", "87.0 MiB", "Disk usage", "22.9 s, lost" if "22.9 s, lost" in text else "lost",
                "What was fine", "logged in within 11 ms", "How this report was made", "watcher", "Europe/Berlin",
            )
        ]  # fmt: skip
        assert order == sorted(order)


def test_every_verdict_is_a_shape_and_a_word_and_blind_is_none_of_the_others() -> None:
    for text in (html(report(ill())), markdown(report(ill()))):
        for shape, word in (("■", "fail"), ("▲", "warn"), ("○", "blind"), ("●", "pass"), ("–", "not applicable")):
            assert re.search(rf"{shape}(</span>)? {word}", text), word
    [found] = [one for one in paper(report(ill())).sheets[0].wrong if one.mark.word == "blind"]
    assert found.title == "Edge functions unavailable"


def test_what_passes_stands_in_one_line_for_all_places_that_say_the_same() -> None:
    text = markdown(report(well()))
    assert (
        "- ● pass: etcd unavailable (etcd-1/postgres, etcd-2/postgres, etcd-3/postgres: the member is healthy)" in text
    )
    assert "Nothing is other than in the inspection of 2026-11-17 04:00:00 CET." in text
    assert "## What is wrong, and what to do\n\nNothing.\n" in text


def test_what_passes_and_still_has_a_word_of_advice_keeps_it() -> None:
    advice = Item(
        Section.ADVICE, "x", "Synchronous mode", "billing", Verdict.PASS, "it is off", "patronictl edit-config"
    )
    trend = replace(advice, section=Section.TRENDS, suggestion="buy disks")
    made = report(replace(well(), items=(advice, trend)))
    for text in (markdown(made), Text(html(made)).text):
        assert "it is off – patronictl edit-config" in text and "buy disks" in text


def test_values_carry_their_units_and_what_is_not_known_says_so() -> None:
    item = Item(
        Section.ADVICE, "x", "X", "orders", Verdict.WARN, "x",
        evidence={"lag_seconds": 95.0, "free_bytes": 2**31, "used_pct": 41.2, "last_at": NIGHT, "count": 3, "who": None},
    )  # fmt: skip
    text = markdown(report(replace(well(), items=(item,))))
    assert "lag 1 min 35 s, free 2.0 GiB, used 41.2 %, last 2026-11-18 04:00:00 CET, count 3, who not known" in text


def test_the_first_inspection_says_that_there_is_nothing_to_compare_with() -> None:
    text = markdown(report(replace(well(), compared_with=None, compared_at=None)))
    assert "This is the first inspection of billing that is kept" in text


def test_a_report_that_is_not_done_says_so_first() -> None:
    assert "still going on" in Text(html(REPORTS["running"]())).text
    for text in (Text(html(REPORTS["failed"]())).text, markdown(REPORTS["failed"]())):
        assert "could not be brought to an end: the disk is full" in text


# --- hostile texts


def test_two_hundred_hostile_texts_stay_text_in_the_document() -> None:
    assert len(PAYLOADS) >= 200
    document = html(hostile(PAYLOADS))
    seen = Text(document)
    tags = {tag for tag, _ in seen.tags}
    assert not tags & {"script", "img", "iframe", "form", "base", "object", "embed", "math", "link", "details", "input"}
    assert len(seen.all("meta")) == len(Text(html(report(well()))).all("meta")) and len(seen.all("style")) == 1
    assert not [
        name for _, found in seen.tags for name in found if name.startswith("on") or name in ("style", "srcdoc")
    ]
    assert all(attributes["href"].startswith("#i") for attributes in seen.all("a"))
    assert not [char for char in document if not char.isprintable() and char != "\n"]
    told = "".join(seen.text.split())
    assert [text for text in PAYLOADS if "".join(visible(text).split()) not in told] == []


def test_two_hundred_hostile_texts_stay_text_in_markdown() -> None:
    more = (
        "a | b\n| c", "# x\n\n- y", "`code` **bold** _it_ ~~no~~", "[l](http://evil.example)", "![i](x)", "\\| \\",
        "<http://evil.example>", "&lt;b&gt; &amp;", "www.evil.example https://evil.example",
    )  # fmt: skip
    document = markdown(hostile((*PAYLOADS, *more)))
    assert not [char for char in document if not char.isprintable() and char != "\n"]
    rendered = Text(RENDER.render(document))
    kept = {
        "h1",
        "h2",
        "h3",
        "h4",
        "p",
        "ul",
        "li",
        "strong",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "blockquote",
    }
    assert {tag for tag, _ in rendered.tags} == kept
    for line in document.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) in (5, 6, 7, 8), line
    told = "".join(rendered.text.split())
    assert [text for text in (*PAYLOADS, *more) if "".join(visible(text).split()) not in told] == []


@pytest.mark.parametrize("text", [*HOSTILE[:40], "lag_seconds of _x_", "a*b", "50 % < 80 %", "C:\\x", "#1", "a&b;"])
def test_a_text_reads_in_markdown_as_it_was_written(text: str) -> None:
    shown = unescape(re.sub(r"<[^>]*>", "", RENDER.renderInline(escaped(text))))
    assert shown.strip() == visible(text).strip()


def test_bare_addresses_are_no_links_for_github_either() -> None:
    assert "://" not in escaped("see https://evil.example") and "www." not in escaped("www.evil.example")


# --- charts


def test_a_chart_lies_within_its_field_and_tells_itself_in_words() -> None:
    chart = Chart("x", "Lag", "seconds", (series("a", 40, 30), series("b", 3, 3, gap=True)), 30.0)
    [drawing] = drawings([chart], UTC)
    places = [
        tuple(map(float, point.split(","))) for line in drawing.lines for run in line.runs for point in run.split()
    ]
    assert all(LEFT <= x <= RIGHT and TOP <= y <= GROUND for x, y in places)
    assert len(drawing.lines[0].runs) == 1 and len(drawing.lines[1].runs) == 2, "a gap breaks the line"
    assert drawing.rule is not None and TOP < drawing.rule < GROUND
    assert "a from 10 s to 1 min 10 s" in drawing.told and "threshold 30 s" in drawing.told
    assert [tick.label for tick in drawing.ticks] == [f"11-{day}" for day in range(12, 19)]


def test_thinning_keeps_the_peak() -> None:
    points = tuple((NIGHT + index, 100.0 if index == 321 else 1.0) for index in range(500))
    [drawing] = drawings([Chart("x", "X", "", (Series("a", points),), None)], UTC)
    heights = [float(point.split(",")[1]) for run in drawing.lines[0].runs for point in run.split()]
    assert min(heights) == pytest.approx(TOP, abs=12) and len(heights) < 250


def test_many_lines_are_drawn_in_several_drawings_on_one_scale_and_none_is_lost() -> None:
    many = tuple(series(f"database {number}", number, 0.5) for number in range(20))
    drawn = drawings([Chart("x", "X", "percent", many, 80.0)], UTC)
    assert [drawing.title for drawing in drawn][-1] == "X (19 to 20 of 20)"
    assert [line.label for drawing in drawn for line in drawing.lines] == [one.label for one in many]
    assert len({drawing.levels for drawing in drawn}) == 1
    for drawing in drawn:
        tags = sorted(line.tag[1] for line in drawing.lines)
        assert all(later - earlier >= 10.9 for earlier, later in pairwise(tags))
        assert len({line.dashes for line in drawing.lines}) == len(drawing.lines)


@pytest.mark.parametrize(
    "points", [(), ((NIGHT, 1.0),), ((NIGHT, 0.0), (NIGHT + 60, 0.0)), ((NIGHT, math.nan), (NIGHT, math.inf)), ((NIGHT, 7.0), (NIGHT, 7.0)), ((NIGHT, -5.0), (NIGHT + DAY, 1e18))]
)  # fmt: skip
def test_odd_series_are_drawn_or_said_to_be_nothing(points: tuple[tuple[float, float], ...]) -> None:
    for unit in ("seconds", "bytes", "percent", ""):
        chart = Chart("x", "Odd", unit, (Series("a", points),), 3.0)
        document = html(report(replace(well(), charts=(chart,))))
        assert "nan" not in document.lower() and (
            "<polyline" in document or "<circle" in document or "Nothing was recorded" in document
        )
        assert markdown(report(replace(well(), charts=(chart,))))


def test_a_drawing_is_well_formed_svg() -> None:
    drawn = re.findall(r"<svg class=\"plotted\".*?</svg>", html(report(ill())), flags=re.DOTALL)
    assert len(drawn) == 4
    for text in drawn:
        svg = ElementTree.fromstring(text)
        assert svg.findall("polyline") and svg.attrib["aria-label"]


# --- fleets and styles


def test_a_fleet_of_a_hundred_is_told_worst_first_and_bounded_where_it_is_printed() -> None:
    found = fleet(100, drawn=False)
    text = markdown(found)
    table = [line for line in text.splitlines() if re.match(r"\| \*\*[A-E]\*\* \|", line)]
    assert len(table) == 100 and [line[4] for line in table] == sorted((line[4] for line in table), reverse=True)
    whole, printed = paper(found), paper(found, 30)
    assert len(whole.sheets) == len(whole.rows) == len(printed.rows) == 100
    assert len(printed.sheets) == 30 and "The 30 worst follow in full" in printed.rest
    assert [sheet.instance for sheet in paper(found, only="db-042").sheets] == ["db-042"]


def test_long_names_and_texts_are_there_to_their_end() -> None:
    one = replace(
        ill(LONG), grade_reason=LONG + "-reason", nodes=(NodeLine(LONG + "-node", "leader", "16.4", "pass"),),
        items=tuple(replace(item, target=LONG + "-target") for item in ill().items),
    )  # fmt: skip
    for text in (html(report(one)), markdown(report(one))):
        assert all(LONG + end in text for end in ("-reason", "-node", "-target"))


def test_the_colours_of_a_report_are_those_of_the_page() -> None:
    def colours(path: Path) -> dict[str, str]:
        return dict(re.findall(r"(--\w+): (light-dark\([^)]*\));", path.read_text()))

    drawn = set(re.findall(r'"(#[0-9a-f]{6})"', (DIRECTORY / "report.html").read_text()))
    of_report, of_page = colours(DIRECTORY / "document.css"), colours(STATIC / "probed.css")
    assert len(of_report) == 10 and of_report.items() <= of_page.items()
    assert len(drawn) == 4 and all(any(f"({colour}," in pair for pair in of_page.values()) for colour in drawn)


def test_a_report_of_an_unknown_zone_is_told_in_utc() -> None:
    assert "2026-11-18 03:00:00 UTC" in markdown(report(well(), zone="Mars/Olympus"))


def test_nobody_pays_for_templates_before_the_first_report() -> None:
    script = "import sys, probed.inspection.html, probed.inspection.printing; sys.exit('jinja2' in sys.modules or 'weasyprint' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
