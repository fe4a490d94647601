//! Everything that is kept of a space, line by line as JSON: PostgreSQL makes the lines.
//! What grows is read up to where it was when the export began.

use sqlx::Row;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, Store};
use crate::domain::{SpaceId, UserId};

/// A kind of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Members,
    Changes,
    Conflicts,
    Answers,
    Devices,
    Acknowledgements,
    Queue,
    Audit,
    /// Memberships of a user, in all spaces.
    Memberships,
    /// What a user wrote in spaces of others.
    Written,
    /// What the audit logs of other spaces, and of the server, say of a user.
    Mentions,
    /// What the user was refused. Whether there was such a space must not show.
    Refusals,
}

impl Section {
    /// What belongs to a space, beside its records.
    pub const OF_SPACE: [Self; 8] = [
        Self::Members,
        Self::Changes,
        Self::Conflicts,
        Self::Answers,
        Self::Devices,
        Self::Acknowledgements,
        Self::Queue,
        Self::Audit,
    ];
    /// What belongs to a user, beside their private space.
    pub const OF_USER: [Self; 4] =
        [Self::Memberships, Self::Written, Self::Mentions, Self::Refusals];

    fn sql(self) -> &'static str {
        match self {
            Self::Members => MEMBERS,
            Self::Changes => CHANGES,
            Self::Conflicts => CONFLICTS,
            Self::Answers => ANSWERS,
            Self::Devices => DEVICES,
            Self::Acknowledgements => ACKNOWLEDGEMENTS,
            Self::Queue => QUEUE,
            Self::Audit => AUDIT,
            Self::Memberships => MEMBERSHIPS,
            Self::Written => WRITTEN,
            Self::Mentions => MENTIONS,
            Self::Refusals => REFUSALS,
        }
    }

    /// Lines that are read at once.
    fn lines_max(self) -> i64 {
        match self {
            // Short ones, for which all of the log is looked through.
            Self::Refusals => 5_000,
            // Each may have some documents.
            _ => 50,
        }
    }
}

/// Where a section goes on: after the row of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportPlace {
    pub number: i64,
    pub names: (String, String),
    pub space: Uuid,
}

/// What every statement reads. $1 is the space, $2 to $5 the place, $6 how many lines, $7
/// the user, $8 the time when the export began: what is newer is left out where it shows.
macro_rules! lines {
    ($columns:literal, $kind:literal, $fields:literal, $rows:literal) => {
        concat!(
            "with p as (select $1::uuid as space, $2::bigint as number, $3::text as first,
                 $4::text as second, $5::uuid as after, $6::bigint as most, $7::text as who,
                 $8::timestamptz as began)
             select json_build_object('type', '",
            $kind,
            "', ",
            $fields,
            ")::text, ",
            $columns,
            " from p, lateral (",
            $rows,
            ") r"
        )
    };
}

const MEMBERS: &str = lines!(
    "0::bigint, r.user_id, '', p.after",
    "member",
    "'user', r.user_id, 'role', case r.role when 1 then 'reader' when 2 then 'writer' else 'admin' end,
     'collections', r.collections, 'granted_by', r.granted_by, 'granted_at', r.granted_at",
    "select * from members m where m.space_id = p.space and m.user_id > p.first
     order by m.user_id limit p.most"
);

const CHANGES: &str = lines!(
    "r.revision, '', '', p.after",
    "change",
    "'revision', r.revision, 'collection', r.collection, 'id', r.id,
     'action', case r.action when 1 then 'created' when 2 then 'updated' else 'deleted' end,
     'document', r.document::json, 'previous_revision', r.previous_revision, 'author', r.author,
     'actor', r.actor, 'device', r.device, 'mutation_id', r.mutation_id,
     'version', r.micros || '-' || coalesce(r.device, '') || '-' || r.sequence,
     'parents', r.parents, 'committed_at', r.committed_at",
    "select * from changes c where c.space_id = p.space and c.revision > p.number
         and c.committed_at <= p.began order by c.revision limit p.most"
);

const CONFLICTS: &str = lines!(
    "r.found, '', '', p.after",
    "conflict",
    "'mutation_id', r.mutation_id, 'collection', r.collection, 'id', r.id,
     'state', case r.state when 1 then 'open' when 2 then 'resolved' else 'superseded' end,
     'relation', r.relation, 'strategy', r.strategy, 'decision', r.decision, 'paths', r.paths,
     'base', r.base::json, 'server', r.server::json, 'server_version', r.server_version,
     'server_author', r.server_author, 'server_device', r.server_device,
     'client', r.client::json, 'client_version', r.client_version, 'author', r.author,
     'device', r.device, 'revision', r.revision, 'found_at', r.found_at, 'closing', r.closing",
    "select * from conflicts k where k.space_id = p.space and k.found > p.number
         and k.found_at <= p.began order by k.found limit p.most"
);

const ANSWERS: &str = lines!(
    "0::bigint, r.mutation_id, '', p.after",
    "answer",
    "'mutation_id', r.mutation_id, 'outcome', r.outcome, 'record_revision', r.record_revision,
     'rejection', r.rejection, 'answered_at', r.answered_at",
    "select * from answers a where a.space_id = p.space and a.mutation_id > p.first
     order by a.mutation_id limit p.most"
);

const DEVICES: &str = lines!(
    "0::bigint, r.author, r.device, p.after",
    "device",
    "'user', r.author, 'device', r.device, 'sequence', r.sequence, 'updated_at', r.updated_at",
    "select * from devices d
     where d.space_id = p.space and (d.author, d.device) > (p.first, p.second)
     order by d.author, d.device limit p.most"
);

const ACKNOWLEDGEMENTS: &str = lines!(
    "0::bigint, r.author, r.device, p.after",
    "acknowledgement",
    "'user', r.author, 'device', r.device, 'revision', r.revision, 'updated_at', r.updated_at",
    "select * from acknowledgements a
     where a.space_id = p.space and (a.author, a.device) > (p.first, p.second)
     order by a.author, a.device limit p.most"
);

const QUEUE: &str = lines!(
    "r.number, '', '', p.after",
    "queued",
    "'mutation_id', r.mutation_id, 'device', r.device, 'author', r.author, 'actor', r.actor,
     'mutation', translate(encode(r.payload, 'base64'), E'\\n', ''), 'state', r.state,
     'attempts', r.attempts, 'reason', r.reason, 'message', r.message,
     'enqueued_at', r.enqueued_at",
    "select * from queue q where q.space_id = p.space and q.number > p.number
     order by q.number limit p.most"
);

const AUDIT: &str = lines!(
    "r.number, '', '', p.after",
    "audit",
    "'number', r.number, 'at', r.at, 'action', r.action, 'actor', r.actor,
     'acted_for', r.acted_for, 'subject', r.subject, 'details', r.details::json,
     'link', encode(r.link, 'hex')",
    "select * from audit a where a.space_id = p.space and a.number > p.number
     order by a.number limit p.most"
);

const MEMBERSHIPS: &str = lines!(
    "0::bigint, '', '', r.space_id",
    "membership",
    "'space', (select s.name from spaces s where s.id = r.space_id),
     'role', case r.role when 1 then 'reader' when 2 then 'writer' else 'admin' end,
     'collections', r.collections, 'granted_by', r.granted_by, 'granted_at', r.granted_at",
    "select * from members m where m.user_id = p.who and m.space_id > p.after
     order by m.space_id limit p.most"
);

const WRITTEN: &str = lines!(
    "r.revision, '', '', r.space_id",
    "written",
    "'space', (select s.name from spaces s where s.id = r.space_id), 'revision', r.revision,
     'collection', r.collection, 'id', r.id, 'document', r.document::json, 'device', r.device,
     'mutation_id', r.mutation_id, 'committed_at', r.committed_at",
    "select * from changes c where (c.space_id, c.revision) > (p.after, p.number)
         and c.author = p.who and c.space_id <> p.space and c.committed_at <= p.began
     order by c.space_id, c.revision limit p.most"
);

const MENTIONS: &str = lines!(
    "r.number, '', '', r.space_id",
    "mention",
    "'space', (select s.name from spaces s where s.id = r.space_id), 'number', r.number,
     'at', r.at, 'action', r.action, 'actor', r.actor, 'acted_for', r.acted_for,
     'subject', r.subject, 'details', r.details::json",
    "select * from audit a where (a.space_id, a.number) > (p.after, p.number)
         and (a.actor = p.who or a.acted_for = p.who or a.subject = p.who)
         and a.action <> 'access_refused' and a.space_id <> p.space and a.at <= p.began
     order by a.space_id, a.number limit p.most"
);

/// In an order that says nothing: the chain in which one stands would tell whether the space
/// is there.
const REFUSALS: &str = lines!(
    "0::bigint, encode(r.commitment, 'hex'), '', p.after",
    "mention",
    "'space', null, 'number', null, 'at', r.at, 'action', r.action, 'actor', r.actor,
     'acted_for', r.acted_for, 'subject', r.subject, 'details', r.details::json",
    "select * from audit a where (a.actor = p.who or a.acted_for = p.who)
         and a.action = 'access_refused' and a.space_id <> p.space and a.at <= p.began
         and a.commitment > decode(p.first, 'hex') order by a.commitment limit p.most"
);

impl Store {
    /// The next lines of a section, and where it goes on, unless it has ended.
    pub async fn export(
        &self,
        section: Section,
        (space, user): (SpaceId, Option<&UserId>),
        after: &ExportPlace,
        began: OffsetDateTime,
    ) -> Result<(Vec<String>, Option<ExportPlace>), Error> {
        let query = sqlx::query(section.sql())
            .bind(space.0)
            .bind(after.number)
            .bind(&after.names.0)
            .bind(&after.names.1)
            .bind(after.space)
            .bind(section.lines_max())
            .bind(user.map(UserId::as_str))
            .bind(began);
        let rows = self.read(query).await?;
        let lines = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<_>, _>>()?;
        let full = i64::try_from(rows.len()).unwrap_or(i64::MAX) >= section.lines_max();
        let next = rows.last().filter(|_| full).map(|row| {
            Ok::<_, Error>(ExportPlace {
                number: row.try_get(1)?,
                names: (row.try_get(2)?, row.try_get(3)?),
                space: row.try_get(4)?,
            })
        });
        Ok((lines, next.transpose()?))
    }
}
