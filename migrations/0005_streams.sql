-- What streams need: which changes belong together, and how far devices are.

-- The last revision of the atomic batch that the change is part of; null if it
-- is not part of one.
alter table changes add column batch_end bigint;

-- The revision up to which a user's device has said that it has stored changes. Not in
-- `devices`, whose rows are written together with mutations: neither shall wait
-- for the other.
create table acknowledgements (
    space_id   uuid        not null,
    author     text        collate "C" not null,
    device     text        collate "C" not null,
    revision   bigint      not null,
    updated_at timestamptz not null,
    primary key (space_id, author, device)
) with (fillfactor = 50);
