-- Recorded samples. A chunk's digest lies apart from its body, so that what a digest answers costs no reading of bodies.
CREATE TABLE place (
    id        INTEGER PRIMARY KEY,
    probe     TEXT NOT NULL,
    target    TEXT NOT NULL,              -- Target.key
    instance  TEXT NOT NULL,
    node      TEXT NOT NULL,
    component TEXT NOT NULL,
    address   TEXT NOT NULL,
    kind      TEXT NOT NULL,
    member    TEXT NOT NULL,
    UNIQUE (probe, target)
) STRICT;

-- One life of a daemon: monotonic times of two runs cannot be compared.
CREATE TABLE run (
    id       INTEGER PRIMARY KEY,
    began_at REAL NOT NULL,               -- Unix seconds
    observer TEXT NOT NULL
) STRICT;

CREATE TABLE chunk (
    place    INTEGER NOT NULL REFERENCES place (id),
    run      INTEGER NOT NULL REFERENCES run (id),
    mono     INTEGER NOT NULL,            -- of the first sample, milliseconds
    began    INTEGER NOT NULL,            -- wall time of the first and the last sample, milliseconds
    ended    INTEGER NOT NULL,
    count    INTEGER NOT NULL,
    digest   TEXT NOT NULL,               -- recording.chunks.Digest
    body     INTEGER NOT NULL REFERENCES body (id),
    PRIMARY KEY (place, run, mono)
) STRICT, WITHOUT ROWID;

CREATE TABLE body (
    id   INTEGER PRIMARY KEY,
    data BLOB NOT NULL                    -- recording.chunks.Buffer.pack
) STRICT;
