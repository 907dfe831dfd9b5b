-- The whole queue. Times are seconds of the machine's monotonic clock unless they are named `wall` or are
-- enqueued_at, started_at, finished_at and died_at, which are wall time and for people.
--
-- Each message has two numbers out of the range that its submit call took: `number` says where it stood in
-- the call, `id` where it is kept. Inside a call ids run lane by lane, so that messages of one lane are kept
-- together: a pack is a run of ids.

-- One row of counters. `number` gives messages, places in a lane and turns their rising numbers.
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

-- Live messages of one lane and label that share all they went through: `count` messages with the ids from
-- `id` on and the places from `pos` on. A message that goes a way of its own becomes a pack of one.
-- place: 0 waiting, or leased when a lease names the pack; 2 delayed, 3 coalesced, 4 dead.
-- `ids` is JSON: [id, enqueued_at, label, [[key, item, task, number], ...]]; `body` has the rest of each
-- message, one JSON list a line.
CREATE TABLE pack (
    id INTEGER PRIMARY KEY,
    lane INTEGER NOT NULL,
    place INTEGER NOT NULL,
    pos INTEGER NOT NULL,
    count INTEGER NOT NULL,
    label TEXT NOT NULL,
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
    into_id INTEGER,
    blocked_since REAL,
    started_at REAL,
    finished_at REAL,
    died_no INTEGER,
    error TEXT NOT NULL DEFAULT '',
    ids TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX pack_order ON pack (lane, place, pos);
CREATE INDEX pack_delayed ON pack (due_at, id) WHERE place = 2;
CREATE INDEX pack_coalesced ON pack (into_id) WHERE place = 3;
CREATE INDEX pack_dead ON pack (died_no) WHERE place = 4;
CREATE INDEX pack_dead_user ON pack (user_id) WHERE place = 4;

-- What became of messages that came to their end together; `parts` are the `ids` of their packs, `packs` the
-- packs' ids, of which the first names the row. place: 5 gone (a dead letter), 6 done, 7 cancelled.
CREATE TABLE ended (
    id INTEGER PRIMARY KEY,
    last_id INTEGER NOT NULL,
    count INTEGER NOT NULL,
    user_id TEXT NOT NULL,
    mem_cube_id TEXT NOT NULL,
    place INTEGER NOT NULL,
    started_at REAL,
    finished_at REAL NOT NULL,
    attempts INTEGER NOT NULL,
    error TEXT NOT NULL,
    packs TEXT NOT NULL,
    parts TEXT NOT NULL
);
CREATE INDEX ended_last ON ended (last_id);
CREATE INDEX ended_user ON ended (user_id, last_id);

-- In which row of `ended` a pack is that does not name one.
CREATE TABLE ended_pack (id INTEGER PRIMARY KEY, ended INTEGER NOT NULL);

-- The messages of one submit call, while any of them is known: their keys run from `key` on, their ids and
-- numbers from `base` on. `places` has the id of each number, less `base` (32 bits each; NULL: the same);
-- `names` the hashes of all item ids, then of all task ids (32 bits each), when the call is a large one.
CREATE TABLE call (
    base INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    count INTEGER NOT NULL,
    places BLOB,
    names BLOB
);
CREATE INDEX call_key ON call (key, base);
CREATE INDEX call_large ON call (base) WHERE names IS NOT NULL;

-- Hashes of the item and task ids of small calls. Ids are random, so an index over all of them would be
-- written all over the place. Each section of the numbers has an order of its own: writes stay in the
-- newest, a look-up asks each section that exists.
CREATE TABLE name (
    section INTEGER NOT NULL,
    hash INTEGER NOT NULL,
    id INTEGER NOT NULL,
    PRIMARY KEY (section, hash, id)
) WITHOUT ROWID;

-- A lane exists while it holds messages. It is ready while its head is due and a slot is free. Nothing that
-- waits in it stands at `cursor` or before.
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
    cursor INTEGER NOT NULL,
    head_label TEXT,
    head_due REAL,
    ready_label TEXT,
    turn INTEGER NOT NULL,
    UNIQUE (user_id, mem_cube_id, class)
);
CREATE INDEX lane_ready ON lane (class, user_id, ready_label, turn) WHERE ready_label IS NOT NULL;
CREATE INDEX lane_blocked ON lane (head_due) WHERE head_due IS NOT NULL;

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

-- Who holds what: `owner` is the instance that claimed, `holder` its process (JSON). Pack ids, labels with their counts and waiting times are JSON. `plain`: no message of it
-- failed before or runs for others. There are few: what looks for them by time or holder reads them all.
CREATE TABLE lease (
    epoch INTEGER PRIMARY KEY,
    lane INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    owner TEXT NOT NULL,
    holder TEXT NOT NULL,
    packs TEXT NOT NULL,
    labels TEXT NOT NULL,
    waits TEXT NOT NULL,
    claimed_labels TEXT NOT NULL,
    plain INTEGER NOT NULL,
    started_at REAL NOT NULL,
    claimed_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    UNIQUE (lane, slot)
);

-- Running messages that were asked to stop.
CREATE TABLE asked (id INTEGER PRIMARY KEY, epoch INTEGER NOT NULL);

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
