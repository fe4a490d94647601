//! Spaces, members and the audit log.

use bytes::Bytes;

use super::{proto, timestamp};
use crate::app::{Member, Seat, SharedSpace, StoredEntry};
use crate::domain::{Access, CollectionName, Membership, Right, UserId};

fn role(right: Right) -> proto::Role {
    match right {
        Right::Read => proto::Role::Reader,
        Right::Write => proto::Role::Writer,
        Right::Admin => proto::Role::Admin,
    }
}

fn names(collections: Option<&[CollectionName]>) -> Vec<String> {
    collections.unwrap_or_default().iter().map(|name| name.as_str().to_owned()).collect()
}

/// A space, as somebody may enter it.
pub(in crate::rpc) fn space(access: &Access, shared: Option<&SharedSpace>) -> proto::Space {
    proto::Space {
        space: access.space.name().to_owned(),
        title: shared.map_or_else(String::new, |it| it.title.clone()),
        role: role(access.right).into(),
        collections: names(access.collections.as_deref()),
        create_time: shared.map(|it| timestamp(it.created_at)),
    }
}

pub(in crate::rpc) fn member(member: &Member) -> proto::Member {
    proto::Member {
        user: member.user.as_str().to_owned(),
        role: role(member.membership.right).into(),
        collections: names(member.membership.collections.as_deref()),
        granted_by: member.granted_by.as_str().to_owned(),
        grant_time: Some(timestamp(member.granted_at)),
    }
}

/// What a user may do in a shared space from now on; None if there is no such space.
pub(in crate::rpc) fn access_frame(seat: &Seat) -> Option<proto::AccessFrame> {
    let (name, title) = seat.space.as_ref()?;
    let space = name.to_string();
    let Some(Membership { right, collections }) = &seat.membership else {
        return Some(proto::AccessFrame { space, ..Default::default() });
    };
    Some(proto::AccessFrame {
        space,
        title: title.to_string(),
        role: role(*right).into(),
        collections: names(collections.as_deref()),
    })
}

/// An entry, as a field of a page.
pub(in crate::rpc) fn audit_entry(entry: &StoredEntry) -> Bytes {
    let user = |user: &Option<UserId>| {
        user.as_ref().map_or_else(String::new, |user| user.as_str().to_owned())
    };
    super::entry(&proto::AuditEntry {
        number: entry.number,
        time: Some(timestamp(entry.at)),
        action: entry.action.clone(),
        actor: user(&entry.actor),
        acted_for: user(&entry.acted_for),
        subject: user(&entry.subject),
        details_json: entry.more.clone().unwrap_or_default(),
        link: entry.link.to_string(),
    })
}
