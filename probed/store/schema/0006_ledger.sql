-- A history of a million events that is read, counted, streamed and purged as quickly as one of a hundred.

-- Which events are counted together, with how many of them were ever announced: purging never lowers a total.
CREATE TABLE series (
    id       INTEGER PRIMARY KEY,
    event    TEXT NOT NULL,
    instance TEXT NOT NULL,
    severity TEXT NOT NULL,
    total    INTEGER NOT NULL DEFAULT 0,
    UNIQUE (event, instance, severity)
);

-- Announced events by the quarter of an hour (of Unix time) in which they began: no zone's midnight lies within one.
CREATE TABLE tally (
    quarter INTEGER NOT NULL,
    series  INTEGER NOT NULL REFERENCES series (id),
    number  INTEGER NOT NULL,
    PRIMARY KEY (quarter, series)
) WITHOUT ROWID;
-- The same by the day in UTC, of which most of any zone's day is made.
CREATE TABLE tally_day (
    day     INTEGER NOT NULL,
    series  INTEGER NOT NULL REFERENCES series (id),
    number  INTEGER NOT NULL,
    PRIMARY KEY (day, series)
) WITHOUT ROWID;

-- Events that no filter of the list can tell apart stand on one shelf, by id. There are a few thousand shelves at most.
CREATE TABLE shelf (
    id         INTEGER PRIMARY KEY,
    series     INTEGER NOT NULL REFERENCES series (id),
    state      TEXT NOT NULL,
    suppressed INTEGER NOT NULL,
    number     INTEGER NOT NULL DEFAULT 0,
    UNIQUE (series, state, suppressed)
);
CREATE TABLE placed (
    shelf    INTEGER NOT NULL REFERENCES shelf (id),
    event_id TEXT NOT NULL REFERENCES event (id),
    PRIMARY KEY (shelf, event_id)
) WITHOUT ROWID;
CREATE VIEW labelled AS
    SELECT shelf.id AS shelf, series.id AS series, event, instance, severity, state, suppressed, number
    FROM shelf JOIN series ON series.id = shelf.series;

INSERT INTO series (event, instance, severity, total)
    SELECT event, instance, severity, sum(suppressed = 0) FROM event GROUP BY event, instance, severity;
INSERT INTO shelf (series, state, suppressed, number)
    SELECT series.id, state, suppressed, count(*)
    FROM event JOIN series USING (event, instance, severity) GROUP BY series.id, state, suppressed;
INSERT INTO placed (shelf, event_id)
    SELECT labelled.shelf, event.id
    FROM event JOIN labelled USING (event, instance, severity, state, suppressed) ORDER BY labelled.shelf, event.id;
INSERT INTO tally (quarter, series, number)
    SELECT CAST(opened_at / 900 AS INTEGER) AS quarter, series.id, count(*)
    FROM event JOIN series USING (event, instance, severity) WHERE suppressed = 0
    GROUP BY quarter, series.id ORDER BY quarter, series.id;
INSERT INTO tally_day (day, series, number)
    SELECT quarter / 96 AS day, series, sum(number) FROM tally GROUP BY day, series ORDER BY day, series;

-- The database holds the invariant: whatever writes an event, its shelf, its totals and its tally agree with it.
CREATE TRIGGER placed_comes AFTER INSERT ON placed BEGIN
    UPDATE shelf SET number = number + 1 WHERE id = new.shelf;
END;
CREATE TRIGGER placed_goes AFTER DELETE ON placed BEGIN
    UPDATE shelf SET number = number - 1 WHERE id = old.shelf;
END;
CREATE TRIGGER tally_comes AFTER INSERT ON tally BEGIN
    INSERT INTO tally_day (day, series, number) SELECT new.quarter / 96, new.series, new.number WHERE true
        ON CONFLICT (day, series) DO UPDATE SET number = number + new.number;
END;
CREATE TRIGGER tally_grows AFTER UPDATE OF number ON tally BEGIN
    UPDATE tally_day SET number = number + new.number - old.number WHERE day = new.quarter / 96 AND series = new.series;
END;
CREATE TRIGGER event_comes AFTER INSERT ON event BEGIN
    INSERT INTO series (event, instance, severity) SELECT new.event, new.instance, new.severity WHERE NOT EXISTS (
        SELECT 1 FROM series WHERE event = new.event AND instance = new.instance AND severity = new.severity);
    INSERT INTO shelf (series, state, suppressed)
        SELECT series.id, new.state, new.suppressed FROM series
        WHERE event = new.event AND instance = new.instance AND severity = new.severity AND NOT EXISTS (
            SELECT 1 FROM shelf
            WHERE shelf.series = series.id AND state = new.state AND suppressed = new.suppressed);
    INSERT INTO placed (shelf, event_id)
        SELECT shelf, new.id FROM labelled
        WHERE event = new.event AND instance = new.instance AND severity = new.severity
          AND state = new.state AND suppressed = new.suppressed;
    UPDATE series SET total = total + 1
        WHERE new.suppressed = 0 AND event = new.event AND instance = new.instance AND severity = new.severity;
    INSERT INTO tally (quarter, series, number)
        SELECT CAST(new.opened_at / 900 AS INTEGER), id, 1 FROM series
        WHERE new.suppressed = 0 AND event = new.event AND instance = new.instance AND severity = new.severity
        ON CONFLICT (quarter, series) DO UPDATE SET number = number + 1;
END;
CREATE TRIGGER event_moves AFTER UPDATE OF severity, state, suppressed ON event
WHEN old.severity <> new.severity OR old.state <> new.state OR old.suppressed <> new.suppressed BEGIN
    DELETE FROM placed WHERE event_id = old.id AND shelf = (
        SELECT shelf FROM labelled
        WHERE event = old.event AND instance = old.instance AND severity = old.severity
          AND state = old.state AND suppressed = old.suppressed);
    INSERT INTO series (event, instance, severity) SELECT new.event, new.instance, new.severity WHERE NOT EXISTS (
        SELECT 1 FROM series WHERE event = new.event AND instance = new.instance AND severity = new.severity);
    INSERT INTO shelf (series, state, suppressed)
        SELECT series.id, new.state, new.suppressed FROM series
        WHERE event = new.event AND instance = new.instance AND severity = new.severity AND NOT EXISTS (
            SELECT 1 FROM shelf
            WHERE shelf.series = series.id AND state = new.state AND suppressed = new.suppressed);
    INSERT INTO placed (shelf, event_id)
        SELECT shelf, new.id FROM labelled
        WHERE event = new.event AND instance = new.instance AND severity = new.severity
          AND state = new.state AND suppressed = new.suppressed;
    -- It counts from when it is announced, be that after it began.
    UPDATE series SET total = total + 1
        WHERE old.suppressed = 1 AND new.suppressed = 0
          AND event = new.event AND instance = new.instance AND severity = new.severity;
    INSERT INTO tally (quarter, series, number)
        SELECT CAST(new.opened_at / 900 AS INTEGER), id, 1 FROM series
        WHERE old.suppressed = 1 AND new.suppressed = 0
          AND event = new.event AND instance = new.instance AND severity = new.severity
        ON CONFLICT (quarter, series) DO UPDATE SET number = number + 1;
END;
CREATE TRIGGER event_goes AFTER DELETE ON event BEGIN
    DELETE FROM placed WHERE event_id = old.id AND shelf = (
        SELECT shelf FROM labelled
        WHERE event = old.event AND instance = old.instance AND severity = old.severity
          AND state = old.state AND suppressed = old.suppressed);
END;

-- Shelves do their work, and ids carry the time.
DROP INDEX event_by_instance;
DROP INDEX event_by_type;
DROP INDEX event_by_day;

-- Who did it and what they said, of the transitions that people make.
ALTER TABLE transition ADD COLUMN who TEXT NOT NULL DEFAULT '';
ALTER TABLE transition ADD COLUMN comment TEXT NOT NULL DEFAULT '';
CREATE INDEX transition_by_event ON transition (event_id);

-- Age is counted in seconds that a daemon lived through, on the monotonic clock: no step of the date purges anything.
ALTER TABLE heartbeat ADD COLUMN lived REAL NOT NULL DEFAULT 0;
CREATE TABLE milestone (
    lived INTEGER PRIMARY KEY,  -- seconds of life at which it was set
    seq   INTEGER NOT NULL,     -- the newest transition then
    at    REAL NOT NULL         -- the date then, as the machine had it
);
-- What was here before counts as new.
INSERT INTO milestone (lived, seq, at)
    SELECT 0, (SELECT ifnull(max(seq), 0) FROM transition), at FROM heartbeat;
CREATE TABLE purged (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    seq INTEGER NOT NULL        -- of the transitions up to this one some are gone: a stream cannot go on from before
);
INSERT INTO purged (one, seq) VALUES (1, 0);
