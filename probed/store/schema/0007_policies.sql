-- What people change of policies at run time: an append-only history, numbered over all policies from 2.
CREATE TABLE policy_revision (
    version INTEGER PRIMARY KEY CHECK (version > 1),
    at      REAL NOT NULL,
    author  TEXT NOT NULL,
    via     TEXT NOT NULL,
    kind    TEXT NOT NULL,
    reason  TEXT NOT NULL
);
CREATE TABLE policy_patch (
    policy      TEXT NOT NULL,
    version     INTEGER NOT NULL REFERENCES policy_revision (version),
    before      TEXT NOT NULL,      -- JSON merge patches over the files; {} is as the files say
    after       TEXT NOT NULL,
    differences TEXT NOT NULL,      -- JSON: [[path, before, after], …] of the effective policy
    marks       TEXT NOT NULL,      -- JSON: {path: [version, author]} of each value of "after"
    PRIMARY KEY (policy, version)
) WITHOUT ROWID;
CREATE INDEX policy_patch_by_version ON policy_patch (version);
CREATE TRIGGER policy_revision_stays BEFORE UPDATE ON policy_revision
BEGIN SELECT RAISE(ABORT, 'the history of policies is never altered'); END;
CREATE TRIGGER policy_patch_stays BEFORE UPDATE ON policy_patch
BEGIN SELECT RAISE(ABORT, 'the history of policies is never altered'); END;
