//! The two that are compared, and how to write to them and follow them: the same
//! client for both, over the same kind of connection.

use anyhow::Context;
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;

use super::bare::{self, FollowRequest};
use super::lean::LeanFrame;
use crate::bench::target::{Bearer, Connection, connect, put};
use crate::rpc::proto::subscribe_request::Frame;
use crate::rpc::proto::{
    Cursor, DocumentForm, MutateRequest, MutateResponse, MutationOutcome, SubscribeFrame,
    SubscribeRequest,
};

/// A server and one of its users.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) side: Side,
    pub(super) uri: String,
    pub(super) bearer: Bearer,
    /// Where subscriptions begin.
    pub(super) cursor: Option<Cursor>,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Ours,
    Bare,
}

/// A stream of events. Ends when dropped.
#[derive(Debug)]
pub(super) struct Followed {
    events: Streaming<LeanFrame>,
    /// A client that goes on holds its side of the stream open, and one that ends it
    /// has to let go of both sides.
    _requests: Option<mpsc::Sender<SubscribeRequest>>,
}

impl Followed {
    /// The next frame; an error at the stream's end.
    pub(super) async fn next(&mut self) -> anyhow::Result<LeanFrame> {
        self.events.message().await?.context("the stream ended")
    }
}

impl Peer {
    /// A connection of its own.
    pub(super) async fn connect(&self) -> anyhow::Result<Connection> {
        Ok(InterceptedService::new(connect(&self.uri).await?, self.bearer.clone()))
    }

    /// Opens a stream that carries so many subscriptions.
    pub(super) async fn follow(
        &self,
        connection: Connection,
        subscriptions: usize,
    ) -> anyhow::Result<Followed> {
        let mut client = Grpc::new(connection);
        client.ready().await?;
        match self.side {
            Side::Ours => {
                let (requests, queue) = mpsc::channel(subscriptions);
                for number in 0..subscriptions {
                    requests.send(self.subscribe(number)).await?;
                }
                let path = PathAndQuery::from_static("/syncline.v1.SyncService/Subscribe");
                let codec = ProstCodec::<SubscribeRequest, LeanFrame>::default();
                let queue = Request::new(ReceiverStream::new(queue));
                let events = client.streaming(queue, path, codec).await?.into_inner();
                Ok(Followed { events, _requests: Some(requests) })
            }
            Side::Bare => {
                let request = FollowRequest { subscriptions: u32::try_from(subscriptions)? };
                let path = PathAndQuery::from_static(bare::FOLLOW);
                let codec = ProstCodec::<FollowRequest, LeanFrame>::default();
                let events = client.server_streaming(Request::new(request), path, codec).await?;
                Ok(Followed { events: events.into_inner(), _requests: None })
            }
        }
    }

    fn subscribe(&self, number: usize) -> SubscribeRequest {
        let frame = SubscribeFrame {
            subscription_id: number.to_string(),
            cursor: self.cursor.clone(),
            document_form: DocumentForm::Json.into(),
            ..Default::default()
        };
        SubscribeRequest { frame: Some(Frame::Subscribe(frame)) }
    }

    /// Writes the record of that number, over a connection of this server.
    pub(super) async fn write(&self, connection: Connection, number: usize) -> anyhow::Result<()> {
        let mut client = Grpc::new(connection);
        client.ready().await?;
        let path = PathAndQuery::from_static(match self.side {
            Side::Ours => "/syncline.v1.SyncService/Mutate",
            Side::Bare => bare::WRITE,
        });
        let mutation = put(format!("{number:010}"), number as u64);
        let request = MutateRequest { mutation: Some(mutation), ..MutateRequest::default() };
        let codec = ProstCodec::<MutateRequest, MutateResponse>::default();
        let response = client.unary(Request::new(request), path, codec).await?.into_inner();
        let result = response.result.unwrap_or_default();
        anyhow::ensure!(result.outcome() == MutationOutcome::Applied, "not applied: {result:?}");
        Ok(())
    }
}
