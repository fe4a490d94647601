-- Spaces, the state of their records, and the log of their changes.
--
-- space_id is part of every primary key and unique index, so that the tables can
-- be sharded by it. Names are compared by their bytes ("C"), never
-- by a language's rules, so that an upgrade of a locale cannot reorder them.
-- There are no foreign keys: every write happens under the lock of its space,
-- and a check for each row would cost as much as the row.

create table spaces (
    id         uuid        not null primary key,
    name       text        not null,
    -- The space's identity across erasure and restore.
    epoch      uuid        not null,
    -- The last revision. Its row lock is what orders all writes of the space.
    head       bigint      not null default 0,
    -- The lowest revision that a cursor may resume from.
    floor      bigint      not null default 0,
    -- Rises with every group that stored answers or sequences: what the head
    -- does not show of them, this does.
    answered   bigint      not null default 0,
    created_at timestamptz not null default now()
) with (fillfactor = 50);

-- For each record the revision of its last change, which holds the document and
-- stays in the log as long as it is the last. Documents are stored once: a
-- second copy here, as jsonb, would cost as much as everything else together.
create table latest (
    space_id         uuid    not null,
    collection       text    collate "C" not null,
    id               text    collate "C" not null,
    revision         bigint  not null,
    -- The last revision given by another device than the last writer.
    foreign_revision bigint  not null,
    -- A tombstone.
    deleted          boolean not null,
    -- Of the document, so that a page can be cut without reading it.
    bytes            integer not null,
    primary key (space_id, collection, id)
);
create unique index latest_by_revision on latest (space_id, revision);

-- The log: what happened at each revision. Revisions of a space have no gaps.
create table changes (
    space_id          uuid        not null,
    revision          bigint      not null,
    collection        text        collate "C" not null,
    id                text        collate "C" not null,
    -- 1 created, 2 updated, 3 deleted.
    action            smallint    not null,
    -- Canonical JSON, as clients are sent it; null when deleted.
    document          text,
    -- The record's change before this one; 0 if this is the first.
    previous_revision bigint      not null,
    author            text        not null,
    device            text,
    mutation_id       text        collate "C" not null,
    -- SHA-256 of what the mutation asked for.
    fingerprint       bytea       not null,
    committed_at      timestamptz not null,
    primary key (space_id, revision)
);
-- space_id second: on a table without statistics an index that begins with it
-- looks as good as the primary key for finding a revision, and reads a space.
create unique index changes_by_mutation on changes (mutation_id, space_id);

-- The state, for people to query with SQL.
create view records as
select l.space_id, l.collection, l.id, l.revision, c.document::jsonb as document,
    c.author, c.device, c.committed_at as updated_at
from latest l
join changes c on c.space_id = l.space_id and c.revision = l.revision
where not l.deleted;

-- Answers to mutations that changed nothing; for the others the log has it.
create table answers (
    space_id        uuid        not null,
    mutation_id     text        collate "C" not null,
    fingerprint     bytea       not null,
    -- 2 conflict, 3 rejected.
    outcome         smallint    not null,
    -- With a conflict: the change that made the record what it was then.
    record_revision bigint,
    -- With a rejection: reason, message and violations.
    rejection       jsonb,
    answered_at     timestamptz not null,
    primary key (space_id, mutation_id)
);

-- The last sequence of each device. Outlives the answers, so that a mutation
-- is never applied twice, however late it comes again.
create table devices (
    space_id   uuid        not null,
    device     text        collate "C" not null,
    sequence   bigint      not null,
    updated_at timestamptz not null,
    primary key (space_id, device)
) with (fillfactor = 50);
