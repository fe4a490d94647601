-- Mutations that the server holds and applies in the background.

create sequence queue_numbers;

create table queue (
    space_id    uuid        not null,
    mutation_id text        collate "C" not null,
    -- The order in which they are applied, within a device.
    number      bigint      not null,
    device      text        collate "C" not null,
    author      text        not null,
    -- The mutation as it was sent.
    payload     bytea       not null,
    fingerprint bytea       not null,
    -- 1 pending, 2 applied, 3 conflicted, 4 failed, 5 marked as synced.
    state       smallint    not null,
    attempts    integer     not null,
    -- What became of the mutation: 1 applied, 2 conflict, 3 rejected, 4 superseded,
    -- 5 merged; null as long as nothing has.
    outcome     smallint,
    revision    bigint,
    reason      text,
    message     text,
    enqueued_at timestamptz not null,
    updated_at  timestamptz not null,
    primary key (space_id, mutation_id)
);
create unique index queue_by_number on queue (space_id, number);
create index queue_pending on queue (space_id, device, number) where state = 1;
create index queue_by_state on queue (space_id, state, number);
create index queue_by_device on queue (space_id, device, number);

-- For each device that has enqueued something when it is its turn, and which worker has
-- it until when.
create table lanes (
    space_id     uuid        not null,
    device       text        collate "C" not null,
    -- Null if nothing waits.
    due_at       timestamptz,
    leased_until timestamptz,
    worker       uuid,
    -- Rises with whatever is enqueued: a worker that has found nothing more sees whether
    -- something came meanwhile.
    enqueued     bigint      not null,
    primary key (space_id, device)
) with (fillfactor = 50);
create index lanes_due on lanes (due_at) where due_at is not null;
