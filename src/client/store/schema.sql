-- The local file of one user on one device. Its form is numbered by user_version; a file of
-- a newer form is refused.

-- Whose file it is.
CREATE TABLE file (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    user TEXT NOT NULL,
    device TEXT NOT NULL,
    -- The policies that the server had, as JSON.
    policies TEXT NOT NULL DEFAULT '[]'
) STRICT;

-- Where each space is.
CREATE TABLE spaces (
    -- Never given again.
    no INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    -- The collections that are wanted, as a JSON list; null = all. Only if wanted is 1.
    scope TEXT,
    wanted INTEGER NOT NULL,
    -- Rises whenever something else is wanted of it: what was here may be gone since.
    followed INTEGER NOT NULL DEFAULT 0,
    -- What of it is here: null = nothing, '*' = all, or a JSON list.
    loaded TEXT,
    epoch TEXT,
    cursor INTEGER NOT NULL DEFAULT 0,
    complete INTEGER NOT NULL DEFAULT 0,
    last_sequence INTEGER NOT NULL DEFAULT 0,
    last_entry INTEGER NOT NULL DEFAULT 0,
    -- A snapshot that is being loaded, as JSON.
    loading TEXT,
    generation INTEGER NOT NULL DEFAULT 0,
    conflict_cursor TEXT NOT NULL DEFAULT '',
    -- How often the front entry was refused alone.
    attempts INTEGER NOT NULL DEFAULT 0,
    -- 1 = the queue was made on another history than the one that is here, or that is to come.
    replaced INTEGER NOT NULL DEFAULT 0,
    -- No record of the server's state is newer.
    newest INTEGER NOT NULL DEFAULT 0,
    -- No entry before this one is open.
    front INTEGER NOT NULL DEFAULT 0,
    -- Rises whenever something else is shown.
    moved INTEGER NOT NULL DEFAULT 0,
    -- Deletions up to here are no longer told: who watches from before reads anew.
    collected INTEGER NOT NULL DEFAULT 0,
    -- How many entries are in these states; and answered, and their changes have not come.
    pending INTEGER NOT NULL DEFAULT 0,
    syncing INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    answered INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Records: as shown, and as the server has them.
CREATE TABLE records (
    space INTEGER NOT NULL,
    collection TEXT NOT NULL,
    id TEXT NOT NULL,
    -- What the app sees; null = no such record.
    shown TEXT,
    -- When that last changed, by the space's counter.
    moved INTEGER NOT NULL,
    -- 1 = edits stand on top of the server's state, whose document is in server.
    dirty INTEGER NOT NULL,
    -- Of the server's state; null = there is none.
    revision INTEGER,
    -- Who wrote that, as JSON.
    about TEXT,
    checksum BLOB,
    server TEXT,
    -- A later state of the server, as JSON, that is not shown yet.
    staged TEXT,
    -- The snapshot that has last brought it.
    generation INTEGER NOT NULL,
    UNIQUE (space, collection, id)
) STRICT;
CREATE INDEX records_moved ON records (space, collection, moved);
CREATE INDEX records_gone ON records (space, moved) WHERE shown IS NULL;
CREATE INDEX records_staged ON records (space) WHERE staged IS NOT NULL;

-- The queue, and for a while what became of it.
CREATE TABLE entries (
    space INTEGER NOT NULL,
    number INTEGER NOT NULL,
    id TEXT NOT NULL UNIQUE,
    collection TEXT NOT NULL,
    record TEXT NOT NULL,
    -- The operation, as JSON; null once it is done.
    edit TEXT,
    base INTEGER NOT NULL,
    -- The record as it was when it was edited, as JSON.
    kept TEXT,
    client_micros INTEGER NOT NULL,
    schema_version INTEGER NOT NULL,
    sequence INTEGER,
    -- The sequence and the base with which it first went out.
    sent_sequence INTEGER,
    sent_base INTEGER,
    state TEXT NOT NULL,
    revision INTEGER NOT NULL,
    done INTEGER NOT NULL,
    -- 1 = it has values that are in memory only.
    sensitive INTEGER NOT NULL,
    -- Why it failed, as JSON.
    trouble TEXT,
    PRIMARY KEY (space, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX entries_of_record ON entries (space, collection, record) WHERE done = 0;
CREATE INDEX entries_parked ON entries (space, number) WHERE state = 'failed';

-- The digests of the server's state, by collection.
CREATE TABLE tallies (
    space INTEGER NOT NULL,
    collection TEXT NOT NULL,
    records INTEGER NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (space, collection)
) STRICT, WITHOUT ROWID;

-- Conflicts that wait for a decision.
CREATE TABLE conflicts (
    space INTEGER NOT NULL,
    id TEXT NOT NULL,
    collection TEXT NOT NULL,
    record TEXT NOT NULL,
    -- The sides, as JSON.
    body TEXT NOT NULL,
    PRIMARY KEY (space, id)
) STRICT, WITHOUT ROWID;

-- What processes that do not sync wish of the one that does, in its order.
CREATE TABLE wishes (
    no INTEGER PRIMARY KEY,
    wish TEXT NOT NULL UNIQUE
) STRICT;
