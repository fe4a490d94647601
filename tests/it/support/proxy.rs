//! A network that breaks on command: a proxy in front of a server, or in front
//! of PostgreSQL. It delays, cuts (with RST), ends in order (with FIN), holds
//! back what is sent, loses everything in silence, refuses, and heals. A fault is aimed at a number of bytes or at words that
//! pass by, so that "cut after COMMIT was sent and before it was answered" is
//! one line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Where a proxy leads to.
#[derive(Clone, Debug)]
pub enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What may happen to a connection, once, at a moment of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection that sends these words is cut before they arrive.
    CutBefore(String),
    /// They arrive, and the connection is cut before an answer can.
    CutAfter(String),
    /// Cut when this many more bytes have come back, in the middle of a frame.
    CutAnswerAfter(usize),
    /// These words arrive, and from then on the connection is silent.
    SilenceAfter(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Open,
    Blackhole,
    Refuse,
}

#[derive(Debug)]
struct State {
    target: Target,
    mode: Mode,
    delay: Duration,
    armed: Vec<Fault>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Connections end when this moves; true: in order.
    cuts: watch::Sender<(u64, bool)>,
    /// What is sent up waits while this is true.
    held: watch::Sender<bool>,
    fired: AtomicU64,
}

/// A proxy on a port of its own. Its connections end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

enum Verdict {
    Forward,
    Swallow,
    CutAt(usize),
}

impl Proxy {
    pub async fn start(target: Target) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { target, mode: Mode::Open, delay: Duration::ZERO, armed: Vec::new() };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            cuts: watch::channel((0, false)).0,
            held: watch::channel(false).0,
            fired: AtomicU64::new(0),
        });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, _accepting: accepting }
    }

    /// In front of the PostgreSQL that this URL leads to, and the URL through it.
    pub async fn postgres(url: &str) -> (Self, String) {
        let (rest, socket_dir) = url.split_once("?host=").expect("a private PostgreSQL");
        let database = rest.rsplit_once('/').expect("a database").1;
        let socket = PathBuf::from(socket_dir).join(".s.PGSQL.5432");
        let proxy = Self::start(Target::Unix(socket)).await;
        let url = format!("postgres://postgres@{}/{database}?sslmode=disable", proxy.address);
        (proxy, url)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// New connections lead there.
    pub fn lead_to(&self, target: Target) {
        self.shared.state.lock().target = target;
    }

    /// Whatever passes is this late, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.shared.state.lock().delay = delay;
    }

    /// Cuts all connections, with RST; new ones are fine.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts = (cuts.0 + 1, false));
    }

    /// Ends all connections in order, with FIN; new ones are fine.
    pub fn finish(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts = (cuts.0 + 1, true));
    }

    /// What clients send waits until the proxy heals; what they are sent passes.
    pub fn hold(&self) {
        self.shared.held.send_replace(true);
    }

    /// Open connections are silent from now on and stay so, even when the proxy
    /// heals, like those of a firewall that has forgotten them. New ones, too,
    /// until then.
    pub fn blackhole(&self) {
        self.shared.state.lock().mode = Mode::Blackhole;
    }

    /// Cuts all connections, and new ones at once.
    pub fn refuse(&self) {
        self.shared.state.lock().mode = Mode::Refuse;
        self.cut();
    }

    /// Everything passes again.
    pub fn heal(&self) {
        let mut state = self.shared.state.lock();
        state.mode = Mode::Open;
        state.delay = Duration::ZERO;
        state.armed.clear();
        self.shared.held.send_replace(false);
    }

    /// Lets this happen to the first connection it suits.
    pub fn arm(&self, fault: Fault) {
        self.shared.state.lock().armed.push(fault);
    }

    /// How many faults that were armed have happened.
    pub fn fired(&self) -> u64 {
        self.shared.fired.load(SeqCst)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _peer)) = listener.accept().await else { continue };
        connections.spawn(carry(client, Arc::clone(&shared)));
        while connections.try_join_next().is_some() {}
    }
}

async fn carry(mut client: TcpStream, shared: Arc<Shared>) {
    client.set_nodelay(true).ok();
    let mut cuts = shared.cuts.subscribe();
    let (target, mode) = {
        let state = shared.state.lock();
        (state.target.clone(), state.mode)
    };
    let carrying = async {
        match target {
            _ if mode == Mode::Refuse => true,
            Target::Tcp(address) => {
                let Ok(server) = TcpStream::connect(address).await else { return true };
                server.set_nodelay(true).ok();
                both_ways(&mut client, server, &shared).await
            }
            Target::Unix(path) => {
                let Ok(server) = UnixStream::connect(path).await else { return true };
                both_ways(&mut client, server, &shared).await
            }
        }
    };
    // Cancel: what is lost is what the cut is for.
    let cut = tokio::select! {
        cut = carrying => cut,
        _ = cuts.changed() => !cuts.borrow().1,
    };
    if cut {
        client.set_zero_linger().ok();
    }
}

/// True if the connection is to be cut; false if one side has closed it.
async fn both_ways(
    client: &mut TcpStream,
    server: impl AsyncRead + AsyncWrite,
    shared: &Shared,
) -> bool {
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = split(server);
    let silent = Mutex::new(false);
    // Cancel: with one way the other ends, whatever it holds.
    tokio::select! {
        cut = pump(from_client, to_server, Way::Up, &silent, shared) => cut,
        cut = pump(from_server, to_client, Way::Down, &silent, shared) => cut,
    }
}

async fn pump(
    from: impl AsyncRead,
    to: impl AsyncWrite,
    way: Way,
    silent: &Mutex<bool>,
    shared: &Shared,
) -> bool {
    tokio::pin!(from, to);
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let delay = shared.state.lock().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if way == Way::Up {
            shared.held.subscribe().wait_for(|held| !held).await.ok();
        }
        let (end, cut) = match shared.judge(way, &buffer[..count], &mut silent.lock()) {
            Verdict::Forward => (count, false),
            Verdict::Swallow => continue,
            Verdict::CutAt(end) => (end, true),
        };
        if to.write_all(&buffer[..end]).await.is_err() || cut {
            return true;
        }
    }
    false
}

impl Shared {
    /// What to do with these bytes; a fault that they set off is used up.
    fn judge(&self, way: Way, bytes: &[u8], silent: &mut bool) -> Verdict {
        let mut state = self.state.lock();
        *silent |= state.mode == Mode::Blackhole;
        if *silent {
            return Verdict::Swallow;
        }
        let contains =
            |words: &str| bytes.windows(words.len()).any(|window| window == words.as_bytes());
        let mut verdict = Verdict::Forward;
        let mut set_off = None;
        for (index, fault) in state.armed.iter_mut().enumerate() {
            verdict = match fault {
                Fault::CutBefore(words) if way == Way::Up && contains(words) => Verdict::CutAt(0),
                Fault::CutAfter(words) if way == Way::Up && contains(words) => {
                    Verdict::CutAt(bytes.len())
                }
                Fault::SilenceAfter(words) if way == Way::Up && contains(words) => {
                    *silent = true;
                    Verdict::Forward
                }
                Fault::CutAnswerAfter(left) if way == Way::Down => {
                    if *left > bytes.len() {
                        *left -= bytes.len();
                        continue;
                    }
                    Verdict::CutAt(*left)
                }
                _ => continue,
            };
            set_off = Some(index);
            break;
        }
        if let Some(index) = set_off {
            state.armed.remove(index);
            self.fired.fetch_add(1, SeqCst);
        }
        verdict
    }
}
