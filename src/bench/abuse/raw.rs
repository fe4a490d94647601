//! The abusers: HTTP/2 put together by hand, as no library would send it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::service::interceptor::InterceptedService;

use super::Guarded;
use crate::bench::report::Expected;
use crate::bench::target::{Bearer, connect, put};
use crate::rpc::proto::MutateRequest;
use crate::rpc::proto::sync_service_client::SyncServiceClient;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const END_HEADERS: u8 = 4;
/// Frames that are sent at once, and how long an abuser rests then: without, what is measured
/// is the processor that the abuser takes, on the same machine.
const BURST: usize = 500;
const REST: Duration = Duration::from_millis(10);
/// Whoever was thrown out comes back after this.
const RETURN: Duration = Duration::from_millis(100);
/// Abusers of each kind.
const ABUSERS: usize = 4;
/// Connections that never end their handshake.
const SLOW_HANDSHAKES: usize = 200;
/// Calls whose bodies never end.
const ENDLESS_BODIES: usize = 100;

/// A way to abuse a server.
#[derive(Clone, Copy, Debug)]
pub(super) enum Abuse {
    ResetFlood,
    PingFlood,
    SlowHandshake,
    EndlessBody,
    Idle(usize),
    OverRate,
}

/// Abuse that goes on until it ends.
pub(super) struct Abusing(JoinSet<()>);

impl Abusing {
    pub(super) async fn end(mut self) {
        self.0.shutdown().await;
    }
}

impl Abuse {
    /// All of them, with so many idle connections.
    pub(super) fn all(idle: usize) -> [Self; 6] {
        [
            Self::ResetFlood,
            Self::PingFlood,
            Self::SlowHandshake,
            Self::EndlessBody,
            Self::Idle(idle),
            Self::OverRate,
        ]
    }

    pub(super) fn name(self) -> String {
        match self {
            Self::ResetFlood => "reset flood".into(),
            Self::PingFlood => "ping flood".into(),
            Self::SlowHandshake => format!("{SLOW_HANDSHAKES} slow handshakes"),
            Self::EndlessBody => format!("{ENDLESS_BODIES} endless bodies"),
            Self::Idle(count) => format!("{count} idle connections"),
            Self::OverRate => "a user over their rate".into(),
        }
    }

    /// What it may cost the server: a connection that says nothing takes 29 to 33 KiB.
    pub(super) fn memory(self) -> Expected {
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        match self {
            Self::Idle(count) => Expected::AtMost(16.0 + count as f64 * 32.0 / 1024.0),
            _ => Expected::AtMost(64.0),
        }
    }

    /// Begins; idle connections are all open once this returns.
    pub(super) async fn begin(self, host: &Guarded) -> anyhow::Result<Abusing> {
        let address = host.address()?;
        let mut tasks = JoinSet::new();
        match self {
            Self::ResetFlood => {
                let block = headers(&host.token("abuser")?);
                for _ in 0..ABUSERS {
                    tasks.spawn(again(address, Written::Resets(block.clone())));
                }
            }
            Self::PingFlood => {
                for _ in 0..ABUSERS {
                    tasks.spawn(again(address, Written::Pings));
                }
            }
            Self::SlowHandshake => {
                for _ in 0..SLOW_HANDSHAKES {
                    tasks.spawn(slow_handshakes(address));
                }
            }
            Self::EndlessBody => {
                let block = headers(&host.token("abuser")?);
                tasks.spawn(again(address, Written::EndlessBodies(block)));
            }
            Self::Idle(count) => {
                for _ in 0..count {
                    let mut stream = TcpStream::connect(address).await?;
                    stream.write_all(&beginning()).await?;
                    tasks.spawn(async move {
                        // Whatever the server says is read, and pings are not answered.
                        let mut ignored = [0; 64];
                        while stream.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
                    });
                }
            }
            Self::OverRate => {
                let bearer = Bearer::new(&host.token("abuser")?)?;
                let channel = connect(&host.host.uri).await?;
                for _ in 0..ABUSERS {
                    let channel = InterceptedService::new(channel.clone(), bearer.clone());
                    let mut stub = SyncServiceClient::new(channel);
                    tasks.spawn(async move {
                        for number in 0.. {
                            let mutation = Some(put(number.to_string(), number));
                            let request = MutateRequest { mutation, ..Default::default() };
                            // Refused or not, it goes on.
                            stub.mutate(request).await.ok();
                        }
                    });
                }
            }
        }
        Ok(Abusing(tasks))
    }
}

/// What a client begins with.
fn beginning() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let [_, a, b, c] = length;
    let mut frame = vec![a, b, c, kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The head of a call of Mutate, as HPACK literals without any table.
fn headers(token: &str) -> Vec<u8> {
    let bearer = format!("Bearer {token}");
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/syncline.v1.SyncService/Mutate"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("authorization", bearer.as_str()),
    ] {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// An integer with a prefix of seven bits.
fn integer(block: &mut Vec<u8>, value: usize) {
    let byte = |value: usize| u8::try_from(value).unwrap_or(u8::MAX);
    if value < 127 {
        block.push(byte(value));
        return;
    }
    block.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        block.push(byte(rest % 128 + 128));
        rest /= 128;
    }
    block.push(byte(rest));
}

/// The number of a client's stream.
fn odd(number: usize) -> u32 {
    u32::try_from(2 * number + 1).unwrap_or(u32::MAX)
}

fn reset(number: usize, block: &[u8]) -> Vec<u8> {
    let stream = odd(number);
    let cancel = [0, 0, 0, 8];
    [frame(HEADERS, END_HEADERS, stream, block), frame(RST_STREAM, 0, stream, &cancel)].concat()
}

/// What an abuser writes on a connection; with the head of a call.
#[derive(Clone, Debug)]
enum Written {
    Resets(Vec<u8>),
    Pings,
    EndlessBodies(Vec<u8>),
}

impl Written {
    /// Writes it until that fails.
    async fn write(&self, outbound: OwnedWriteHalf) -> io::Result<()> {
        match self {
            Self::Resets(block) => flood(outbound, |number| reset(number, block)).await,
            Self::Pings => flood(outbound, |_number| frame(PING, 0, 0, &[0; 8])).await,
            Self::EndlessBodies(block) => endless_bodies(outbound, block).await,
        }
    }
}

/// Opens a connection, writes to it until it is closed, and comes back.
async fn again(address: SocketAddr, written: Written) {
    loop {
        if let Ok(stream) = TcpStream::connect(address).await {
            let (mut inbound, outbound) = stream.into_split();
            let read = async {
                let mut ignored = [0; 4 << 10];
                while inbound.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
            };
            // Cancel: whichever ends first, the connection is of no more use.
            tokio::select! {
                () = read => {}
                _broken = written.write(outbound) => {}
            }
        }
        // Whoever was thrown out comes back after a while.
        sleep(RETURN).await;
    }
}

/// One part after the other, without end.
async fn flood(mut outbound: OwnedWriteHalf, part: impl Fn(usize) -> Vec<u8>) -> io::Result<()> {
    outbound.write_all(&beginning()).await?;
    let mut numbers = 0..usize::MAX;
    loop {
        let burst: Vec<u8> = numbers.by_ref().take(BURST).flat_map(&part).collect();
        outbound.write_all(&burst).await?;
        // The pace is what bounds the abuse.
        sleep(REST).await;
    }
}

/// Calls whose messages come byte by byte and never end.
async fn endless_bodies(mut outbound: OwnedWriteHalf, block: &[u8]) -> io::Result<()> {
    outbound.write_all(&beginning()).await?;
    for number in 0..ENDLESS_BODIES {
        // A message of a mebibyte is announced.
        let begun = [
            frame(HEADERS, END_HEADERS, odd(number), block),
            frame(DATA, 0, odd(number), &[0, 0, 16, 0, 0]),
        ];
        outbound.write_all(&begun.concat()).await?;
    }
    loop {
        for number in 0..ENDLESS_BODIES {
            outbound.write_all(&frame(DATA, 0, odd(number), &[0])).await?;
        }
        // A byte for each now and then.
        sleep(RETURN).await;
    }
}

/// Says half a preface, waits to be thrown out, and comes back.
async fn slow_handshakes(address: SocketAddr) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(address).await
            && stream.write_all(PREFACE.get(..12).unwrap_or_default()).await.is_ok()
        {
            let mut rest = Vec::new();
            // Longer than the server lets it wait.
            timeout(Duration::from_secs(30), stream.read_to_end(&mut rest)).await.ok();
        }
        // As above.
        sleep(RETURN).await;
    }
}
