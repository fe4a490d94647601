//! A conflict is decided: a call to the server, and the local file follows.

use std::time::Duration;

use tokio::time::timeout;
use uuid::Uuid;

use super::engine::{Code, Fault};
use super::remote::{self, Remote};
use super::store::{Need, NewConflict, StoreError};
use super::{Conflict, Error, Resolution, Space, document};
use crate::domain::Document;
use crate::rpc::proto::{self, resolve_conflict_request::Resolution as Wire};

const ANSWER_WITHIN: Duration = Duration::from_secs(15);

pub(super) async fn resolve(
    space: &Space,
    conflict: &Conflict,
    resolution: Resolution,
) -> Result<(), Error> {
    let inner = &space.client.inner;
    let target = inner.options.target()?.ok_or(Error::NoServer)?;
    let token = inner.options.token.as_ref().ok_or(Error::NoServer)?;
    let open = space.conflicts().await?;
    if !open.iter().any(|it| it.id == conflict.id) {
        return Err(Error::NoConflict);
    }
    let refused = |message: String| Error::Server(Fault::new(Code::Unauthenticated, "", message));
    let token = token.fetch(false).await.map_err(refused)?;
    let request = proto::ResolveConflictRequest {
        space: space.name().to_owned(),
        device: space.client.device(),
        mutation_id: Uuid::new_v4().to_string(),
        conflict_id: conflict.id.clone(),
        // Not what is here by now: nobody may have looked at that.
        seen_revision: conflict.revision,
        resolution: Some(choice(space, conflict, resolution).await?),
        document_form: super::wire::FORM,
    };
    let remote = Remote::new(&target).map_err(Error::Server)?;
    remote.set_token(Some(&token)).map_err(Error::Server)?;
    let late = |_elapsed| {
        Error::Server(Fault::new(Code::DeadlineExceeded, "", "the server did not answer in time"))
    };
    let mut conflicts = remote.conflicts();
    let answer = timeout(ANSWER_WITHIN, conflicts.resolve_conflict(request)).await;
    match answer.map_err(late)?.map_err(Fault::from) {
        Ok(answer) => taken_in(space, conflict, answer.into_inner()).await,
        Err(refused) => {
            if refused.reason == "CONFLICT_NOT_FOUND" {
                forget(space, conflict).await?;
            }
            Err(Error::Server(refused))
        }
    }
}

async fn choice(space: &Space, conflict: &Conflict, resolution: Resolution) -> Result<Wire, Error> {
    Ok(match resolution {
        Resolution::KeepClient => Wire::KeepClient(proto::KeepClient {}),
        Resolution::KeepServer => Wire::KeepServer(proto::KeepServer {}),
        Resolution::Document(fields) => {
            let whole = with_hidden(space, conflict, document(fields)?).await?;
            Wire::Document(remote::document(whole.as_str()))
        }
    })
}

/// A document with the values that no side of a conflict has here: it would take them away.
async fn with_hidden(
    space: &Space,
    conflict: &Conflict,
    document: Document,
) -> Result<Document, Error> {
    let (key, store) = (conflict.key()?, &space.client.inner.store);
    let hidden = store.vault().fields(&key.collection).to_vec();
    if hidden.is_empty() {
        return Ok(document);
    }
    let need = Need::records(vec![key.clone()]);
    let whole = store
        .step(space.no, need, move |replica| replica.with_hidden(&key, &document, &hidden))
        .await?;
    whole.ok_or_else(|| {
        Error::invalid(
            "the record has sensitive values that this program does not know; keep one of the \
             sides, or decide once it was sent again",
        )
    })
}

/// It does not wait any more.
async fn forget(space: &Space, conflict: &Conflict) -> Result<(), Error> {
    let (id, key) = (conflict.id.clone(), conflict.key()?);
    let news = vec![NewConflict { id, key, body: None }];
    Ok(space.client.inner.store.keep_conflicts(space.no, news, None).await?)
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
    forget(space, conflict).await?;
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
