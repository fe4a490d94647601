//! ConflictService: the log of conflicts, and resolving what is open.

use std::sync::Arc;

use prost::Message;
use tonic::{Request, Response, Status};

use super::caller::device_of;
use super::encoded::Encoded;
use super::page::PageBuilder;
use super::proto::server::conflict_service_server::ConflictService;
use super::service::Service;
use super::{from_proto, proto, status, to_proto, token};
use crate::app::{ConflictQuery, Error};
use crate::domain::{Access, Conflict, MutationId, Record, Right};

#[tonic::async_trait]
impl ConflictService for Service {
    async fn list_conflicts(
        &self,
        request: Request<proto::ListConflictsRequest>,
    ) -> Result<Response<Encoded>, Status> {
        let (principal, access) =
            self.access(&request, &request.get_ref().space, Right::Read).await?;
        let wire = request.into_inner();
        let form = from_proto::document_form(wire.document_form).map_err(status::invalid)?;
        let filter = from_proto::conflict_filter(&wire).map_err(status::invalid)?;
        if let Some(collection) = &filter.collection {
            self.within(&principal, &access, access.collection(collection))?;
        }
        let before =
            token::page(&wire.page_token, |text| text.parse().ok()).map_err(status::invalid)?;
        let query = ConflictQuery {
            state: filter.state,
            collection: filter.collection,
            record: filter.record,
            collections: access.collections,
            device: filter.device,
            before,
            entries_max: filter.entries_max,
        };
        let page = self.app.conflicts(access.space, query).await?;
        let mut builder = PageBuilder::default();
        let fits = |it: &&(i64, Conflict)| builder.push(&to_proto::conflict_entry(&it.1, form));
        let last = page.conflicts.iter().take_while(fits).last().map(|(found, _)| *found);
        let cut = last != page.conflicts.last().map(|(found, _)| *found);
        let next = last.filter(|_| cut || page.has_more);
        let rest = proto::ListConflictsResponse {
            conflicts: Vec::new(),
            next_page_token: next.map_or_else(String::new, |found| token::seal(found.to_string())),
        };
        Ok(Response::new(builder.finish(&rest)))
    }

    async fn get_conflict(
        &self,
        request: Request<proto::GetConflictRequest>,
    ) -> Result<Response<proto::GetConflictResponse>, Status> {
        let (_principal, access) =
            self.access(&request, &request.get_ref().space, Right::Read).await?;
        let wire = request.into_inner();
        let form = from_proto::document_form(wire.document_form).map_err(status::invalid)?;
        let id = from_proto::conflict_id(&wire.conflict_id).map_err(status::invalid)?;
        let found = self.visible_conflict(&access, id).await?;
        let (conflict, record) = found.ok_or(Error::ConflictNotFound)?;
        Ok(Response::new(proto::GetConflictResponse {
            conflict: Some(to_proto::conflict(&conflict, form, true)),
            record: record.map(|it| to_proto::record(&it, form)),
        }))
    }

    async fn resolve_conflict(
        &self,
        request: Request<proto::ResolveConflictRequest>,
    ) -> Result<Response<proto::ResolveConflictResponse>, Status> {
        let (principal, access) =
            self.access(&request, &request.get_ref().space, Right::Write).await?;
        let wire = request.into_inner();
        let form = from_proto::document_form(wire.document_form).map_err(status::invalid)?;
        let device = device_of(&principal, &wire.device)?;
        let resolution = from_proto::resolution(&wire, device.as_ref()).map_err(status::invalid)?;
        let id = resolution.conflict().clone();
        let (result, conflict) = match self.conflict(&access, &id).await? {
            Some(conflict) => {
                let mutations = vec![resolution.of_record(conflict.key)];
                let bytes = wire.encoded_len();
                let decided =
                    self.decide(principal, access.clone(), device, false, mutations, bytes);
                (to_proto::results(&decided.await?, form).pop(), self.conflict(&access, &id).await?)
            }
            // It may have been resolved by this, and be forgotten by now.
            None => {
                let first =
                    self.app.first_answer(access.space, resolution.id, resolution.fingerprint);
                let first = first.await?.ok_or(Error::ConflictNotFound)?;
                (to_proto::results(&[first], form).pop(), None)
            }
        };
        let conflict = conflict.map(|conflict| to_proto::conflict(&conflict, form, true));
        Ok(Response::new(proto::ResolveConflictResponse { result, conflict }))
    }
}

impl Service {
    async fn conflict(&self, access: &Access, id: &MutationId) -> Result<Option<Conflict>, Error> {
        let found = self.visible_conflict(access, id.clone()).await?;
        Ok(found.map(|(conflict, _record)| conflict))
    }

    /// A conflict with its record as it is now, if there is one, and if the access extends
    /// to it.
    async fn visible_conflict(
        &self,
        access: &Access,
        id: MutationId,
    ) -> Result<Option<(Conflict, Option<Arc<Record>>)>, Error> {
        match self.app.conflict(access.space.clone(), id).await {
            Ok(found) => {
                Ok(Some(found).filter(|(it, _)| access.collection(&it.key.collection).is_ok()))
            }
            Err(Error::ConflictNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
