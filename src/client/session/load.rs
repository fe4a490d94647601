//! Snapshots: loaded beside what is shown, and swapped in at their end.

use tokio::sync::mpsc;

use super::calls::{Ended, fault};
use super::{Session, local};
use crate::client::engine::{Code, Event, Fault, RequestNo, SpaceNo};
use crate::client::remote::Remote;
use crate::client::store::{Need, Store, StoreError};
use crate::client::wire;
use crate::domain::{Cursor, CursorFault, Epoch, Revision, Scope};
use crate::rpc::proto;

/// What a snapshot is asked for.
struct Wanting {
    space: i64,
    name: String,
    epoch: Epoch,
    scope: Scope,
    whole: bool,
}

/// Why a snapshot did not come to its end.
enum Failed {
    Server(Fault),
    File(StoreError),
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self::Server(fault)
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::File(error)
    }
}

impl Session {
    pub(super) fn call_load(
        &mut self,
        space: SpaceNo,
        request: RequestNo,
        epoch: Epoch,
        scope: Scope,
        whole: bool,
    ) {
        let Some(link) = &self.link else { return };
        let (store, remote) = (self.store.clone(), link.remote.clone());
        let wanting = Wanting { space: local(space), name: self.name(space), epoch, scope, whole };
        let parts = self.parts.0.clone();
        self.calls.spawn(async move {
            let part = Event::LoadedPart { space, request };
            Ended::Loaded(match load(&store, &remote, &wanting, (&parts, part)).await {
                Ok(revision) => Event::Loaded { space, request, revision },
                Err(Failed::Server(fault)) => Event::Failed { space, request, fault },
                Err(Failed::File(error)) => {
                    let (request, message) = (Some(request), error.to_string());
                    Event::StoreFailed { space, request, message }
                }
            })
        });
    }
}

/// Loads a snapshot beside what is shown, and swaps it in at its end.
async fn load(
    store: &Store,
    remote: &Remote,
    wanting: &Wanting,
    (parts, part): (&mpsc::Sender<Event>, Event),
) -> Result<Revision, Failed> {
    let place = store.fact(wanting.space).await?;
    let loading = place.and_then(|facts| facts.place.loading);
    let same = loading.filter(|it| {
        it.scope == wanting.scope && it.epoch == wanting.epoch && it.whole == wanting.whole
    });
    let token = same.as_ref().map(|it| it.token.clone()).unwrap_or_default();
    let mut generation = same.filter(|_| !token.is_empty()).map(|it| it.generation);
    let asked = proto::SnapshotRequest {
        space: wanting.name.clone(),
        collections: wire::collections(&wanting.scope),
        keys: Vec::new(),
        resume_token: token,
        document_form: wire::FORM,
    };
    let mut pages = match remote.sync().snapshot(asked).await {
        Ok(pages) => pages.into_inner(),
        Err(status) => return Err(refused(store, wanting.space, status).await),
    };
    loop {
        let page = match pages.message().await {
            Ok(Some(page)) => page,
            Ok(None) => {
                let message = "the snapshot ended before its end";
                return Err(Fault::new(Code::Unavailable, "", message).into());
            }
            Err(status) => return Err(refused(store, wanting.space, status).await),
        };
        let cursor = wire::read_cursor(page.cursor.as_ref())?;
        if cursor.epoch != Some(wanting.epoch) {
            forget_loading(store, wanting.space).await?;
            return Err(Fault::of_cursor(CursorFault::EpochChanged).into());
        }
        let last = page.last;
        generation = Some(keep(store, wanting, cursor, page, generation).await?);
        // The session receives them as long as it is there.
        parts.send(part.clone()).await.ok();
        if last {
            let generation = generation.unwrap_or_default();
            crate::failpoint::reach("client.before_swap");
            if !store.finish_load(wanting.space, generation).await? {
                return Err(overtaken().into());
            }
            crate::failpoint::reach("client.after_swap");
            return Ok(cursor.revision);
        }
    }
}

/// Stores a page; tells the mark of the snapshot.
async fn keep(
    store: &Store,
    wanting: &Wanting,
    cursor: Cursor,
    page: proto::SnapshotResponse,
    generation: Option<i64>,
) -> Result<i64, Failed> {
    let records: Result<Vec<_>, Fault> = page.records.iter().map(wire::held).collect();
    let (records, token) = (records?, page.next_token);
    let keys = records.iter().map(|held| held.record.key.clone()).collect();
    let (scope, whole) = (wanting.scope.clone(), wanting.whole);
    crate::failpoint::reach("client.before_load_page");
    let stored = store
        .step(wanting.space, Need::records(keys), move |replica| {
            let going = replica.place.loading.as_ref().map(|it| it.generation);
            if !replica.place.scope.covers(&scope) {
                return None;
            }
            match (generation, going) {
                (None, _) => replica.begin_load(scope, whole, cursor),
                (Some(own), Some(going)) if own == going => {}
                (Some(_), _) => return None,
            }
            replica.load_page(&records, &token);
            replica.place.loading.as_ref().map(|it| it.generation)
        })
        .await?;
    crate::failpoint::reach("client.after_load_page");
    Ok(stored.ok_or_else(overtaken)?)
}

fn overtaken() -> Fault {
    Fault::new(Code::Aborted, "", "another snapshot was begun meanwhile")
}

/// Why the server gives no more pages. A token that cannot be resumed must not be tried for ever;
/// any other one goes on where it was.
async fn refused(store: &Store, space: i64, status: tonic::Status) -> Failed {
    let fault = fault(status);
    let lost = matches!(fault.code, Code::FailedPrecondition | Code::InvalidArgument);
    match lost {
        true => forget_loading(store, space).await.map_or_else(Failed::File, |()| fault.into()),
        false => fault.into(),
    }
}

async fn forget_loading(store: &Store, space: i64) -> Result<(), StoreError> {
    crate::failpoint::reach("client.before_forget_loading");
    store.step(space, Need::default(), |replica| replica.place.loading = None).await
}
