"""Which machines can be heard from here: the difference between "that host is down" and "I am cut off". Pure.

A machine that refuses or resets a connection, or accepts one and then hangs, has been heard: the network works. It is
*silent* when nobody accepts or refuses, when there is no route, or when its name cannot be resolved. It is *dark* when
every target on it is failing, in whatever way.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from msgspec import Struct, field

from probed.model import Outcome, Sample, Target

SILENT = frozenset({"no_answer", "network", "dns"})
"""Reasons that say that nothing came back from the target's machine."""
HOSTS = 2
"""With fewer machines in sight, one that is silent cannot be told from a cut-off observer, unless everything is."""
ALONE = 3
"""Targets on the only machine that must all be silent."""


class Sight(Struct, frozen=True):
    """What the newest samples say of the machines behind the targets. Sets of host names or addresses."""

    heard: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()
    dark: frozenset[str] = frozenset()
    unresolved: frozenset[str] = frozenset()
    """Names that do not resolve."""
    silent_parts: int = 0
    """Silent nodes, members and components; they count where there is one machine only."""
    parts: int = 0

    @property
    def share(self) -> float:
        """Per cent of the independent machines that are silent; 0 where nothing can be told."""
        hosts = len(self.heard | self.silent)
        if hosts >= HOSTS:
            return 100.0 * len(self.silent - self.heard) / hosts
        return 100.0 if self.parts >= ALONE and self.silent_parts == self.parts else 0.0

    @property
    def cut_off(self) -> bool:
        """Whether so much is silent at once that it is rather this observer's own network."""
        return self.share > 50.0


class _Part(Struct):
    heard: bool = False
    failing: bool = True
    said: bool = False
    """Whether its samples say anything of the way there."""


def sight(samples: Iterable[Sample]) -> Sight:
    """Of one instance; ``samples`` are the newest of probes that reach out, one per probe and target."""
    parts: dict[tuple[str, str], _Part] = {}
    unresolved: set[str] = set()
    for sample in samples:
        host = host_of(sample.target.address)
        if not host or sample.outcome is Outcome.NOT_APPLICABLE:
            continue
        part = parts.setdefault((host, _part(sample.target)), _Part())
        blind = sample.outcome is Outcome.BLIND
        if sample.kind == "dns":
            unresolved.add(host)
        if sample.outcome is Outcome.OBSERVED or (blind and sample.kind not in SILENT):
            part.failing = False
        # An open connection that is mute may be a hung target, and may be a network that has just been cut.
        if sample.kind in SILENT:
            part.said = True
        elif sample.kind != "timeout" and not (blind and sample.kind in _OURS):
            part.heard = part.said = True
    hosts = {host for host, _ in parts}
    heard = {host for (host, _), part in parts.items() if part.heard}
    silent = {host for (host, _), part in parts.items() if part.said} - heard
    lit = {host for (host, _), part in parts.items() if not part.failing}
    return Sight(
        frozenset(heard),
        frozenset(silent),
        frozenset(hosts - lit),
        frozenset(unresolved),
        sum(part.said and not part.heard for part in parts.values()),
        len(parts),
    )


_OURS = frozenset({"lag", "bug", "config", "descriptors", "no_input"})
"""Blindness that says nothing of whether the machine was heard."""


def merged(sights: Iterable[Sight]) -> Sight:
    """What an observer sees in all instances; a machine that one of them heard is not silent."""
    all_ = tuple(sights)
    heard = frozenset().union(*(one.heard for one in all_))
    silent = frozenset().union(*(one.silent for one in all_)) - heard
    dark = frozenset().union(*(one.dark for one in all_))
    unresolved = frozenset().union(*(one.unresolved for one in all_))
    return Sight(heard, silent, dark, unresolved, sum(one.silent_parts for one in all_), sum(one.parts for one in all_))


@lru_cache(maxsize=4096)
def host_of(address: str) -> str:
    """The machine in a target's address (``host:port``, a URL, a list of either); empty for paths and sockets."""
    first = address.partition(",")[0].strip()
    if not first or first.startswith(("/", "unix:")):
        return ""
    try:
        return urlsplit(first if "://" in first else f"//{first}").hostname or ""
    except ValueError:
        return ""


def is_here(host: str) -> bool:
    """Whether an address is this machine's own, which no network can cut off."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _part(target: Target) -> str:
    return target.node or f"{target.component}/{target.member}"


class Reachability(Struct):
    """The sights of all instances, kept up to date round by round."""

    _of: dict[str, Sight] = field(default_factory=dict)
    _said: dict[str, list[tuple[Target, Outcome, str]]] = field(default_factory=dict)
    """By instance, what it was seen by: mostly the next samples say the same."""
    _whole: Sight | None = None
    """Of all together; None when it has to be put together anew."""

    def see(self, instance: str, samples: Iterable[Sample]) -> Sight:
        """Take in an instance's newest samples."""
        samples = tuple(samples)
        said = [(sample.target, sample.outcome, sample.kind) for sample in samples]
        if said != self._said.get(instance):
            self._said[instance] = said
            found = sight(samples)
            if found != self._of.get(instance):
                self._of[instance], self._whole = found, None
        return self._of[instance]

    def forget(self, instance: str) -> None:
        self._said.pop(instance, None)
        self._of.pop(instance, None)
        self._whole = None

    @property
    def whole(self) -> Sight:
        if self._whole is None:
            self._whole = merged(self._of.values())
        return self._whole

    @property
    def by_instance(self) -> Mapping[str, Sight]:
        return self._of
