-- Changed versions of policies that run beside the live ones: what they would have told. Never announced, never counted.
CREATE TABLE shadow (
    policy     TEXT PRIMARY KEY,
    patch      TEXT NOT NULL,         -- JSON merge patch
    created_at REAL NOT NULL,
    author     TEXT NOT NULL,
    reason     TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE shadow_event (
    policy          TEXT NOT NULL,
    target          TEXT NOT NULL,
    opened_at       REAL NOT NULL,
    first_failed_at REAL,
    resolved_at     REAL,
    resolve_reason  TEXT NOT NULL,
    occurred        INTEGER NOT NULL,
    count           INTEGER NOT NULL,
    value           TEXT,             -- JSON
    PRIMARY KEY (policy, opened_at, target)
) WITHOUT ROWID;

CREATE TABLE shadow_streak (
    policy TEXT NOT NULL,
    target TEXT NOT NULL,
    state  TEXT NOT NULL,             -- as in the table streak
    PRIMARY KEY (policy, target)
) WITHOUT ROWID;
