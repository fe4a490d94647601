//! Spaces, members and questions to the audit log.

use time::OffsetDateTime;

use super::subscription::token_name;
use super::{Violations, done, note, one, page_size};
use crate::app::AuditQuery;
use crate::domain::{AuditAction, CollectionName, Membership, Right, Space, UserId, limits};
use crate::rpc::{proto, token};

/// How the space is named that is to be created.
pub(in crate::rpc) enum NewSpace {
    /// By the id of the request.
    Request(String),
    Named(Space),
}

/// The space that is to be created, and its title.
pub(in crate::rpc) fn new_space(
    wire: &proto::CreateSpaceRequest,
) -> Result<(NewSpace, String), Violations> {
    let mut broken = Vec::new();
    let title = note(&mut broken, "title", self::title(&wire.title));
    let named = if wire.space_id.is_empty() {
        let id = token_name(&wire.request_id, limits::MUTATION_ID_BYTES_MAX);
        note(&mut broken, "request_id", id).map(NewSpace::Request)
    } else {
        let space = Space::named(&format!("spaces/{}", wire.space_id));
        note(&mut broken, "space_id", space).map(NewSpace::Named)
    };
    done(named.zip(title), broken)
}

/// What people are to call a space.
pub(in crate::rpc) fn new_title(text: &str) -> Result<String, Violations> {
    title(text).map_err(|rule| one("title", rule))
}

fn title(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("must not be empty".into());
    }
    if text.len() > limits::SPACE_TITLE_BYTES_MAX {
        let (bytes, most) = (text.len(), limits::SPACE_TITLE_BYTES_MAX);
        return Err(format!("has {bytes} bytes; at most {most}"));
    }
    if text.chars().any(char::is_control) {
        return Err("must not contain control characters".into());
    }
    Ok(text.to_owned())
}

/// Who is to become a member, and what they may.
pub(in crate::rpc) fn new_member(
    wire: &proto::SetMemberRequest,
) -> Result<(UserId, Membership), Violations> {
    let mut broken = Vec::new();
    let user = note(&mut broken, "user", UserId::parse(&wire.user));
    let right = match proto::Role::try_from(wire.role) {
        Ok(proto::Role::Reader) => Ok(Right::Read),
        Ok(proto::Role::Writer) => Ok(Right::Write),
        Ok(proto::Role::Admin) => Ok(Right::Admin),
        Ok(proto::Role::Unspecified) | Err(_) => Err("must be one of the roles".to_owned()),
    };
    let right = note(&mut broken, "role", right);
    let most = limits::MEMBER_COLLECTIONS_MAX;
    if wire.collections.len() > most {
        broken.extend(one("collections", format!("are more than {most}")));
    }
    if right == Some(Right::Admin) && !wire.collections.is_empty() {
        broken.extend(one("collections", "must be empty for an admin"));
    }
    let mut names: Vec<CollectionName> = Vec::new();
    for (number, name) in wire.collections.iter().take(most).enumerate() {
        let field = format!("collections[{number}]");
        names.extend(note(&mut broken, &field, CollectionName::parse(name)));
    }
    names.sort();
    names.dedup();
    let collections = (!names.is_empty()).then(|| names.into());
    let membership = right.map(|right| Membership { right, collections });
    done(user.zip(membership), broken)
}

/// A user whose name is given.
pub(in crate::rpc) fn user(text: &str) -> Result<UserId, Violations> {
    UserId::parse(text).map_err(|rule| one("user", rule))
}

/// Which entries of the audit log are wanted.
pub(in crate::rpc) fn audit_query(
    wire: &proto::ListAuditEntriesRequest,
) -> Result<AuditQuery, Violations> {
    let mut broken = Vec::new();
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let user = given(&wire.user).map(|user| UserId::parse(&user)).transpose();
    let user = note(&mut broken, "user", user);
    let named =
        |name: String| AuditAction::parse(&name).ok_or_else(|| "must be one of the actions".into());
    let action = note(&mut broken, "action", given(&wire.action).map(named).transpose());
    let since = note(&mut broken, "since", wire.since.as_ref().map(time).transpose());
    let until = note(&mut broken, "until", wire.until.as_ref().map(time).transpose());
    let before = token::page(&wire.page_token, |text| text.parse().ok());
    let before = before.map_err(|it| broken.extend(it)).ok();
    let entries_max = page_size(wire.page_size).map_err(|it| broken.extend(it)).ok();
    let times = since.zip(until);
    let rest = before.zip(entries_max);
    let query = user.zip(action).zip(times).zip(rest);
    let query = query.map(|(((user, action), (since, until)), (before, entries_max))| AuditQuery {
        user,
        action,
        since,
        until,
        before,
        entries_max,
    });
    done(query, broken)
}

fn time(wire: &prost_types::Timestamp) -> Result<OffsetDateTime, String> {
    let rule = || "must be a time between the years 1 and 9999".to_owned();
    let nanos = u32::try_from(wire.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let seconds = OffsetDateTime::from_unix_timestamp(wire.seconds).map_err(|_| rule())?;
    seconds.replace_nanosecond(nanos.ok_or_else(rule)?).map_err(|_| rule())
}
