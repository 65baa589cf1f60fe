-- Who changed what: written in the transaction of the change itself, never altered.
CREATE TABLE audit (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    at      REAL NOT NULL,
    who     TEXT NOT NULL,
    via     TEXT NOT NULL,
    client  TEXT NOT NULL,
    action  TEXT NOT NULL,
    subject TEXT NOT NULL,
    reason  TEXT NOT NULL,
    before  TEXT,             -- JSON, or NULL
    after   TEXT
);
CREATE INDEX audit_by_time ON audit (at);
