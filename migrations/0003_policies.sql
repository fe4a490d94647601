-- What collections do with concurrent writes, and which documents they take. They
-- hold in every space, so this is a small table that every shard has whole.

-- Every version stays: conflicts name the one that decided.
create table policies (
    collection text        collate "C" not null,
    version    bigint      not null,
    -- Counts all versions of all policies, in the order of their commits: who
    -- knows the last one knows whether there is something new.
    number     bigint      not null,
    -- Null where the policy was deleted.
    policy     jsonb,
    -- Empty if it came from the configuration file.
    author     text        not null,
    set_at     timestamptz not null,
    primary key (collection, version)
);
create unique index policies_by_number on policies (number);
