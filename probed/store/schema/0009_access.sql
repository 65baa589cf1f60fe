-- API tokens. The token itself is not here: its SHA-256 is, of 256 random bits, so that a stolen file opens no door.
-- Revoked and expired ones stay, because the audit log speaks of them.
CREATE TABLE token (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    role       TEXT NOT NULL,
    scopes     TEXT NOT NULL,    -- parted by commas
    digest     TEXT NOT NULL,
    created_at REAL NOT NULL,
    created_by TEXT NOT NULL,
    expires_at REAL,
    revoked_at REAL,
    used_at    REAL
) WITHOUT ROWID;
