//! TLS as clients meet it, and how many of them one address may be.

pub mod certificates;

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use syncline::clock::Clock;
use syncline::config::{ServerConfig, TlsConfig};
use syncline::rpc::proto::GetStatusRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tonic::{Code, Status};

use crate::support::{Client, Database, TestServer, mint, put, wait_for};
use certificates::{Authority, Caller, Identity};

/// A server with TLS, its files in a folder.
struct House {
    database: Database,
    server: TestServer,
    folder: tempfile::TempDir,
    authority: Authority,
}

impl House {
    async fn new() -> Self {
        Self::with(|_config| {}).await
    }

    /// Of whose clients this authority vouches for.
    async fn mutual(clients: &Authority) -> Self {
        let pem = clients.pem();
        Self::with(|tls| {
            let path = tls.cert.with_file_name("clients.pem");
            std::fs::write(&path, pem).unwrap();
            tls.client_ca = Some(path);
        })
        .await
    }

    async fn with(change: impl FnOnce(&mut TlsConfig)) -> Self {
        let database = Database::create().await;
        let authority = Authority::new();
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let look_interval = Duration::from_millis(20);
        let mut tls = TlsConfig { cert, key, client_ca: None, look_interval };
        change(&mut tls);
        put_in(&folder, &authority.issue());
        let change = |config: &mut ServerConfig| config.tls = Some(tls);
        let server = TestServer::start_with(&database, Clock::system(), change).await;
        Self { database, server, folder, authority }
    }

    /// Replaces the server's certificate.
    fn replace(&self, identity: &Identity) {
        put_in(&self.folder, identity);
    }

    fn address(&self) -> SocketAddr {
        self.server.address()
    }

    async fn end(self) {
        self.server.stop().await;
        drop(self.database);
    }
}

fn put_in(folder: &tempfile::TempDir, identity: &Identity) {
    std::fs::write(folder.path().join("key.pem"), &identity.key_pem).unwrap();
    std::fs::write(folder.path().join("cert.pem"), &identity.cert_pem).unwrap();
}

/// The client's library has made this status of a connection that broke, depending on when; a
/// server has no part in it.
fn broken(status: &Status) {
    let codes = [Code::Unavailable, Code::Cancelled, Code::Unknown, Code::Internal];
    assert!(codes.contains(&status.code()) && status.details().is_empty(), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_over_tls() {
    let house = House::new().await;
    for version in [&TLS13, &TLS12] {
        let caller = Caller::trusting(&house.authority).speaking(version);
        let alice = caller.client(house.address(), "alice").await;
        let id = format!("{version:?}").replace(char::is_whitespace, "");
        alice.mutate(put(&id, "1", "{}")).await.unwrap();
        let stream = caller.connect(house.address()).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    }
    let stranger = Caller::trusting(&Authority::new());
    assert!(stranger.connect(house.address()).await.is_err(), "not the certificate it trusts");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_get_http_1_if_they_want_it() {
    let house = House::new().await;
    let caller = Caller::trusting(&house.authority).asking_for(b"http/1.1");
    let mut stream = caller.connect(house.address()).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let request = "POST /syncline.v1.SyncService/GetStatus HTTP/1.1\r\nhost: localhost\r\n\
                   content-type: application/grpc-web+proto\r\ncontent-length: 5\r\n\
                   connection: close\r\n\r\n\0\0\0\0\0";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("grpc-status: 16") || answer.contains("grpc-status:16"), "{answer}");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_mutual_tls_only_known_clients_get_in() {
    let (clients, foreign) = (Authority::new(), Authority::new());
    let house = House::mutual(&clients).await;
    let trusting = || Caller::trusting(&house.authority);
    let call = async |caller: Caller| {
        let client = caller.lazy(house.address(), "alice");
        client
            .stub
            .clone()
            .get_status(GetStatusRequest::default())
            .await
            .map_err(|status| broken(&status))
    };
    for version in [&TLS13, &TLS12] {
        let caller = || trusting().speaking(version);
        assert!(call(caller().showing(&clients.issue())).await.is_ok());
        assert!(call(caller()).await.is_err(), "without a certificate");
        let of_another = call(caller().showing(&foreign.issue())).await;
        assert!(of_another.is_err(), "of an authority that nobody knows");
    }
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_replaced_while_connections_live() {
    let house = House::new().await;
    let caller = Caller::trusting(&house.authority);
    let alice = caller.client(house.address(), "alice").await;
    alice.mutate(put("before", "1", "{}")).await.unwrap();
    for round in 0..2 {
        let identity = house.authority.issue();
        // The key comes first, and for a moment does not go with the certificate.
        house.replace(&identity);
        wait_for("new connections see it", async || {
            let stream = caller.connect(house.address()).await.expect("there is always a good one");
            let seen = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
            (seen == identity.cert_der).then_some(())
        })
        .await;
        alice.mutate(put(&format!("after-{round}"), "1", "{}")).await.unwrap();
    }
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_handshakes_hold_up_nobody_and_end() {
    let house = House::new().await;
    let began = Instant::now();
    let silent = join_all((0..50).map(|n| {
        let address = house.address();
        async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // Nothing, or the first bytes of a ClientHello.
            stream.write_all(&[0x16, 3, 1, 2, 0][..n % 6]).await.unwrap();
            let mut rest = Vec::new();
            let end = timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
            assert!(end.is_ok(), "open after 10 s");
            began.elapsed()
        }
    }));
    let good = async {
        for n in 0..5 {
            let caller = Caller::trusting(&house.authority);
            let client = caller.client(house.address(), "alice").await;
            client.mutate(put(&format!("m{n}"), "1", "{}")).await.unwrap();
        }
        let took = began.elapsed();
        assert!(took < Duration::from_secs(3), "a good client waited for silent ones: {took:?}");
    };
    let (ends, ()) = tokio::join!(silent, good);
    for end in ends {
        assert!((4_000..7_000).contains(&end.as_millis()), "closed after {end:?}");
    }
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_after_the_handshake_is_closed_too() {
    let house = House::new().await;
    let caller = Caller::trusting(&house.authority);
    let mut stream = caller.connect(house.address()).await.unwrap();
    let began = Instant::now();
    let mut rest = Vec::new();
    let end = timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
    assert!(end.is_ok(), "open after 10 s");
    assert!(began.elapsed() > Duration::from_secs(4), "closed too early");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_tls_fails_at_once() {
    let house = House::new().await;
    let began = Instant::now();
    let client = Client::lazy(house.address(), &mint("alice"));
    let answer = client.stub.clone().get_status(GetStatusRequest::default()).await;
    broken(&answer.unwrap_err());
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    house.end().await;
}

/// Whether the server takes a connection from there.
async fn taken(address: SocketAddr, from: [u8; 4]) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    // An empty frame of settings behind the preface; the server says its own.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.ok()?;
    stream.read_u8().await.ok().map(|_| stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_has_its_own_number_of_connections() {
    let database = Database::create().await;
    let limited = |config: &mut ServerConfig| config.max_connections_per_address = 3;
    let server = TestServer::start_with(&database, Clock::system(), limited).await;
    let (here, there) = ([127, 0, 0, 1], [127, 0, 0, 2]);
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(taken(server.address(), here).await.expect("there is room"));
    }
    for _ in 0..3 {
        assert!(taken(server.address(), here).await.is_none(), "closed at once");
    }
    let other = taken(server.address(), there).await;
    assert!(other.is_some(), "other addresses have their own");
    streams.pop();
    wait_for("a place is free again", async || taken(server.address(), here).await).await;
    server.stop().await;
}
