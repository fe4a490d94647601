//! SpaceService: shared spaces and their members, the history of records, and the way
//! back from a deletion.

use prost::Message;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::answers::Answers;
use super::caller::{device_of, principal};
use super::encoded::Encoded;
use super::from_proto::{HistoryToken, NewSpace};
use super::page::PageBuilder;
use super::proto::server::space_service_server::SpaceService;
use super::service::Service;
use super::whole_space;
use super::{from_proto, proto, status, to_proto, token};
use crate::app::{Error, SharedSpace, StepsQuery, StoredEntry, Undeletable};
use crate::auth::{Grant, Principal};
use crate::domain::{CursorFault, OpenSpace, Right, Space, SpaceId, Spaces, limits};

#[tonic::async_trait]
impl SpaceService for Service {
    type ExportSpaceStream = Answers<proto::ExportSpaceResponse>;
    type ExportUserStream = Answers<proto::ExportUserResponse>;

    async fn create_space(
        &self,
        request: Request<proto::CreateSpaceRequest>,
    ) -> Result<Response<proto::CreateSpaceResponse>, Status> {
        let principal = principal(&request)?;
        let (new, title) = from_proto::new_space(request.get_ref()).map_err(status::invalid)?;
        let caller = &principal.caller;
        let (space, chosen) = match new {
            NewSpace::Request(id) => (Space::made_by(&caller.user, &id), false),
            NewSpace::Named(space) => (space, true),
        };
        if chosen && !caller.may_everywhere(Right::Admin) {
            let grant = Grant::Space(OpenSpace { spaces: Spaces::All, right: Right::Admin });
            self.app.note_refused(caller, space.name(), &grant.to_string());
            return Err(status::not_granted(&grant));
        }
        let shared = self.app.create_space(caller, space, title, chosen).await?;
        let space = Some(seen(&principal, &shared)?);
        Ok(Response::new(proto::CreateSpaceResponse { space }))
    }

    async fn get_space(
        &self,
        request: Request<proto::GetSpaceRequest>,
    ) -> Result<Response<proto::GetSpaceResponse>, Status> {
        let (principal, access) =
            self.access(&request, &request.get_ref().space, Right::Read).await?;
        let space = match access.space.is_shared() {
            true => {
                let shared = self.app.shared_space(&principal.caller, access.space).await?;
                seen(&principal, &shared)?
            }
            false => to_proto::space(&access, None),
        };
        let space = Some(space);
        Ok(Response::new(proto::GetSpaceResponse { space }))
    }

    async fn list_spaces(
        &self,
        request: Request<proto::ListSpacesRequest>,
    ) -> Result<Response<proto::ListSpacesResponse>, Status> {
        let principal = principal(&request)?;
        let wire = request.into_inner();
        let entries_max = from_proto::page_size(wire.page_size).map_err(status::invalid)?;
        let after = token::page(&wire.page_token, |text| Uuid::try_parse(text).ok().map(SpaceId));
        let after = after.map_err(status::invalid)?;
        if wire.all && !principal.caller.may_everywhere(Right::Read) {
            let grant = Grant::Space(OpenSpace { spaces: Spaces::All, right: Right::Read });
            self.app.note_refused(&principal.caller, "", &grant.to_string());
            return Err(status::not_granted(&grant));
        }
        let page = self.app.shared_spaces(&principal.caller, wire.all, after, entries_max);
        let (spaces, has_more) = page.await?;
        let next = spaces.last().filter(|_| has_more).map(|last| last.space.id);
        let spaces = spaces.iter().map(|it| seen(&principal, it)).collect::<Result<_, _>>()?;
        let next_page_token = next.map_or_else(String::new, |id| token::seal(id.to_string()));
        Ok(Response::new(proto::ListSpacesResponse { spaces, next_page_token }))
    }

    async fn rename_space(
        &self,
        request: Request<proto::RenameSpaceRequest>,
    ) -> Result<Response<proto::RenameSpaceResponse>, Status> {
        let (principal, access) =
            self.access(&request, &request.get_ref().space, Right::Admin).await?;
        let title = from_proto::new_title(&request.get_ref().title).map_err(status::invalid)?;
        let shared = self.app.rename_space(&principal.caller, access.clone(), title).await?;
        let space = Some(to_proto::space(&access, Some(&shared)));
        Ok(Response::new(proto::RenameSpaceResponse { space }))
    }

    async fn set_member(
        &self,
        request: Request<proto::SetMemberRequest>,
    ) -> Result<Response<proto::SetMemberResponse>, Status> {
        let (principal, access) =
            self.access(&request, &request.get_ref().space, Right::Admin).await?;
        let (user, membership) =
            from_proto::new_member(request.get_ref()).map_err(status::invalid)?;
        self.app.set_member(&principal.caller, access, user, Some(membership)).await?;
        Ok(Response::new(proto::SetMemberResponse {}))
    }

    async fn remove_member(
        &self,
        request: Request<proto::RemoveMemberRequest>,
    ) -> Result<Response<proto::RemoveMemberResponse>, Status> {
        let wire = request.get_ref();
        let caller = principal(&request)?.caller;
        let user = match wire.user.as_str() {
            "" => caller.user.clone(),
            name => from_proto::user(name).map_err(status::invalid)?,
        };
        // Whoever is in may go.
        let right = if user == caller.user { Right::Read } else { Right::Admin };
        let (principal, access) = self.access(&request, &wire.space, right).await?;
        self.app.set_member(&principal.caller, access, user, None).await?;
        Ok(Response::new(proto::RemoveMemberResponse {}))
    }

    async fn list_members(
        &self,
        request: Request<proto::ListMembersRequest>,
    ) -> Result<Response<proto::ListMembersResponse>, Status> {
        let (principal, access) =
            self.access(&request, &request.get_ref().space, Right::Read).await?;
        self.within(&principal, &access, access.whole())?;
        let wire = request.into_inner();
        let entries_max = from_proto::page_size(wire.page_size).map_err(status::invalid)?;
        // No user has this character, and no database takes it.
        let after = |name: &str| (!name.contains('\0')).then(|| name.to_owned());
        let after = token::page(&wire.page_token, after).map_err(status::invalid)?;
        let page = self.app.members(access, after.unwrap_or_default(), entries_max);
        let (members, has_more) = page.await?;
        let next = members.last().filter(|_| has_more);
        let next_page_token = next.map_or_else(String::new, |it| token::seal(it.user.as_str()));
        let members = members.iter().map(to_proto::member).collect();
        Ok(Response::new(proto::ListMembersResponse { members, next_page_token }))
    }

    async fn list_audit_entries(
        &self,
        request: Request<proto::ListAuditEntriesRequest>,
    ) -> Result<Response<Encoded>, Status> {
        let space = match request.get_ref().server {
            false => {
                let name = &request.get_ref().space;
                Some(self.access(&request, name, Right::Admin).await?.1.space)
            }
            true => {
                let principal = principal(&request)?;
                if !principal.may.read_audit {
                    self.app.note_refused(&principal.caller, "", &Grant::Audit.to_string());
                    return Err(status::not_granted(&Grant::Audit));
                }
                None
            }
        };
        let query = from_proto::audit_query(request.get_ref()).map_err(status::invalid)?;
        let (entries, has_more) = self.app.audit(space, query).await?;
        let mut builder = PageBuilder::default();
        let fits = |it: &&StoredEntry| builder.push(&to_proto::audit_entry(it));
        let last = entries.iter().take_while(fits).last().map(|it| it.number);
        let cut = last != entries.last().map(|it| it.number);
        let next = last.filter(|_| cut || has_more);
        let rest = proto::ListAuditEntriesResponse {
            entries: Vec::new(),
            next_page_token: next.map_or_else(String::new, |it| token::seal(it.to_string())),
        };
        Ok(Response::new(builder.finish(&rest)))
    }

    async fn export_space(
        &self,
        request: Request<proto::ExportSpaceRequest>,
    ) -> Result<Response<Self::ExportSpaceStream>, Status> {
        whole_space::export_space(self, request).await.map(Response::new)
    }

    async fn export_user(
        &self,
        request: Request<proto::ExportUserRequest>,
    ) -> Result<Response<Self::ExportUserStream>, Status> {
        whole_space::export_user(self, request).await.map(Response::new)
    }

    async fn import_space(
        &self,
        request: Request<Streaming<proto::ImportSpaceRequest>>,
    ) -> Result<Response<proto::ImportSpaceResponse>, Status> {
        whole_space::import_space(self, request).await.map(Response::new)
    }

    async fn erase_space(
        &self,
        request: Request<proto::EraseSpaceRequest>,
    ) -> Result<Response<proto::EraseSpaceResponse>, Status> {
        whole_space::erase_space(self, request).await.map(Response::new)
    }

    async fn erase_user(
        &self,
        request: Request<proto::EraseUserRequest>,
    ) -> Result<Response<proto::EraseUserResponse>, Status> {
        whole_space::erase_user(self, request).await.map(Response::new)
    }

    async fn list_record_history(
        &self,
        request: Request<proto::ListRecordHistoryRequest>,
    ) -> Result<Response<Encoded>, Status> {
        let (principal, access) =
            self.access(&request, &request.get_ref().space, Right::Read).await?;
        let wire = request.into_inner();
        let form = from_proto::document_form(wire.document_form).map_err(status::invalid)?;
        let key = from_proto::key(wire.key.as_ref(), "key").map_err(status::invalid)?;
        self.within(&principal, &access, access.collection(&key.collection))?;
        let entries_max = from_proto::page_size(wire.page_size).map_err(status::invalid)?;
        let token = HistoryToken::parse(&wire.page_token, &key).map_err(status::invalid)?;
        let query = StepsQuery {
            key: key.clone(),
            from: token.as_ref().map(|token| token.from),
            entries_max,
            bytes_max: limits::PAGE_DOCUMENT_BYTES_MAX,
        };
        let page = self.app.record_steps(access.space, query).await?;
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
        let (principal, access) =
            self.access(&request, &request.get_ref().space, Right::Write).await?;
        let wire = request.into_inner();
        let form = from_proto::document_form(wire.document_form).map_err(status::invalid)?;
        let device = device_of(&principal, &wire.device)?;
        let undeletion = from_proto::undeletion(&wire, device.as_ref()).map_err(status::invalid)?;
        let collection = &undeletion.undelete.key.collection;
        self.within(&principal, &access, access.collection(collection))?;
        let space = access.space.clone();
        let (id, fingerprint) = (undeletion.id.clone(), undeletion.fingerprint);
        // Once it has taken effect, what is there no longer shows what it meant.
        let first = self.app.first_answer(space.clone(), id, fingerprint).await?;
        let results = match first {
            Some(first) => vec![first],
            None => {
                let undelete = undeletion.undelete.clone();
                let found = self.app.undeletable(space, undelete).await?;
                let bytes = wire.encoded_len() + document_bytes(&found);
                let mutations = vec![undeletion.of(found)];
                self.decide(principal, access, device, false, mutations, bytes).await?
            }
        };
        let result = to_proto::results(&results, form).pop();
        Ok(Response::new(proto::UndeleteRecordResponse { result }))
    }
}

/// A shared space, as its caller may enter it.
fn seen(principal: &Principal, shared: &SharedSpace) -> Result<proto::Space, Status> {
    let SharedSpace { space, membership, .. } = shared;
    let access = principal.caller.reach(space, membership.as_ref()).map_err(Error::from)?;
    Ok(to_proto::space(&access, Some(shared)))
}

fn document_bytes(found: &Undeletable) -> usize {
    match found {
        Undeletable::Lives => 0,
        Undeletable::Deleted { document, .. } => document.as_str().len(),
    }
}
