//! SpaceService: the history of records, and the way back from a deletion.

use prost::Message;
use tonic::{Request, Response, Status};

use super::encoded::Encoded;
use super::from_proto::HistoryToken;
use super::page::PageBuilder;
use super::proto::server::space_service_server::SpaceService;
use super::service::Service;
use super::{from_proto, proto, status, to_proto};
use crate::app::{Error, StepsQuery, Undeletable};
use crate::domain::{CursorFault, Right, limits};

#[tonic::async_trait]
impl SpaceService for Service {
    async fn list_record_history(
        &self,
        request: Request<proto::ListRecordHistoryRequest>,
    ) -> Result<Response<Encoded>, Status> {
        let (_principal, space) = self.space(&request, &request.get_ref().space, Right::Read)?;
        let wire = request.into_inner();
        let form = from_proto::document_form(wire.document_form).map_err(status::invalid)?;
        let key = from_proto::key(wire.key.as_ref(), "key").map_err(status::invalid)?;
        let entries_max = from_proto::page_size(wire.page_size).map_err(status::invalid)?;
        let token = HistoryToken::parse(&wire.page_token, &key).map_err(status::invalid)?;
        let query = StepsQuery {
            key: key.clone(),
            from: token.as_ref().map(|token| token.from),
            entries_max,
            bytes_max: limits::PAGE_DOCUMENT_BYTES_MAX,
        };
        let page = self.app.record_steps(space, query).await?;
        let at = page.space;
        if token.is_some_and(|token| token.epoch != at.epoch) {
            let (fault, epoch) = (CursorFault::EpochChanged, at.epoch);
            return Err(Error::Cursor { fault, epoch, head: at.head, floor: at.floor }.into());
        }
        let mut builder = PageBuilder::default();
        let mut rest = page.steps.iter();
        let cut = rest
            .find(|step| !builder.push(&to_proto::step_entry(step, form, !wire.without_documents)));
        let next = cut.map(|step| step.change.revision).or(page.next);
        let token = next.map(|from| HistoryToken { epoch: at.epoch, from, key });
        let rest = proto::ListRecordHistoryResponse {
            steps: Vec::new(),
            next_page_token: token.map_or_else(String::new, |token| token.to_string()),
            truncated: next.is_none() && page.truncated,
        };
        Ok(Response::new(builder.finish(&rest)))
    }

    async fn undelete_record(
        &self,
        request: Request<proto::UndeleteRecordRequest>,
    ) -> Result<Response<proto::UndeleteRecordResponse>, Status> {
        let (principal, space) = self.space(&request, &request.get_ref().space, Right::Write)?;
        let wire = request.into_inner();
        let form = from_proto::document_form(wire.document_form).map_err(status::invalid)?;
        let device = from_proto::device(&wire.device).map_err(status::invalid)?;
        let undeletion = from_proto::undeletion(&wire, device.as_ref()).map_err(status::invalid)?;
        let (id, fingerprint) = (undeletion.id.clone(), undeletion.fingerprint);
        // Once it has taken effect, what is there no longer shows what it meant.
        let first = self.app.first_answer(space.clone(), id, fingerprint).await?;
        let results = match first {
            Some(first) => vec![first],
            None => {
                let undelete = undeletion.undelete.clone();
                let found = self.app.undeletable(space.clone(), undelete).await?;
                let bytes = wire.encoded_len() + document_bytes(&found);
                let mutations = vec![undeletion.of(found)];
                self.decide(principal, space, device, false, mutations, bytes).await?
            }
        };
        let result = to_proto::results(&results, form).pop();
        Ok(Response::new(proto::UndeleteRecordResponse { result }))
    }
}

fn document_bytes(found: &Undeletable) -> usize {
    match found {
        Undeletable::Lives => 0,
        Undeletable::Deleted { document, .. } => document.as_str().len(),
    }
}
