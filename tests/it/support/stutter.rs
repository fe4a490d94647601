//! A way to a server on which answers come twice, late, and behind later ones. Every message of
//! a stream may be given twice, and every call may reach the server twice, at once; then either
//! of its answers is given. Connections end when those behind them do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::future::join_all;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use parking_lot::Mutex;
use prost::Message;
use syncline::rpc::proto::SubscribeRequest;
use syncline::rpc::proto::subscribe_request::Frame;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::Random;

/// Flag and length, before each message.
const PREFIX_BYTES: usize = 5;
/// Calls that answer with a stream, or are asked by one.
const STREAMS: [&str; 3] = ["Subscribe", "Snapshot", "Watch"];

#[derive(Debug)]
struct Shared {
    random: Mutex<Random>,
    calls: AtomicU64,
    messages: AtomicU64,
}

/// The way to one server. Closed when dropped.
#[derive(Debug)]
pub struct Stutter {
    address: SocketAddr,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

impl Stutter {
    pub async fn start(server: SocketAddr, random: Random) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let random = Mutex::new(random);
        let shared = Shared { random, calls: AtomicU64::new(0), messages: AtomicU64::new(0) };
        let shared = Arc::new(shared);
        let mut accepting = JoinSet::new();
        let parts = Arc::clone(&shared);
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&parts);
                connections.spawn(async move {
                    // How it ended shows at both of its ends.
                    connect(client, server, shared).await.ok();
                });
            }
        });
        Self { address, shared, _accepting: accepting }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many calls, and messages of streams, have been there twice.
    pub fn doubled(&self) -> (u64, u64) {
        (self.shared.calls.load(Relaxed), self.shared.messages.load(Relaxed))
    }
}

impl Shared {
    fn below(&self, bound: u64) -> u64 {
        self.random.lock().below(bound)
    }
}

/// One connection of a client, and one to the server for it.
async fn connect(
    client: TcpStream,
    server: SocketAddr,
    shared: Arc<Shared>,
) -> Result<(), h2::Error> {
    let Ok(behind) = TcpStream::connect(server).await else { return Ok(()) };
    let (requests, driver) = h2::client::handshake(behind).await?;
    let mut inbound = h2::server::handshake(client).await?;
    let (mut driving, mut calls) = (JoinSet::new(), JoinSet::<Result<(), h2::Error>>::new());
    driving.spawn(driver);
    loop {
        tokio::select! {
            // Cancel safe: a call that was not accepted is accepted later.
            accepted = inbound.accept() => {
                let Some((request, respond)) = accepted.transpose()? else { return Ok(()) };
                let call = Call { requests: requests.clone(), shared: Arc::clone(&shared) };
                calls.spawn(call.run(request, respond));
            }
            // Cancel safe: it is told only once, and then all is over.
            _ended = driving.join_next() => return Ok(()),
            // Cancel safe: what has ended is told later.
            Some(ended) = calls.join_next() => match ended.expect("no call panics") {
                Err(error) if !error.is_reset() => return Err(error),
                _ => {}
            },
        }
    }
}

/// An answer, whole.
struct Answer {
    head: Response<()>,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

struct Call {
    requests: SendRequest<Bytes>,
    shared: Arc<Shared>,
}

impl Call {
    async fn run(
        self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) -> Result<(), h2::Error> {
        let (head, body) = request.into_parts();
        let method = head.uri.path().rsplit('/').next().unwrap_or_default();
        let done = match STREAMS.contains(&method) {
            true => self.stream(head, body, &mut respond).await,
            false => self.unary(head, body, &mut respond).await,
        };
        if let Some(reason) = done.as_ref().err().and_then(h2::Error::reason) {
            respond.send_reset(reason);
        }
        done
    }

    async fn ask(
        &self,
        head: Parts,
    ) -> Result<(h2::client::ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut requests = self.requests.clone().ready().await?;
        requests.send_request(Request::from_parts(head, ()), false)
    }

    async fn unary(
        self,
        head: Parts,
        mut body: RecvStream,
        respond: &mut SendResponse<Bytes>,
    ) -> Result<(), h2::Error> {
        let asked = all_of(&mut body).await?;
        let times = 1 + usize::from(self.shared.below(3) == 0);
        let calls = (0..times).map(|_| async {
            let (response, mut up) = self.ask(head.clone()).await?;
            up.send_data(asked.clone(), true)?;
            let (head, mut body) = response.await?.into_parts();
            let (head, data) = (Response::from_parts(head, ()), all_of(&mut body).await?);
            let trailers = body.trailers().await?;
            Ok::<_, h2::Error>(Answer { head, body: data, trailers })
        });
        let mut answers = Vec::new();
        for answer in join_all(calls).await {
            answers.push(answer?);
        }
        self.shared.calls.fetch_add(u64::from(times > 1), Relaxed);
        let at = usize::try_from(self.shared.below(answers.len() as u64)).unwrap();
        let Answer { head, body, trailers } = answers.swap_remove(at);
        if self.shared.below(3) == 0 {
            // The way back is long, not a wait for anything: later answers may be there first.
            tokio::time::sleep(Duration::from_millis(self.shared.below(40))).await;
        }
        let mut down = respond.send_response(head, false)?;
        down.send_data(body, false)?;
        down.send_trailers(trailers.unwrap_or_default())
    }

    async fn stream(
        self,
        head: Parts,
        body: RecvStream,
        respond: &mut SendResponse<Bytes>,
    ) -> Result<(), h2::Error> {
        let (response, up) = self.ask(head).await?;
        let shared = &self.shared;
        let down = async {
            let (head, mut body) = response.await?.into_parts();
            let mut down = respond.send_response(Response::from_parts(head, ()), false)?;
            pass(&mut body, &mut down, |_| shared.below(3) == 0, shared).await?;
            down.send_trailers(body.trailers().await?.unwrap_or_default())
        };
        tokio::select! {
            // Cancel safe: nothing goes on after it.
            done = down => done,
            // Cancel safe: nobody reads what was asked when the answer has ended.
            Err(error) = ask_on(body, up, shared) => Err(error),
        }
    }
}

/// Passes on what the client asks for; mutations may be sent twice.
async fn ask_on(
    mut body: RecvStream,
    mut up: SendStream<Bytes>,
    shared: &Shared,
) -> Result<(), h2::Error> {
    let mutates = |message: &[u8]| {
        let asked = SubscribeRequest::decode(message).ok().and_then(|it| it.frame);
        matches!(asked, Some(Frame::Mutate(_))) && shared.below(3) == 0
    };
    match pass(&mut body, &mut up, mutates, shared).await {
        Ok(()) => up.send_data(Bytes::new(), true),
        Err(error) => {
            up.send_reset(error.reason().unwrap_or(h2::Reason::CANCEL));
            Err(error)
        }
    }
}

/// Passes messages on until there are no more.
async fn pass(
    from: &mut RecvStream,
    to: &mut SendStream<Bytes>,
    twice: impl Fn(&[u8]) -> bool,
    shared: &Shared,
) -> Result<(), h2::Error> {
    let mut held = BytesMut::new();
    while let Some(data) = from.data().await {
        let data = data?;
        from.flow_control().release_capacity(data.len())?;
        held.extend_from_slice(&data);
        while let Some(message) = message(&mut held) {
            if twice(&message[PREFIX_BYTES..]) {
                shared.messages.fetch_add(1, Relaxed);
                to.send_data(message.clone(), false)?;
            }
            to.send_data(message, false)?;
        }
    }
    Ok(())
}

/// The next message, if it is there as a whole.
fn message(held: &mut BytesMut) -> Option<Bytes> {
    let length = usize::try_from(held.get(1..PREFIX_BYTES)?.get_u32()).ok()?;
    let whole = PREFIX_BYTES + length;
    (held.len() >= whole).then(|| held.split_to(whole).freeze())
}

async fn all_of(body: &mut RecvStream) -> Result<Bytes, h2::Error> {
    let mut all = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}
