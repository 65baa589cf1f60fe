-- An event writes the pages that must be found at once; what the newest few can be asked for one by one waits.

-- What was the table evidence_owed: moments of which evidence is still to be written, parted by a blank. What a crash
-- left there was lost with it, and the next start says so.
ALTER TABLE transition ADD COLUMN owes TEXT NOT NULL DEFAULT '';
UPDATE transition SET owes = ifnull((
    SELECT group_concat(moment, ' ') FROM evidence_owed AS owed WHERE owed.event_id = transition.event_id
        AND (kind = 'occurred' OR kind = CASE moment WHEN 'trigger' THEN 'opened' ELSE 'resolved' END)), '')
    WHERE event_id IN (SELECT event_id FROM evidence_owed);
DROP TABLE evidence_owed;

-- Transitions by their event: an index that is filled when events are shelved (0014), up to a mark of its own.
CREATE TABLE filed (
    event_id TEXT NOT NULL REFERENCES event (id),
    seq      INTEGER NOT NULL REFERENCES transition (seq),
    PRIMARY KEY (event_id, seq)
) WITHOUT ROWID;
INSERT INTO filed (event_id, seq) SELECT event_id, seq FROM transition ORDER BY event_id, seq;
DROP INDEX transition_by_event;
ALTER TABLE shelving ADD COLUMN filed INTEGER NOT NULL DEFAULT 0;    -- transitions up to this one are filed
ALTER TABLE shelving ADD COLUMN settled INTEGER NOT NULL DEFAULT 0;  -- transitions up to this one owe no evidence
UPDATE shelving SET filed = max(0, ifnull((SELECT max(seq) FROM transition), 0));
UPDATE shelving SET settled = ifnull((SELECT min(seq) - 1 FROM transition WHERE owes <> ''), filed);
CREATE VIEW turn AS
    SELECT event_id, seq FROM filed
    UNION ALL SELECT event_id, seq FROM transition WHERE seq > (SELECT filed FROM shelving);

-- Still the database holds the invariant; of what comes with a number below the mark, as canaries do, too.
CREATE TRIGGER filing_goes_on AFTER UPDATE OF filed ON shelving WHEN new.filed > old.filed BEGIN
    INSERT INTO filed (event_id, seq)
        SELECT event_id, seq FROM transition WHERE seq > old.filed AND seq <= new.filed;
END;
CREATE TRIGGER transition_comes AFTER INSERT ON transition WHEN new.seq <= (SELECT filed FROM shelving) BEGIN
    INSERT INTO filed (event_id, seq) VALUES (new.event_id, new.seq);
END;
CREATE TRIGGER transition_goes AFTER DELETE ON transition WHEN old.seq <= (SELECT filed FROM shelving) BEGIN
    DELETE FROM filed WHERE event_id = old.event_id AND seq = old.seq;
END;
