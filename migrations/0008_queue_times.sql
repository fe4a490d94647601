-- When an entry is tried again stands with the entry; what is dealt with is forgotten.

-- Null if nothing has stood in its way.
alter table queue add column due_at timestamptz;
create index queue_settled on queue (updated_at) where state in (2, 5);

-- Rises with whatever happens to entries of the lane from outside, not only when something
-- is enqueued: a worker that gives the lane back sees whether to look again. When it is due
-- is when somebody is to look at it, which may be too early for its first entry.
alter table lanes rename column enqueued to stirred;
