-- Activation memory. A block is what stands in the prompts of one reader, and in which order; a kept prefix
-- (`prefix`) is what a runtime holds ready of it. Neither keeps a memory's text: lines are written anew from
-- the items. What changes an item takes it out of both in the same transaction, by the trigger below.

CREATE TABLE block (
    no                 INTEGER PRIMARY KEY,
    namespace          TEXT    NOT NULL UNIQUE,
    user_id            TEXT    NOT NULL,
    language           TEXT    NOT NULL,
    header             TEXT    NOT NULL,          -- with which the newest chat began
    version            INTEGER NOT NULL,          -- +1 whenever something else stands there
    next_mark          INTEGER NOT NULL,
    chats              INTEGER NOT NULL,          -- of all
    chats_since_change INTEGER NOT NULL,
    changes            INTEGER NOT NULL,
    changed_at         INTEGER NOT NULL,
    used_at            INTEGER NOT NULL,
    counts             TEXT    NOT NULL           -- JSON: hits, misses, tokens
);
CREATE INDEX block_by_user ON block (user_id);

CREATE TABLE block_cube (
    cube_id  TEXT    NOT NULL,
    block_no INTEGER NOT NULL REFERENCES block (no),
    place    INTEGER NOT NULL,
    PRIMARY KEY (cube_id, block_no)
) WITHOUT ROWID;
CREATE INDEX block_cube_by_block ON block_cube (block_no, place);

-- Places run from 0 without a gap; where one is missing, a memory was taken out, and what follows has moved.
CREATE TABLE block_item (
    block_no INTEGER NOT NULL REFERENCES block (no),
    place    INTEGER NOT NULL,
    item_no  INTEGER NOT NULL REFERENCES item (no),
    version  INTEGER NOT NULL,
    tokens   INTEGER NOT NULL,
    digest   TEXT    NOT NULL,
    mark     INTEGER NOT NULL,
    PRIMARY KEY (block_no, place)
) WITHOUT ROWID;
CREATE INDEX block_item_by_item ON block_item (item_no);

CREATE TABLE prefix (
    no          INTEGER PRIMARY KEY,
    id          TEXT    NOT NULL,                 -- the runtime's name for it
    namespace   TEXT    NOT NULL,
    user_id     TEXT    NOT NULL,
    backend     TEXT    NOT NULL,
    fingerprint TEXT    NOT NULL,
    header      TEXT    NOT NULL,
    tokens      INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    ends        TEXT    NOT NULL,                 -- JSON: tokens up to the end of each part
    extra       TEXT    NOT NULL,                 -- JSON
    entries     INTEGER NOT NULL,                 -- memories in it
    sound       INTEGER NOT NULL,                 -- of them, those before the first that changed or went
    doomed      TEXT    NOT NULL DEFAULT '',      -- why it is to be removed; '' while it is kept
    built_at    INTEGER NOT NULL,
    UNIQUE (backend, id)
);
CREATE INDEX prefix_by_namespace ON prefix (namespace);

CREATE TABLE prefix_item (
    prefix_no INTEGER NOT NULL REFERENCES prefix (no),
    place     INTEGER NOT NULL,
    item_no   INTEGER NOT NULL REFERENCES item (no),
    version   INTEGER NOT NULL,
    PRIMARY KEY (prefix_no, place)
) WITHOUT ROWID;
CREATE INDEX prefix_item_by_item ON prefix_item (item_no);

-- Archived, quarantined, deleted, edited, corrected: everything that makes its line another one or none.
CREATE TRIGGER item_leaves_blocks AFTER UPDATE ON item
WHEN NEW.live = 0 OR NEW.memory IS NOT OLD.memory OR NEW.happened_at IS NOT OLD.happened_at
    OR NEW.created_at IS NOT OLD.created_at
    OR (NEW.body IS NOT OLD.body AND (
        json_extract(NEW.body, '$.extra.corrected_by') IS NOT json_extract(OLD.body, '$.extra.corrected_by')
        OR json_extract(NEW.body, '$.participants') IS NOT json_extract(OLD.body, '$.participants')
        OR json_extract(NEW.body, '$.role') IS NOT json_extract(OLD.body, '$.role')))
BEGIN
    DELETE FROM block_item WHERE item_no = NEW.no;
    UPDATE prefix SET sound = min(sound, (
        SELECT min(place) FROM prefix_item WHERE prefix_no = prefix.no AND item_no = NEW.no))
    WHERE no IN (SELECT prefix_no FROM prefix_item WHERE item_no = NEW.no);
END;
