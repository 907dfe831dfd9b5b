-- Who claims. Wall time, for people; a row goes when its process closes, or was not seen for long.
CREATE TABLE instance (
    name TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    labels TEXT NOT NULL,
    since REAL NOT NULL,
    seen_at REAL NOT NULL
) WITHOUT ROWID;

-- The answers to calls that brought an idempotency key, for as long as they are remembered.
CREATE TABLE idempotency (
    scope TEXT PRIMARY KEY,
    used_for TEXT NOT NULL,
    keys TEXT NOT NULL,
    ends_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX idempotency_end ON idempotency (ends_at);
