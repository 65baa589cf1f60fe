"""The page's templates to HTML, in a thread, so that no probe waits for a page."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probed import wording
from probed.inspection.html import DIRECTORY as REPORTS
from probed.outline import changes, text
from probed.redaction import visible
from probed.templating import environment
from probed.web import incident, marks, overview, strip

if TYPE_CHECKING:
    from jinja2 import Environment

DIRECTORY = Path(__file__).parent / "templates"


class Renderer:
    """Jinja is imported, and its templates compiled, for the first page."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._environment: Environment | None = None

    async def html(self, template: str, context: Mapping[str, Any]) -> str:
        return await asyncio.get_running_loop().run_in_executor(self._executor, self.render, template, context)

    def render(self, template: str, context: Mapping[str, Any]) -> str:
        if self._environment is None:
            self._environment = _environment()
        return self._environment.get_template(template).render(context)


def _environment() -> Environment:
    made = environment(DIRECTORY, REPORTS)
    made.globals.update(
        legend=marks.LEGEND,
        severity_mark=marks.of_severity,
        state_of=incident.state_of,
        where=overview.where,
        strip_told=strip.told,
        instant=wording.instant,
        text=text,
        covers=covers,
        as_typed=as_typed,
        changes=changes,
        leads_to=leads_to,
        lasting=wording.lasting,
        ago=wording.ago,
        count=wording.count,
    )
    made.globals["parts"] = made.get_template("parts.html").module
    return made


def as_typed(document: str) -> object:
    """Several lines for a ``textarea``, its beginning with them: lines and tabs stay what they are."""
    from markupsafe import escape

    lines = document.replace("\r\n", "\n").split("\n")
    return escape("\n" + "\n".join("\t".join(map(visible, line.split("\t"))) for line in lines))


def covers(silence: Mapping[str, Any]) -> str:
    """``instance orders, event no_leader``, of a silence as the API tells it."""
    words = (("instances", "instance"), ("nodes", "node"), ("events", "event"), ("severities", "severity"))
    return ", ".join(f"{word} {' or '.join(silence[key])}" for key, word in words if silence.get(key)) or "everything"


_FOLDERS = {"policy": "policies/", "shadow": "policies/", "event": "events/", "inspection": "inspections/"}


def leads_to(record: Mapping[str, Any]) -> str:
    """The page of what a record of the audit log is about, if that has one of its own."""
    noun, subject = record["action"].partition(".")[0], record["subject"]
    folder = _FOLDERS.get(noun)
    return f"{folder}{subject}" if folder and subject else ""
