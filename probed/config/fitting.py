"""What stands against settings that are right in themselves: the policies they name, or a daemon that runs already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from probed.config.inspections import unfit
from probed.config.notifications import misdirected
from probed.config.settings import Settings
from probed.config.silences import misnamed
from probed.errors import Problem
from probed.model import Policy


def policy_problems(settings: Settings, policies: Mapping[str, Policy], where: str = "probed.yml") -> Sequence[Problem]:
    """Events that they name and no policy brings. ``where``: the file that they came from."""
    return [
        *misnamed(settings.silences, policies),
        *misdirected(settings.notifications, policies, where),
        *unfit(settings.inspections, policies),
    ]


def reload_problems(before: Settings, after: Settings) -> Sequence[Problem]:
    """What only a daemon that starts can take up."""
    return [
        Problem("probed.yml", "cannot be changed by a reload; restart the daemon", path=path)
        for path, old, new in (
            ("storage.path", before.storage.path, after.storage.path),
            ("web.listen", before.web.listen, after.web.listen),
            ("web.socket", before.socket, after.socket),
            ("web.config_file", before.web.config_file, after.web.config_file),
        )
        if old != new
    ]
