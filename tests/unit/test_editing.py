"""The editor on its own: what it does while the disk does not take a change, and between files read anew."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from probed import editing
from probed.config.settings import Defaults
from probed.editing import Editor
from probed.errors import StoreError
from probed.policy.library import Library, Rules, Signed
from probed.probes import catalogue
from probed.revisions import MergePatch, Revision, RevisionKind
from probed.store import Commit, Store

RULES = Rules({name: frozenset(probe.readings) for name, probe in catalogue().items()}, Defaults())


class Disk:
    """A store that takes a commit when it is told to."""

    degraded = ""

    def __init__(self) -> None:
        self.waiting: list[tuple[Commit, asyncio.Future[None]]] = []
        self.asked = asyncio.Event()

    def append(self, commit: Commit) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((commit, done))
        self.asked.set()
        return done

    async def write(self) -> None:
        for _, done in self.waiting:
            done.set_result(None)
        self.waiting.clear()
        await asyncio.sleep(0.01)


class Desk:
    def __init__(self, files: Path) -> None:
        self.disk = Disk()
        self.applied: list[int] = []
        library = Library.read(files, RULES)
        self.editor = Editor(library, cast(Store, self.disk), self._apply, asyncio.Lock())

    def _apply(self) -> None:
        self.applied.append(self.editor.library.version)

    async def set(self, policy: str, **patch: Any) -> Revision | None:
        def wanted(library: Library) -> Mapping[str, MergePatch]:
            return {policy: library.edited(policy, patch)}

        return await self.editor.revise(RevisionKind.EDIT, wanted, Signed(1.0, "anne", "socket"), lambda _: ())


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(editing, "WRITE_SECONDS", 0.05)
    made = Desk(tmp_path)
    yield made
    made.editor.close()


async def test_a_change_is_in_force_only_once_it_is_durable(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editing, "WRITE_SECONDS", 30.0)
    change = asyncio.create_task(desk.set("no_leader", severity="normal"))
    await desk.disk.asked.wait()
    assert (desk.editor.library.version, desk.applied) == (1, [])
    await desk.disk.write()
    revision = await change
    assert revision is not None
    assert (desk.editor.library.version, desk.applied) == (2, [2])


async def test_a_change_that_waits_for_the_disk_is_told_and_in_force_once_it_is_written(desk: Desk) -> None:
    with pytest.raises(StoreError, match="version 2 waits for the disk"):
        await desk.set("no_leader", severity="normal")
    with pytest.raises(StoreError, match="an earlier change"):
        await desk.set("etcd_unavailable", severity="normal")
    assert (desk.editor.library.version, desk.applied) == (1, [])
    await desk.disk.write()
    assert desk.editor.library.policies["no_leader"].severity.value == "normal"
    assert desk.applied == [2]


async def test_files_that_are_read_anew_meanwhile_come_under_the_change(desk: Desk, tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        await desk.set("no_leader", severity="normal")
    (tmp_path / "x.yaml").write_text("id: no_leader\nparams: {no_leader_count: 5}\n")
    desk.editor.replace(Library.read(tmp_path, RULES, desk.editor.library.patches, desk.editor.library.version))
    await desk.disk.write()
    policy = desk.editor.library.policies["no_leader"]
    assert (policy.severity.value, policy.params, policy.version) == ("normal", {"no_leader_count": 5}, 2)


async def test_a_change_that_the_store_refuses_is_none(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editing, "WRITE_SECONDS", 30.0)
    change = asyncio.create_task(desk.set("no_leader", severity="normal"))
    await desk.disk.asked.wait()
    desk.disk.asked.clear()
    desk.disk.waiting.pop()[1].set_exception(StoreError("refused by the store"))
    with pytest.raises(StoreError, match="refused"):
        await change
    assert (desk.editor.library.version, desk.applied) == (1, [])
    again = asyncio.create_task(desk.set("no_leader", severity="normal"))
    await desk.disk.asked.wait()
    await desk.disk.write()
    assert (await again) is not None
