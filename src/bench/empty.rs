//! The empty tonic call: the same messages over the same kind of connection, to
//! a service that does nothing at all.

use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::rpc::encoded::Encoded;
use crate::rpc::proto;
use crate::rpc::proto::server::sync_service_server::{SyncService, SyncServiceServer};
use crate::tasks::Tasks;

/// A server that answers Mutate, without looking at it. Ends when dropped.
pub(super) struct EmptyServer {
    pub(super) uri: String,
    serving: AbortHandle,
}

impl EmptyServer {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let uri = format!("http://{}", listener.local_addr()?);
        // The builder's own switch for this is for listeners that it opens itself.
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let serving = Server::builder()
            .add_service(SyncServiceServer::new(Empty))
            .serve_with_incoming(incoming);
        let serving = Tasks::new().spawn("empty server", serving).abort_handle();
        Ok(Self { uri, serving })
    }
}

impl Drop for EmptyServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Empty;

fn nothing<T>() -> Result<T, Status> {
    Err(Status::unimplemented("the empty server has only Mutate"))
}

#[tonic::async_trait]
impl SyncService for Empty {
    type SubscribeStream = tokio_stream::Empty<Result<Encoded, Status>>;
    type WatchStream = tokio_stream::Empty<Result<Encoded, Status>>;
    type SnapshotStream = tokio_stream::Empty<Result<Encoded, Status>>;

    async fn mutate(
        &self,
        _request: Request<proto::MutateRequest>,
    ) -> Result<Response<proto::MutateResponse>, Status> {
        let mut result = proto::MutationResult { revision: 1, ..Default::default() };
        result.set_outcome(proto::MutationOutcome::Applied);
        Ok(Response::new(proto::MutateResponse { result: Some(result) }))
    }

    async fn batch_mutate(
        &self,
        _request: Request<proto::BatchMutateRequest>,
    ) -> Result<Response<proto::BatchMutateResponse>, Status> {
        nothing()
    }

    async fn get_record(
        &self,
        _request: Request<proto::GetRecordRequest>,
    ) -> Result<Response<proto::GetRecordResponse>, Status> {
        nothing()
    }

    async fn list_records(
        &self,
        _request: Request<proto::ListRecordsRequest>,
    ) -> Result<Response<Encoded>, Status> {
        nothing()
    }

    async fn changes_since(
        &self,
        _request: Request<proto::ChangesSinceRequest>,
    ) -> Result<Response<Encoded>, Status> {
        nothing()
    }

    async fn exchange(
        &self,
        _request: Request<proto::ExchangeRequest>,
    ) -> Result<Response<Encoded>, Status> {
        nothing()
    }

    async fn snapshot(
        &self,
        _request: Request<proto::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        nothing()
    }

    async fn replace_all(
        &self,
        _request: Request<Streaming<proto::ReplaceAllRequest>>,
    ) -> Result<Response<proto::ReplaceAllResponse>, Status> {
        nothing()
    }

    async fn subscribe(
        &self,
        _request: Request<Streaming<proto::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        nothing()
    }

    async fn watch(
        &self,
        _request: Request<proto::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        nothing()
    }

    async fn get_status(
        &self,
        _request: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::GetStatusResponse>, Status> {
        nothing()
    }
}
