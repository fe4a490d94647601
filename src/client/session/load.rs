//! Snapshots, records that are read back, and entries that are sent with their first numbers:
//! what the session asks of the server beside the stream.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::calls::{Ended, fault};
use super::{Session, local};
use crate::client::engine::{Code, Event, Fault, RequestNo, SpaceNo};
use crate::client::remote::Remote;
use crate::client::replica::Held;
use crate::client::store::{Need, Store, StoreError, Wanted};
use crate::client::wire;
use crate::domain::{Cursor, CursorFault, Epoch, RecordKey, Revision, Scope};
use crate::rpc::proto;

/// For one record that is read back.
const FETCH_WITHIN: Duration = Duration::from_secs(10);

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

    /// A record as it is now, at this revision or later.
    pub(super) async fn fetch(
        &self,
        space: SpaceNo,
        key: &RecordKey,
        at: Revision,
    ) -> Result<Held, Fault> {
        let late = || Fault::new(Code::DeadlineExceeded, "", "a record could not be read back");
        let link = self.link.as_ref().ok_or_else(late)?;
        let mut sync = link.remote.sync();
        let asked = sync.get_record(proto::GetRecordRequest {
            space: self.name(space),
            key: Some(wire::wire_key(key)),
            document_form: wire::FORM,
            revision: 0,
        });
        match timeout(FETCH_WITHIN, asked).await {
            Err(_elapsed) => Err(late()),
            Ok(Ok(answer)) => match answer.into_inner().record {
                Some(record) => wire::held(&record),
                None => Ok(wire::gone(key.clone(), at)),
            },
            Ok(Err(status)) => match fault(status) {
                // Deleted since; that change comes later.
                fault if fault.reason == "RECORD_NOT_FOUND" => Ok(wire::gone(key.clone(), at)),
                fault => Err(fault),
            },
        }
    }

    /// A batch of one was refused because the server knows its id: if the entry went out under
    /// other numbers before, those go out again, and bring its first answer. None: they did not.
    pub(super) async fn recall(
        &mut self,
        space: SpaceNo,
        request: RequestNo,
        refused: &Fault,
    ) -> Result<Option<()>, StoreError> {
        let sent = self.spaces.get(&space).and_then(|named| named.sent.clone());
        let alone = sent.is_some_and(|sent| sent.request == request && sent.entries == 1);
        if !alone || refused.reason != "MUTATION_ID_REUSED" {
            return Ok(None);
        }
        let need = Need::entries(Wanted::Front(1));
        let recalled = self.store.step(local(space), need, |replica| replica.recalled()).await?;
        let (Some(entry), Some(link)) = (recalled, &self.link) else { return Ok(None) };
        let mut sync = link.remote.sync();
        let asked = proto::BatchMutateRequest {
            space: self.name(space),
            device: self.device(),
            mutations: vec![wire::mutation(&entry)],
            atomic: false,
            document_form: wire::FORM,
        };
        let refused = refused.clone();
        self.calls.spawn(async move {
            let answer = sync.batch_mutate(asked).await;
            let answer = answer.map(tonic::Response::into_inner).map_err(fault);
            Ended::Recalled { space, request, refused, answer }
        });
        Ok(Some(()))
    }

    pub(super) async fn recalled(
        &mut self,
        space: SpaceNo,
        request: RequestNo,
        refused: Fault,
        answer: Result<proto::BatchMutateResponse, Fault>,
    ) -> Result<Vec<Event>, StoreError> {
        let first = answer.map(|answer| answer.results.first().map(wire::answer));
        let Ok(Some(Ok(answer))) = first else {
            // It cannot be told.
            return Ok(vec![Event::Failed { space, request, fault: refused }]);
        };
        let need = Need::entries(Wanted::Open);
        let settled = self
            .store
            .step(local(space), need, move |replica| replica.settle_recalled(&answer))
            .await?;
        let queue = self.queue(space).await?;
        let settled = super::frames::counted(settled);
        Ok(vec![Event::Answered { space, request, settled, queue }])
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
        Err(status) => {
            // A token that cannot be resumed must not be tried for ever.
            forget_loading(store, wanting.space).await?;
            return Err(fault(status).into());
        }
    };
    loop {
        let page = match pages.message().await {
            Ok(Some(page)) => page,
            Ok(None) => {
                let message = "the snapshot ended before its end";
                return Err(Fault::new(Code::Unavailable, "", message).into());
            }
            Err(status) => {
                let fault = fault(status);
                if matches!(fault.code, Code::FailedPrecondition | Code::InvalidArgument) {
                    forget_loading(store, wanting.space).await?;
                }
                return Err(fault.into());
            }
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
                let message = "another snapshot was begun meanwhile";
                return Err(Fault::new(Code::Aborted, "", message).into());
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
    let stored = store
        .step(wanting.space, Need::records(keys), move |replica| {
            let going = replica.place.loading.as_ref().map(|it| it.generation);
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
    let fault = || Fault::new(Code::Aborted, "", "another snapshot was begun meanwhile");
    Ok(stored.ok_or_else(fault)?)
}

async fn forget_loading(store: &Store, space: i64) -> Result<(), StoreError> {
    store.step(space, Need::default(), |replica| replica.place.loading = None).await
}
