//! The statements that write. Each part of them costs a group time, also where it
//! has nothing to do, so there are several.

pub(in crate::store) const LOCK_HEADS: &str =
    "select id from spaces where id = any($1) order by id for update";

/// 2^256, which digests are counted by.
macro_rules! modulus {
    () => {
        "115792089237316195423570985008687907853269984665640564039457584007913129639936"
    };
}
pub(in crate::store) use modulus;

/// All changes of a group: the log, what is latest, and the heads, in one statement.
/// `state` is 1 for a record's last change in this group when the record is new,
/// 2 when it has a row, 0 for earlier changes of the group to the same record.
///
/// Documents are unnested once, for the log; what the rest needs is unnested
/// apart, because rows that several parts read are copied for it.
///
/// The heads are moved from what was known to what was decided; if one of them,
/// its count of stored answers, or its epoch is not what it was, the last line
/// makes the whole statement fail. So does a row that is there already: of a
/// mutation that took effect before, or of a record that was taken for new.
macro_rules! write_changes {
    ($condition:expr $(, $more:expr)*) => {
        concat!(
            "with w as (
                 select * from unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[],
                     $12::integer[], $13::smallint[], $20::integer[])
                 as w (space_id, revision, collection, id, open_conflicts, state, bytes)
             ), moved as (
                 update spaces s set head = h.head, answered = s.answered + h.answers,
                     conflicts = h.conflicts, records = s.records + h.records,
                     bytes = s.bytes + h.bytes
                 from unnest($14::uuid[], $15::bigint[], $16::bigint[], $18::bigint[],
                     $19::bigint[], $21::uuid[], $27::bigint[], $30::bigint[], $31::bigint[])
                     h (id, before, head, answered, answers, epoch, conflicts, records, bytes)
                 where s.id = h.id and s.head = h.before and s.answered = h.answered
                     and s.epoch = h.epoch
                 returning 1
             ), logged as (
                 insert into changes (space_id, revision, collection, id, action, document,
                     previous_revision, author, device, mutation_id, fingerprint, micros,
                     sequence, parents, others, settlement, batch_end, actor, committed_at)
                 select *, $17::timestamptz
                 from unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::smallint[],
                     $6::text[], $7::bigint[], $8::text[], $9::text[], $10::text[], $11::bytea[],
                     $22::bigint[], $23::bigint[], $24::text[], $25::text[], $26::text[],
                     $28::bigint[], $29::text[])
             ), inserted as (
                 insert into latest (space_id, collection, id, revision, open_conflicts,
                     deleted, bytes)
                 select space_id, collection, id, revision, open_conflicts, bytes is null,
                     coalesce(bytes, 0)
                 from w where state = 1
             )",
            $($more,)*
            " select case when count(*) = cardinality($14) ", $condition, "
                  then 0 else 1 / (count(*) - count(*)) end
              from moved"
        )
    };
}

/// What a group has in addition that moves digests, as almost all do.
macro_rules! tallied {
    () => {
        concat!(
            ", tallied as (
                 insert into digests (space_id, collection, records, digest)
                 select * from unnest($32::uuid[], $33::text[], $34::bigint[],
                     $35::text[]::numeric[])
                 on conflict (space_id, collection) do update
                 set records = digests.records + excluded.records,
                     digest = mod(digests.digest + excluded.digest, ",
            modulus!(),
            ")
             )"
        )
    };
}

/// New records only: what most groups are. Each further part costs a group
/// time, also when it has nothing to do.
pub(super) const WRITE_NEW: &str = write_changes!("", tallied!());

/// What a group with known records has in addition.
macro_rules! updated {
    () => {
        ", updated as (
         insert into latest (space_id, collection, id, revision, open_conflicts, deleted, bytes)
         select space_id, collection, id, revision, open_conflicts, bytes is null,
             coalesce(bytes, 0)
         from w where state = 2
         on conflict (space_id, collection, id) do update
         set revision = excluded.revision, open_conflicts = excluded.open_conflicts,
             deleted = excluded.deleted, bytes = excluded.bytes
     )"
    };
}

/// New and known records.
pub(super) const WRITE_CHANGES: &str = write_changes!("", updated!(), tallied!());

/// The same where each document is what it was.
pub(super) const WRITE_UNTALLIED: &str = write_changes!("", updated!());

/// What a group with conflicts has in addition.
macro_rules! conflicts {
    () => {
        ", found as (
         insert into conflicts select * from json_populate_recordset(null::conflicts, $36::text::json)
     ), closed as (
         update conflicts k set number = c.number, moved_at = c.moved_at, state = c.state,
             closing = c.closing, expires_at = c.expires_at
         from json_populate_recordset(null::conflicts, $37::text::json) c
         where k.space_id = c.space_id and k.mutation_id = c.mutation_id
     ), touched as (
         update latest l set open_conflicts = t.open_conflicts
         from unnest($38::uuid[], $39::text[], $40::text[], $41::integer[])
             t (space_id, collection, id, open_conflicts)
         where l.space_id = t.space_id and l.collection = t.collection and l.id = t.id
     )"
    };
}

/// The same with conflicts.
pub(super) const WRITE_CONFLICTS: &str = write_changes!("", updated!(), conflicts!(), tallied!());

/// The same with answers that no change stands for, and with sequences; only
/// if none of the mutations has such an answer already.
pub(super) const WRITE_ALL: &str = write_changes!(
    "and not exists (
         select from unnest($1::uuid[], $10::text[]) m (space_id, mutation_id)
         join answers a on a.space_id = m.space_id and a.mutation_id = m.mutation_id
     )",
    updated!(),
    conflicts!(),
    tallied!(),
    ", answered as (
         insert into answers (space_id, mutation_id, fingerprint, outcome, record_revision,
             rejection, answered_at)
         select *, $17 from unnest($42::uuid[], $43::text[], $44::bytea[], $45::smallint[],
             $46::bigint[], $47::jsonb[])
     ), sequenced as (
         insert into devices (space_id, author, device, sequence, updated_at)
         select *, $17 from unnest($48::uuid[], $49::text[], $50::text[], $51::bigint[])
         on conflict (space_id, author, device) do update
         set sequence = greatest(devices.sequence, excluded.sequence),
             updated_at = excluded.updated_at
     )"
);
