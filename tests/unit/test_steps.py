"""The steps of a probe run by hand: what was done, in which order, how long, and how far it got."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from probed import steps
from probed.cli import cli
from probed.cli.once import sample_once
from probed.config.settings import Settings
from probed.steps import Step
from tests.hostile import HTTP, answering, listening, refusing
from tests.unit.certificates import Authority, over_tls


async def taken(name: str, url: str, timeout: str = "10s", **keys: Any) -> list[Step]:
    settings = Settings.model_validate(
        {
            "defaults": {"timeout": timeout, "interval": "20s"},
            "instances": [{"name": "orders", "components": {name: {"url": url, **keys}}}],
        }
    )
    found = await sample_once(settings)
    (kept,) = [kept for (_, key), kept in found.steps.items() if key == f"orders/{name}"]
    return list(kept)


def names(found: list[Step], *, finished: bool = True) -> list[str]:
    return [step.name for step in found if step.finished is finished]


async def test_a_request_is_resolve_connect_request_first_byte_and_body() -> None:
    async with listening(answering(b"well")) as peer:
        found = await taken("mine", peer.url.replace("127.0.0.1", "localhost"))
    ours = [step for step in found if step.finished]
    assert [step.name for step in ours] == ["resolve", "connect", "request", "first byte", "body"]
    assert [step.detail for step in ours][:2] == ["localhost", f"127.0.0.1:{peer.port}"]
    assert [step.at for step in found] == sorted(step.at for step in found)
    assert all(step.seconds > 0 for step in found)


async def test_tls_is_a_step_of_its_own(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with over_tls(authority.issue("server").server(), b"well") as url:
        found = await taken("mine", url, ca_file=authority.file)
        assert names(found) == ["connect", "TLS", "request", "first byte", "body"]
        found = await taken("mine", url)
        assert names(found) == ["connect"]
        assert names(found, finished=False) == ["TLS"]


async def test_what_hangs_or_refuses_is_the_step_that_did_not_finish() -> None:
    async with listening(HTTP["accept_and_hang"]) as peer:
        found = await taken("mine", peer.url, "300ms")
        assert names(found) == ["connect", "request"]
        assert names(found, finished=False) == ["first byte"]
        assert found[-1].seconds > 0.1
        assert names(await taken("mine", f"tcp://127.0.0.1:{peer.port}")) == ["connect"]
    assert names(await taken("mine", f"tcp://127.0.0.1:{refusing()}"), finished=False) == ["connect"]


async def test_two_cycles_side_by_side_do_not_see_each_others_steps() -> None:
    async def cycle(name: str) -> tuple[str, ...]:
        with steps.kept() as kept:
            for number in range(3):
                with steps.step(f"{name}{number}"):
                    await asyncio.sleep(0)
            return tuple(step.name for step in kept.taken)

    assert list(await asyncio.gather(cycle("a"), cycle("b"))) == [("a0", "a1", "a2"), ("b0", "b1", "b2")]


def test_while_nobody_looks_nothing_is_kept() -> None:
    with steps.step("alone"):
        steps.begin("more")
        steps.end("more")
    with steps.kept() as kept:
        pass
    assert kept.taken == []


def test_a_run_by_hand_shows_them_when_it_is_to_be_verbose(tmp_path: Path) -> None:
    file = tmp_path / "probed.yml"
    port = refusing()
    file.write_text(f"instances: [{{name: o, components: {{mine: {{url: 'tcp://127.0.0.1:{port}'}}}}}}]")
    run = ["probe", "run", "component", "--config.file", str(file)]
    shown = CliRunner().invoke(cli, [*run, "-v"]).stdout
    assert f"127.0.0.1:{port} (not finished)" in shown
    assert "STEP" not in CliRunner().invoke(cli, run).stdout
    (item,) = json.loads(CliRunner().invoke(cli, [*run, "-v", "--format", "json"]).stdout)["items"]
    (step,) = item["steps"]
    assert (step["step"], step["detail"], step["finished"]) == ("connect", f"127.0.0.1:{port}", False)
