//! QueueService: mutations that the server holds and applies by itself.

use prost::Message;
use tonic::{Request, Response, Status};

use super::caller::bound;
use super::encoded::Encoded;
use super::page::PageBuilder;
use super::proto::server::queue_service_server::QueueService;
use super::service::Service;
use super::{from_proto, proto, status, to_proto, token};
use crate::auth::Principal;
use crate::domain::{Access, Caller, DeviceId, Mutation, QueuedBy, Right, Violation};

#[tonic::async_trait]
impl QueueService for Service {
    async fn enqueue(
        &self,
        request: Request<proto::EnqueueRequest>,
    ) -> Result<Response<proto::EnqueueResponse>, Status> {
        let (principal, access) =
            self.queue_access(&request, &request.get_ref().space, Right::Write).await?;
        let wire = request.into_inner();
        let (device, new) = from_proto::to_enqueue(&wire).map_err(status::invalid)?;
        bound(&principal, Some(device.clone()))?;
        let by = queued_by(principal, &access);
        let entries = self.app.enqueue(access.space, (by, device), new).await?;
        let entries = entries.iter().map(to_proto::queued).collect();
        Ok(Response::new(proto::EnqueueResponse { entries }))
    }

    async fn list_queued(
        &self,
        request: Request<proto::ListQueuedRequest>,
    ) -> Result<Response<Encoded>, Status> {
        let (_principal, access) =
            self.queue_access(&request, &request.get_ref().space, Right::Read).await?;
        let wire = request.into_inner();
        let after =
            token::page(&wire.page_token, |text| text.parse().ok()).map_err(status::invalid)?;
        let query = from_proto::queue_query(&wire, after).map_err(status::invalid)?;
        let (entries, has_more) = self.app.queue(access.space, query).await?;
        let mut builder = PageBuilder::default();
        let mut sent = None;
        let mut cut = false;
        for entry in &entries {
            cut = !builder.push(&to_proto::queued_entry(entry));
            if cut {
                break;
            }
            sent = Some(entry.number);
        }
        let next = sent.filter(|_| cut || has_more);
        let rest = proto::ListQueuedResponse {
            entries: Vec::new(),
            next_page_token: next
                .map_or_else(String::new, |number| token::seal(number.to_string())),
        };
        Ok(Response::new(builder.finish(&rest)))
    }

    async fn retry_queued(
        &self,
        request: Request<proto::RetryQueuedRequest>,
    ) -> Result<Response<proto::RetryQueuedResponse>, Status> {
        let (principal, access) =
            self.queue_access(&request, &request.get_ref().space, Right::Write).await?;
        let wire = request.into_inner();
        let id = from_proto::queued_id(&wire.mutation_id).map_err(status::invalid)?;
        let entry = match &wire.edited {
            None => self.app.retry_queued(access.space, id).await?,
            Some(edited) => {
                let entry = self.app.queued(access.space.clone(), id).await?;
                bound(&principal, Some(entry.device.clone()))?;
                let edited = from_proto::edited(edited, &entry.device).map_err(status::invalid)?;
                let by = queued_by(principal, &access);
                self.app.edit_queued(access.space, entry, (by, edited)).await?
            }
        };
        let entry = Some(to_proto::queued(&entry));
        Ok(Response::new(proto::RetryQueuedResponse { entry }))
    }

    async fn discard_queued(
        &self,
        request: Request<proto::DiscardQueuedRequest>,
    ) -> Result<Response<proto::DiscardQueuedResponse>, Status> {
        let (_principal, access) =
            self.queue_access(&request, &request.get_ref().space, Right::Write).await?;
        let id = from_proto::queued_id(&request.get_ref().mutation_id).map_err(status::invalid)?;
        self.app.discard_queued(access.space, id).await?;
        Ok(Response::new(proto::DiscardQueuedResponse {}))
    }

    async fn mark_synced(
        &self,
        request: Request<proto::MarkSyncedRequest>,
    ) -> Result<Response<proto::MarkSyncedResponse>, Status> {
        let (_principal, access) =
            self.queue_access(&request, &request.get_ref().space, Right::Write).await?;
        let ids = from_proto::queued_ids(&request.get_ref().mutation_ids);
        let marked = self.app.mark_synced(access.space, ids.map_err(status::invalid)?).await?;
        Ok(Response::new(proto::MarkSyncedResponse { marked }))
    }

    async fn clear_synced(
        &self,
        request: Request<proto::ClearSyncedRequest>,
    ) -> Result<Response<proto::ClearSyncedResponse>, Status> {
        let (_principal, access) =
            self.queue_access(&request, &request.get_ref().space, Right::Write).await?;
        let cleared = self.app.clear_synced(access.space).await?;
        Ok(Response::new(proto::ClearSyncedResponse { cleared }))
    }
}

impl Service {
    /// Queues hold mutations of all collections.
    async fn queue_access<T: Sync>(
        &self,
        request: &Request<T>,
        name: &str,
        right: Right,
    ) -> Result<(Principal, Access), Status> {
        let (principal, access) = self.access(request, name, right).await?;
        self.within(&principal, &access, access.whole())?;
        Ok((principal, access))
    }
}

fn queued_by(principal: Principal, access: &Access) -> QueuedBy {
    let Caller { user: author, actor, .. } = principal.caller;
    QueuedBy { author, actor, by_grant: access.by_grant }
}

/// Understands a mutation of a queue, as it was sent.
pub fn parse_mutation(payload: &[u8], device: &DeviceId) -> Result<Mutation, Vec<Violation>> {
    let unread = |_error| vec![Violation::new("mutation", "cannot be decoded")];
    let wire = proto::Mutation::decode(payload).map_err(unread)?;
    from_proto::single(Some(&wire), Some(device))
}
