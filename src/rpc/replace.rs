//! ReplaceAll: a space's whole content as a stream of parts.

use std::time::Duration;

use tokio::time::timeout;
use tonic::{Code, Request, Status, Streaming};

use super::caller::{bound, principal};
use super::proto::replace_all_request::Part;
use super::service::Service;
use super::{from_proto, proto, status, to_proto};
use crate::app::{Begun, Replaced};
use crate::auth::Principal;
use crate::domain::{Right, Space, Violation};

/// A caller who sends nothing for so long has gone, or holds a place that others want.
const SILENCE_MAX: Duration = Duration::from_secs(30);

pub(super) async fn replace_all(
    service: &Service,
    request: Request<Streaming<proto::ReplaceAllRequest>>,
) -> Result<proto::ReplaceAllResponse, Status> {
    let principal = principal(&request)?;
    let mut parts = request.into_inner();
    let Some(Part::Begin(begin)) = next(&mut parts).await? else {
        return Err(invalid("begin", "must come first"));
    };
    let space = whole(service, &principal, &begin.space).await?;
    let replacement = from_proto::replacement(&begin, space.clone(), &principal.caller);
    let mut replacement = replacement.map_err(status::invalid)?;
    replacement.device = bound(&principal, replacement.device)?;
    let mut replacing = match service.app.replace(replacement).await? {
        Begun::Before(replaced) => return answer(service, space, replaced, true).await,
        Begun::Now(replacing) => replacing,
    };
    let mut sent = 0;
    loop {
        match next(&mut parts).await? {
            Some(Part::Records(part)) => {
                let records = from_proto::new_records(&part.records, sent);
                sent += part.records.len();
                replacing.add(records.map_err(status::invalid)?).await?;
            }
            Some(Part::End(end)) if usize::try_from(end.records) == Ok(sent) => break,
            Some(Part::End(end)) => {
                let rule = format!("is {}, but {sent} records came", end.records);
                return Err(invalid("end.records", &rule));
            }
            Some(Part::Begin(_)) => return Err(invalid("begin", "may come once only")),
            None => return Err(invalid("end", "must come last; nothing was replaced")),
        }
    }
    // It may have taken its time.
    whole(service, &principal, space.name()).await?;
    let replaced = replacing.finish().await?;
    answer(service, space, replaced, false).await
}

/// The space, if the caller may write all of it.
async fn whole(service: &Service, principal: &Principal, name: &str) -> Result<Space, Status> {
    let access = service.app.access(&principal.caller, name, Right::Write).await?;
    service.within(principal, &access, access.whole())?;
    Ok(access.space)
}

/// The next part; None at the end of the stream.
async fn next(parts: &mut Streaming<proto::ReplaceAllRequest>) -> Result<Option<Part>, Status> {
    match within_silence(parts).await? {
        Some(message) => message.part.map(Some).ok_or_else(|| invalid("part", "must be given")),
        None => Ok(None),
    }
}

/// The next message; None at the end of the stream.
pub(super) async fn within_silence<T>(parts: &mut Streaming<T>) -> Result<Option<T>, Status> {
    match timeout(SILENCE_MAX, parts.message()).await {
        Ok(message) => message,
        Err(_silent) => {
            let seconds = SILENCE_MAX.as_secs();
            let message = format!("nothing came for {seconds} s; nothing was replaced");
            Err(status::status(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", message, []))
        }
    }
}

fn invalid(field: &str, rule: &str) -> Status {
    status::invalid(vec![Violation::new(field, rule)])
}

async fn answer(
    service: &Service,
    space: Space,
    replaced: Replaced,
    replayed: bool,
) -> Result<proto::ReplaceAllResponse, Status> {
    let at = service.app.status(space, None).await?.at;
    let Replaced { revision, created, updated, deleted, unchanged } = replaced;
    let cursor = Some(to_proto::cursor(at.epoch, revision));
    Ok(proto::ReplaceAllResponse { cursor, created, updated, deleted, unchanged, replayed })
}
