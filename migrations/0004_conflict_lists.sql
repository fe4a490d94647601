-- Lists of conflicts go by when each was found, which stays, so that a list that
-- is read page by page misses none that is closed meanwhile.

-- The name under which the policy is set that decided, if there was one.
alter table conflicts add column policy_collection text collate "C";

drop index conflicts_open;
drop index conflicts_open_by_record;
drop index conflicts_by_record;

create unique index conflicts_by_found on conflicts (space_id, found);
create index conflicts_open on conflicts (space_id, found) where state = 1;
create index conflicts_open_by_record on conflicts (space_id, collection, id, found)
    where state = 1;
create index conflicts_by_record on conflicts (space_id, collection, id, found);
-- For lists of them, and for a device that comes back to a record.
create index conflicts_by_collection on conflicts (space_id, collection, found);
create index conflicts_by_device on conflicts (space_id, device, found);
create index conflicts_by_record_and_device on conflicts
    (space_id, collection, id, device, found);
