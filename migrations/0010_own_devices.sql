-- Sequences are of a device as one user has it: in a space of several, nobody uses up those
-- of another.

alter table devices add column author text collate "C";

update devices d set author = c.author
from (
    select distinct on (space_id, device) space_id, device, author
    from changes where device is not null order by space_id, device, revision desc
) c
where c.space_id = d.space_id and c.device = d.device;

-- Nothing of theirs is in the log any more.
update devices d set author = a.author
from (
    select distinct on (space_id, device) space_id, device, author
    from acknowledgements order by space_id, device, updated_at desc
) a
where a.space_id = d.space_id and a.device = d.device and d.author is null;

-- Nor have they said how far they are: in a private space it is its user.
update devices d set author = coalesce(
    (select substr(s.name, 7) from spaces s where s.id = d.space_id and s.name like 'users/%'), ''
) where author is null;

alter table devices alter column author set not null;
alter table devices drop constraint devices_pkey;
alter table devices add primary key (space_id, author, device);
