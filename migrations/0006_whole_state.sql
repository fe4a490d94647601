-- What tells that two states are the same, and what compaction needs.

-- Of each collection how many records live, and the sum of their digests modulo
-- 2^256. A record's digest is the SHA-256 of its collection, a zero byte, its id, a
-- zero byte, and the SHA-256 of its document, taken as a big-endian number.
create table digests (
    space_id   uuid        not null,
    collection text        collate "C" not null,
    records    bigint      not null,
    digest     numeric(78) not null,
    primary key (space_id, collection)
) with (fillfactor = 50);

insert into digests (space_id, collection, records, digest)
select r.space_id, r.collection, count(*), mod(sum(n.number),
    115792089237316195423570985008687907853269984665640564039457584007913129639936)
from (
    select l.space_id, l.collection, encode(sha256(
        convert_to(l.collection, 'UTF8') || '\x00'::bytea || convert_to(l.id, 'UTF8')
            || '\x00'::bytea || sha256(convert_to(c.document, 'UTF8'))
    ), 'hex') as hex
    from latest l
    join changes c on c.space_id = l.space_id and c.revision = l.revision
    where not l.deleted
) r
cross join lateral (
    select sum(('x' || substr(r.hex, 1 + 8 * place, 8))::bit(32)::bigint
        * 4294967296::numeric ^ (7 - place)) as number
    from generate_series(0, 7) place
) n
group by r.space_id, r.collection;

-- Tombstones, in the order in which their time comes.
create index latest_tombstones on latest (space_id, revision) where deleted;

-- Changes at or below the floor that a later one has replaced, and that are kept
-- longer: the policy of their collection says so, or an answer speaks of them.
create table retained (
    space_id   uuid        not null,
    revision   bigint      not null,
    expires_at timestamptz not null,
    primary key (space_id, revision)
);
create index retained_expiring on retained (expires_at);

-- Answers are forgotten together with the log of their time, and not after the change
-- that they speak of.
create index answers_by_time on answers (answered_at);
create index answers_by_record on answers (space_id, record_revision)
    where record_revision is not null;

-- What replacing a whole space came to, so that it can be told again.
create table replacements (
    space_id    uuid        not null,
    id          text        collate "C" not null,
    -- SHA-256 of what was asked for, without the records.
    fingerprint bytea       not null,
    revision    bigint      not null,
    created     bigint      not null,
    updated     bigint      not null,
    deleted     bigint      not null,
    unchanged   bigint      not null,
    replaced_at timestamptz not null,
    primary key (space_id, id)
);
create index replacements_by_time on replacements (replaced_at);
