-- What people do not want to be told of; those that stand in the configuration are not kept here.
CREATE TABLE silence (
    id         TEXT PRIMARY KEY,
    scope      TEXT NOT NULL,     -- JSON: instances, nodes, events, severities
    comment    TEXT NOT NULL,
    author     TEXT NOT NULL,
    created_at REAL NOT NULL,
    starts_at  REAL NOT NULL,
    ends_at    REAL NOT NULL,
    every      TEXT,              -- JSON: the windows that come back, or NULL
    ended_at   REAL,
    ended_by   TEXT NOT NULL
) WITHOUT ROWID;

CREATE INDEX silence_by_end ON silence (ends_at);

-- The last silence that covered an event, and whether it kept people from being told of it.
ALTER TABLE event ADD COLUMN silenced INTEGER NOT NULL DEFAULT 0;
ALTER TABLE event ADD COLUMN silenced_by TEXT;
-- The list finds the few that were silenced by these, whatever else it is filtered by.
CREATE INDEX event_by_silence ON event (silenced_by) WHERE silenced_by IS NOT NULL;
CREATE INDEX event_silenced ON event (silenced) WHERE silenced = 1;
