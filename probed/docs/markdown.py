"""Generated pages: a heading, a paragraph, sections of lines; tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

HEADER = "<!-- Generated from the code by `make docs`; edit the code instead. -->\n"


def page(title: str, says: str, sections: Iterable[Iterable[str]]) -> str:
    text = "\n".join([HEADER, f"# {title}\n", f"{says}\n", *(line for section in sections for line in section)])
    return text.rstrip("\n") + "\n"


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(titles)} |"
    yield "|" + "---|" * len(titles)
    for row in rows:
        yield "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |"
    yield ""


def codes(names: Sequence[str], joint: str = ", ") -> str:
    return joint.join(f"`{name}`" for name in names)


def yes(value: bool) -> str:
    return "yes" if value else "no"
