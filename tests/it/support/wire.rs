//! A proxy in front of PostgreSQL that reads along: it counts the statements that are
//! executed, and loses, doubles or delays notifications. It knows of the protocol only
//! where a message ends and what these few are.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// What becomes of notifications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notifications {
    Pass,
    Lost,
    Doubled,
    Late(Duration),
}

/// What becomes of the connections that listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listeners {
    Live,
    /// Cut, those that were there.
    Cut,
    /// Silent for good, those that were there.
    Silent,
}

#[derive(Debug)]
struct Shared {
    socket: PathBuf,
    notifications: Mutex<Notifications>,
    /// How often each statement was executed.
    statements: Mutex<BTreeMap<String, u64>>,
    /// Notifications that came by.
    came: Mutex<u64>,
    listeners: watch::Sender<Listeners>,
}

/// A proxy on a port of its own. Its connections end when it is dropped.
#[derive(Debug)]
pub struct Wire {
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

impl Wire {
    /// In front of the PostgreSQL that this URL leads to, and the URL through it.
    pub async fn start(url: &str) -> (Self, String) {
        let (rest, socket_dir) = url.split_once("?host=").expect("a private PostgreSQL");
        let database = rest.rsplit_once('/').expect("a database").1;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            socket: PathBuf::from(socket_dir).join(".s.PGSQL.5432"),
            notifications: Mutex::new(Notifications::Pass),
            statements: Mutex::default(),
            came: Mutex::default(),
            listeners: watch::channel(Listeners::Live).0,
        });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&shared)));
        let url = format!("postgres://postgres@{address}/{database}?sslmode=disable");
        (Self { shared, _accepting: accepting }, url)
    }

    pub fn notifications(&self, are: Notifications) {
        *self.shared.notifications.lock() = are;
    }

    /// How many notifications came by, whatever became of them.
    pub fn came(&self) -> u64 {
        *self.shared.came.lock()
    }

    /// Cuts the connections that listen.
    pub fn cut_listeners(&self) {
        self.shared.listeners.send_replace(Listeners::Cut);
    }

    /// From now on nothing comes through the connections that listen, and nobody says so.
    pub fn silence_listeners(&self) {
        self.shared.listeners.send_replace(Listeners::Silent);
    }

    /// Counts from zero.
    pub fn forget(&self) {
        self.shared.statements.lock().clear();
    }

    /// How often statements were executed that contain these words.
    pub fn executed(&self, words: &str) -> u64 {
        let statements = self.shared.statements.lock();
        statements.iter().filter(|(sql, _)| sql.contains(words)).map(|(_, count)| count).sum()
    }

    /// All that was executed, to be shown.
    pub fn statements(&self) -> BTreeMap<String, u64> {
        let short = |sql: &String| sql.split_whitespace().take(12).collect::<Vec<_>>().join(" ");
        let statements = self.shared.statements.lock();
        let mut shown = BTreeMap::new();
        for (sql, count) in &*statements {
            *shown.entry(short(sql)).or_default() += count;
        }
        shown
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

async fn carry(client: TcpStream, shared: Arc<Shared>) {
    client.set_nodelay(true).ok();
    let Ok(server) = UnixStream::connect(&shared.socket).await else { return };
    let listeners = shared.listeners.subscribe();
    let ((from_client, to_client), (from_server, to_server)) = (split(client), split(server));
    let (mut up, mut down) = (Way::new(from_client, to_server), Way::new(from_server, to_client));
    let listens = watch::channel(false);
    // Cancel: with one way the other ends, whatever it holds; so it is with a cut.
    let silent = tokio::select! {
        _ended = pass_statements(&mut up, &shared, &listens.0) => false,
        _ended = pass_answers(&mut down, &shared) => false,
        silent = fate(listeners, listens.1) => silent,
    };
    if silent {
        // The connections stay open.
        std::future::pending::<()>().await;
    }
}

/// Returns when something is to happen to a connection that listens: true if it falls
/// silent, else it is cut.
async fn fate(
    mut listeners: watch::Receiver<Listeners>,
    mut listens: watch::Receiver<bool>,
) -> bool {
    let listening = listens.wait_for(|listens| *listens).await.is_ok();
    listeners.mark_unchanged();
    if !listening || listeners.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    *listeners.borrow() == Listeners::Silent
}

/// One way of a connection, by messages.
struct Way<R, W> {
    from: R,
    to: W,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Way<R, W> {
    fn new(from: R, to: W) -> Self {
        Self { from, to, buffer: BytesMut::new() }
    }

    /// The next message, whose length stands behind so many bytes. Cancel safe.
    async fn next(&mut self, tag_bytes: usize) -> io::Result<Bytes> {
        loop {
            let length = self.buffer.get(tag_bytes..tag_bytes + 4);
            let length = length.map(|mut it| it.get_u32() as usize + tag_bytes);
            if let Some(length) = length.filter(|length| *length <= self.buffer.len()) {
                return Ok(self.buffer.split_to(length).freeze());
            }
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Text up to a zero, and what follows.
fn text(bytes: &[u8]) -> (String, &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let rest = bytes.get(end + 1..).unwrap_or_default();
    (String::from_utf8_lossy(&bytes[..end]).into_owned(), rest)
}

async fn pass_statements(
    way: &mut Way<impl AsyncRead + Unpin, impl AsyncWrite + Unpin>,
    shared: &Shared,
    listens: &watch::Sender<bool>,
) -> io::Result<()> {
    let first = way.next(0).await?;
    way.to.write_all(&first).await?;
    let (mut prepared, mut bound) = (HashMap::new(), HashMap::new());
    loop {
        let message = way.next(1).await?;
        let (name, rest) = text(&message[5..]);
        let executed = match message[0] {
            b'P' => {
                prepared.insert(name, text(rest).0);
                None
            }
            b'B' => {
                let sql = prepared.get(&text(rest).0).cloned();
                bound.insert(name, sql.unwrap_or_default());
                None
            }
            b'E' => bound.get(&name).cloned(),
            b'Q' => Some(name),
            _ => None,
        };
        if let Some(sql) = executed {
            if sql.starts_with("LISTEN") {
                listens.send_replace(true);
            }
            *shared.statements.lock().entry(sql).or_default() += 1;
        }
        way.to.write_all(&message).await?;
    }
}

async fn pass_answers(
    way: &mut Way<impl AsyncRead + Unpin, impl AsyncWrite + Unpin>,
    shared: &Shared,
) -> io::Result<()> {
    let mut late: VecDeque<(Instant, Bytes)> = VecDeque::new();
    loop {
        let due = late.front().map(|(due, _)| *due);
        let first_due = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        // Cancel: a message that is not whole stays in the buffer.
        let message = tokio::select! {
            message = way.next(1) => message?,
            () = first_due => {
                let (_, message) = late.pop_front().expect("one was due");
                way.to.write_all(&message).await?;
                continue;
            }
        };
        if message[0] != b'A' {
            way.to.write_all(&message).await?;
            continue;
        }
        *shared.came.lock() += 1;
        let notifications = *shared.notifications.lock();
        match notifications {
            Notifications::Pass => way.to.write_all(&message).await?,
            Notifications::Lost => {}
            Notifications::Doubled => {
                way.to.write_all(&[&message[..], &message[..]].concat()).await?
            }
            Notifications::Late(by) => late.push_back((Instant::now() + by, message)),
        }
    }
}
