//! Acting for others: a caller with the right to it becomes the user whom they name. From
//! there on they are that user, with the actor beside the name.

use http::HeaderMap;
use http::request::Parts;
use percent_encoding::percent_decode_str;
use tonic::Status;

use super::status;
use crate::app::App;
use crate::auth::{Grant, Principal};
use crate::domain::{UserId, Violation};

/// Names the user; percent-encoded, because metadata is ASCII.
const ACT_FOR: &str = "syncline-act-for";

/// Puts the user in the place of a caller who acts for them.
pub(super) fn act(app: &App, request: &mut Parts) -> Result<(), Status> {
    if !request.headers.contains_key(ACT_FOR) {
        return Ok(());
    }
    // Who needs no token is nobody, and stays so.
    let Some(principal) = request.extensions.get::<Principal>() else { return Ok(()) };
    let user = named(&request.headers)?;
    let Some(acting) = principal.acting_for(&user) else {
        let grant = Grant::ActFor(Some(user));
        app.note_refused(&principal.caller, "", &grant.to_string());
        return Err(status::not_granted(&grant));
    };
    app.note_acting(&acting.caller);
    request.extensions.insert(acting);
    Ok(())
}

fn named(headers: &HeaderMap) -> Result<UserId, Status> {
    let broken = |rule: &str| status::invalid(vec![Violation::new(ACT_FOR, rule)]);
    let mut values = headers.get_all(ACT_FOR).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(broken("must be given once"));
    };
    let name = value.to_str().map_err(|_| broken("must be percent-encoded"))?;
    let name = percent_decode_str(name).decode_utf8();
    let name = name.map_err(|_| broken("must be UTF-8, percent-encoded"))?;
    UserId::parse(&name).map_err(|rule| broken(&rule))
}
