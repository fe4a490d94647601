//! ConflictService: the log of conflicts, and resolving what is open.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use prost::Message;
use tonic::{Request, Response, Status};

use super::encoded::Encoded;
use super::page::PageBuilder;
use super::proto::server::conflict_service_server::ConflictService;
use super::service::Service;
use super::{from_proto, proto, status, to_proto};
use crate::app::{ConflictPlace, ConflictQuery};
use crate::domain::{Revision, Violation};

#[tonic::async_trait]
impl ConflictService for Service {
    async fn list_conflicts(
        &self,
        request: Request<proto::ListConflictsRequest>,
    ) -> Result<Response<Encoded>, Status> {
        let (_principal, space) = self.space(&request, &request.get_ref().space)?;
        let wire = request.into_inner();
        let form = from_proto::document_form(wire.document_form).map_err(status::invalid)?;
        let filter = from_proto::conflict_filter(&wire).map_err(status::invalid)?;
        let before = parse_token(&wire.page_token).map_err(status::invalid)?;
        let query = ConflictQuery {
            state: filter.state,
            collection: filter.collection,
            record: filter.record,
            device: filter.device,
            before,
            entries_max: filter.entries_max,
        };
        let page = self.app.conflicts(space, query).await?;
        let mut builder = PageBuilder::default();
        let fits = |it: &&(ConflictPlace, _)| builder.push(&to_proto::conflict_entry(&it.1, form));
        let last = page.conflicts.iter().take_while(fits).last().map(|(place, _)| *place);
        let cut = last != page.conflicts.last().map(|(place, _)| *place);
        let next = last.filter(|_| cut || page.has_more);
        let rest = proto::ListConflictsResponse {
            conflicts: Vec::new(),
            next_page_token: next.map_or_else(String::new, token),
        };
        Ok(Response::new(builder.finish(&rest)))
    }

    async fn get_conflict(
        &self,
        request: Request<proto::GetConflictRequest>,
    ) -> Result<Response<proto::GetConflictResponse>, Status> {
        let (_principal, space) = self.space(&request, &request.get_ref().space)?;
        let wire = request.into_inner();
        let form = from_proto::document_form(wire.document_form).map_err(status::invalid)?;
        let id = from_proto::conflict_id(&wire.conflict_id).map_err(status::invalid)?;
        let (conflict, record) = self.app.conflict(space, id).await?;
        Ok(Response::new(proto::GetConflictResponse {
            conflict: Some(to_proto::conflict(&conflict, form, true)),
            record: record.map(|it| to_proto::record(&it, form)),
        }))
    }

    async fn resolve_conflict(
        &self,
        request: Request<proto::ResolveConflictRequest>,
    ) -> Result<Response<proto::ResolveConflictResponse>, Status> {
        let (principal, space) = self.space(&request, &request.get_ref().space)?;
        let wire = request.into_inner();
        let form = from_proto::document_form(wire.document_form).map_err(status::invalid)?;
        let device = from_proto::device(&wire.device).map_err(status::invalid)?;
        let id = from_proto::conflict_id(&wire.conflict_id).map_err(status::invalid)?;
        let (conflict, _record) = self.app.conflict(space.clone(), id.clone()).await?;
        let mutation = from_proto::resolution(&wire, conflict.key, device.as_ref());
        let mutations = vec![mutation.map_err(status::invalid)?];
        let bytes = wire.encoded_len();
        let results =
            self.decide(principal, space.clone(), device, false, mutations, bytes).await?;
        let (conflict, _record) = self.app.conflict(space, id).await?;
        Ok(Response::new(proto::ResolveConflictResponse {
            result: to_proto::results(&results, form).pop(),
            conflict: Some(to_proto::conflict(&conflict, form, true)),
        }))
    }
}

fn token(place: ConflictPlace) -> String {
    BASE64.encode(format!("{}.{}", place.moved_at, place.number))
}

/// The place that a token names, or None for the first page.
fn parse_token(text: &str) -> Result<Option<ConflictPlace>, Vec<Violation>> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = BASE64.decode(text).ok().and_then(|bytes| {
        let text = String::from_utf8(bytes).ok()?;
        let (moved_at, number) = text.split_once('.')?;
        let moved_at = Revision::new(moved_at.parse().ok()?)?;
        Some(ConflictPlace { moved_at, number: number.parse().ok()? })
    });
    let rule = "is not a page token of this server";
    parsed.map(Some).ok_or_else(|| vec![Violation::new("page_token", rule)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_tokens_come_back_and_forged_ones_do_not_pass() {
        let place = ConflictPlace { moved_at: Revision::new(42).unwrap(), number: 7 };
        assert_eq!(parse_token(&token(place)), Ok(Some(place)));
        assert_eq!(parse_token(""), Ok(None));
        for forged in ["x", "!!", &BASE64.encode("1"), &BASE64.encode("-1.2")] {
            assert!(parse_token(forged).is_err(), "{forged}");
        }
    }
}
