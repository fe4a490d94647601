//! What follows from who calls: the device, the request in their name, and whether they may
//! still see what they saw.

use tonic::{Request, Status};

use super::auth::unauthenticated;
use super::session::EXPIRY_GRACE_SECONDS;
use super::{from_proto, status};
use crate::app::{App, Error};
use crate::auth::{Principal, RefusalClass};
use crate::clock::Clock;
use crate::domain::{self, Access, Caller, DeviceId, Mutation, Right, Scope, Space};

/// Who calls. The door lets nobody in without.
pub(super) fn principal<T>(request: &Request<T>) -> Result<Principal, Status> {
    let found = request.extensions().get::<Principal>().cloned();
    found.ok_or_else(|| status::internal(&std::io::Error::other("a request without principal")))
}

/// The device of a request, unless the token is bound to another.
pub(super) fn device_of(principal: &Principal, named: &str) -> Result<Option<DeviceId>, Status> {
    let named = from_proto::device(named).map_err(status::invalid)?;
    bound(principal, named)
}

/// A device that was named, or the one that the token is bound to.
pub(super) fn bound(
    principal: &Principal,
    named: Option<DeviceId>,
) -> Result<Option<DeviceId>, Status> {
    principal.device(named).map_err(|bound| status::other_device(&bound))
}

/// Fails once a token is no longer good for a stream.
pub(super) fn not_expired(principal: &Principal, clock: &Clock) -> Result<(), Status> {
    let ends_at = principal.expires_at.saturating_add(EXPIRY_GRACE_SECONDS);
    if clock.unix_seconds() < ends_at {
        return Ok(());
    }
    Err(unauthenticated(RefusalClass::Expired))
}

/// What a caller asks for, as far as they may.
pub(super) fn of_caller(
    principal: &Principal,
    access: Access,
    device: Option<DeviceId>,
    atomic: bool,
    mutations: Vec<Mutation>,
) -> (Space, domain::Request) {
    let Access { space, collections, .. } = access;
    let Caller { user: author, actor, .. } = principal.caller.clone();
    (space, domain::Request { author, actor, device, atomic, mutations, collections })
}

/// Whether somebody who wanted a part of a space may still read as much of it as when
/// they asked.
pub(super) async fn still(
    app: &App,
    caller: &Caller,
    space: &Space,
    (wanted, scope): (Scope, &Scope),
) -> Result<(), Error> {
    let access = app.access(caller, space.name(), Right::Read).await?;
    if access.scope(wanted)? == *scope { Ok(()) } else { Err(Error::AccessChanged) }
}
