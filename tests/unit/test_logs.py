"""What is logged: one line each, redacted, with its time and place; by whom makes no difference."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from probed import logs


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root, access = logging.getLogger(), logging.getLogger("aiohttp.access")
    before = (list(root.handlers), root.level, access.disabled, access.propagate)
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers, root.level, access.disabled, access.propagate = before


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_says_when_how_grave_what_and_who() -> None:
    out = io.StringIO()
    logs.set_up("info", "json", stream=out)
    structlog.get_logger("probed.pipeline").warning("event.opened", event_type="no_leader", count=2, cause=None)
    (line,) = lines(out)
    at = datetime.fromisoformat(line.pop("ts"))
    assert abs((datetime.now(UTC) - at).total_seconds()) < 5
    assert line == {
        "level": "warning", "msg": "event.opened", "logger": "probed.pipeline", "event_type": "no_leader", "count": 2
    }  # fmt: skip


def test_a_level_below_the_chosen_one_is_not_logged() -> None:
    out = io.StringIO()
    logs.set_up("warning", "json", stream=out)
    structlog.get_logger("a").info("quiet")
    logging.getLogger("asyncio").info("quiet")
    structlog.get_logger("a").error("loud")
    assert [line["msg"] for line in lines(out)] == ["loud"]


def test_what_a_library_logs_passes_the_same_way() -> None:
    out = io.StringIO()
    logs.set_up("info", "json", stream=out)
    logging.getLogger("asyncio").warning("connecting to %s", "postgresql://u:hunter2@db")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old\nthing", DeprecationWarning, stacklevel=1)
    first, second = lines(out)
    assert (first["level"], first["msg"], first["logger"]) == (
        "warning",
        "connecting to postgresql://u:***@db",
        "asyncio",
    )
    assert second["logger"] == "py.warnings" and "old\\nthing" in second["msg"]


def test_requests_are_not_logged() -> None:
    out = io.StringIO()
    logs.set_up("debug", "json", stream=out)
    logging.getLogger("aiohttp.access").info("GET /metrics")
    assert out.getvalue() == ""


def test_secrets_are_masked_in_every_field_and_depth() -> None:
    out = io.StringIO()
    logs.set_up("info", "json", stream=out)
    structlog.get_logger("a").info(
        "login password=hunter2",
        password="hunter2",
        nested={"token": "hunter2", "list": ["Authorization: Basic hunter2"]},
        error=ValueError("postgresql://u:hunter2@db"),
    )
    assert "hunter2" not in out.getvalue()


def test_an_exception_is_one_line_that_ends_with_the_error_and_holds_no_secret() -> None:
    out = io.StringIO()
    logs.set_up("info", "json", stream=out)

    def deep(level: int) -> None:
        if level:
            deep(level - 1)
        raise RuntimeError("cannot reach postgresql://u:hunter2@db")

    try:
        deep(80)
    except RuntimeError:
        structlog.get_logger("a").exception("probe.bug")
        logging.getLogger("asyncio").exception("task died")
    for line in lines(out):
        assert line["level"] == "error"
        assert line["exception"].endswith("RuntimeError: cannot reach postgresql://u:***@db")
        assert len(line["exception"].encode()) <= 2048
    assert len(lines(out)) == 2


@given(st.text(), st.text(min_size=1), st.text(), st.sampled_from(["json", "console"]))
def test_whatever_a_target_sends_is_one_bounded_line(msg: str, key: str, value: str, form: Any) -> None:
    out = io.StringIO()
    logs.set_up("info", form, stream=out)
    structlog.get_logger("a").info("seen", reason=msg, nested={key: [value] * 50})
    written = out.getvalue()
    assert written.endswith("\n") and written[:-1].isprintable()
    assert len(written.encode()) < 8000


def test_arguments_that_do_not_fit_their_format_do_not_end_anything() -> None:
    out = io.StringIO()
    logs.set_up("info", "json", stream=out)
    logging.getLogger("lib").warning("%d of %d", "one")  # noqa: PLE1206 - the library's mistake
    assert lines(out)[0]["msg"] == "%d of %d"


def test_the_console_form_is_plain_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    logs.set_up("info", "console", stream=out)
    structlog.get_logger("a").warning("target.outcome", target="orders/node-a", reason="connection refused", count=3)
    assert out.getvalue().split(" ", 1)[1] == (
        'warning  target.outcome target=orders/node-a reason="connection refused" count=3\n'
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("environ, coloured", [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_gets_the_console_form_and_colour_unless_it_wants_none(
    environ: dict[str, str], coloured: bool
) -> None:
    out = Terminal()
    logs.set_up("info", "auto", stream=out, environ=environ)
    structlog.get_logger("a").warning("hello")
    assert not out.getvalue().startswith("{")
    assert ("\x1b[" in out.getvalue()) is coloured


def test_the_journal_gets_its_priority_before_each_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "journal").open("w+") as journal:
        status = os.fstat(journal.fileno())
        monkeypatch.setattr(sys, "stderr", journal)
        logs.set_up("debug", "auto", environ={"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        log = structlog.get_logger("a")
        for level in ("debug", "info", "warning", "error", "critical"):
            getattr(log, level)("x")
        journal.seek(0)
        assert [line[:3] for line in journal] == ["<7>", "<6>", "<4>", "<3>", "<2>"]


def test_a_stderr_that_is_not_the_journal_gets_no_priority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "log").open("w+") as log:
        monkeypatch.setattr(sys, "stderr", log)
        logs.set_up("info", "auto", environ={"JOURNAL_STREAM": "1:2"})
        structlog.get_logger("a").info("x")
        log.seek(0)
        assert log.read().startswith("{")


def test_a_log_that_cannot_be_written_does_not_end_the_daemon() -> None:
    out = io.StringIO()
    logs.set_up("info", "json", stream=out)
    out.close()
    structlog.get_logger("a").error("nobody hears this")
