//! Somebody who signs tokens and publishes keys, over HTTP/1.1 by hand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::signature::Ed25519KeyPair;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use parking_lot::Mutex;
use serde_json::json;
use syncline::clock::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::{AUDIENCE, ISSUER};

/// A key with its name.
pub struct Key {
    kid: String,
    key: EncodingKey,
}

impl Key {
    pub fn new(kid: &str) -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        Self { kid: kid.into(), key: EncodingKey::from_ed_der(der.as_ref()) }
    }

    /// A token for this user, good for an hour.
    pub fn token(&self, user: &str) -> String {
        let exp = Clock::system().unix_seconds() + 3_600;
        let claims = json!({"sub": user, "iss": ISSUER, "aud": AUDIENCE, "exp": exp});
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, &claims, &self.key).unwrap()
    }

    fn jwk(&self) -> serde_json::Value {
        let jwk = Jwk::from_encoding_key(&self.key, Algorithm::EdDSA).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = self.kid.clone().into();
        jwk
    }
}

/// A key set.
pub fn set(keys: &[&Key]) -> String {
    let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
    json!({ "keys": keys }).to_string()
}

/// What the issuer says to whoever asks.
#[derive(Clone)]
pub enum Answer {
    /// A status, a further header and a body.
    Http(&'static str, String, String),
    HangUp,
    /// The connection stays open.
    Silence,
}

/// The issuer.
pub struct Issuer {
    address: SocketAddr,
    said: Arc<Said>,
    _tasks: JoinSet<()>,
}

struct Said {
    answer: Mutex<Answer>,
    fetched: AtomicUsize,
    /// Who followed a redirect.
    led: AtomicUsize,
}

const ELSEWHERE: &str = "/elsewhere";

impl Issuer {
    pub async fn start(keys: &[&Key]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Mutex::new(Answer::Http("200 OK", String::new(), set(keys)));
        let said = Arc::new(Said { answer, fetched: 0.into(), led: 0.into() });
        let mut tasks = JoinSet::new();
        let saying = Arc::clone(&said);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&saying)));
            }
        });
        Self { address, said, _tasks: tasks }
    }

    pub fn url(&self) -> String {
        format!("http://{}/jwks.json", self.address)
    }

    /// A header that leads to another place of the same issuer.
    pub fn elsewhere(&self) -> String {
        format!("location: http://{}{ELSEWHERE}\r\n", self.address)
    }

    pub fn publish(&self, keys: &[&Key]) {
        self.answer(Answer::Http("200 OK", String::new(), set(keys)));
    }

    pub fn answer(&self, answer: Answer) {
        *self.said.answer.lock() = answer;
    }

    /// How often it was asked.
    pub fn fetched(&self) -> usize {
        self.said.fetched.load(Ordering::SeqCst)
    }

    /// How often a redirect was followed.
    pub fn led(&self) -> usize {
        self.said.led.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, said: Arc<Said>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_gone) => return,
        }
    }
    let path = format!("GET {ELSEWHERE}");
    let count = if request.starts_with(path.as_bytes()) { &said.led } else { &said.fetched };
    count.fetch_add(1, Ordering::SeqCst);
    let answer = said.answer.lock().clone();
    match answer {
        Answer::HangUp => {}
        // Longer than anybody has patience.
        Answer::Silence => tokio::time::sleep(Duration::from_mins(1)).await,
        Answer::Http(status, header, body) => {
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\n{header}content-length: {length}\r\nconnection: close\r\n\r\n"
            );
            // Whoever has had enough hangs up.
            stream.write_all((head + &body).as_bytes()).await.ok();
        }
    }
}
