-- One row per event. The database holds the invariant: at most one open event per fingerprint.
CREATE TABLE event (
    id              TEXT PRIMARY KEY,
    event           TEXT NOT NULL,
    name            TEXT NOT NULL,
    severity        TEXT NOT NULL,
    state           TEXT NOT NULL CHECK (state IN ('open', 'resolved', 'occurred')),
    instance        TEXT NOT NULL,
    node            TEXT NOT NULL,
    component       TEXT NOT NULL,
    member          TEXT NOT NULL,
    address         TEXT NOT NULL,
    fingerprint     TEXT NOT NULL,
    opened_at       REAL NOT NULL,
    first_failed_at REAL,
    resolved_at     REAL,
    resolve_reason  TEXT NOT NULL,
    count           INTEGER NOT NULL,
    value           TEXT,
    threshold       REAL,
    message         TEXT NOT NULL,
    suggestion      TEXT NOT NULL,
    policy_version  INTEGER NOT NULL,
    observer        TEXT NOT NULL,
    caused_by       TEXT,
    suppressed      INTEGER NOT NULL,
    acked_by        TEXT,
    labels          TEXT NOT NULL,
    samples_before  TEXT NOT NULL DEFAULT '[]',
    samples_after   TEXT NOT NULL DEFAULT '[]'
) WITHOUT ROWID;

CREATE UNIQUE INDEX one_open_event ON event (fingerprint) WHERE state = 'open';
CREATE INDEX event_by_instance ON event (instance, id);
CREATE INDEX event_by_type ON event (event, id);
CREATE INDEX event_by_cause ON event (caused_by) WHERE caused_by IS NOT NULL;
CREATE INDEX event_by_day ON event (opened_at, event, instance, severity);

-- Every transition, numbered without gaps: what outlets and streams read.
CREATE TABLE transition (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL REFERENCES event (id),
    kind     TEXT NOT NULL,
    at       REAL NOT NULL
);

-- What evaluators remember of a watch; only what differs from quiet is kept.
CREATE TABLE streak (
    watch TEXT PRIMARY KEY,
    state TEXT NOT NULL
) WITHOUT ROWID;

-- Patroni members once seen.
CREATE TABLE member (
    instance TEXT NOT NULL,
    name     TEXT NOT NULL,
    host     TEXT NOT NULL,
    port     INTEGER NOT NULL,
    api_url  TEXT NOT NULL,
    PRIMARY KEY (instance, name)
) WITHOUT ROWID;

-- The last sign of life: wall time, monotonic time and boot, so that an absence is known whatever the clock did.
CREATE TABLE heartbeat (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    at   REAL NOT NULL,
    mono REAL NOT NULL,
    boot TEXT NOT NULL
);
