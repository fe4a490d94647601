//! Calls that are under way while the session goes on, and what is done with their answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tracing::debug;

use super::{Session, local};
use crate::client::engine::{Event, Fault, Page, RequestNo, SpaceNo, Told};
use crate::client::remote::{self, Remote, Streaming};
use crate::client::replica::Range;
use crate::client::store::StoreError;
use crate::client::wire;
use crate::domain::{PolicySet, Sequence, SetPolicy};
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
        answer: Result<proto::ExchangeResponse, Fault>,
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
    remote::Fault::from(status).into()
}

impl Session {
    pub(super) fn fetch_token(&mut self, request: RequestNo, force: bool) {
        let token = self.token.fetch(force);
        self.calls.spawn(async move { Ended::Token { request, token: token.await } });
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
        let (mut sync, name, device) = (link.remote.sync(), self.name(space), self.device());
        self.calls.spawn(async move {
            let asked = sync
                .get_status(proto::GetStatusRequest {
                    space: name,
                    device,
                    digest,
                    digest_collections: Vec::new(),
                })
                .await;
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
        asked: proto::ExchangeRequest,
    ) {
        let Some(link) = &self.link else { return };
        let mut sync = link.remote.sync();
        self.calls.spawn(async move {
            let answer = sync.exchange(asked).await;
            let answer = answer.map(tonic::Response::into_inner).map_err(fault);
            Ended::Exchange { space, request, answer }
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
            Ended::Token { .. } | Ended::Opened { .. } | Ended::Policies(_) | Ended::Loaded(_) => {
                None
            }
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
            (Err(error), None) => debug!(%error, "the local file failed"),
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
            Ended::Exchange { space, request, answer: Ok(answer) } => {
                self.exchanged(space, request, answer).await?
            }
            Ended::Exchange { space, request, answer: Err(fault) } => {
                self.results(space, request, Err(fault)).await?
            }
            Ended::Batch { space, request, answer } => {
                let results = answer.map(|answer| answer.results);
                self.results(space, request, results).await?
            }
            Ended::Recalled { space, request, refused, answer } => {
                self.recalled(space, request, refused, answer).await?
            }
            Ended::Loaded(event) => vec![event],
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
        let settled = match self.settle(space, &answer.results).await? {
            Ok(settled) => settled,
            Err(fault) => return Ok(vec![Event::Failed { space, request, fault }]),
        };
        let after = self.facts(space).await?.place.cursor;
        let range = Range {
            changes,
            after,
            up_to: cursor.revision,
            // Each record once: no state is whole before the last page.
            partial: answer.has_more,
        };
        if let Some(fault) = self.absorb(space, range).await?.err() {
            return Ok(vec![Event::Failed { space, request, fault }]);
        }
        let queue = self.queue(space).await?;
        let page = Page { up_to: cursor.revision, head, more: answer.has_more };
        Ok(vec![Event::Exchanged { space, request, settled, queue, page }])
    }

    /// Takes a range in; what it lacks is fetched first. Err: that could not be, or it does not
    /// follow on what is here.
    pub(super) async fn absorb(
        &mut self,
        space: SpaceNo,
        range: Range,
    ) -> Result<Result<bool, Fault>, StoreError> {
        use crate::client::replica::{Absorbed, Lacking};
        let range = Arc::new(range);
        let mut fetched = BTreeMap::new();
        loop {
            crate::failpoint::reach("client.before_absorb");
            let absorbed =
                self.store.absorb(local(space), Arc::clone(&range), fetched.clone()).await?;
            crate::failpoint::reach("client.after_absorb");
            match absorbed {
                Ok(absorbed) => return Ok(Ok(absorbed != Absorbed::Staged)),
                Err(Lacking::Gap { cursor }) => {
                    let message = format!("changes after {cursor} are missing");
                    let code = crate::client::engine::Code::DataLoss;
                    return Ok(Err(Fault::new(code, "GAP", message)));
                }
                Err(Lacking::Documents(keys)) => {
                    debug!(records = keys.len(), "own changes are read back");
                    for key in keys {
                        let at = range.changes.iter().rev().find(|it| it.held.record.key == key);
                        let at = at.map_or(range.up_to, |it| it.held.revision());
                        match self.fetch(space, &key, at).await {
                            Ok(held) => drop(fetched.insert(key, held)),
                            Err(fault) => return Ok(Err(fault)),
                        }
                    }
                }
            }
        }
    }
}

async fn policies(remote: &Remote) -> Result<PolicySet, Fault> {
    let answer = remote.policies().list_policies(proto::ListPoliciesRequest::default()).await;
    let answer = answer.map_err(fault)?.into_inner();
    let mut set = PolicySet::default();
    for wire in &answer.policies {
        // A strategy of a newer server is not known here; nothing is foretold by it then.
        if let Ok((collection, mut policy)) = crate::rpc::parse_policy(wire) {
            // Whether a document fits is the server's to say: by the time that it is asked, it may
            // have another schema.
            policy.schema = None;
            let version = wire.version;
            set.set(Arc::new(SetPolicy { collection, policy, version }));
        }
    }
    Ok(set)
}
