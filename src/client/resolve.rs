//! A conflict is decided: a call to the server, and the local file follows.

use std::time::Duration;

use tokio::time::timeout;
use uuid::Uuid;

use super::engine::{Code, Fault};
use super::remote::{self, Remote};
use super::store::{NewConflict, StoreError};
use super::{Conflict, Error, Resolution, Space, document, space};
use crate::rpc::proto::{self, resolve_conflict_request::Resolution as Wire};

const ANSWER_WITHIN: Duration = Duration::from_secs(15);

pub(super) async fn resolve(space: &Space, id: &str, resolution: Resolution) -> Result<(), Error> {
    let inner = &space.client.inner;
    let target = inner.options.target()?.ok_or(Error::NoServer)?;
    let token = inner.options.token.as_ref().ok_or(Error::NoServer)?;
    let open = space.conflicts().await?;
    let conflict = open.iter().find(|it| it.id == id).ok_or(Error::NoConflict)?;
    let key = space::key(&conflict.collection, &conflict.record)?;
    let refused = |message: String| Error::Server(Fault::new(Code::Unauthenticated, "", message));
    let token = token.fetch(false).await.map_err(refused)?;
    let seen_revision = inner.store.revision(space.no, &key).await?;
    let request = proto::ResolveConflictRequest {
        space: space.name().to_owned(),
        device: space.client.device(),
        mutation_id: Uuid::new_v4().to_string(),
        conflict_id: id.to_owned(),
        seen_revision,
        resolution: Some(choice(resolution)?),
        document_form: super::wire::FORM,
    };
    let remote = Remote::new(&target).map_err(Error::Server)?;
    remote.set_token(Some(&token)).map_err(Error::Server)?;
    let late = |_elapsed| {
        Error::Server(Fault::new(Code::DeadlineExceeded, "", "the server did not answer in time"))
    };
    let mut conflicts = remote.conflicts();
    let answer = timeout(ANSWER_WITHIN, conflicts.resolve_conflict(request)).await;
    let answer = answer.map_err(late)?.map_err(|status| Error::Server(status.into()))?;
    taken_in(space, conflict, answer.into_inner()).await
}

fn choice(resolution: Resolution) -> Result<Wire, Error> {
    Ok(match resolution {
        Resolution::KeepClient => Wire::KeepClient(proto::KeepClient {}),
        Resolution::KeepServer => Wire::KeepServer(proto::KeepServer {}),
        Resolution::Document(fields) => {
            Wire::Document(remote::document(document(fields)?.as_str()))
        }
    })
}

async fn taken_in(
    space: &Space,
    conflict: &Conflict,
    answer: proto::ResolveConflictResponse,
) -> Result<(), Error> {
    let result = answer.result.unwrap_or_default();
    let closed = proto::RejectionReason::ConflictClosed;
    match &result.rejection {
        Some(rejection) if rejection.reason() != closed => {
            let name = rejection.reason().as_str_name();
            let reason = name.strip_prefix("REJECTION_REASON_").unwrap_or(name);
            let message = rejection.message.clone();
            return Err(Error::Server(Fault::new(Code::FailedPrecondition, reason, message)));
        }
        _ => {}
    }
    let key = space::key(&conflict.collection, &conflict.record)?;
    let news = vec![NewConflict { id: conflict.id.clone(), key, body: None }];
    space.client.inner.store.keep_conflicts(space.no, news, None).await?;
    match result.rejection {
        None => Ok(()),
        Some(rejection) => {
            let fault = Fault::new(Code::FailedPrecondition, "CONFLICT_CLOSED", rejection.message);
            Err(Error::Server(fault))
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::new(Code::Internal, "", error.to_string())
    }
}
