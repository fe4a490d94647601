//! SyncService: each call is parse, ask the app, render.

use std::sync::Arc;

use prost::Message;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::answers::Answers;
use super::caller::{device_of, of_caller, principal, still};
use super::encoded::Encoded;
use super::outbox::Frames;
use super::outer::Deadline;
use super::page::PageBuilder;
use super::proto::server::sync_service_server::SyncService;
use super::rates::Limiters;
use super::session::Inbound;
use super::{exchange, from_proto, proto, replace, session, snapshot, status, to_proto, token};
use crate::app::{App, Error, QueueCounts, Reading, SpaceStatus};
use crate::auth::{Principal, Verifier};
use crate::clock::Clock;
use crate::domain::{
    self, Access, Denied, DeviceId, Epoch, Mutation, MutationResult, RecordId, Revision, Right,
    Violation, limits,
};
use crate::tasks::Tasks;

/// The service.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) app: Arc<App>,
    pub(super) clock: Clock,
    pub(super) verifier: Arc<Verifier>,
    pub(super) limiters: Arc<Limiters>,
    /// The streams that are open.
    pub(super) streams: Tasks,
    /// Cancelled when streams are to end.
    pub(super) stop: CancellationToken,
}

impl Service {
    /// Who calls, and what they may do in the space of this name.
    pub(super) async fn access<T: Sync>(
        &self,
        request: &Request<T>,
        name: &str,
        right: Right,
    ) -> Result<(Principal, Access), Status> {
        let principal = principal(request)?;
        let access = self.app.access(&principal.caller, name, right).await?;
        Ok((principal, access))
    }

    /// Notes where an access does not extend to something.
    pub(super) fn within<T>(
        &self,
        principal: &Principal,
        access: &Access,
        within: Result<T, Denied>,
    ) -> Result<T, Status> {
        within.map_err(|denied| {
            let error = Error::from(denied);
            self.app.note_refused(&principal.caller, access.space.name(), &error.to_string());
            error.into()
        })
    }

    pub(super) async fn decide(
        &self,
        principal: Principal,
        access: Access,
        device: Option<DeviceId>,
        atomic: bool,
        mutations: Vec<Mutation>,
        size_bytes: usize,
    ) -> Result<Vec<MutationResult>, Error> {
        let (space, request) = of_caller(&principal, access, device, atomic, mutations);
        self.app.mutate(space, request, size_bytes).await
    }
}

#[tonic::async_trait]
impl SyncService for Service {
    type SubscribeStream = Frames;
    type WatchStream = Frames;
    type SnapshotStream = Answers<Encoded>;

    async fn mutate(
        &self,
        request: Request<proto::MutateRequest>,
    ) -> Result<Response<proto::MutateResponse>, Status> {
        let (principal, access) =
            self.access(&request, &request.get_ref().space, Right::Write).await?;
        let wire = request.into_inner();
        let device = device_of(&principal, &wire.device)?;
        let form = from_proto::document_form(wire.document_form).map_err(status::invalid)?;
        let mutation = from_proto::single(wire.mutation.as_ref(), device.as_ref());
        let mutations = vec![mutation.map_err(status::invalid)?];
        let bytes = wire.encoded_len();
        drop(wire);
        let results = self.decide(principal, access, device, false, mutations, bytes).await?;
        let result = to_proto::results(&results, form).pop();
        Ok(Response::new(proto::MutateResponse { result }))
    }

    async fn batch_mutate(
        &self,
        request: Request<proto::BatchMutateRequest>,
    ) -> Result<Response<proto::BatchMutateResponse>, Status> {
        let (principal, access) =
            self.access(&request, &request.get_ref().space, Right::Write).await?;
        let wire = request.into_inner();
        let device = device_of(&principal, &wire.device)?;
        let form = from_proto::document_form(wire.document_form).map_err(status::invalid)?;
        let mutations = from_proto::mutations(&wire.mutations, device.as_ref(), wire.atomic)
            .map_err(status::invalid)?;
        let (atomic, bytes) = (wire.atomic, wire.encoded_len());
        drop(wire);
        let results = self.decide(principal, access, device, atomic, mutations, bytes).await?;
        let results = to_proto::results(&results, form);
        Ok(Response::new(proto::BatchMutateResponse { results }))
    }

    async fn get_record(
        &self,
        request: Request<proto::GetRecordRequest>,
    ) -> Result<Response<proto::GetRecordResponse>, Status> {
        let (principal, access) =
            self.access(&request, &request.get_ref().space, Right::Read).await?;
        let wire = request.into_inner();
        let form = from_proto::document_form(wire.document_form).map_err(status::invalid)?;
        let key = from_proto::key(wire.key.as_ref(), "key").map_err(status::invalid)?;
        self.within(&principal, &access, access.collection(&key.collection))?;
        let space = access.space;
        let record = match from_proto::revision(wire.revision).map_err(status::invalid)? {
            None => self.app.record(space, key).await?,
            Some(at) => self.app.record_at(space, key, at).await?,
        };
        let record = Some(to_proto::record(&record, form));
        Ok(Response::new(proto::GetRecordResponse { record }))
    }

    async fn list_records(
        &self,
        request: Request<proto::ListRecordsRequest>,
    ) -> Result<Response<Encoded>, Status> {
        let (principal, access) =
            self.access(&request, &request.get_ref().space, Right::Read).await?;
        let wire = request.into_inner();
        let form = from_proto::document_form(wire.document_form).map_err(status::invalid)?;
        let collection = from_proto::collection(&wire.collection).map_err(status::invalid)?;
        let entries_max = from_proto::page_size(wire.page_size).map_err(status::invalid)?;
        self.within(&principal, &access, access.collection(&collection))?;
        let from = PageToken::parse(&wire.page_token).map_err(status::invalid)?;
        let after = from.as_ref().map(|token| token.after.clone());
        let page = self.app.records(access.space, collection, after, entries_max).await?;
        let at = page.space;
        let (epoch, revision) =
            from.map_or((at.epoch, at.head), |token| (token.epoch, token.revision));
        if epoch != at.epoch {
            let fault = domain::CursorFault::EpochChanged;
            let (head, floor) = (at.head, at.floor);
            return Err(Error::Cursor { fault, epoch: at.epoch, head, floor }.into());
        }
        let mut builder = PageBuilder::default();
        let sent = page.records.iter();
        let sent = sent.take_while(|record| builder.push(&to_proto::record_entry(record, form)));
        let last = sent.last().map(|record| record.key.id.clone());
        let cut = last.as_ref() != page.records.last().map(|record| &record.key.id);
        let next = last.filter(|_| cut || page.has_more);
        let next = next.map(|after| PageToken { epoch, revision, after }.to_string());
        let rest = proto::ListRecordsResponse {
            records: Vec::new(),
            next_page_token: next.unwrap_or_default(),
            cursor: Some(to_proto::cursor(epoch, revision)),
        };
        Ok(Response::new(builder.finish(&rest)))
    }

    async fn changes_since(
        &self,
        request: Request<proto::ChangesSinceRequest>,
    ) -> Result<Response<Encoded>, Status> {
        let (principal, access) =
            self.access(&request, &request.get_ref().space, Right::Read).await?;
        let until = Deadline::of(&request);
        let wire = request.into_inner();
        let form = from_proto::document_form(wire.document_form).map_err(status::invalid)?;
        let cursor = from_proto::cursor(wire.cursor.as_ref()).map_err(status::invalid)?;
        let wanted = from_proto::scope(&wire.collections, &wire.keys).map_err(status::invalid)?;
        let scope = self.within(&principal, &access, access.scope(wanted.clone()))?;
        let entries_max = from_proto::page_size(wire.page_size).map_err(status::invalid)?;
        let wait = from_proto::wait(wire.wait.as_ref()).map_err(status::invalid)?;
        let space = access.space;
        let reading = Reading {
            space: space.clone(),
            cursor,
            scope: scope.clone(),
            every_step: wire.every_step,
            entries_max,
            bytes_max: limits::PAGE_DOCUMENT_BYTES_MAX,
        };
        let until = until.before(Instant::now() + wait);
        let page = self.app.changes_until(reading, until, &self.stop).await?;
        // Who has waited may no longer be let in, or not as far.
        still(&self.app, &principal.caller, &space, (wanted, &scope)).await?;
        let mut builder = PageBuilder::default();
        let sent = page.changes.iter();
        let sent = sent.take_while(|change| builder.push(&to_proto::change_entry(change, form)));
        let sent = sent.last().map(|change| change.revision);
        let cut = sent != page.changes.last().map(|change| change.revision);
        let up_to = sent.filter(|_| cut).unwrap_or(page.up_to);
        let at = page.space;
        let rest = proto::ChangesSinceResponse {
            changes: Vec::new(),
            cursor: Some(to_proto::cursor(at.epoch, up_to)),
            has_more: up_to < at.head,
            head: at.head.get(),
            floor: at.floor.get(),
        };
        Ok(Response::new(builder.finish(&rest)))
    }

    async fn exchange(
        &self,
        request: Request<proto::ExchangeRequest>,
    ) -> Result<Response<Encoded>, Status> {
        exchange::exchange(self, request).await.map(Response::new)
    }

    async fn snapshot(
        &self,
        request: Request<proto::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        snapshot::open(self, request).await.map(Response::new)
    }

    async fn replace_all(
        &self,
        request: Request<Streaming<proto::ReplaceAllRequest>>,
    ) -> Result<Response<proto::ReplaceAllResponse>, Status> {
        replace::replace_all(self, request).await.map(Response::new)
    }

    async fn subscribe(
        &self,
        request: Request<Streaming<proto::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let principal = principal(&request)?;
        let inbound = Inbound::Frames(Box::new(request.into_inner()));
        Ok(Response::new(session::open(self, principal, inbound)?))
    }

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let principal = principal(&request)?;
        let mut frame = request.into_inner().subscription.unwrap_or_default();
        if frame.subscription_id.is_empty() {
            "watch".clone_into(&mut frame.subscription_id);
        }
        let inbound = Inbound::Watch(Box::new(frame));
        Ok(Response::new(session::open(self, principal, inbound)?))
    }

    async fn get_status(
        &self,
        request: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::GetStatusResponse>, Status> {
        let (principal, access) =
            self.access(&request, &request.get_ref().space, Right::Read).await?;
        let wire = request.into_inner();
        let device = device_of(&principal, &wire.device)?;
        let scope = from_proto::digest_scope(&wire).map_err(status::invalid)?;
        let open_conflicts = self.app.open_conflicts(&access).await?;
        let whole = access.whole().is_ok();
        let scope = scope.map(|scope| self.within(&principal, &access, access.scope(scope)));
        let space = access.space;
        let name = space.name().to_owned();
        let digest = match scope.transpose()? {
            Some(scope) => Some(self.app.tallies(space.clone(), scope).await?),
            None => None,
        };
        // Queues hold mutations of all collections.
        let queue = match whole {
            true => self.app.queue_counts(space.clone(), device.clone()).await?,
            false => QueueCounts::default(),
        };
        let device = device.map(|device| (principal.caller.user, device));
        let subscriptions = self.app.subscriptions(&space);
        let SpaceStatus { at, usage, device } = self.app.status(space, device).await?;
        Ok(Response::new(proto::GetStatusResponse {
            space: name,
            epoch: at.epoch.to_string(),
            head: at.head.get(),
            floor: at.floor.get(),
            device_sequence: device.sequence.get(),
            limits: Some(to_proto::limits(self.limiters.rates(), self.app.quotas())),
            open_conflicts,
            acknowledged_revision: device.acknowledged.get(),
            queued: queue.pending,
            failed_queued: queue.failed,
            lag: (at.head.get() - device.acknowledged.get()).max(0),
            last_sync_time: device.last_sync.map(to_proto::timestamp),
            digest: digest.as_ref().map(to_proto::digest),
            records: usage.records,
            bytes: usage.bytes,
            subscriptions: i32::try_from(subscriptions).unwrap_or(i32::MAX),
        }))
    }
}

/// Where a listing goes on, and where the space was when it began.
#[derive(Debug, PartialEq)]
struct PageToken {
    epoch: Epoch,
    revision: Revision,
    after: RecordId,
}

impl PageToken {
    /// The token, or None for the first page.
    fn parse(text: &str) -> Result<Option<Self>, Vec<Violation>> {
        token::page(text, |text| {
            let mut parts = text.splitn(3, '.');
            let epoch = Epoch(Uuid::try_parse(parts.next()?).ok()?);
            let revision = Revision::new(parts.next()?.parse().ok()?)?;
            Some(Self { epoch, revision, after: RecordId::parse(parts.next()?).ok()? })
        })
    }
}

impl std::fmt::Display for PageToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&token::seal(format!("{}.{}.{}", self.epoch.0, self.revision, self.after)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_tokens_come_back_and_forged_ones_do_not_pass() {
        let token = PageToken {
            epoch: Epoch(Uuid::from_u128(7)),
            revision: Revision::new(42).unwrap(),
            after: RecordId::parse("a.b/ü").unwrap(),
        };
        assert_eq!(PageToken::parse(&token.to_string()), Ok(Some(token)));
        assert_eq!(PageToken::parse(""), Ok(None));
        for forged in ["x", "eA", "!!", &token::seal("x.1.a")] {
            assert!(PageToken::parse(forged).is_err(), "{forged}");
        }
    }
}
