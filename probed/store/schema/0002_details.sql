-- What is known of an event beyond its columns (a switchover's class, write outage, possible loss), as JSON.
ALTER TABLE event ADD COLUMN flapping INTEGER NOT NULL DEFAULT 0;
ALTER TABLE event ADD COLUMN details TEXT NOT NULL DEFAULT '{}';

-- Times in which nobody looked: blind time, which no statistic of availability may count.
CREATE TABLE gap (
    began_at REAL NOT NULL,
    ended_at REAL NOT NULL,
    observer TEXT NOT NULL,
    reason   TEXT NOT NULL CHECK (reason IN ('stopped', 'stalled'))
);
CREATE INDEX gap_by_end ON gap (ended_at);

-- How the leadership of an instance went on: switchovers, and also restarts and promotions in place, which are no event.
CREATE TABLE leadership (
    instance   TEXT NOT NULL,
    at         REAL NOT NULL,
    class      TEXT NOT NULL,
    old_leader TEXT NOT NULL,
    new_leader TEXT NOT NULL,
    details    TEXT NOT NULL,
    PRIMARY KEY (instance, at)
) WITHOUT ROWID;
