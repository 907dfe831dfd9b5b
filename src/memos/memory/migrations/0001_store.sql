-- The memory store, first layout. The picture stands in `memos.memory.sqlite`.
-- Times are whole microseconds since the epoch, UTC. Run inside one transaction; forward only.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- One row per cube. The counters are kept by the writer and held against the rows by `verify`.
CREATE TABLE cube (
    no              INTEGER PRIMARY KEY,
    id              TEXT    NOT NULL UNIQUE,
    seq             INTEGER NOT NULL DEFAULT 0,
    working_version INTEGER NOT NULL DEFAULT 0,
    long_term       INTEGER NOT NULL DEFAULT 0,   -- live items by kind
    user            INTEGER NOT NULL DEFAULT 0,
    preference      INTEGER NOT NULL DEFAULT 0,
    working_only    INTEGER NOT NULL DEFAULT 0,   -- live items of kind WorkingMemory
    archived        INTEGER NOT NULL DEFAULT 0,
    length          INTEGER NOT NULL DEFAULT 0,   -- terms of all live items, for BM25
    journal_rows    INTEGER NOT NULL DEFAULT 0,
    chain           BLOB    NOT NULL              -- of the newest journal row
);

CREATE TABLE item (
    no           INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT    NOT NULL UNIQUE,
    cube_no      INTEGER NOT NULL REFERENCES cube (no),
    user_id      TEXT    NOT NULL,
    kind         TEXT    NOT NULL,
    status       TEXT    NOT NULL,
    live         INTEGER NOT NULL CHECK (live = (status IN ('activated', 'resolving'))),
    version      INTEGER NOT NULL,
    seq          INTEGER NOT NULL,                -- of the cube, when the row or its vector last changed
    raw          INTEGER NOT NULL,
    read         TEXT    NOT NULL,
    session_id   TEXT    NOT NULL,
    scenario     TEXT    NOT NULL,
    position     INTEGER NOT NULL,
    turn_id      TEXT    NOT NULL,
    content_hash TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    happened_at  INTEGER,
    valid_until  INTEGER,
    use_count    INTEGER NOT NULL,
    used_at      INTEGER,
    has_vector   INTEGER NOT NULL,
    length       INTEGER NOT NULL,                -- sum of the counts in `terms`
    memory       TEXT    NOT NULL,
    body         TEXT    NOT NULL,                -- JSON: every other field
    terms        TEXT    NOT NULL                 -- JSON: term -> count, kept for restoring the postings
);
CREATE INDEX item_by_seq     ON item (cube_no, seq);
CREATE INDEX item_by_time    ON item (cube_no, created_at, no);
CREATE INDEX item_by_session ON item (cube_no, session_id, position, no) WHERE live = 1 AND session_id <> '';
CREATE INDEX item_by_hash    ON item (cube_no, content_hash);
CREATE INDEX item_by_user    ON item (user_id, cube_no) WHERE live = 1;
CREATE INDEX item_by_value   ON item (cube_no, kind, use_count, coalesce(used_at, created_at), no) WHERE live = 1;
CREATE INDEX item_to_encode  ON item (no) WHERE live = 1 AND has_vector = 0;
CREATE INDEX item_to_read    ON item (cube_no, no) WHERE read = 'due';

-- The lexical index of live items; `length` repeats the item's, so that scoring needs no join.
CREATE TABLE posting (
    cube_no INTEGER NOT NULL,
    term    TEXT    NOT NULL,
    item_no INTEGER NOT NULL,
    tf      INTEGER NOT NULL,
    length  INTEGER NOT NULL,
    PRIMARY KEY (cube_no, term, item_no)
) WITHOUT ROWID;

-- Who and what an item names. sort: 1 link (folded), 2 participant, 3 tag (both as written).
CREATE TABLE mention (
    cube_no INTEGER NOT NULL,
    sort    INTEGER NOT NULL,
    live    INTEGER NOT NULL,
    name    TEXT    NOT NULL,
    item_no INTEGER NOT NULL,
    PRIMARY KEY (cube_no, sort, live, name, item_no)
) WITHOUT ROWID;

CREATE TABLE vector (
    item_no INTEGER PRIMARY KEY REFERENCES item (no),
    value   BLOB NOT NULL                         -- (dim,) float32, little endian
);

CREATE TABLE working (
    cube_no     INTEGER NOT NULL REFERENCES cube (no),
    place       INTEGER NOT NULL,
    item_no     INTEGER NOT NULL UNIQUE REFERENCES item (no),
    score       REAL    NOT NULL,
    reason      TEXT    NOT NULL,
    admitted_at INTEGER NOT NULL,
    PRIMARY KEY (cube_no, place)
) WITHOUT ROWID;

-- chain = blake2b(chain of the cube's row before, digest of this row). The digest covers `payload`, the
-- digest of what redaction takes away (before, after, reason, user_id), salted so that a short value
-- cannot be guessed from it afterwards.
CREATE TABLE journal (
    n           INTEGER PRIMARY KEY AUTOINCREMENT,
    cube_no     INTEGER NOT NULL REFERENCES cube (no),
    seq         INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    op          TEXT    NOT NULL,
    item_id     TEXT    NOT NULL,
    message_key TEXT    NOT NULL,
    task_id     TEXT    NOT NULL,
    label       TEXT    NOT NULL,
    trace_id    TEXT    NOT NULL,
    user_id     TEXT    NOT NULL,
    reason      TEXT    NOT NULL,
    before      TEXT,
    after       TEXT,
    salt        BLOB,
    payload     BLOB    NOT NULL,
    chain       BLOB    NOT NULL,
    redacted_at INTEGER
);
CREATE INDEX journal_by_cube    ON journal (cube_no, n);
CREATE INDEX journal_by_item    ON journal (item_id, n) WHERE item_id <> '';
CREATE INDEX journal_by_task    ON journal (task_id, n) WHERE task_id <> '';
CREATE INDEX journal_by_message ON journal (message_key, n) WHERE message_key <> '';

CREATE TRIGGER journal_keeps_rows BEFORE DELETE ON journal
BEGIN
    SELECT RAISE(ABORT, 'the journal is append-only');
END;

CREATE TRIGGER journal_changes_only_by_redaction BEFORE UPDATE ON journal
WHEN NOT (
    NEW.n IS OLD.n AND NEW.cube_no IS OLD.cube_no AND NEW.seq IS OLD.seq AND NEW.at IS OLD.at
    AND NEW.op IS OLD.op AND NEW.item_id IS OLD.item_id AND NEW.message_key IS OLD.message_key
    AND NEW.task_id IS OLD.task_id AND NEW.label IS OLD.label AND NEW.trace_id IS OLD.trace_id
    AND NEW.payload IS OLD.payload AND NEW.chain IS OLD.chain
    AND NEW.redacted_at IS NOT NULL AND NEW.salt IS NULL
    AND NEW.before IS NULL AND NEW.after IS NULL AND NEW.reason = '' AND NEW.user_id = ''
)
BEGIN
    SELECT RAISE(ABORT, 'the journal is append-only; a row can only be redacted');
END;

-- `mark`: this message's effects are committed. `outbox`: messages that a committed task chains.
CREATE TABLE mark (
    no          INTEGER PRIMARY KEY AUTOINCREMENT,
    message_key TEXT    NOT NULL UNIQUE,
    parent_key  TEXT    NOT NULL,
    at          INTEGER NOT NULL
);

CREATE TABLE outbox (
    no          INTEGER PRIMARY KEY AUTOINCREMENT,
    message_key TEXT    NOT NULL UNIQUE,
    parent_key  TEXT    NOT NULL,
    message     TEXT    NOT NULL,                 -- JSON, the wire form
    delay_s     REAL    NOT NULL,
    at          INTEGER NOT NULL,
    ticked      INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX outbox_open ON outbox (parent_key, no) WHERE ticked = 0;

CREATE TABLE web_log (
    no       INTEGER PRIMARY KEY AUTOINCREMENT,
    cube_id  TEXT NOT NULL,
    user_id  TEXT NOT NULL,
    label    TEXT NOT NULL,
    trace_id TEXT NOT NULL,
    body     TEXT NOT NULL                        -- JSON
);
CREATE INDEX web_log_by_cube  ON web_log (cube_id, no);
CREATE INDEX web_log_by_user  ON web_log (user_id, no);
CREATE INDEX web_log_by_trace ON web_log (trace_id, no);

CREATE TABLE state (
    cube_no INTEGER NOT NULL REFERENCES cube (no),
    name    TEXT    NOT NULL,
    value   TEXT    NOT NULL,                     -- JSON
    PRIMARY KEY (cube_no, name)
) WITHOUT ROWID;
