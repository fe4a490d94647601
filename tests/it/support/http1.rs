//! HTTP/1.1 and gRPC-Web by hand, as a browser speaks them.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Status;

use super::describe;

/// Longer than anything that is tried here may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// The bit of a frame's flag that marks trailers.
const TRAILERS: u8 = 0x80;

/// A request without its body.
#[derive(Clone, Debug)]
pub struct Head(String);

impl Head {
    pub fn new(method: &str, path: &str) -> Self {
        Self(format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n"))
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.0 += &format!("{name}: {value}\r\n");
        self
    }
}

/// A connection.
#[derive(Debug)]
pub struct Http1 {
    stream: BufReader<TcpStream>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub http: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Http1 {
    pub async fn connect(address: SocketAddr) -> Self {
        Self { stream: BufReader::new(TcpStream::connect(address).await.unwrap()) }
    }

    /// Sends a request and reads its whole answer.
    pub async fn call(&mut self, head: Head, body: &[u8]) -> Answer {
        self.send(head, body.len(), body).await;
        self.answer().await
    }

    /// Sends a request with a body that is declared to have that many bytes. False
    /// if the server has had enough before; it may have answered.
    pub async fn send(&mut self, head: Head, declared: usize, body: &[u8]) -> bool {
        let head = head.with("content-length", &declared.to_string());
        let bytes = [head.0.as_bytes(), b"\r\n", body].concat();
        let sent = timeout(PATIENCE, self.stream.write_all(&bytes)).await;
        sent.expect("bytes are taken in time").is_ok()
    }

    /// Reads a whole answer.
    pub async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        while self.more(&mut answer).await {}
        answer
    }

    /// Reads an answer up to its body.
    pub async fn head(&mut self) -> Answer {
        let line = self.line().await;
        let http = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let http = http.unwrap_or_else(|| panic!("no status line: {line:?}"));
        let mut headers = HeaderMap::new();
        loop {
            let line = self.line().await;
            let Some((name, value)) = line.split_once(':') else { break };
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value.trim()).unwrap());
        }
        Answer { http, headers, body: Vec::new() }
    }

    /// Reads the next piece of the answer's body; false at its end.
    pub async fn more(&mut self, answer: &mut Answer) -> bool {
        let chunked = answer.header("transfer-encoding") == "chunked";
        let length = match chunked {
            true => usize::from_str_radix(&self.line().await, 16).unwrap(),
            false => answer.header("content-length").parse::<usize>().unwrap() - answer.body.len(),
        };
        let mut piece = vec![0; length];
        let whole = timeout(PATIENCE, self.stream.read_exact(&mut piece)).await;
        whole.expect("a body in time").unwrap();
        answer.body.extend(piece);
        if chunked {
            assert_eq!(self.line().await, "");
        }
        length > 0
    }

    /// Whether the server closes the connection, without another word.
    pub async fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        let end = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await;
        end.is_ok() && rest.is_empty()
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.stream.read_line(&mut line)).await;
        read.expect("a line in time").unwrap();
        assert!(line.ends_with("\r\n"), "the connection ended in a line: {line:?}");
        line.trim_end().to_owned()
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The messages, and the status at the end of the body or, where there is no
    /// body, in the headers.
    pub fn read(&self) -> (Vec<Vec<u8>>, Status) {
        let (messages, trailers) = self.so_far();
        let trailers = trailers.unwrap_or_else(|| self.headers.clone());
        let status = Status::from_header_map(&trailers);
        (messages, status.unwrap_or_else(|| panic!("no status: {self:?}")))
    }

    /// The messages that have come, and the trailers if they have.
    pub fn so_far(&self) -> (Vec<Vec<u8>>, Option<HeaderMap>) {
        frames(&self.decoded())
    }

    /// As one line.
    pub fn words(&self) -> String {
        match self.http {
            200 => describe(&self.read().1),
            other => format!("http {other}"),
        }
    }

    fn decoded(&self) -> Vec<u8> {
        if !self.header("content-type").starts_with("application/grpc-web-text") {
            return self.body.clone();
        }
        // Each piece has its own padding, so there may be some anywhere.
        let groups = self.body.chunks(4);
        groups.flat_map(|group| STANDARD.decode(group).expect("base64")).collect()
    }
}

/// The messages in a body, and the trailers if they have come.
fn frames(mut body: &[u8]) -> (Vec<Vec<u8>>, Option<HeaderMap>) {
    let mut messages = Vec::new();
    while let Some((head, rest)) = body.split_first_chunk::<5>() {
        let [flag, length @ ..] = *head;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap();
        let (payload, rest) = rest.split_at(length);
        if flag == TRAILERS {
            assert!(rest.is_empty(), "something comes behind the trailers");
            return (messages, Some(trailers(payload)));
        }
        assert_eq!(flag, 0);
        messages.push(payload.to_vec());
        body = rest;
    }
    assert!(body.is_empty(), "half a frame");
    (messages, None)
}

fn trailers(block: &[u8]) -> HeaderMap {
    let text = str::from_utf8(block).unwrap();
    let pair = |line: &str| {
        let (name, value) = line.split_once(':').unwrap();
        (name.parse().unwrap(), HeaderValue::from_str(value.trim()).unwrap())
    };
    text.split_terminator("\r\n").map(pair).collect::<Vec<(HeaderName, _)>>().into_iter().collect()
}
