"""Recorded samples back from the file: which places there are, and the chunks of one, unpacked only when asked to."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from msgspec import Struct

from probed.model import Target
from probed.recording.chunks import Columns, Digest, unpack


class Place(Struct, frozen=True):
    """One probe on one target of which there are samples."""

    id: int
    probe: str
    target: Target


class Recorded(Struct, frozen=True):
    """How much there is of a place. Unix seconds."""

    place: Place
    first_at: float
    last_at: float
    samples: int


class Chunk:
    """Samples of one place and run, with what is known of them unopened."""

    __slots__ = ("_body", "_connection", "_place", "digest", "run")

    def __init__(self, connection: sqlite3.Connection, place: Place, run: int, digest: Digest, body: int) -> None:
        self._connection, self._place, self._body = connection, place, body
        self.run, self.digest = run, digest

    def load(self) -> Columns:
        """Read and unpack the body. ValueError when it is damaged or was purged meanwhile."""
        row = self._connection.execute("SELECT data FROM body WHERE id = ?", (self._body,)).fetchone()
        if row is None:
            raise ValueError("the chunk was purged meanwhile")
        return unpack(row[0], self._place.probe, self._place.target)


class Reading:
    """A read-only connection; used by one thread or process. sqlite3.Error when the file cannot be read."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
        self._connection.execute("PRAGMA query_only = ON")

    def close(self) -> None:
        self._connection.close()

    def hold(self) -> None:
        """From here on everything is read as it is now, whatever is written or purged beside it."""
        self._connection.execute("BEGIN")

    def places(self, probe: str | None = None, target: str | None = None) -> Sequence[Place]:
        """By probe and target key; both may be left open."""
        rows = self._connection.execute(
            "SELECT id, probe, instance, node, component, address, kind, member FROM place"
            " WHERE (?1 IS NULL OR probe = ?1) AND (?2 IS NULL OR target = ?2) ORDER BY target, probe",
            (probe, target),
        )
        return [Place(number, name, Target(*rest)) for number, name, *rest in rows]

    def recorded(self, target: str | None = None) -> Sequence[Recorded]:
        """What there is of every place with samples."""
        with closing(self._connection.cursor()) as cursor:
            spans = {
                place: span
                for place, *span in cursor.execute(
                    "SELECT place, min(began), max(ended), sum(count) FROM chunk GROUP BY place"
                )
            }
        return [
            Recorded(place, began / 1000, ended / 1000, count)
            for place in self.places(target=target)
            if place.id in spans
            for began, ended, count in [spans[place.id]]
        ]

    def chunks(self, place: Place, since: float, until: float) -> Iterator[Chunk]:
        """Those that reach into a span of wall time (Unix seconds, ``until`` exclusive), in the order of sampling.

        A chunk whose digest cannot be read is left out: ValueError would cost all the others.
        """
        rows = self._connection.execute(
            "SELECT run, digest, body FROM chunk WHERE place = ? AND ended >= ? AND began < ? ORDER BY run, mono",
            (place.id, round(since * 1000), round(until * 1000)),
        )
        for run, digest, body in rows:
            yield Chunk(self._connection, place, run, Digest.load(digest), body)
