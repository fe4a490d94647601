//! Everything of a space, or of a user: taken out, put in, taken away.

use tonic::{Request, Status, Streaming};

use super::answers::{Answers, answers};
use super::caller::{bound, not_expired, principal};
use super::from_proto::{self, ImportedLine};
use super::proto::import_space_request::Part;
use super::replace::within_silence;
use super::service::Service;
use super::{proto, status};
use crate::app::{Begun, Error, ExportParts, Replaced, Replacement, Whole};
use crate::auth::Principal;
use crate::domain::{Fingerprint, Membership, Right, Space, UserId, Violation, limits};

/// Sends everything of a space.
pub(super) async fn export_space(
    service: &Service,
    request: Request<proto::ExportSpaceRequest>,
) -> Result<Answers<proto::ExportSpaceResponse>, Status> {
    let (principal, access) =
        service.access(&request, &request.get_ref().space, Right::Admin).await?;
    let parts = service.app.export(&principal.caller, Whole::Space(access.space)).await?;
    let render = |lines: String| proto::ExportSpaceResponse { lines: lines.into() };
    Ok(stream(service, &principal, parts, render))
}

/// Sends everything of a user.
pub(super) async fn export_user(
    service: &Service,
    request: Request<proto::ExportUserRequest>,
) -> Result<Answers<proto::ExportUserResponse>, Status> {
    let (principal, user) = of_user(service, &request, &request.get_ref().user).await?;
    let parts = service.app.export(&principal.caller, Whole::User(user)).await?;
    let render = |lines: String| proto::ExportUserResponse { lines: lines.into() };
    Ok(stream(service, &principal, parts, render))
}

/// Ends with the token, like every stream.
fn stream<T: Send + 'static>(
    service: &Service,
    principal: &Principal,
    parts: ExportParts,
    render: impl Fn(String) -> T + Send + 'static,
) -> Answers<T> {
    let (clock, principal) = (service.clock.clone(), principal.clone());
    answers(parts, move |part| {
        not_expired(&principal, &clock)?;
        Ok(render(part))
    })
}

/// Who calls, and the user whose everything they mean: themselves, or one whose private
/// space they administrate.
async fn of_user<T: Sync>(
    service: &Service,
    request: &Request<T>,
    name: &str,
) -> Result<(Principal, UserId), Status> {
    let principal = principal(request)?;
    if name.is_empty() {
        let user = principal.caller.user.clone();
        return Ok((principal, user));
    }
    let user = from_proto::user(name).map_err(status::invalid)?;
    let own = Space::private(&user);
    service.app.access(&principal.caller, own.name(), Right::Admin).await?;
    Ok((principal, user))
}

/// Erases a space.
pub(super) async fn erase_space(
    service: &Service,
    request: Request<proto::EraseSpaceRequest>,
) -> Result<proto::EraseSpaceResponse, Status> {
    let (principal, access) =
        service.access(&request, &request.get_ref().space, Right::Admin).await?;
    confirmed(&request.get_ref().confirm, access.space.name())?;
    let erased = service.app.erase(&principal.caller, Whole::Space(access.space)).await?;
    Ok(proto::EraseSpaceResponse { records: erased.records, changes: erased.changes })
}

/// Erases a user.
pub(super) async fn erase_user(
    service: &Service,
    request: Request<proto::EraseUserRequest>,
) -> Result<proto::EraseUserResponse, Status> {
    let (principal, user) = of_user(service, &request, &request.get_ref().user).await?;
    confirmed(&request.get_ref().confirm, user.as_str())?;
    let erased = service.app.erase(&principal.caller, Whole::User(user)).await?;
    Ok(proto::EraseUserResponse {
        records: erased.records,
        changes: erased.changes,
        memberships: erased.memberships,
        spaces_without_admin: erased.without_admin,
    })
}

fn confirmed(given: &str, name: &str) -> Result<(), Status> {
    if given == name {
        return Ok(());
    }
    Err(status::invalid(vec![Violation::new("confirm", format!("must be {name}"))]))
}

/// Makes a space hold what an export has.
pub(super) async fn import_space(
    service: &Service,
    request: Request<Streaming<proto::ImportSpaceRequest>>,
) -> Result<proto::ImportSpaceResponse, Status> {
    let principal = principal(&request)?;
    let mut parts = request.into_inner();
    let Some(Part::Begin(begin)) = next(&mut parts).await? else {
        return Err(invalid("begin", "must come first"));
    };
    let space = administrated(service, &principal, &begin.space).await?;
    let id = from_proto::import_id(&begin.id).map_err(status::invalid)?;
    let (caller, device) = (&principal.caller, bound(&principal, None)?);
    let mut import = Import { with_members: begin.with_members, ..Import::default() };
    let replacement = Replacement {
        space: space.clone(),
        author: caller.user.clone(),
        actor: caller.actor.clone(),
        fingerprint: Fingerprint::of_replacement(&caller.user, device.as_ref(), None),
        device,
        id,
        seen: None,
        imports: true,
    };
    let replaced = match service.app.replace(replacement).await? {
        Begun::Before(replaced) => {
            while let Some(part) = next(&mut parts).await? {
                import.take(part)?;
            }
            replaced
        }
        Begun::Now(mut replacing) => {
            while let Some(part) = next(&mut parts).await? {
                replacing.add(import.take(part)?).await?;
            }
            import.whole()?;
            administrated(service, &principal, space.name()).await?;
            replacing.finish().await?
        }
    };
    let mut members = 0;
    for (user, membership) in import.members {
        // Whoever imports stays who they are.
        if user == caller.user {
            continue;
        }
        let access = service.app.access(caller, space.name(), Right::Admin).await?;
        service.app.set_member(caller, access, user, Some(membership)).await?;
        members += 1;
    }
    let Replaced { revision, created, updated, deleted, unchanged } = replaced;
    let (revision, skipped) = (revision.get(), import.skipped);
    Ok(proto::ImportSpaceResponse {
        revision,
        created,
        updated,
        deleted,
        unchanged,
        members,
        skipped,
    })
}

/// The space, if the caller administrates it.
async fn administrated(
    service: &Service,
    principal: &Principal,
    name: &str,
) -> Result<Space, Error> {
    Ok(service.app.access(&principal.caller, name, Right::Admin).await?.space)
}

async fn next(parts: &mut Streaming<proto::ImportSpaceRequest>) -> Result<Option<Part>, Status> {
    match within_silence(parts).await? {
        Some(message) => message.part.map(Some).ok_or_else(|| invalid("part", "must be given")),
        None => Ok(None),
    }
}

fn invalid(field: &str, rule: &str) -> Status {
    status::invalid(vec![Violation::new(field, rule)])
}

/// What was read of an export so far.
#[derive(Default)]
struct Import {
    lines: u64,
    with_members: bool,
    members: Vec<(UserId, Membership)>,
    skipped: i64,
    ended: bool,
}

type Records = Vec<(crate::domain::RecordKey, crate::domain::Document)>;

impl Import {
    /// The records of a part.
    fn take(&mut self, part: Part) -> Result<Records, Status> {
        let Part::Lines(lines) = part else {
            return Err(invalid("begin", "may come once only"));
        };
        let text = str::from_utf8(&lines).map_err(|_| invalid("lines", "must be UTF-8"))?;
        let mut records = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let field = format!("lines[{}]", self.lines);
            if self.ended {
                return Err(invalid(&field, "comes after the `end` line"));
            }
            let read = from_proto::imported_line(line, self.lines == 0);
            match read.map_err(|rule| invalid(&field, &rule))? {
                ImportedLine::Record(key, document) => records.push((key, document)),
                ImportedLine::Member(user, membership) => {
                    let most = usize::try_from(limits::SPACE_MEMBERS_MAX).unwrap_or(usize::MAX);
                    if self.members.len() >= most {
                        return Err(invalid(&field, &format!("is a member more than {most}")));
                    }
                    self.members.extend(self.with_members.then_some((user, membership)));
                }
                ImportedLine::End(lines) if lines != self.lines => {
                    return Err(invalid(
                        &field,
                        &format!("says that {lines} lines came before it"),
                    ));
                }
                ImportedLine::End(_) => self.ended = true,
                ImportedLine::Other => self.skipped += 1,
            }
            self.lines += 1;
        }
        Ok(records)
    }

    fn whole(&self) -> Result<(), Status> {
        if self.ended {
            return Ok(());
        }
        Err(invalid("lines", "must end with an `end` line; nothing was imported"))
    }
}
