//! Clients that no library makes: gRPC put together by hand on good HTTP/2, and
//! HTTP/2 put together by hand.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::request::Builder;
use syncline::rpc::proto::{MutateRequest, Mutation};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Status;

use super::{describe, mint};

/// Longer than anything that is tried here may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// A request of Mutate's path with a good token and the headers of gRPC.
pub fn post(method: &str) -> Builder {
    bare(method)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {}", mint("alice")))
}

/// A POST of a path of the service without any header.
pub fn bare(method: &str) -> Builder {
    let uri = format!("http://localhost/syncline.v1.SyncService/{method}");
    http::Request::builder().method("POST").uri(uri)
}

/// A gRPC message with this flag and this declared length.
pub fn framed(flag: u8, declared: u32, payload: &[u8]) -> Vec<u8> {
    [&[flag][..], &declared.to_be_bytes(), payload].concat()
}

/// A gRPC message as it should be.
pub fn message(payload: &[u8]) -> Vec<u8> {
    framed(0, u32::try_from(payload.len()).unwrap(), payload)
}

/// A request of Mutate, encoded.
pub fn mutate_bytes(mutation: Mutation) -> Vec<u8> {
    let request = MutateRequest { mutation: Some(mutation), ..Default::default() };
    prost::Message::encode_to_vec(&request)
}

/// Whether the client ends its half of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Said,
    Never,
}

/// What a server said to a request.
#[derive(Debug)]
pub struct Answer {
    pub http: u16,
    pub status: Option<Status>,
    pub body: Vec<u8>,
}

impl Answer {
    /// As one line.
    pub fn words(&self) -> String {
        match &self.status {
            _ if self.http != 200 => format!("http {}", self.http),
            None => "no status".into(),
            Some(status) => describe(status),
        }
    }
}

/// A connection of good HTTP/2.
#[derive(Debug)]
pub struct Http2 {
    requests: SendRequest<Bytes>,
    /// Ends with the connection.
    _driver: JoinSet<()>,
}

impl Http2 {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // How it ended shows in its streams.
            connection.await.ok();
        });
        Self { requests, _driver: driver }
    }

    /// Sends a request and reads its whole answer.
    pub async fn call(
        &self,
        request: Builder,
        body: Vec<u8>,
        end: End,
    ) -> Result<Answer, h2::Error> {
        timeout(PATIENCE, self.answer(request, body, end)).await.expect("an answer in time")
    }

    async fn answer(&self, request: Builder, body: Vec<u8>, end: End) -> Result<Answer, h2::Error> {
        let mut requests = self.requests.clone().ready().await?;
        let (response, mut out) = requests.send_request(request.body(()).unwrap(), false)?;
        // A server may answer, and end the stream, before it has read this.
        out.send_data(body.into(), end == End::Said).ok();
        let (head, mut inbound) = response.await?.into_parts();
        let mut body = Vec::new();
        while let Some(data) = inbound.data().await {
            let data = data?;
            inbound.flow_control().release_capacity(data.len())?;
            body.extend_from_slice(&data);
        }
        let trailers = inbound.trailers().await?.unwrap_or_default();
        let status = Status::from_header_map(&head.headers);
        let status = status.or_else(|| Status::from_header_map(&trailers));
        Ok(Answer { http: head.status.as_u16(), status, body })
    }

    /// Sends a request and reads no further than the head of its answer.
    pub async fn head(&self, request: Builder, body: Vec<u8>) -> Result<Answer, h2::Error> {
        let mut requests = self.requests.clone().ready().await?;
        let (response, mut out) = requests.send_request(request.body(()).unwrap(), false)?;
        out.send_data(body.into(), true).ok();
        let head = timeout(PATIENCE, response).await.expect("an answer in time")?.into_parts().0;
        let status = Status::from_header_map(&head.headers);
        Ok(Answer { http: head.status.as_u16(), status, body: Vec::new() })
    }
}

/// What every HTTP/2 client begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Kinds of frames.
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const CONTINUATION: u8 = 9;
}

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// An HTTP/2 frame.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(kind: u8, flags: u8, stream: u32, payload: Vec<u8>) -> Self {
        Self { kind, flags, stream, payload }
    }

    /// On the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[self.kind, self.flags], &self.stream.to_be_bytes()].concat();
        [head, self.payload.clone()].concat()
    }

    /// The big-endian number at this place of the payload.
    pub fn number_at(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    async fn read(inbound: &mut OwnedReadHalf) -> Option<Self> {
        let mut head = [0; 9];
        inbound.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        inbound.read_exact(&mut payload).await.ok()?;
        Some(Self { kind: head[3], flags: head[4], stream, payload })
    }
}

/// Headers as HPACK literals, without any table.
pub fn hpack(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// An integer with a prefix of seven bits.
fn integer(block: &mut Vec<u8>, value: usize) {
    if value < 127 {
        block.push(u8::try_from(value).unwrap());
        return;
    }
    block.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128 + 128).unwrap());
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
}

/// Opens a connection, sends the preface and these frames, then a ping. What
/// the server sent until it answered the ping or closed the connection.
pub async fn flood(address: SocketAddr, frames: impl Iterator<Item = Frame>) -> Vec<Frame> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut inbound, mut outbound) = stream.into_split();
    let mut batch = [PREFACE, &Frame::new(kind::SETTINGS, 0, 0, Vec::new()).bytes()].concat();
    let write = async {
        let ping = Frame::new(kind::PING, 0, 0, b"finished".to_vec());
        for frame in frames.chain(std::iter::once(ping)) {
            batch.extend(frame.bytes());
            if batch.len() > 16 << 10 || frame.kind == kind::PING {
                // A server that has had enough reads no more.
                outbound.write_all(&std::mem::take(&mut batch)).await.ok();
            }
        }
    };
    let read = async {
        let mut seen = Vec::new();
        while let Some(frame) = Frame::read(&mut inbound).await {
            let answered = frame.kind == kind::PING && frame.payload == b"finished";
            seen.push(frame);
            if answered {
                break;
            }
        }
        seen
    };
    let both = timeout(PATIENCE, async { tokio::join!(write, read).1 });
    both.await.expect("the flood ends in time")
}
