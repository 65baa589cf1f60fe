-- What probes must find again after a restart: baselines of counters whose changes are told once.
CREATE TABLE kept (
    probe  TEXT NOT NULL,
    target TEXT NOT NULL,
    state  TEXT NOT NULL,
    PRIMARY KEY (probe, target)
) WITHOUT ROWID;
