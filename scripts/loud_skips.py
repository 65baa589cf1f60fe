"""A pytest plugin of `make test`: says, after everything else, how many tests were skipped."""

from __future__ import annotations

from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
    """Print the count below pytest's own list of reasons; only its closing line comes later."""
    yield
    skipped = len(terminalreporter.stats.get("skipped", []))
    if skipped:
        message = f"!!! {skipped} TESTS WERE SKIPPED: what they promise was not proved here (reasons above)"
        terminalreporter.write_line("")
        terminalreporter.write_line(message, yellow=True, bold=True)
