"""The running daemon, as the API sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from probed.access.web_file import WebFile
from probed.config.settings import Settings
from probed.couriers import Couriers
from probed.editing import Editor
from probed.inspection.timetable import Timetable
from probed.metrics import Observed
from probed.recording.archive import Archive
from probed.shadowing import Shadowing
from probed.store import Store

if TYPE_CHECKING:  # they come with what a daemon need not have
    from probed.backtest.beside import Beside
    from probed.inspection.inspecting import Inspector


class Served(Observed, Protocol):
    """Everything a route may ask of the daemon. Read anew at each request: a reload replaces settings and policies."""

    @property
    def settings(self) -> Settings: ...
    @property
    def store(self) -> Store: ...
    @property
    def editor(self) -> Editor: ...
    @property
    def couriers(self) -> Couriers: ...
    @property
    def web_file(self) -> WebFile | None:
        """``web.config_file``, when there is one."""
        ...

    @property
    def archive(self) -> Archive:
        """The recorded samples."""
        ...

    @property
    def beside(self) -> Beside:
        """Has recorded samples replayed."""
        ...

    @property
    def shadowing(self) -> Shadowing: ...
    @property
    def inspector(self) -> Inspector: ...
    @property
    def timetable(self) -> Timetable:
        """Inspections that come back."""
        ...

    async def reload(self) -> None:
        """Apply the files anew. ConfigError when they are bad; the old ones go on."""
        ...

    def unready(self) -> Sequence[str]:
        """Reasons why the daemon is not doing its work; empty when it is."""
        ...
