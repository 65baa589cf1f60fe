"""The one way in which policies change while the daemon runs: valid, then durable, then in force; one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import structlog

from probed.errors import StoreError
from probed.policy.library import Library, Signed
from probed.revisions import MergePatch, Patch, Revision, RevisionKind
from probed.store import AuditRecord, Commit, Store

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)

WRITE_SECONDS = 10.0
"""How long a change waits for the disk before whoever made it is told."""

Wanted = Callable[[Library], Mapping[str, MergePatch]]
"""What is to lie over the files of which policies. May raise: then nothing changes."""
Audits = Callable[[Revision], Sequence[AuditRecord]]


class Editor:
    """Owns the library that is in force.

    ``apply`` makes the daemon work by another one, between two rounds; ``turn`` is held while policies or files change.
    """

    def __init__(self, library: Library, store: Store, apply: Callable[[], None], turn: asyncio.Lock) -> None:
        self.library = library
        self._store, self._apply, self._turn = store, apply, turn
        self._writing: asyncio.Task[None] | None = None
        # Validating all policies takes 0.1 s, which the probes must not have to wait for.
        self._aside = ThreadPoolExecutor(max_workers=1, thread_name_prefix="policies")

    def recover(self, patches: Mapping[str, Patch], version: int) -> None:
        """Lay what the store kept over the files, at the start."""
        self.replace(self.library.with_patches(patches, version))

    def replace(self, library: Library) -> None:
        """Take another library, of files read anew. Patches that do not fit its files are told."""
        self.library = library
        for name, problems in library.problems.items():
            told = [str(problem) for problem in problems]
            version = library.patch(name).version
            _log.error("policy.patch_does_not_fit", policy=name, version=version, in_force="the files", problems=told)
        for name, patch in library.strangers.items():
            _log.warning("policy.patch_without_policy", policy=name, version=patch.version, problems=["no file has it"])

    async def revise(
        self, kind: RevisionKind, wanted: Wanted, by: Signed, audits: Audits, *, dry: bool = False
    ) -> Revision | None:
        """Change policies; ``None`` when that changes nothing. ``dry``: only find out what it would change.

        ConfigError (or what ``wanted`` raises) when it cannot be, StoreError when it cannot be kept: nothing changed.
        """
        async with self._turn:
            library = self.library
            revision = await self.aside(partial(_revised, library, kind, wanted, by))
            if revision is None or dry:
                return revision
            after = await self.aside(partial(library.after, revision))
            self._writable()
            self._writing = asyncio.create_task(self._take(revision, library, after, audits(revision)))
            try:
                await asyncio.wait_for(asyncio.shield(self._writing), WRITE_SECONDS)
            except TimeoutError:
                self._writing.add_done_callback(_tell_lost)
                told = f"version {revision.version} waits for the disk, and is in force as soon as it is written"
                raise StoreError(told) from None
        return revision

    def _writable(self) -> None:
        reason = self._store.degraded
        if self._writing is not None and not self._writing.done():
            reason = "an earlier change of policies still waits for the disk"
        if reason:
            raise StoreError(f"nothing was changed, because the store cannot write: {reason}")

    async def _take(self, revision: Revision, before: Library, after: Library, audits: Sequence[AuditRecord]) -> None:
        """Write a revision, then work by it. Should files have been read anew meanwhile, it is laid over those."""
        await self._store.append(Commit(revisions=(revision,), audit=tuple(audits)))
        self.library = after if self.library is before else self.library.after(revision)
        self._apply()
        names = [item.policy for item in revision.touched]
        _log.info(
            "policy.revised",
            kind=revision.kind.value,
            version=revision.version,
            policies=names,
            author=revision.author,
        )

    async def aside(self, work: Callable[[], _T]) -> _T:
        """Do something pure without making the probes wait."""
        return await asyncio.get_running_loop().run_in_executor(self._aside, work)

    def close(self) -> None:
        self._aside.shutdown(wait=False)


def _revised(library: Library, kind: RevisionKind, wanted: Wanted, by: Signed) -> Revision | None:
    return library.revised(kind, wanted(library), by)


def _tell_lost(writing: asyncio.Task[None]) -> None:
    """Whoever made the change is not there any more to be told."""
    error = None if writing.cancelled() else writing.exception()
    if error is not None:
        _log.error("policy.revision_lost", error=str(error))
