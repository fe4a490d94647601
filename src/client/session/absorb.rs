//! Ranges of changes, taken in one after the other. Records that a range lacks are read back
//! while the session goes on; what comes of the same space meanwhile waits behind the range.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::timeout;
use tracing::debug;

use super::calls::{Ended, fault};
use super::{Session, local};
use crate::client::engine::{Code, Event, Fault, Page, RequestNo, Settled, SpaceNo};
use crate::client::remote::Remote;
use crate::client::replica::{Absorbed, Held, Lacking, Range};
use crate::client::store::StoreError;
use crate::client::wire;
use crate::domain::{RecordKey, Revision};
use crate::rpc::proto::{self, subscribe_response::Frame};

/// For one record that is read back.
const FETCH_WITHIN: Duration = Duration::from_secs(10);
/// Records that are read back at the same time.
const FETCHES_MAX: usize = 16;
/// Frames that wait behind a range before the stream does.
const BEHIND_MAX: usize = 256;

/// A range on its way in.
pub(super) struct Absorbing {
    pub(super) space: SpaceNo,
    pub(super) request: RequestNo,
    pub(super) range: Arc<Range>,
    pub(super) fetched: BTreeMap<RecordKey, Held>,
    /// Of the call that has brought it; None = a subscription has.
    pub(super) call: Option<(Settled, Page)>,
}

/// What waits behind the ranges of a space.
#[derive(Default)]
pub(super) struct Reading {
    /// Whose range lacks records now.
    request: Option<RequestNo>,
    behind: VecDeque<Frame>,
}

impl Reading {
    pub(super) fn is_full(&self) -> bool {
        self.behind.len() >= BEHIND_MAX
    }

    pub(super) fn wait(&mut self, frame: Frame) {
        self.behind.push_back(frame);
    }

    /// Its subscription has ended: what comes of that is left out, answers are not.
    pub(super) fn give_up(&mut self) {
        self.request = None;
        self.behind.retain(|frame| matches!(frame, Frame::Mutated(_)));
    }
}

impl Session {
    /// Takes a range in; what it lacks is read back first, and the rest happens after that.
    pub(super) async fn absorb(&mut self, it: Absorbing) -> Result<Vec<Event>, StoreError> {
        crate::failpoint::reach("client.before_absorb");
        let (range, fetched) = (Arc::clone(&it.range), it.fetched.clone());
        let absorbed = self.store.absorb(local(it.space), range, fetched).await?;
        crate::failpoint::reach("client.after_absorb");
        let Absorbing { space, request, .. } = it;
        let up_to = it.range.up_to;
        let fault = match (absorbed, it.call) {
            (Ok(absorbed), None) => {
                let whole = absorbed != Absorbed::Staged;
                return Ok(vec![Event::Absorbed { space, request, up_to, whole }]);
            }
            (Ok(_), Some((settled, page))) => {
                let queue = self.queue(space).await?;
                return Ok(vec![Event::Exchanged { space, request, settled, queue, page }]);
            }
            (Err(Lacking::Gap { .. }), None) => return Ok(vec![Event::Missed { space, request }]),
            (Err(Lacking::Gap { cursor }), Some(_)) => {
                Fault::new(Code::DataLoss, "GAP", format!("changes after {cursor} are missing"))
            }
            (Err(Lacking::Documents(keys)), _)
                if keys.iter().any(|key| it.fetched.contains_key(key)) =>
            {
                Fault::new(Code::DataLoss, "", "a record is older than its change")
            }
            (Err(Lacking::Documents(keys)), _) => {
                self.read_back(it, keys);
                return Ok(Vec::new());
            }
        };
        self.failed(space, request, it.call.is_none(), fault)
    }

    /// A range cannot be taken in: what comes after it on its subscription cannot either.
    pub(super) fn failed(
        &mut self,
        space: SpaceNo,
        request: RequestNo,
        subscribed: bool,
        fault: Fault,
    ) -> Result<Vec<Event>, StoreError> {
        let mut events = vec![Event::Failed { space, request, fault }];
        if subscribed {
            events.extend(self.unsubscribe(space, request));
        }
        Ok(events)
    }

    /// Reads records back that a range lacks.
    fn read_back(&mut self, it: Absorbing, keys: Vec<RecordKey>) {
        let name = self.name(it.space);
        let Some(link) = &mut self.link else { return };
        debug!(records = keys.len(), "own changes are read back");
        link.reading.entry(it.space).or_default().request = Some(it.request);
        let remote = link.remote.clone();
        let at = |key: &RecordKey| {
            let found = it.range.changes.iter().rev().find(|it| it.held.record.key == *key);
            found.map_or(it.range.up_to, |it| it.held.revision())
        };
        let keys: Vec<_> = keys.into_iter().map(|key| (at(&key), key)).collect();
        self.calls.spawn(async move {
            let fetches = keys.into_iter().map(|(at, key)| fetch(&remote, &name, key, at));
            let fetched = stream::iter(fetches).buffer_unordered(FETCHES_MAX).try_collect().await;
            Ended::Fetched { absorbing: it, fetched }
        });
    }

    /// The records that a range lacked are here, unless nobody waits for the range any more.
    pub(super) async fn fetched(
        &mut self,
        mut it: Absorbing,
        fetched: Result<Vec<(RecordKey, Held)>, Fault>,
    ) -> Result<Vec<Event>, StoreError> {
        let (space, request) = (it.space, it.request);
        let reading = self.link.as_mut().and_then(|link| link.reading.get_mut(&space));
        let Some(reading) = reading.filter(|it| it.request == Some(request)) else {
            return Ok(Vec::new());
        };
        reading.request = None;
        match fetched {
            Err(fault) => self.failed(space, request, it.call.is_none(), fault),
            Ok(fetched) => {
                it.fetched.extend(fetched);
                self.absorb(it).await
            }
        }
    }

    /// Takes in what has waited behind ranges that are in, or were given up.
    pub(super) async fn go_on_all(&mut self) {
        let reading = self.link.iter().flat_map(|link| &link.reading);
        let done = reading.filter(|(_, it)| it.request.is_none()).map(|(space, _)| *space);
        for space in done.collect::<Vec<_>>() {
            self.go_on(space).await;
        }
    }

    /// Takes in what has waited behind a range, until the next one lacks something.
    async fn go_on(&mut self, space: SpaceNo) {
        loop {
            let Some(link) = &mut self.link else { return };
            let Some(reading) = link.reading.get_mut(&space) else { return };
            if reading.request.is_some() {
                return;
            }
            let Some(frame) = reading.behind.pop_front() else {
                link.reading.remove(&space);
                return;
            };
            self.take_frame(frame).await;
        }
    }
}

/// A record as it was at this revision, or, if that is no longer kept, as it is now.
async fn fetch(
    remote: &Remote,
    space: &str,
    key: RecordKey,
    at: Revision,
) -> Result<(RecordKey, Held), Fault> {
    // As it is now it may be gone, and nobody could tell since when: a digest that was made
    // before still counts it.
    let held = match fetch_at(remote, space, &key, at).await {
        Err(fault) if fault.code == Code::DeadlineExceeded => Err(fault),
        Err(_) => match fetch_at(remote, space, &key, Revision::ZERO).await {
            // Deleted since; that change comes later.
            Err(fault) if fault.reason == "RECORD_NOT_FOUND" => Ok(wire::gone(key.clone(), at)),
            held => held,
        },
        held => held,
    };
    Ok((key, held?))
}

/// A record at a revision; 0 = now.
async fn fetch_at(
    remote: &Remote,
    space: &str,
    key: &RecordKey,
    at: Revision,
) -> Result<Held, Fault> {
    let mut sync = remote.sync();
    let asked = sync.get_record(proto::GetRecordRequest {
        space: space.to_owned(),
        key: Some(wire::wire_key(key)),
        document_form: wire::FORM,
        revision: at.get(),
    });
    let late = |_elapsed| Fault::new(Code::DeadlineExceeded, "", "a record could not be read back");
    let answer = timeout(FETCH_WITHIN, asked).await.map_err(late)?;
    match answer.map_err(fault)?.into_inner().record {
        Some(record) => wire::held(&record),
        None => Err(Fault::new(Code::NotFound, "RECORD_NOT_FOUND", "there is no record")),
    }
}
