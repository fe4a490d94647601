//! PolicyService: what collections do with concurrent writes.

use tonic::{Request, Response, Status};

use super::caller::principal;
use super::proto::server::policy_service_server::PolicyService;
use super::service::Service;
use super::{from_proto, proto, status, to_proto, token};
use crate::app::{Condition, NewPolicy};
use crate::auth::{Grant, Principal};
use crate::domain::{CollectionName, Policy, Right};

#[tonic::async_trait]
impl PolicyService for Service {
    async fn set_policy(
        &self,
        request: Request<proto::SetPolicyRequest>,
    ) -> Result<Response<proto::SetPolicyResponse>, Status> {
        let principal = self.granted(&request)?;
        let wire = request.into_inner();
        let (policy, condition) = from_proto::policy_to_set(&wire).map_err(status::invalid)?;
        let (collection, policy) = policy;
        let new = self.new_policy(&principal, collection, Some(policy), condition);
        let stored = self.app.set_policy(new).await?;
        let policy = to_proto::policy(&stored);
        Ok(Response::new(proto::SetPolicyResponse { policy }))
    }

    async fn get_policy(
        &self,
        request: Request<proto::GetPolicyRequest>,
    ) -> Result<Response<proto::GetPolicyResponse>, Status> {
        let wire = request.into_inner();
        let (collection, version) = from_proto::policy_version(&wire).map_err(status::invalid)?;
        let stored = self.app.policy(collection, version).await?;
        let policy = to_proto::policy(&stored);
        Ok(Response::new(proto::GetPolicyResponse { policy }))
    }

    async fn list_policies(
        &self,
        request: Request<proto::ListPoliciesRequest>,
    ) -> Result<Response<proto::ListPoliciesResponse>, Status> {
        let wire = request.into_inner();
        let entries_max = from_proto::page_size(wire.page_size).map_err(status::invalid)?;
        // No collection has this character, and no database takes it.
        let after = |name: &str| (!name.contains('\0')).then(|| name.to_owned());
        let after = token::page(&wire.page_token, after).map_err(status::invalid)?;
        let (stored, next) = self.app.policies(after.unwrap_or_default(), entries_max).await?;
        let next_page_token = next.map_or_else(String::new, token::seal);
        let policies = stored.iter().filter_map(to_proto::policy).collect();
        Ok(Response::new(proto::ListPoliciesResponse { policies, next_page_token }))
    }

    async fn delete_policy(
        &self,
        request: Request<proto::DeletePolicyRequest>,
    ) -> Result<Response<proto::DeletePolicyResponse>, Status> {
        let principal = self.granted(&request)?;
        let wire = request.into_inner();
        let (collection, condition) =
            from_proto::policy_to_delete(&wire).map_err(status::invalid)?;
        let new = self.new_policy(&principal, collection, None, condition);
        let version = self.app.set_policy(new).await?.version;
        Ok(Response::new(proto::DeletePolicyResponse { version }))
    }

    async fn preview_policy(
        &self,
        request: Request<proto::PreviewPolicyRequest>,
    ) -> Result<Response<proto::PreviewPolicyResponse>, Status> {
        // A schema may take its time, also where it is only tried.
        self.granted(&request)?;
        let (principal, access) =
            self.access(&request, &request.get_ref().space, Right::Read).await?;
        let wire = request.into_inner();
        let (collection, policy, entries_max) =
            from_proto::preview(&wire).map_err(status::invalid)?;
        self.within(&principal, &access, access.collection(&collection))?;
        let preview = self.app.preview(access.space, collection, policy, entries_max).await?;
        Ok(Response::new(to_proto::preview(&preview)))
    }
}

impl Service {
    /// The caller, if they may set policies.
    fn granted<T>(&self, request: &Request<T>) -> Result<Principal, Status> {
        let principal = principal(request)?;
        if principal.may.set_policies {
            return Ok(principal);
        }
        self.app.note_refused(&principal.caller, "", &Grant::Policies.to_string());
        Err(status::not_granted(&Grant::Policies))
    }

    fn new_policy(
        &self,
        principal: &Principal,
        collection: CollectionName,
        policy: Option<Policy>,
        condition: Condition,
    ) -> NewPolicy {
        let author = Some(principal.caller.user.as_str().to_owned());
        let (set_at, by) = (self.clock.now_to_store(), principal.caller.audited());
        NewPolicy { collection, policy, author, set_at, condition, by }
    }
}
