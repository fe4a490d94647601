//! What the server says on the stream: stored, then told to the engine.

use super::{Session, local};
use crate::client::engine::{Code, Event, Fault, Place, RequestNo, Settled, SpaceNo};
use crate::client::replica::{self, Range};
use crate::client::store::{Need, NewConflict, StoreError, Wanted};
use crate::client::{remote, wire};
use crate::domain::Revision;
use crate::rpc::proto::{self, subscribe_response::Frame};

type Told = Result<Vec<Event>, StoreError>;

impl Session {
    pub(super) async fn framed(&mut self, frame: Result<Option<proto::SubscribeResponse>, Fault>) {
        let Some(request) = self.link.as_ref().map(|link| link.request) else { return };
        let lost = |fault| Event::LinkLost { request, fault };
        match frame {
            Ok(Some(frame)) => {
                let Some(frame) = frame.frame else { return };
                let space = self.space_of(&frame);
                match self.take_in(frame).await {
                    Ok(events) => {
                        for event in events {
                            self.tell(event).await;
                        }
                    }
                    Err(error) => {
                        let message = error.to_string();
                        tracing::warn!(%error, "the local file failed");
                        if let Some((request, space)) = space {
                            let request = Some(request);
                            self.tell(Event::StoreFailed { space, request, message }).await;
                        }
                    }
                }
            }
            Ok(None) => {
                self.link = None;
                let fault = Fault::new(Code::Unavailable, "", "the server has ended the stream");
                self.tell(lost(fault)).await;
            }
            Err(fault) => {
                self.link = None;
                self.tell(lost(fault)).await;
            }
        }
    }

    /// A subscription by its name.
    fn subscription(&self, name: &str) -> Option<(RequestNo, SpaceNo)> {
        let request = RequestNo(name.parse().ok()?);
        let space = self.link.as_ref()?.subscriptions.get(&request)?;
        Some((request, *space))
    }

    /// Whose file work a frame is.
    fn space_of(&self, frame: &Frame) -> Option<(RequestNo, SpaceNo)> {
        let name = match frame {
            Frame::Subscribed(it) => &it.subscription_id,
            Frame::Changes(it) => it.subscription_ids.first()?,
            Frame::CaughtUp(it) => &it.subscription_id,
            Frame::Closed(it) => &it.subscription_id,
            Frame::ResyncRequired(it) => &it.subscription_id,
            Frame::Conflict(it) => &it.subscription_id,
            Frame::RemovedFromView(it) => &it.subscription_id,
            Frame::Mutated(it) => {
                let request = RequestNo(it.request_id.parse().ok()?);
                return self.sender(request).map(|space| (request, space));
            }
            Frame::Progress(_)
            | Frame::Snapshot(_)
            | Frame::Event(_)
            | Frame::GoingAway(_)
            | Frame::Access(_) => return None,
        };
        self.subscription(name)
    }

    /// The space whose batch this was.
    fn sender(&self, request: RequestNo) -> Option<SpaceNo> {
        let is = |sent: &super::Sent| sent.request == request;
        let mut spaces = self.spaces.iter();
        spaces.find(|(_, named)| named.sent.as_ref().is_some_and(is)).map(|(space, _)| *space)
    }

    async fn take_in(&mut self, frame: Frame) -> Told {
        match frame {
            Frame::Subscribed(it) => Ok(self.subscribed(&it)),
            Frame::Changes(it) => self.changes(it).await,
            Frame::CaughtUp(it) => self.caught_up(it).await,
            Frame::Progress(it) => self.progress(it).await,
            Frame::Closed(it) => {
                let Some((request, space)) = self.subscription(&it.subscription_id) else {
                    return Ok(vec![Event::Heard]);
                };
                Ok(vec![Event::Failed { space, request, fault: wire::closed(&it) }])
            }
            Frame::ResyncRequired(it) => {
                let Some((request, space)) = self.subscription(&it.subscription_id) else {
                    return Ok(vec![Event::Heard]);
                };
                Ok(vec![Event::Failed { space, request, fault: wire::resync(it.reason()) }])
            }
            Frame::Conflict(it) => self.conflict(*it).await,
            Frame::Mutated(it) => self.mutated(it).await,
            Frame::RemovedFromView(it) => {
                let Some((request, space)) = self.subscription(&it.subscription_id) else {
                    return Ok(vec![Event::Heard]);
                };
                Ok(vec![Event::RemovedFromView { space, request }])
            }
            Frame::GoingAway(it) => Ok(vec![Event::GoingAway {
                retry_after: remote::duration(it.retry_after.as_ref()).unwrap_or_default(),
                token_expired: it.reason() == proto::GoingAwayReason::TokenExpired,
            }]),
            Frame::Access(it) => {
                let mut named = self.spaces.iter();
                let space = named.find(|(_, named)| named.name == it.space).map(|(no, _)| *no);
                match space {
                    Some(space) => Ok(vec![Event::AccessChanged { space: Some(space) }]),
                    None => Ok(vec![Event::Heard]),
                }
            }
            Frame::Snapshot(_) | Frame::Event(_) => Ok(vec![Event::Heard]),
        }
    }

    fn subscribed(&mut self, it: &proto::SubscribedFrame) -> Vec<Event> {
        match self.subscription(&it.subscription_id) {
            None => vec![Event::Heard],
            Some((request, space)) => {
                let head = Revision::new(it.head).unwrap_or_default();
                vec![Event::Subscribed { space, request, head }]
            }
        }
    }

    async fn changes(&mut self, it: proto::ChangesFrame) -> Told {
        let mut events = vec![Event::Heard];
        for name in &it.subscription_ids {
            let Some((request, space)) = self.subscription(name) else { continue };
            let read = || {
                Ok::<_, Fault>(Range {
                    changes: it.changes.iter().map(wire::change).collect::<Result<_, _>>()?,
                    after: wire::revision(it.after)?,
                    up_to: wire::revision(it.up_to)?,
                    partial: it.partial,
                })
            };
            let range = match read() {
                Ok(range) => range,
                Err(fault) => {
                    events.push(Event::Failed { space, request, fault });
                    continue;
                }
            };
            let up_to = range.up_to;
            events.push(match self.absorb(space, range).await? {
                Ok(whole) => Event::Absorbed { space, request, up_to, whole },
                Err(fault) if fault.reason == "GAP" => Event::Missed { space, request },
                Err(fault) => Event::Failed { space, request, fault },
            });
        }
        Ok(events)
    }

    /// Everything up to there has come, also if nothing of it was for us.
    async fn advance(&self, space: SpaceNo, up_to: Revision) -> Result<(), StoreError> {
        let facts = self.facts(space).await?;
        if facts.place.cursor >= up_to {
            return Ok(());
        }
        let step = move |replica: &mut replica::Replica| replica.advance(up_to);
        self.store.step(local(space), Need::default(), step).await
    }

    async fn caught_up(&mut self, it: proto::CaughtUpFrame) -> Told {
        let Some((request, space)) = self.subscription(&it.subscription_id) else {
            return Ok(vec![Event::Heard]);
        };
        let up_to = Revision::new(it.up_to).unwrap_or_default();
        self.advance(space, up_to).await?;
        if !it.conflict_cursor.is_empty() {
            let cursor = Some(it.conflict_cursor);
            self.store.keep_conflicts(local(space), Vec::new(), cursor).await?;
        }
        if let Some(named) = self.spaces.get_mut(&space) {
            named.digest = it.digest;
        }
        Ok(vec![Event::CaughtUp { space, request, up_to }])
    }

    async fn progress(&mut self, it: proto::ProgressFrame) -> Told {
        let mut places = Vec::new();
        for at in &it.subscriptions {
            let Some((_, space)) = self.subscription(&at.subscription_id) else { continue };
            let up_to = Revision::new(at.up_to).unwrap_or_default();
            let head = Revision::new(at.head).unwrap_or_default();
            self.advance(space, up_to).await?;
            places.push(Place { space, up_to, head });
        }
        let token_expires_in = remote::duration(it.token_expires_in.as_ref());
        Ok(vec![Event::Progress { store_ok: it.store_ok, token_expires_in, places }])
    }

    async fn conflict(&mut self, it: proto::ConflictFrame) -> Told {
        let Some((_, space)) = self.subscription(&it.subscription_id) else {
            return Ok(vec![Event::Heard]);
        };
        let news = it.conflict.iter().filter_map(|it| self.new_conflict(it)).collect();
        self.store.keep_conflicts(local(space), news, Some(it.conflict_cursor)).await?;
        Ok(vec![Event::Heard])
    }

    /// A conflict as it is kept: without what must not be written down.
    fn new_conflict(&self, it: &proto::Conflict) -> Option<NewConflict> {
        let key = wire::conflict_key(it).ok()?;
        let conflict = wire::conflict(it).ok()?;
        let sensitive = self.store.vault().fields(&key.collection);
        let body = conflict.map(|conflict| conflict.without(sensitive).stored());
        Some(NewConflict { id: it.id.clone(), key, body })
    }

    async fn mutated(&mut self, it: proto::MutatedFrame) -> Told {
        let request = it.request_id.parse().map(RequestNo).unwrap_or_default();
        let Some(space) = self.sender(request) else { return Ok(vec![Event::Heard]) };
        let results = match &it.failure {
            Some(failure) => Err(wire::failure(failure)),
            None => Ok(it.results),
        };
        let mut events = vec![Event::Heard];
        events.extend(self.results(space, request, results).await?);
        Ok(events)
    }

    /// What the server said of a batch.
    pub(super) async fn results(
        &mut self,
        space: SpaceNo,
        request: RequestNo,
        results: Result<Vec<proto::MutationResult>, Fault>,
    ) -> Told {
        let results = match results {
            Ok(results) => results,
            Err(fault) if self.recall(space, request, &fault).await?.is_some() => {
                return Ok(Vec::new());
            }
            Err(fault) => return Ok(vec![Event::Failed { space, request, fault }]),
        };
        Ok(match self.settle(space, &results).await? {
            Err(fault) => vec![Event::Failed { space, request, fault }],
            Ok(settled) => {
                let queue = self.queue(space).await?;
                vec![Event::Answered { space, request, settled, queue }]
            }
        })
    }

    /// Stores what became of entries, and the conflicts that they met.
    pub(super) async fn settle(
        &mut self,
        space: SpaceNo,
        results: &[proto::MutationResult],
    ) -> Result<Result<Settled, Fault>, StoreError> {
        let answers: Result<Vec<_>, Fault> = results.iter().map(wire::answer).collect();
        let answers = match answers {
            Ok(answers) if answers.is_empty() => return Ok(Ok(Settled::default())),
            Ok(answers) => answers,
            Err(fault) => return Ok(Err(fault)),
        };
        // First what an entry met, so that whoever hears of the entry finds it.
        let conflicts = results.iter().filter_map(|it| it.conflict.as_ref());
        let open = conflicts.filter(|it| it.state() == proto::ConflictState::Open);
        let news: Vec<_> = open.filter_map(|it| self.new_conflict(it)).collect();
        if !news.is_empty() {
            self.store.keep_conflicts(local(space), news, None).await?;
            crate::failpoint::reach("client.after_conflicts");
        }
        crate::failpoint::reach("client.before_settle");
        let applied = |answer: &replica::Answer| match answer.kind {
            replica::AnswerKind::Applied(at) => Some(at),
            _ => None,
        };
        let told = answers.iter().map(|it| (it.id.clone(), applied(it))).collect();
        let need = Need::entries(Wanted::Told(told));
        let settled =
            self.store.step(local(space), need, move |replica| replica.settle(&answers)).await?;
        crate::failpoint::reach("client.after_settle");
        self.well(space).await?;
        Ok(Ok(counted(settled)))
    }
}

pub(super) fn counted(settled: replica::Settled) -> Settled {
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    Settled {
        applied: count(settled.applied),
        merged: count(settled.merged),
        superseded: count(settled.superseded),
        conflicts: count(settled.conflicts),
        failed: count(settled.failed),
    }
}
