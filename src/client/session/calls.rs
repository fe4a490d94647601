//! Calls that are under way while the session goes on, and what is done with their answers.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, warn};

use super::Session;
use super::absorb::Absorbing;
use crate::client::engine::{Event, Fault, Page, RequestNo, SpaceNo, Told};
use crate::client::remote::{Remote, Streaming};
use crate::client::replica::{Held, Range};
use crate::client::store::StoreError;
use crate::client::wire;
use crate::domain::{PolicySet, RecordKey, Revision, Sequence, SetPolicy};
use crate::rpc::proto;

/// A call has ended.
pub(super) enum Ended {
    Token {
        request: RequestNo,
        token: Result<String, String>,
    },
    Opened {
        request: RequestNo,
        stream: Result<Streaming<proto::SubscribeResponse>, Fault>,
    },
    Status {
        space: SpaceNo,
        request: RequestNo,
        status: Result<proto::GetStatusResponse, Fault>,
        /// It was asked for its digest.
        digest: bool,
    },
    Policies(Result<PolicySet, Fault>),
    Exchange {
        space: SpaceNo,
        request: RequestNo,
        /// Where it was to go on.
        after: Revision,
        answer: Result<proto::ExchangeResponse, Fault>,
    },
    /// Records that a range lacked.
    Fetched {
        absorbing: Absorbing,
        fetched: Result<Vec<(RecordKey, Held)>, Fault>,
    },
    /// All conflicts of a space that are open.
    Conflicts {
        space: SpaceNo,
        conflicts: Result<Vec<proto::Conflict>, Fault>,
    },
    Batch {
        space: SpaceNo,
        request: RequestNo,
        answer: Result<proto::BatchMutateResponse, Fault>,
    },
    /// An entry was sent with its first numbers once more; `refused` is why.
    Recalled {
        space: SpaceNo,
        request: RequestNo,
        refused: Fault,
        answer: Result<proto::BatchMutateResponse, Fault>,
    },
    Loaded(Event),
}

pub(super) fn fault(status: tonic::Status) -> Fault {
    Fault::from(status)
}

impl Session {
    pub(super) fn fetch_token(&mut self, request: RequestNo, force: bool) {
        let token = self.token.clone();
        // Whatever the app does in it, nobody else waits for it.
        self.calls.spawn(async move {
            let token = async { token.fetch(force).await };
            let token = AssertUnwindSafe(token).catch_unwind().await;
            let token = token.unwrap_or_else(|_panic| Err("it panics when it is asked".into()));
            Ended::Token { request, token }
        });
    }

    pub(super) fn open_stream(
        &mut self,
        request: RequestNo,
        remote: Remote,
        frames: mpsc::Receiver<proto::SubscribeRequest>,
    ) {
        self.calls.spawn(async move {
            let opened = remote.sync().subscribe(ReceiverStream::new(frames)).await;
            let stream = opened.map(tonic::Response::into_inner).map_err(fault);
            Ended::Opened { request, stream }
        });
    }

    pub(super) fn ask_status(&mut self, space: SpaceNo, request: RequestNo, digest: bool) {
        let Some(link) = &self.link else { return };
        let mut sync = link.remote.sync();
        let scope = self.spaces.get(&space).map(|named| &named.scope).filter(|_| digest);
        let asked = proto::GetStatusRequest {
            space: self.name(space),
            device: self.device(),
            digest,
            digest_collections: scope.map(wire::collections).unwrap_or_default(),
        };
        self.calls.spawn(async move {
            let asked = sync.get_status(asked).await;
            let status = asked.map(tonic::Response::into_inner).map_err(fault);
            Ended::Status { space, request, status, digest }
        });
    }

    /// The rules of the server: what is shown before it answers follows them.
    pub(super) fn fetch_policies(&mut self, remote: Remote) {
        self.calls.spawn(async move { Ended::Policies(policies(&remote).await) });
    }

    pub(super) fn call_exchange(
        &mut self,
        space: SpaceNo,
        request: RequestNo,
        after: Revision,
        asked: proto::ExchangeRequest,
    ) {
        let Some(link) = &self.link else { return };
        let mut sync = link.remote.sync();
        self.calls.spawn(async move {
            let answer = sync.exchange(asked).await;
            let answer = answer.map(tonic::Response::into_inner).map_err(fault);
            Ended::Exchange { space, request, after, answer }
        });
    }

    /// A batch without a stream.
    pub(super) fn call_batch(
        &mut self,
        space: SpaceNo,
        request: RequestNo,
        asked: proto::BatchMutateRequest,
    ) {
        let Some(link) = &self.link else { return };
        let mut sync = link.remote.sync();
        self.calls.spawn(async move {
            let answer = sync.batch_mutate(asked).await;
            let answer = answer.map(tonic::Response::into_inner).map_err(fault);
            Ended::Batch { space, request, answer }
        });
    }

    /// Does what the end of a call leads to.
    pub(super) async fn ended(&mut self, ended: Ended) {
        let space = match &ended {
            Ended::Status { space, request, .. }
            | Ended::Exchange { space, request, .. }
            | Ended::Batch { space, request, .. }
            | Ended::Recalled { space, request, .. } => Some((*space, *request)),
            Ended::Fetched { absorbing: it, .. } => Some((it.space, it.request)),
            Ended::Token { .. }
            | Ended::Opened { .. }
            | Ended::Policies(_)
            | Ended::Conflicts { .. }
            | Ended::Loaded(_) => None,
        };
        match (self.follow_up(ended).await, space) {
            (Ok(events), _) => {
                for event in events {
                    self.tell(event).await;
                }
            }
            (Err(error), Some((space, request))) => {
                let (request, message) = (Some(request), error.to_string());
                self.tell(Event::StoreFailed { space, request, message }).await;
            }
            (Err(error), None) => warn!(%error, "the local file failed"),
        }
    }

    async fn follow_up(&mut self, ended: Ended) -> Result<Vec<Event>, StoreError> {
        Ok(match ended {
            Ended::Token { request, token: Ok(token) } => {
                if let Some(link) = &self.link {
                    // One that cannot be sent is refused where it is used first.
                    link.remote.set_token(Some(&token)).ok();
                }
                self.bearer = Some(token);
                vec![Event::TokenReady { request }]
            }
            Ended::Token { request, token: Err(message) } => {
                vec![Event::TokenFailed { request, message }]
            }
            Ended::Opened { request, stream } => match (&mut self.link, stream) {
                (Some(link), Ok(stream)) if link.request == request => {
                    link.incoming = Some(stream);
                    vec![Event::Connected { request }]
                }
                (_, Ok(_late)) => Vec::new(),
                (_, Err(fault)) => vec![Event::LinkLost { request, fault }],
            },
            Ended::Policies(Ok(policies)) => {
                self.store.keep_policies(policies).await?;
                Vec::new()
            }
            Ended::Policies(Err(fault)) => {
                debug!(%fault, "policies cannot be read; those that are known hold on");
                Vec::new()
            }
            Ended::Status { space, request, status, digest } => {
                self.status_told(space, request, status, digest).await?
            }
            Ended::Exchange { space, request, after, answer: Ok(answer) } => {
                self.exchanged(space, request, after, answer).await?
            }
            Ended::Exchange { space, request, answer: Err(fault), .. } => {
                self.results(space, request, Err(fault)).await?
            }
            Ended::Fetched { absorbing, fetched } => self.fetched(absorbing, fetched).await?,
            Ended::Conflicts { space, conflicts } => {
                self.conflicts_read(space, conflicts).await?;
                Vec::new()
            }
            Ended::Batch { space, request, answer } => {
                let results = answer.map(|answer| answer.results);
                self.results(space, request, results).await?
            }
            Ended::Recalled { space, request, refused, answer } => {
                self.recalled(space, request, refused, answer).await?
            }
            Ended::Loaded(event) => {
                if let Event::Loaded { space, .. } = event {
                    self.forget_conflicts(space);
                    self.read_conflicts(space);
                }
                vec![event]
            }
        })
    }

    async fn status_told(
        &mut self,
        space: SpaceNo,
        request: RequestNo,
        status: Result<proto::GetStatusResponse, Fault>,
        digest: bool,
    ) -> Result<Vec<Event>, StoreError> {
        let read = |status: &proto::GetStatusResponse| {
            let limits = status.limits.unwrap_or_default();
            Ok(Told {
                epoch: wire::epoch(&status.epoch)?,
                head: wire::revision(status.head)?,
                floor: wire::revision(status.floor)?,
                device_sequence: Sequence::new(status.device_sequence).unwrap_or(Sequence::ZERO),
                batch_max: u32::try_from(limits.batch_mutations).unwrap_or(0),
            })
        };
        let event = match status {
            Err(fault) => Event::Failed { space, request, fault },
            Ok(status) if digest => {
                let differing = match &status.digest {
                    Some(digest) => self.differing(space, digest).await?,
                    None => None,
                };
                Event::DigestCompared { space, request, differing }
            }
            Ok(status) => match read(&status) {
                Ok(told) => Event::StatusTold { space, request, told },
                Err(fault) => Event::Failed { space, request, fault },
            },
        };
        Ok(vec![event])
    }

    async fn exchanged(
        &mut self,
        space: SpaceNo,
        request: RequestNo,
        after: Revision,
        answer: proto::ExchangeResponse,
    ) -> Result<Vec<Event>, StoreError> {
        let read = || {
            let cursor = wire::read_cursor(answer.cursor.as_ref())?;
            let changes: Result<Vec<_>, Fault> = answer.changes.iter().map(wire::change).collect();
            Ok((cursor, changes?, wire::revision(answer.head)?))
        };
        let (cursor, changes, head) = match read() {
            Ok(read) => read,
            Err(fault) => return Ok(vec![Event::Failed { space, request, fault }]),
        };
        if !(answer.results.is_empty() && changes.is_empty()) {
            self.forget_conflicts(space);
        }
        let settled = match self.settle(space, &answer.results).await? {
            Ok(settled) => settled,
            Err(fault) => return Ok(vec![Event::Failed { space, request, fault }]),
        };
        if !answer.has_more {
            self.read_conflicts(space);
        }
        if self.facts(space).await?.place.epoch != cursor.epoch {
            let queue = self.queue(space).await?;
            return Ok(vec![Event::Answered { space, request, settled, queue }]);
        }
        // Each record once: no state is whole before the last page.
        let (up_to, partial) = (cursor.revision, answer.has_more);
        let page = Page { up_to, head, more: answer.has_more };
        self.absorb(Absorbing {
            space,
            request,
            range: Arc::new(Range { changes, after, up_to, partial }),
            fetched: BTreeMap::new(),
            call: Some((settled, page)),
        })
        .await
    }
}

async fn policies(remote: &Remote) -> Result<PolicySet, Fault> {
    let (mut set, mut page_token) = (PolicySet::default(), String::new());
    loop {
        let asked = proto::ListPoliciesRequest { page_size: 1_000, page_token };
        let answer = remote.policies().list_policies(asked).await;
        let answer = answer.map_err(fault)?.into_inner();
        for wire in &answer.policies {
            // A strategy of a newer server is not known here; nothing is foretold by it then.
            if let Ok((collection, mut policy)) = crate::rpc::parse_policy(wire) {
                // Whether a document fits is the server's to say: by the time that it is asked, it
                // may have another schema.
                policy.schema = None;
                let version = wire.version;
                set.set(Arc::new(SetPolicy { collection, policy, version }));
            }
        }
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            return Ok(set);
        }
    }
}
