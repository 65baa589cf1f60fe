-- What receivers are owed of a transition, and what became of it. Written in the transaction of the transition.
CREATE TABLE delivery (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    seq        INTEGER NOT NULL REFERENCES transition (seq),
    receiver   TEXT NOT NULL,
    event_id   TEXT NOT NULL REFERENCES event (id),
    told       TEXT NOT NULL CHECK (told IN ('opened', 'resolved', 'occurred')),
    fate       TEXT NOT NULL CHECK (fate IN ('owed', 'delivered', 'refused', 'expired', 'dropped')),
    owed_at    REAL NOT NULL,
    attempts   INTEGER NOT NULL DEFAULT 0,
    tried_at   REAL,
    settled_at REAL,
    answer     TEXT NOT NULL DEFAULT '',
    UNIQUE (receiver, seq)
);
CREATE INDEX delivery_owed ON delivery (receiver, id) WHERE fate = 'owed';
CREATE INDEX delivery_by_event ON delivery (event_id, id);

-- The event as it was at a transition that somebody is owed: a retry says what the first attempt said.
CREATE TABLE notice (
    seq   INTEGER PRIMARY KEY REFERENCES transition (seq),
    event TEXT NOT NULL
);
