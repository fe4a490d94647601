-- Versions and histories of records, and the log of conflicts.

-- What version a change gave its record, and what it was made from.
alter table changes
    -- The time of the version, in microseconds since 1970: rises with every
    -- change of a record.
    add column micros     bigint,
    -- The place in the device's queue; 0 if it was not part of one.
    add column sequence   bigint not null default 0,
    -- The versions that it was made from, with spaces between.
    add column parents    text,
    -- The last writes of other devices to the record, as a JSON list of
    -- [device, sequence, revision]; null if there are none.
    add column others     text,
    -- How a write took effect that was concurrent with others, as JSON; null
    -- if it was not.
    add column settlement text;

-- Older changes: the revision makes times different that are the same.
update changes set micros = floor(extract(epoch from committed_at) * 1000000)::bigint + revision;
alter table changes alter column micros set not null;
update changes c
set parents = p.micros || '-' || coalesce(p.device, '') || '-0'
from changes p
where p.space_id = c.space_id and p.revision = c.previous_revision;
-- Of other devices only the last revision was known, not which one it was.
update changes c
set others = '[["",0,' || l.foreign_revision || ']]'
from latest l
where l.space_id = c.space_id and l.revision = c.revision and l.foreign_revision > 0;

alter table latest drop column foreign_revision;
-- Conflicts of the record that wait for a decision.
alter table latest add column open_conflicts integer not null default 0;

-- Rises with every conflict that is opened or closed.
alter table spaces add column conflicts bigint not null default 0;

-- Every conflict, however it was decided. Documents are copies, so that neither
-- compaction nor a later write takes them away.
create table conflicts (
    space_id        uuid        not null,
    -- The mutation that is the client's side.
    mutation_id     text        collate "C" not null,
    -- Where it stands among the space's conflicts, and among its changes: the
    -- head then. Both move when it is closed.
    number          bigint      not null,
    -- Its number when it was found, which stays.
    found           bigint      not null,
    moved_at        bigint      not null,
    collection      text        collate "C" not null,
    id              text        collate "C" not null,
    -- 1 open, 2 resolved, 3 superseded by a later write.
    state           smallint    not null,
    relation        text        not null,
    strategy        text        not null,
    decision        text        not null,
    advisory        boolean     not null,
    policy_version  bigint      not null,
    paths           jsonb       not null,
    lost            jsonb       not null,
    base_known      boolean     not null,
    base            text,
    server          text,
    server_version  text        not null,
    -- The time that its write had claimed, in microseconds since 1970.
    server_claimed  bigint      not null,
    server_revision bigint      not null,
    server_author   text        not null,
    server_device   text,
    client          text,
    client_version  text        not null,
    -- That of the client's version, by itself.
    sequence        bigint      not null,
    author          text        not null,
    device          text        collate "C",
    -- The head when it was found, and the change that came of it at once.
    revision        bigint      not null,
    result_revision bigint      not null,
    found_at        timestamptz not null,
    -- If it was open and is no longer: kind, author, device, mutation_id,
    -- revision, at.
    closing         jsonb,
    -- When it may be forgotten.
    expires_at      timestamptz,
    primary key (space_id, mutation_id)
);
create unique index conflicts_by_move on conflicts (space_id, moved_at, number);
create index conflicts_open on conflicts (space_id, moved_at, number) where state = 1;
create index conflicts_open_by_record on conflicts
    (space_id, collection, id, moved_at, number) where state = 1;
create index conflicts_by_record on conflicts (space_id, collection, id, moved_at, number);
create index conflicts_expiring on conflicts (expires_at, space_id) where expires_at is not null;

create or replace view records as
select l.space_id, l.collection, l.id, l.revision, c.document::jsonb as document,
    c.author, c.device, c.committed_at as updated_at,
    c.micros || '-' || coalesce(c.device, '') || '-' || c.sequence as version,
    l.open_conflicts
from latest l
join changes c on c.space_id = l.space_id and c.revision = l.revision
where not l.deleted;
