-- New events are put on their shelves, and counted, some at a time: one by one, that costs more than the event itself.

CREATE TABLE shelving (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    last TEXT NOT NULL          -- events with ids up to this one stand on shelves and are counted
);
INSERT INTO shelving (one, last) VALUES (1, ifnull((SELECT max(id) FROM event), ''));
-- The others, which are few: who reads shelves or counts reads these, too.
CREATE VIEW unshelved AS SELECT event.* FROM shelving CROSS JOIN event ON event.id > shelving.last;

-- Still the database holds the invariant. Raising the mark is all that is ever to be done.
CREATE TRIGGER shelving_goes_on AFTER UPDATE OF last ON shelving WHEN new.last > old.last BEGIN
    INSERT INTO series (event, instance, severity)
        SELECT DISTINCT event, instance, severity FROM event
        WHERE id > old.last AND id <= new.last AND NOT EXISTS (
            SELECT 1 FROM series WHERE series.event = event.event AND series.instance = event.instance
                AND series.severity = event.severity);
    INSERT INTO shelf (series, state, suppressed)
        SELECT DISTINCT series.id, state, suppressed FROM event CROSS JOIN series USING (event, instance, severity)
        WHERE event.id > old.last AND event.id <= new.last AND NOT EXISTS (
            SELECT 1 FROM shelf WHERE shelf.series = series.id AND shelf.state = event.state
                AND shelf.suppressed = event.suppressed);
    INSERT INTO placed (shelf, event_id)
        SELECT shelf.id, event.id FROM event CROSS JOIN series USING (event, instance, severity)
            CROSS JOIN shelf ON shelf.series = series.id AND shelf.state = event.state
                AND shelf.suppressed = event.suppressed
        WHERE event.id > old.last AND event.id <= new.last;
    UPDATE series SET total = total + announced.number
        FROM (SELECT event, instance, severity, count(*) AS number FROM event
            WHERE id > old.last AND id <= new.last AND suppressed = 0 GROUP BY event, instance, severity) AS announced
        WHERE series.event = announced.event AND series.instance = announced.instance
            AND series.severity = announced.severity;
    INSERT INTO tally (quarter, series, number)
        SELECT CAST(opened_at / 900 AS INTEGER) AS quarter, series.id, count(*)
        FROM event CROSS JOIN series USING (event, instance, severity)
        WHERE event.id > old.last AND event.id <= new.last AND suppressed = 0
        GROUP BY quarter, series.id
        ON CONFLICT (quarter, series) DO UPDATE SET number = number + excluded.number;
END;

-- What comes with an id below the mark, as after a step of the clock, is shelved at once, as before.
DROP TRIGGER event_comes;
CREATE TRIGGER event_comes AFTER INSERT ON event WHEN new.id <= (SELECT last FROM shelving) BEGIN
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

-- What was announced stays counted as it was: all is shelved before one of the others goes, or is counted otherwise.
CREATE TRIGGER event_leaves BEFORE DELETE ON event WHEN old.id > (SELECT last FROM shelving) BEGIN
    UPDATE shelving SET last = (SELECT max(id) FROM event);
END;
CREATE TRIGGER event_turns BEFORE UPDATE OF severity, suppressed ON event
WHEN (old.severity <> new.severity OR old.suppressed < new.suppressed) AND old.id > (SELECT last FROM shelving) BEGIN
    UPDATE shelving SET last = (SELECT max(id) FROM event);
END;
DROP TRIGGER event_moves;
CREATE TRIGGER event_moves AFTER UPDATE OF severity, state, suppressed ON event
WHEN (old.severity <> new.severity OR old.state <> new.state OR old.suppressed <> new.suppressed)
    AND old.id <= (SELECT last FROM shelving) BEGIN
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

-- How far transitions are numbered is known without a table of SQLite's own, which would be written at each of them:
-- what is purged is noted. See ``numbering``.
CREATE TABLE transition_numbered (
    seq      INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL REFERENCES event (id),
    kind     TEXT NOT NULL,
    at       REAL NOT NULL,
    who      TEXT NOT NULL DEFAULT '',
    comment  TEXT NOT NULL DEFAULT ''
);
INSERT INTO transition_numbered (seq, event_id, kind, at, who, comment)
    SELECT seq, event_id, kind, at, who, comment FROM transition ORDER BY seq;
DROP TABLE transition;
ALTER TABLE transition_numbered RENAME TO transition;
CREATE INDEX transition_by_event ON transition (event_id);
