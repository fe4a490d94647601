-- Who may enter which space, how much a space may hold, and who did what to whom.

-- What people call the space; only shared ones have it.
alter table spaces add column title text not null default '';
-- Records that live, and the bytes of their documents: what quotas count.
alter table spaces add column records bigint not null default 0;
alter table spaces add column bytes bigint not null default 0;
update spaces s set records = l.records, bytes = l.bytes
from (
    select space_id, count(*) as records, sum(bytes) as bytes
    from latest where not deleted group by space_id
) l
where l.space_id = s.id;

-- Who else than services may enter shared spaces. Private ones have no members.
create table members (
    space_id    uuid        not null,
    user_id     text        collate "C" not null,
    -- 1 reader, 2 writer, 3 admin.
    role        smallint    not null,
    -- Null: all of them.
    collections text[]      collate "C",
    granted_by  text        not null,
    granted_at  timestamptz not null,
    primary key (space_id, user_id)
);
create index members_by_user on members (user_id, space_id);

-- That something has changed for a user in a space, for replicas that remember it: they
-- look at what is new. The user stands as the id of their private space, so that this
-- names nobody. Old ones go.
create sequence access_numbers;
create table access_changes (
    space_id   uuid        not null,
    number     bigint      not null default nextval('access_numbers'),
    user_key   uuid        not null,
    changed_at timestamptz not null default clock_timestamp(),
    primary key (space_id, number)
);
create index access_changes_by_time on access_changes (changed_at);

-- What was done to whom, in a chain for each space; that of the server as a whole has the
-- id 0.
create table audit (
    space_id   uuid        not null,
    number     bigint      not null,
    at         timestamptz not null,
    action     text        collate "C" not null,
    -- Who did it; null for the server itself, and where it was erased.
    actor      text        collate "C",
    -- In whose name, if that is another.
    acted_for  text        collate "C",
    -- Whom it concerns, if anybody but the actor.
    subject    text        collate "C",
    -- All of this once more and what else there is to say, as JSON with a random number,
    -- so that its hash tells nothing; null where it was erased.
    details    text,
    -- SHA-256 of the details.
    commitment bytea       not null,
    -- SHA-256 of the link before, the number, the time, the action and the commitment.
    link       bytea       not null,
    -- The number in the server's chain of the erasure that took the details.
    erased_in  bigint,
    primary key (space_id, number)
);
create index audit_by_actor on audit (space_id, actor, number);
create index audit_by_acted_for on audit (space_id, acted_for, number);
create index audit_by_subject on audit (space_id, subject, number);
create index audit_by_action on audit (space_id, action, number);

-- The end of each chain: without it nobody would miss what is cut off.
create table audit_ends (
    space_id uuid   not null primary key,
    number   bigint not null,
    link     bytea  not null
) with (fillfactor = 50);

-- Who really made a change, where that was not its author.
alter table changes add column actor text;
-- Whether a grant of a token let it in: then nobody has to be a member when it is applied.
alter table queue add column by_grant boolean not null default false;
-- Only tokens have let anybody in so far.
update queue set by_grant = true;
alter table queue add column actor text;
