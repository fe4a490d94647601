//! A typed client with a token, and short ways to make requests.

use std::net::SocketAddr;

use syncline::rpc::proto::conflict_service_client::ConflictServiceClient;
use syncline::rpc::proto::policy_service_client::PolicyServiceClient;
use syncline::rpc::proto::queue_service_client::QueueServiceClient;
use syncline::rpc::proto::space_service_client::SpaceServiceClient;
use syncline::rpc::proto::sync_service_client::SyncServiceClient;
use syncline::rpc::proto::{
    self, Document, Mutation, MutationResult, PutOperation, RecordKey, document,
    mutation::Operation,
};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Adds the token to each call.
#[derive(Clone, Debug)]
pub struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A client. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Client {
    pub stub: SyncServiceClient<InterceptedService<Channel, Bearer>>,
    pub conflicts: ConflictServiceClient<InterceptedService<Channel, Bearer>>,
    pub policies: PolicyServiceClient<InterceptedService<Channel, Bearer>>,
    pub queue: QueueServiceClient<InterceptedService<Channel, Bearer>>,
    pub spaces: SpaceServiceClient<InterceptedService<Channel, Bearer>>,
}

impl Client {
    pub async fn connect(address: SocketAddr, token: &str) -> Self {
        Self::on(Self::channel(address).await, token)
    }

    /// A connection, for whoever has more than one token.
    pub async fn channel(address: SocketAddr) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        endpoint.connect().await.unwrap()
    }

    /// A client that connects when it is first used, and again when it must.
    pub fn lazy(address: SocketAddr, token: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        Self::on(endpoint.connect_lazy(), token)
    }

    /// A lazy client that can be told little before it reads: without this, its
    /// library takes 2 MiB on each stream on its own account. Not less for the whole
    /// connection: with a small window there, the library ends the connection after a
    /// hundred small frames that nobody has read.
    pub fn narrow(address: SocketAddr, token: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let endpoint = endpoint.initial_stream_window_size(65_535);
        Self::on(endpoint.initial_connection_window_size(1 << 20).connect_lazy(), token)
    }

    pub fn on(channel: Channel, token: &str) -> Self {
        let bearer = Bearer(format!("Bearer {token}").parse().unwrap());
        let (conflicts, policies) = (channel.clone(), channel.clone());
        let queue = channel.clone();
        let spaces = SpaceServiceClient::with_interceptor(channel.clone(), bearer.clone());
        let stub = SyncServiceClient::with_interceptor(channel, bearer.clone());
        let conflicts = ConflictServiceClient::with_interceptor(conflicts, bearer.clone());
        Self {
            stub: stub.max_decoding_message_size(4 << 20),
            conflicts: conflicts.max_decoding_message_size(4 << 20),
            policies: PolicyServiceClient::with_interceptor(policies, bearer.clone()),
            queue: QueueServiceClient::with_interceptor(queue, bearer),
            spaces: spaces.max_decoding_message_size(4 << 20),
        }
    }

    /// Sends one mutation of the caller's own space.
    pub async fn mutate(&self, mutation: Mutation) -> Result<MutationResult, Status> {
        let request = proto::MutateRequest { mutation: Some(mutation), ..Default::default() };
        Ok(self.stub.clone().mutate(request).await?.into_inner().result.unwrap())
    }

    /// Sends a batch of the caller's own space.
    pub async fn batch(
        &self,
        mutations: Vec<Mutation>,
        atomic: bool,
    ) -> Result<Vec<MutationResult>, Status> {
        let request = proto::BatchMutateRequest { mutations, atomic, ..Default::default() };
        Ok(self.stub.clone().batch_mutate(request).await?.into_inner().results)
    }

    /// Sends one mutation from a device.
    pub async fn mutate_from(
        &self,
        device: &str,
        mutation: Mutation,
    ) -> Result<MutationResult, Status> {
        let request = proto::MutateRequest {
            device: device.into(),
            mutation: Some(mutation),
            document_form: proto::DocumentForm::Json.into(),
            ..Default::default()
        };
        Ok(self.stub.clone().mutate(request).await?.into_inner().result.unwrap())
    }

    /// Sets a policy; its version.
    pub async fn set_policy(&self, policy: proto::Policy) -> Result<i64, Status> {
        let policy = Some(policy);
        let request = proto::SetPolicyRequest { policy, expected_version: None };
        let answer = self.policies.clone().set_policy(request).await?.into_inner();
        Ok(answer.policy.unwrap().version)
    }

    /// The head of the caller's own space.
    pub async fn head(&self) -> i64 {
        let request = proto::GetStatusRequest::default();
        self.stub.clone().get_status(request).await.unwrap().into_inner().head
    }

    /// The JSON text of a task, or the status.
    pub async fn task(&self, id: &str) -> Result<String, Status> {
        self.text_of(key(id)).await
    }

    /// The document of a record.
    pub async fn document(&self, collection: &str, id: &str) -> serde_json::Value {
        let key = RecordKey { collection: collection.into(), id: id.into() };
        serde_json::from_str(&self.text_of(key).await.unwrap()).unwrap()
    }

    async fn text_of(&self, key: RecordKey) -> Result<String, Status> {
        let request = proto::GetRecordRequest {
            key: Some(key),
            document_form: proto::DocumentForm::Json.into(),
            ..Default::default()
        };
        let record = self.stub.clone().get_record(request).await?.into_inner().record.unwrap();
        match record.document.unwrap().form.unwrap() {
            document::Form::Json(text) => Ok(String::from_utf8(text.to_vec()).unwrap()),
            document::Form::Fields(_) => panic!("asked for JSON"),
        }
    }
}

/// The key of a task.
pub fn key(id: &str) -> RecordKey {
    RecordKey { collection: "task".into(), id: id.into() }
}

/// A document from JSON text.
pub fn json(text: &str) -> Option<Document> {
    Some(Document { form: Some(document::Form::Json(text.to_owned().into())) })
}

/// A mutation of a task.
pub fn mutation(id: &str, task: &str, operation: Operation) -> Mutation {
    Mutation {
        id: id.into(),
        key: Some(key(task)),
        operation: Some(operation),
        ..Default::default()
    }
}

/// A put of a task.
pub fn put(id: &str, task: &str, text: &str) -> Mutation {
    mutation(id, task, Operation::Put(PutOperation { document: json(text) }))
}
