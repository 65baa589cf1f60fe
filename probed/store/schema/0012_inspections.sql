-- Reports of inspections: one row each, and what was found of each instance, packed.
CREATE TABLE inspection (
    id        TEXT PRIMARY KEY,
    series    TEXT NOT NULL,     -- those that follow each other: the schedule's name, else the instances
    name      TEXT NOT NULL,     -- of its schedule, or empty
    state     TEXT NOT NULL,     -- running, done, failed
    author    TEXT NOT NULL,
    began_at  REAL NOT NULL,
    ended_at  REAL,
    head      TEXT NOT NULL      -- JSON: the report without its instances
) WITHOUT ROWID;

CREATE INDEX inspection_by_series ON inspection (series, id);
CREATE INDEX inspection_by_date ON inspection (began_at);

CREATE TABLE inspected (
    inspection TEXT NOT NULL,
    instance   TEXT NOT NULL,
    place      INTEGER NOT NULL, -- in the report: the worst first
    grade      TEXT NOT NULL,
    fails      INTEGER NOT NULL,
    warns      INTEGER NOT NULL,
    body       BLOB NOT NULL,    -- JSON, deflated
    PRIMARY KEY (inspection, instance)
);

-- The newest one of an instance, which the next is compared with.
CREATE INDEX inspected_by_instance ON inspected (instance, inspection);
