//! SyncService: each call is parse, ask the app, render.

use std::sync::Arc;

use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::encoded::Encoded;
use super::outbox::Frames;
use super::page::PageBuilder;
use super::proto::server::sync_service_server::SyncService;
use super::{from_proto, proto, session, status, to_proto, token};
use crate::app::{App, Error};
use crate::auth::Principal;
use crate::clock::Clock;
use crate::domain::{self, Epoch, Filter, RecordId, Revision, Space, Violation, limits};
use crate::tasks::Tasks;

/// The service.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) app: Arc<App>,
    pub(super) clock: Clock,
    /// The streams that are open.
    pub(super) streams: Tasks,
    /// Cancelled when streams are to end.
    pub(super) stop: CancellationToken,
}

/// Who calls. The door lets nobody in without.
pub(super) fn principal<T>(request: &Request<T>) -> Result<Principal, Status> {
    let found = request.extensions().get::<Principal>().cloned();
    found.ok_or_else(|| status::internal(&std::io::Error::other("a request without principal")))
}

impl Service {
    pub(super) fn space<T>(
        &self,
        request: &Request<T>,
        name: &str,
    ) -> Result<(Principal, Space), Status> {
        let principal = principal(request)?;
        let space = self.app.space(&principal.user, name)?;
        Ok((principal, space))
    }

    pub(super) async fn decide(
        &self,
        principal: Principal,
        space: Space,
        device: Option<domain::DeviceId>,
        atomic: bool,
        mutations: Vec<domain::Mutation>,
        size_bytes: usize,
    ) -> Result<Vec<domain::MutationResult>, Error> {
        let request = domain::Request { author: principal.user, device, atomic, mutations };
        self.app.mutate(space, request, size_bytes).await
    }
}

#[tonic::async_trait]
impl SyncService for Service {
    type SubscribeStream = Frames;

    async fn mutate(
        &self,
        request: Request<proto::MutateRequest>,
    ) -> Result<Response<proto::MutateResponse>, Status> {
        let (principal, space) = self.space(&request, &request.get_ref().space)?;
        let wire = request.into_inner();
        let device = from_proto::device(&wire.device).map_err(status::invalid)?;
        let form = from_proto::document_form(wire.document_form).map_err(status::invalid)?;
        let mutation = from_proto::single(wire.mutation.as_ref(), device.as_ref());
        let mutations = vec![mutation.map_err(status::invalid)?];
        let bytes = wire.encoded_len();
        drop(wire);
        let results = self.decide(principal, space, device, false, mutations, bytes).await?;
        let result = to_proto::results(&results, form).pop();
        Ok(Response::new(proto::MutateResponse { result }))
    }

    async fn batch_mutate(
        &self,
        request: Request<proto::BatchMutateRequest>,
    ) -> Result<Response<proto::BatchMutateResponse>, Status> {
        let (principal, space) = self.space(&request, &request.get_ref().space)?;
        let wire = request.into_inner();
        let device = from_proto::device(&wire.device).map_err(status::invalid)?;
        let form = from_proto::document_form(wire.document_form).map_err(status::invalid)?;
        let mutations = from_proto::mutations(&wire.mutations, device.as_ref(), wire.atomic)
            .map_err(status::invalid)?;
        let (atomic, bytes) = (wire.atomic, wire.encoded_len());
        drop(wire);
        let results = self.decide(principal, space, device, atomic, mutations, bytes).await?;
        let results = to_proto::results(&results, form);
        Ok(Response::new(proto::BatchMutateResponse { results }))
    }

    async fn get_record(
        &self,
        request: Request<proto::GetRecordRequest>,
    ) -> Result<Response<proto::GetRecordResponse>, Status> {
        let (_principal, space) = self.space(&request, &request.get_ref().space)?;
        let wire = request.into_inner();
        let form = from_proto::document_form(wire.document_form).map_err(status::invalid)?;
        let key = from_proto::key(wire.key.as_ref(), "key").map_err(status::invalid)?;
        let record = self.app.record(space, key).await?;
        let record = Some(to_proto::record(&record, form));
        Ok(Response::new(proto::GetRecordResponse { record }))
    }

    async fn list_records(
        &self,
        request: Request<proto::ListRecordsRequest>,
    ) -> Result<Response<Encoded>, Status> {
        let (_principal, space) = self.space(&request, &request.get_ref().space)?;
        let wire = request.into_inner();
        let form = from_proto::document_form(wire.document_form).map_err(status::invalid)?;
        let collection = from_proto::collection(&wire.collection).map_err(status::invalid)?;
        let entries_max = from_proto::page_size(wire.page_size).map_err(status::invalid)?;
        let from = PageToken::parse(&wire.page_token).map_err(status::invalid)?;
        let after = from.as_ref().map(|token| token.after.clone());
        let page = self.app.records(space, collection, after, entries_max).await?;
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
        let (_principal, space) = self.space(&request, &request.get_ref().space)?;
        let wire = request.into_inner();
        let form = from_proto::document_form(wire.document_form).map_err(status::invalid)?;
        let cursor = from_proto::cursor(wire.cursor.as_ref()).map_err(status::invalid)?;
        let collections = from_proto::collections(&wire.collections).map_err(status::invalid)?;
        let entries_max = from_proto::page_size(wire.page_size).map_err(status::invalid)?;
        let filter = Filter { collections, not_by: None };
        let bounds = (entries_max, limits::PAGE_DOCUMENT_BYTES_MAX);
        let page = self.app.changes(space, cursor, &filter, wire.every_step, bounds).await?;
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

    async fn subscribe(
        &self,
        request: Request<Streaming<proto::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let principal = principal(&request)?;
        Ok(Response::new(session::open(self, principal, request.into_inner())))
    }

    async fn get_status(
        &self,
        request: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::GetStatusResponse>, Status> {
        let (_principal, space) = self.space(&request, &request.get_ref().space)?;
        let wire = request.into_inner();
        let device = from_proto::device(&wire.device).map_err(status::invalid)?;
        let name = space.name().to_owned();
        let open_conflicts = self.app.open_conflicts(space.clone()).await?;
        let (at, sequence) = self.app.status(space, device).await?;
        Ok(Response::new(proto::GetStatusResponse {
            space: name,
            epoch: at.epoch.to_string(),
            head: at.head.get(),
            floor: at.floor.get(),
            device_sequence: sequence.get(),
            limits: Some(to_proto::limits()),
            open_conflicts,
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
