"""The generated pages in docs/ are what the code and the tests say."""

from __future__ import annotations

import click
import pytest

from probed import docs
from probed.cli import cli
from probed.cli.check import load_policies
from probed.config import settings
from probed.metrics import CATALOGUE
from probed.policy.layers import BUILT_IN
from probed.probes import catalogue


@pytest.mark.parametrize("name", sorted(docs.PAGES))
def test_a_reference_is_what_the_code_says(name: str) -> None:
    path = docs.DIRECTORY / name
    written = path.read_text(encoding="utf-8") if path.exists() else ""
    assert written == docs.PAGES[name](), f"docs/{name} is stale; run `make docs`"


@pytest.mark.parametrize("name", sorted(docs.PAGES))
def test_a_reference_names_no_machine(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "this-very-machine")
    text = docs.PAGES[name]()
    assert "this-very-machine" not in text
    assert str(docs.ROOT) not in text


def test_every_setting_probe_and_command_is_described() -> None:
    assert all(f"`{key}`" in docs.settings_() for key in ("web.listen", "instances[].nodes[].postgres.sslmode"))
    assert all(f"## {name}\n" in docs.probes() for name in catalogue())
    assert all(f"`{series.name}`" in docs.metrics() for series in CATALOGUE)
    assert "## probed events list\n" in docs.commands()


def test_no_command_and_no_flag_is_without_help() -> None:
    for context in docs._contexts(click.Context(cli, info_name="probed")):
        assert context.command.help, context.command_path
        for parameter in context.command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{context.command_path} {parameter.opts}"


def test_every_event_of_the_contract_has_a_test_that_saw_it_come_and_go() -> None:
    proved = {proof["event"] for proof in docs.proofs_of_the_tests()}
    contract = {path.stem for path in BUILT_IN.glob("*.yaml")}
    assert contract - proved == set(), "mark the test that proves it with @pytest.mark.proves"
    assert proved <= set(load_policies(None, settings.Defaults())), "a mark names an event that there is not"
