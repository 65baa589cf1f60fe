"""A report as Markdown: readable as it stands, and by every renderer (CommonMark with GitHub's tables). Pure.

Whatever targets and people wrote stays text: no markup, no HTML and no link of theirs survives. The same report always
gives the same characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from probed.inspection import Report
from probed.inspection.charts import Drawing, Line
from probed.inspection.sheets import Change, Finding, Fine, FinePart, Mark, Paper, Part, Sheet, paper
from probed.redaction import visible

_BLOCKS = "▁▂▃▄▅▆▇█"
# `_` between letters or digits emphasizes nothing, and names are full of it.
_SPECIAL = re.compile(r"[\\`*\[\]|~#]|(?<![^\W_])_|_(?![^\W_])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def markdown(report: Report) -> str:
    """The whole report as one document."""
    return "\n".join(_lines(paper(report)))


def escaped(text: str) -> str:
    """``text`` on one line, with nothing in it that Markdown, or HTML within it, gives a meaning to."""
    line = visible(text).strip()
    line = _SPECIAL.sub(lambda match: f"\\{match[0]}", line)
    line = "".join(_ENTITIES.get(char, char) for char in line)
    # GitHub makes links of bare addresses.
    line = re.sub(r"(?i)([a-z]):(?=//)", r"\1&#58;", line)
    return re.sub(r"(?i)\bwww\.", lambda match: f"{match[0][:3]}&#46;", line)


def _lines(page: Paper) -> Iterator[str]:
    yield f"# {escaped(page.title)}"
    yield ""
    yield f"{escaped(page.when)}, {escaped(page.told)}"
    yield ""
    for line in (page.problem, page.note and f"Note: {page.note}"):
        if line:
            yield f"> {escaped(line)}"
            yield ""
    if page.is_fleet:
        yield from _fleet(page)
        for sheet in page.sheets:
            yield f"## {escaped(sheet.instance)}"
            yield ""
            yield from _sheet(sheet, "###")
    elif page.sheets:
        yield from _sheet(page.sheets[0], "##")
    else:
        yield escaped(page.verdict)
        yield ""
    yield "## How this report was made"
    yield ""
    yield from (f"- {what}: {escaped(value)}" for what, value in page.made)
    yield ""


def _fleet(page: Paper) -> Iterator[str]:
    yield f"**{escaped(page.verdict)}**"
    yield ""
    yield "## All instances, the worst first"
    yield ""
    yield from _table(
        ("Grade", "Instance", "Fail>", "Warn>", "Pass>", "Since the last", "Why"),
        (
            (
                f"**{row.grade}**",
                escaped(row.instance),
                *(str(number) for _, number in row.counts),
                row.turned,
                escaped(row.reason),
            )
            for row in page.rows
        ),
    )


def _sheet(sheet: Sheet, heading: str) -> Iterator[str]:
    yield f"**Grade {sheet.row.grade}**: {escaped(sheet.row.reason)}"
    yield ""
    yield " · ".join(f"{mark.shape} {number} {mark.word}" for mark, number in sheet.row.counts)
    yield ""
    if sheet.labels:
        yield f"Labels: {', '.join(f'{escaped(name)}={escaped(value)}' for name, value in sheet.labels)}"
        yield ""
    if sheet.nodes:
        yield from _table(
            ("Node", "Role", "PostgreSQL", "State"),
            (
                (
                    escaped(node.name),
                    escaped(node.role) or "not known",
                    escaped(node.version) or "not seen",
                    _mark(node.mark),
                )
                for node in sheet.nodes
            ),
        )
    yield f"{heading} What is wrong, and what to do"
    yield ""
    if not sheet.wrong:
        yield "Nothing."
    for found in sheet.wrong:
        yield from _wrong(found)
    yield ""
    yield f"{heading} Since the last inspection"
    yield ""
    yield escaped(sheet.compared)
    yield ""
    if sheet.changes:
        yield from _table(("Turn", "Before", "Now", "What", "Where", "Found"), map(_change, sheet.changes))
    if sheet.parts:
        yield f"{heading} Evidence"
        yield ""
    for part in sheet.parts:
        yield from _part(part, f"{heading}#")
    yield f"{heading} What was fine"
    yield ""
    if not sheet.fine:
        yield "Nothing else was looked at."
        yield ""
    for fine in sheet.fine:
        yield from _fine(fine)


def _mark(mark: Mark) -> str:
    return f"{mark.shape} {mark.word}"


def _wrong(found: Finding) -> Iterator[str]:
    yield f"- **{_mark(found.mark)}** {escaped(found.title)} ({escaped(found.place)}): {escaped(found.finding)}"
    if found.suggestion:
        yield f"  - What to do: {escaped(found.suggestion)}"


def _change(change: Change) -> Sequence[str]:
    return (
        change.turn,
        _mark(change.before),
        _mark(change.now),
        escaped(change.title),
        escaped(change.place),
        escaped(change.finding),
    )


def _part(part: Part, heading: str) -> Iterator[str]:
    yield f"{heading} {part.name}"
    yield ""
    if part.findings:
        yield from _table(("State", "What", "Where", "Found"), map(_evidence, part.findings))
    for drawing in part.drawings:
        yield from _drawing(drawing)


def _evidence(found: Finding) -> Sequence[str]:
    values = ", ".join(f"{escaped(label)} {escaped(value)}" for label, value in found.values)
    more = f" and {found.more_events} more" if found.more_events else ""
    events = f"event {', '.join(map(escaped, found.events))}{more}" if found.events else ""
    said = "" if found.told and (values or events) else escaped(found.finding)
    return (
        _mark(found.mark),
        escaped(found.title),
        escaped(found.place),
        "; ".join(filter(None, (said, values, events, "" if found.told else escaped(found.suggestion)))),
    )


def _drawing(drawing: Drawing) -> Iterator[str]:
    rule = f" ({escaped(drawing.rule_label)})" if drawing.rule_label else ""
    yield f"**{escaped(drawing.title)}**{rule}"
    yield ""
    if not drawing.lines:
        yield "Nothing was recorded."
        yield ""
        return
    first, last = drawing.ticks[0].label, drawing.ticks[-1].label
    span = f"{first} to {last}" if first != last else first
    yield from _table((f"Along {span}", "Of", "Least>", "Most>", "Last>"), map(_line, drawing.lines))


def _line(line: Line) -> Sequence[str]:
    return _spark(line.spark), escaped(line.label), line.least, line.most, line.last


def _spark(values: Iterable[float]) -> str:
    return "".join(_BLOCKS[min(len(_BLOCKS) - 1, max(0, int(value * len(_BLOCKS))))] for value in values)


def _fine(part: FinePart) -> Iterator[str]:
    yield f"**{part.name}**"
    yield ""
    yield from (f"- {_mark(row.mark)}: {escaped(row.title)} ({_places(row)})" for row in part.rows)
    yield ""


def _places(row: Fine) -> str:
    return "; ".join(
        f"{', '.join(map(escaped, places))}{': ' if finding else ''}{escaped(finding)}"
        + (f" – {escaped(suggestion)}" if suggestion else "")
        for places, finding, suggestion in row.said
    )


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """``names`` that end in ``>`` head columns of numbers, which stand to the right."""
    yield f"| {' | '.join(name.removesuffix('>') for name in names)} |"
    yield f"| {' | '.join('---:' if name.endswith('>') else '---' for name in names)} |"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""
