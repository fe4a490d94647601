//! The baseline: a bare tonic loop. A unary call hands the bytes of one event,
//! encoded once and as long as a frame of ours with that document, to all open
//! streams, without a database; a server-streaming call delivers them.
//!
//! Each stream has a queue with a bound, and ends when that is full. A stream that
//! stands for several subscriptions is sent the event once for each of them, which
//! is what a plain loop does; they are drained together.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};
use tonic::server::{Grpc, NamedService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::rpc::encoded::Encoded;
use crate::rpc::proto::subscribe_response::Frame;
use crate::rpc::proto::{
    CaughtUpFrame, MutateRequest, MutateResponse, MutationOutcome, MutationResult,
    SubscribeResponse,
};
use crate::tasks::Tasks;

pub(super) const WRITE: &str = "/bench.Bare/Write";
pub(super) const FOLLOW: &str = "/bench.Bare/Follow";

/// Events that wait in one stream.
pub(super) const QUEUE_MAX: usize = 64;

/// The request to follow.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct FollowRequest {
    /// How many subscriptions the stream stands for.
    #[prost(uint32, tag = "1")]
    pub(super) subscriptions: u32,
}

/// A server of the loop. Ends when dropped.
#[derive(Debug)]
pub(super) struct BareServer {
    pub(super) uri: String,
    serving: AbortHandle,
}

impl BareServer {
    /// One whose events look like this frame.
    pub(super) async fn start(like: SubscribeResponse) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let uri = format!("http://{}", listener.local_addr()?);
        let bare = Bare(Arc::new(Shared { like, streams: Mutex::default() }));
        // The builder's own switch for this is for listeners that it opens itself.
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let serving = Server::builder()
            .max_concurrent_streams(200)
            .add_service(bare)
            .serve_with_incoming(incoming);
        let serving = Tasks::new().spawn("bare server", serving).abort_handle();
        Ok(Self { uri, serving })
    }
}

impl Drop for BareServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[derive(Clone, Debug)]
struct Bare(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    like: SubscribeResponse,
    streams: Mutex<Vec<mpsc::Sender<Encoded>>>,
}

impl Shared {
    fn write(&self, request: MutateRequest) -> MutateResponse {
        let event = self.event(request);
        // One whose queue is full ends, after what is in it.
        self.streams.lock().retain(|stream| stream.try_send(event.clone()).is_ok());
        let mut result = MutationResult::default();
        result.set_outcome(MutationOutcome::Applied);
        MutateResponse { result: Some(result) }
    }

    /// The frame, about the record that is written.
    fn event(&self, request: MutateRequest) -> Encoded {
        let mut frame = self.like.clone();
        if let Some(Frame::Changes(changes)) = &mut frame.frame {
            let key = request.mutation.and_then(|mutation| mutation.key);
            changes.changes.iter_mut().for_each(|change| change.key.clone_from(&key));
        }
        Encoded::from_message(&frame)
    }

    fn follow(&self, request: FollowRequest) -> Events {
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        let caught_up = Frame::CaughtUp(CaughtUpFrame::default());
        let first = Encoded::from_message(&SubscribeResponse { frame: Some(caught_up) });
        self.streams.lock().push(sender);
        Events { queue, times: request.subscriptions, event: first, left: request.subscriptions }
    }
}

/// A stream's events, each as often as it stands for subscriptions.
#[derive(Debug)]
struct Events {
    queue: mpsc::Receiver<Encoded>,
    times: u32,
    event: Encoded,
    left: u32,
}

impl Stream for Events {
    type Item = Result<Encoded, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.left == 0 {
            let Some(event) = ready!(self.queue.poll_recv(context)) else {
                return Poll::Ready(None);
            };
            (self.event, self.left) = (event, self.times);
        }
        self.left -= 1;
        Poll::Ready(Some(Ok(self.event.clone())))
    }
}

impl NamedService for Bare {
    const NAME: &'static str = "bench.Bare";
}

impl Service<http::Request<Body>> for Bare {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let shared = Arc::clone(&self.0);
        match request.uri().path() {
            WRITE => Box::pin(async move {
                let codec = ProstCodec::<MutateResponse, MutateRequest>::default();
                Ok(Grpc::new(codec).unary(Write(shared), request).await)
            }),
            FOLLOW => Box::pin(async move {
                let codec = ProstCodec::<Encoded, FollowRequest>::default();
                Ok(Grpc::new(codec).server_streaming(Follow(shared), request).await)
            }),
            _ => Box::pin(async { Ok(Status::unimplemented("no such call").into_http()) }),
        }
    }
}

struct Write(Arc<Shared>);

impl Service<Request<MutateRequest>> for Write {
    type Response = Response<MutateResponse>;
    type Error = Status;
    type Future = std::future::Ready<Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<MutateRequest>) -> Self::Future {
        std::future::ready(Ok(Response::new(self.0.write(request.into_inner()))))
    }
}

struct Follow(Arc<Shared>);

impl Service<Request<FollowRequest>> for Follow {
    type Response = Response<Events>;
    type Error = Status;
    type Future = std::future::Ready<Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<FollowRequest>) -> Self::Future {
        std::future::ready(Ok(Response::new(self.0.follow(request.into_inner()))))
    }
}
