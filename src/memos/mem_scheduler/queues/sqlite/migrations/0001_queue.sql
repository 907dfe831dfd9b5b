-- The whole queue. Times are seconds of the machine's monotonic clock unless they are named `wall` or are
-- a message's enqueued_at, started_at and finished_at, which are wall time and for people.

-- One row of counters. `number` gives submissions, places in a lane and turns their rising numbers.
CREATE TABLE counter (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    number INTEGER NOT NULL DEFAULT 0,
    epoch INTEGER NOT NULL DEFAULT 0,
    picks INTEGER NOT NULL DEFAULT 0,
    held INTEGER NOT NULL DEFAULT 0,
    settled INTEGER NOT NULL DEFAULT 0,
    dead INTEGER NOT NULL DEFAULT 0,
    statuses_dropped INTEGER NOT NULL DEFAULT 0,
    letters_dropped INTEGER NOT NULL DEFAULT 0,
    policy_version INTEGER NOT NULL DEFAULT 0,
    seen_at REAL NOT NULL DEFAULT 0,
    boot_id TEXT NOT NULL DEFAULT '',
    wall_offset REAL NOT NULL DEFAULT 0
);
INSERT INTO counter (id) VALUES (1);

-- Every message, live or settled; a settled one has lost its payload and is a status row.
-- place: 0 queued, 1 leased, 2 delayed, 3 coalesced, 4 dead, 5 gone, 6 done, 7 cancelled.
-- `seq` is a hash of the user (22 bits) above the number of the submission (41 bits): the messages of a
-- user lie together, so that a batch is on few pages and a user's statuses need no index.
CREATE TABLE msg (
    seq INTEGER PRIMARY KEY,
    number INTEGER NOT NULL,
    key TEXT NOT NULL UNIQUE,
    lane INTEGER NOT NULL,
    pos INTEGER NOT NULL,
    place INTEGER NOT NULL,
    label TEXT NOT NULL,
    item_id TEXT NOT NULL,
    task_id TEXT,
    user_id TEXT NOT NULL,
    mem_cube_id TEXT NOT NULL,
    parent_key TEXT NOT NULL,
    enqueued_at REAL NOT NULL,
    ready_at REAL NOT NULL,
    due_at REAL NOT NULL,
    fresh INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    recoveries INTEGER NOT NULL DEFAULT 0,
    retried INTEGER NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    absorbed INTEGER NOT NULL DEFAULT 0,
    into_seq INTEGER,
    blocked_since REAL,
    started_at REAL,
    finished_at REAL,
    died_no INTEGER,
    error TEXT NOT NULL DEFAULT '',
    content TEXT,
    rest TEXT
);
CREATE INDEX msg_waiting ON msg (lane, pos) WHERE place = 0;
CREATE INDEX msg_delayed ON msg (due_at, seq) WHERE place = 2;
CREATE INDEX msg_coalesced ON msg (into_seq) WHERE place = 3;
CREATE INDEX msg_dead ON msg (died_no) WHERE place = 4;
CREATE INDEX msg_number ON msg (number);
-- Ids are random, so an index over all of them would be written all over the place. Each section of the
-- numbers has an order of its own: writes stay in the newest, a look-up asks each section that exists.
CREATE INDEX msg_item ON msg (number >> 14, item_id);
CREATE INDEX msg_task ON msg (number >> 14, task_id) WHERE task_id IS NOT NULL;

-- A lane exists while it holds messages. It is ready while its head is due and a slot is free.
CREATE TABLE lane (
    id INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL,
    mem_cube_id TEXT NOT NULL,
    class TEXT NOT NULL,
    held INTEGER NOT NULL,
    queued INTEGER NOT NULL,
    delayed INTEGER NOT NULL,
    running INTEGER NOT NULL,
    leases INTEGER NOT NULL,
    head_label TEXT,
    head_due REAL,
    ready_label TEXT,
    turn INTEGER NOT NULL,
    UNIQUE (user_id, mem_cube_id, class)
);
CREATE INDEX lane_ready ON lane (class, user_id, ready_label, turn) WHERE ready_label IS NOT NULL;
CREATE INDEX lane_blocked ON lane (head_due) WHERE head_due IS NOT NULL;
CREATE INDEX lane_class ON lane (class);

-- A class exists while it has lanes. `served` is the number of its last pick.
CREATE TABLE class (
    name TEXT PRIMARY KEY,
    virtual_time REAL NOT NULL,
    served INTEGER NOT NULL,
    lanes INTEGER NOT NULL
) WITHOUT ROWID;

-- A user's start tag in a class, repeated for each label under which lanes of the user are or were ready.
CREATE TABLE flow (
    class TEXT NOT NULL,
    user_id TEXT NOT NULL,
    label TEXT NOT NULL,
    tag REAL NOT NULL,
    ready INTEGER NOT NULL,
    ticket INTEGER NOT NULL,
    PRIMARY KEY (class, user_id, label)
) WITHOUT ROWID;
CREATE INDEX flow_next ON flow (label, tag, ticket) WHERE ready > 0;
CREATE INDEX flow_idle ON flow (class, tag) WHERE ready = 0;

-- Who holds what. Message numbers, labels with their counts and waiting times are JSON.
CREATE TABLE lease (
    epoch INTEGER PRIMARY KEY,
    lane INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    owner TEXT NOT NULL,
    seqs TEXT NOT NULL,
    labels TEXT NOT NULL,
    waits TEXT NOT NULL,
    claimed_labels TEXT NOT NULL,
    absorbs INTEGER NOT NULL,
    claimed_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    UNIQUE (lane, slot)
);
CREATE INDEX lease_expires ON lease (expires_at);

CREATE TABLE policy (label TEXT PRIMARY KEY, fields TEXT NOT NULL) WITHOUT ROWID;

-- Which sets of labels were asked for, and when.
CREATE TABLE served (labels TEXT PRIMARY KEY, claimed_at REAL NOT NULL) WITHOUT ROWID;

-- The answers to calls that brought a token.
CREATE TABLE token (number INTEGER PRIMARY KEY, token TEXT NOT NULL UNIQUE, keys TEXT NOT NULL);

-- How long the messages of the last batches of a label waited and ran.
CREATE TABLE sample (
    label TEXT NOT NULL,
    place INTEGER NOT NULL,
    waits TEXT NOT NULL,
    ran_s REAL NOT NULL,
    PRIMARY KEY (label, place)
) WITHOUT ROWID;
