-- What was kept with an event beside its samples: snapshots, redacted and capped, or why one could not be had.
CREATE TABLE evidence (
    event_id  TEXT NOT NULL REFERENCES event (id),
    moment    TEXT NOT NULL CHECK (moment IN ('trigger', 'recovery')),
    side      TEXT NOT NULL CHECK (side IN ('before', 'after')),
    collector TEXT NOT NULL,
    target    TEXT NOT NULL,
    taken_at  REAL NOT NULL,
    error     TEXT NOT NULL,
    data      BLOB              -- JSON, packed by zlib; NULL beside an error
);

CREATE UNIQUE INDEX evidence_of_event ON evidence (event_id, moment, side, collector, target, taken_at);

-- Moments whose evidence is still to be written: what a crash left here was lost with it, and the next start says so.
CREATE TABLE evidence_owed (
    event_id TEXT NOT NULL REFERENCES event (id),
    moment   TEXT NOT NULL,
    at       REAL NOT NULL,
    PRIMARY KEY (event_id, moment)
) WITHOUT ROWID;
