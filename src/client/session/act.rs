//! Each action of the engine, done.

use std::collections::HashMap;

use tokio::sync::mpsc::error::TrySendError;
use tracing::{info, warn};

use super::{Link, OUTGOING_MAX, Sent, Session, info_of, local};
use crate::client::engine::{Action, Code, Event, Fault, Mode, Parked, Report, RequestNo, SpaceNo};
use crate::client::entry::{Entry, Trouble};
use crate::client::news::News;
use crate::client::remote::Remote;
use crate::client::store::{Need, StoreError, Wanted};
use crate::client::wire;
use crate::domain::{CollectionName, Epoch, Scope, Sequence};
use crate::rpc::proto::{self, subscribe_request::Frame};

/// Bytes of edits in one batch, well below what a message may have.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Changes in one page of `Exchange`.
const PAGE_ENTRIES: i32 = 1_000;

type Told = Result<Vec<Event>, StoreError>;

impl Session {
    /// Does one thing; what it led to at once is told.
    pub(super) async fn act(&mut self, action: Action) -> Told {
        match action {
            Action::FetchToken { request, force } => {
                self.fetch_token(request, force);
                Ok(Vec::new())
            }
            Action::Connect { request } => Ok(self.connect(request)),
            Action::Hangup => {
                self.hang_up();
                Ok(Vec::new())
            }
            Action::RefreshToken => {
                let token = self.bearer.clone().unwrap_or_default();
                Ok(self.send(Frame::RefreshToken(proto::RefreshTokenFrame { token })))
            }
            Action::AskStatus { space, request } => {
                self.ask_status(space, request, false);
                Ok(Vec::new())
            }
            Action::Take { space, request, entries_max } => {
                self.take(space, request, entries_max).await
            }
            Action::Exchange { space, request, entries_max } => {
                self.exchange(space, request, entries_max).await
            }
            Action::Subscribe { space, request } => self.subscribe(space, request).await,
            Action::Unsubscribe { space, request } => Ok(self.unsubscribe(space, request)),
            Action::Ack { request, revision, .. } => {
                let (subscription_id, revision) = (request.to_string(), revision.get());
                Ok(self.send(Frame::Ack(proto::AckFrame { subscription_id, revision })))
            }
            Action::Load { space, request, epoch, collections } => {
                self.load(space, request, epoch, collections).await
            }
            Action::CompareDigest { space, request } => self.compare(space, request).await,
            Action::Renumber { space, epoch, device_sequence } => {
                self.renumber(space, epoch, Some(device_sequence)).await
            }
            Action::Distrust { space } => self.distrust(space).await,
            Action::Adopt { space, epoch } => self.renumber(space, epoch, None).await,
            Action::Park { space, what, fault } => self.park(space, what, &fault).await,
            Action::CountAttempt { space } => {
                if let Some(named) = self.spaces.get_mut(&space) {
                    named.attempts += 1;
                    self.store.keep_attempts(local(space), named.attempts).await?;
                }
                Ok(Vec::new())
            }
            Action::Forget { space } => {
                self.forget_conflicts(space);
                self.store.forget(local(space)).await?;
                Ok(Vec::new())
            }
            Action::Read { space, request } => {
                // Behind all that was handed over to be written.
                self.store.step(local(space), Need::default(), |_| ()).await?;
                let info = info_of(&self.facts(space).await?);
                Ok(vec![Event::SpaceRead { space, request, info }])
            }
            Action::Leave { .. } => {
                self.read_at = Some(tokio::time::Instant::now());
                Ok(Vec::new())
            }
            Action::Report(report) => {
                self.report(&report);
                Ok(Vec::new())
            }
        }
    }

    fn report(&self, report: &Report) {
        // The file of a client that is being closed is closed: that is no news.
        if self.stop.is_cancelled() {
            return;
        }
        match report {
            Report::Healed { .. } | Report::Reset { .. } | Report::Renumbered { .. } => {
                info!(?report, "synced anew");
            }
            _ => warn!(?report, "sync is in trouble"),
        }
        // Nobody has to listen.
        let space = report.space().map(|space| self.name(space));
        self.news.send(News::of(report, space)).ok();
    }

    /// Opens a connection, and the stream on it if changes come live.
    fn connect(&mut self, request: RequestNo) -> Vec<Event> {
        self.hang_up();
        let made = Remote::new(&self.target).and_then(|remote| {
            remote.set_token(self.bearer.as_deref())?;
            Ok(remote)
        });
        let remote = match made {
            Ok(remote) => remote,
            Err(fault) => return vec![Event::LinkLost { request, fault }],
        };
        let mut link = Link {
            request,
            remote,
            outgoing: None,
            incoming: None,
            subscriptions: HashMap::new(),
            reading: HashMap::new(),
        };
        let events = match self.mode {
            Mode::Live => {
                let (outgoing, frames) = tokio::sync::mpsc::channel(OUTGOING_MAX);
                link.outgoing = Some(outgoing);
                self.open_stream(request, link.remote.clone(), frames);
                Vec::new()
            }
            Mode::Poll { .. } => vec![Event::Connected { request }],
        };
        self.fetch_policies(link.remote.clone());
        self.link = Some(link);
        events
    }

    /// Says something on the stream. If it takes nothing more, it is as good as gone.
    pub(super) fn send(&mut self, frame: Frame) -> Vec<Event> {
        let Some(link) = &self.link else { return Vec::new() };
        let Some(outgoing) = &link.outgoing else { return Vec::new() };
        match outgoing.try_send(proto::SubscribeRequest { frame: Some(frame) }) {
            Ok(()) => Vec::new(),
            Err(error) => {
                let message = match error {
                    TrySendError::Full(_) => "the connection takes nothing more",
                    TrySendError::Closed(_) => "the connection was closed",
                };
                let request = link.request;
                self.hang_up();
                let fault = Fault::new(Code::Unavailable, "", message);
                vec![Event::LinkLost { request, fault }]
            }
        }
    }

    /// Follows a space no longer: what still comes of that is left out.
    pub(super) fn unsubscribe(&mut self, space: SpaceNo, request: RequestNo) -> Vec<Event> {
        if let Some(link) = &mut self.link {
            link.subscriptions.remove(&request);
            if let Some(reading) = link.reading.get_mut(&space) {
                reading.give_up();
            }
        }
        let subscription_id = request.to_string();
        self.send(Frame::Unsubscribe(proto::UnsubscribeFrame { subscription_id }))
    }

    /// Takes entries out of the queue, durably, for one batch.
    async fn take_entries(
        &mut self,
        space: SpaceNo,
        request: RequestNo,
        entries_max: u32,
    ) -> Result<(Vec<Entry>, Event), StoreError> {
        let count = usize::try_from(entries_max).unwrap_or(usize::MAX);
        crate::failpoint::reach("client.before_take");
        let need = Need::entries(Wanted::Front(count.saturating_add(1)));
        let entries = self
            .store
            .step(local(space), need, move |replica| replica.take(count, BATCH_BYTES_MAX))
            .await?;
        crate::failpoint::reach("client.after_take");
        let queue = self.queue(space).await?;
        let count = u64::try_from(entries.len()).unwrap_or(u64::MAX);
        let first = entries.first().and_then(|it| it.sequence).unwrap_or_default();
        if let Some(named) = self.spaces.get_mut(&space) {
            named.sent = Some(Sent { request, entries: entries.len() });
        }
        Ok((entries, Event::Taken { space, request, count, first, queue }))
    }

    async fn take(&mut self, space: SpaceNo, request: RequestNo, entries_max: u32) -> Told {
        let (entries, taken) = self.take_entries(space, request, entries_max).await?;
        let mut events = vec![taken];
        if entries.is_empty() {
            return Ok(events);
        }
        let mutations = entries.iter().map(wire::mutation).collect();
        let (name, device) = (self.name(space), self.device());
        match self.mode {
            Mode::Live => events.extend(self.send(Frame::Mutate(proto::MutateFrame {
                request_id: request.to_string(),
                space: name,
                device,
                mutations,
                atomic: false,
                document_form: wire::FORM,
            }))),
            Mode::Poll { .. } => self.call_batch(
                space,
                request,
                proto::BatchMutateRequest {
                    space: name,
                    device,
                    mutations,
                    atomic: false,
                    document_form: wire::FORM,
                },
            ),
        }
        crate::failpoint::reach("client.after_send");
        Ok(events)
    }

    async fn exchange(&mut self, space: SpaceNo, request: RequestNo, entries_max: u32) -> Told {
        let mut events = Vec::new();
        let mut entries = Vec::new();
        if entries_max > 0 {
            let (taken, event) = self.take_entries(space, request, entries_max).await?;
            if !taken.is_empty() {
                events.push(event);
            }
            entries = taken;
        }
        let place = self.facts(space).await?.place;
        self.call_exchange(
            space,
            request,
            place.cursor,
            proto::ExchangeRequest {
                space: self.name(space),
                device: self.device(),
                mutations: entries.iter().map(wire::mutation).collect(),
                atomic: false,
                cursor: wire::cursor(place.epoch, place.cursor),
                collections: wire::collections(&place.scope),
                keys: Vec::new(),
                echo: proto::EchoMode::Mark.into(),
                page_size: PAGE_ENTRIES,
                document_form: wire::FORM,
            },
        );
        Ok(events)
    }

    async fn subscribe(&mut self, space: SpaceNo, request: RequestNo) -> Told {
        let place = self.facts(space).await?.place;
        if let Some(link) = &mut self.link {
            link.subscriptions.insert(request, space);
        }
        Ok(self.send(Frame::Subscribe(proto::SubscribeFrame {
            subscription_id: request.to_string(),
            space: self.name(space),
            cursor: wire::cursor(place.epoch, place.cursor),
            collections: wire::collections(&place.scope),
            device: self.device(),
            echo: proto::EchoMode::Mark.into(),
            document_form: wire::FORM,
            conflicts: true,
            conflict_cursor: place.conflict_cursor,
            digest: true,
            ..Default::default()
        })))
    }

    async fn distrust(&mut self, space: SpaceNo) -> Told {
        self.forget_conflicts(space);
        let need = Need::entries(Wanted::Sent);
        crate::failpoint::reach("client.before_distrust");
        self.store.step(local(space), need, |replica| replica.distrust()).await?;
        Ok(Vec::new())
    }

    async fn renumber(&mut self, space: SpaceNo, epoch: Epoch, last: Option<Sequence>) -> Told {
        // They go with the history that they are of.
        self.forget_conflicts(space);
        let need = Need::entries(Wanted::Sent);
        crate::failpoint::reach("client.before_renumber");
        self.store
            .step(local(space), need, move |replica| {
                replica.adopt(epoch);
                if let Some(last) = last {
                    replica.number_anew(last);
                }
            })
            .await?;
        Ok(Vec::new())
    }

    async fn park(&mut self, space: SpaceNo, what: Parked, fault: &Fault) -> Told {
        let trouble = trouble(fault);
        let need = match what {
            // All that went out and was not answered is numbered anew with it.
            Parked::Front => Need::entries(Wanted::FirstAndSyncing),
            Parked::Decided => Need::entries(Wanted::First),
            Parked::All => Need::entries(Wanted::Open),
        };
        crate::failpoint::reach("client.before_park");
        let step = self.store.step(local(space), need, move |replica| match what {
            Parked::Front => replica.fail_front(&trouble, false),
            Parked::Decided => replica.fail_front(&trouble, true),
            Parked::All => drop(replica.fail_all(&trouble)),
        });
        step.await?;
        self.well(space).await?;
        Ok(Vec::new())
    }

    /// The front entry was not refused, or is another one now.
    pub(super) async fn well(&mut self, space: SpaceNo) -> Result<(), StoreError> {
        match self.spaces.get_mut(&space).filter(|named| named.attempts > 0) {
            None => Ok(()),
            Some(named) => {
                named.attempts = 0;
                self.store.keep_attempts(local(space), 0).await
            }
        }
    }

    /// The snapshot that an action asks for.
    async fn load(
        &mut self,
        space: SpaceNo,
        request: RequestNo,
        epoch: Epoch,
        collections: Option<Vec<CollectionName>>,
    ) -> Told {
        let place = self.facts(space).await?.place;
        let (scope, whole) = match (collections, place.missing()) {
            (Some(names), _) => (Scope::Collections(names), false),
            (None, Some(missing)) if place.loaded.is_some() => (missing, false),
            (None, _) => (place.scope, true),
        };
        self.call_load(space, request, epoch, scope, whole);
        Ok(Vec::new())
    }

    pub(super) fn name(&self, space: SpaceNo) -> String {
        self.spaces.get(&space).map(|named| named.name.clone()).unwrap_or_default()
    }

    pub(super) fn device(&self) -> String {
        self.store.identity().device.as_str().to_owned()
    }
}

fn trouble(fault: &Fault) -> Trouble {
    let violations = fault.violations.iter();
    Trouble {
        reason: fault.reason.clone(),
        message: fault.message.clone(),
        violations: violations.map(|it| (it.field.clone(), it.description.clone())).collect(),
    }
}
