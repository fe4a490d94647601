//! A private PostgreSQL server that lives and ends with this process.
//!
//! Owns one folder: the data, the socket, the log and the lock that keeps a second process out.
//! The server listens on a unix socket only and syncs every commit to disk. It is restarted when
//! it dies, stopped when [`PrivatePostgres`] is dropped, and does not outlive this process even
//! when that is killed with SIGKILL. Knows nothing of SQL, sqlx or gRPC. Everything here blocks:
//! call it from `spawn_blocking` or before the runtime starts.
//!
//! - `binaries`: where PostgreSQL is installed, and which version
//! - `cluster`: the folders, their owner, `initdb`
//! - `process`: one running server and the guard that ends it after us
//! - `leftovers`: processes and lock files of an earlier run
//! - `supervisor`: the thread that watches, restarts and stops

mod binaries;
mod cluster;
mod error;
mod leftovers;
mod process;
mod supervisor;

pub use self::error::Error;
pub use binaries::program;

use std::{
    fmt::Write as _,
    fs::{self, File, Permissions, TryLockError},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use self::{
    cluster::Cluster,
    error::IoContext,
    process::Server,
    supervisor::{Request, State, Supervisor},
};

/// A child of a killed process shares its lock for the moment between fork and exec.
const LOCK_WAIT_MAX: Duration = Duration::from_millis(500);

/// What to run, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// Root folder, made when missing; holds `data/`, `socket/`, `server.log` and `lock`. Where its
    /// path does not do for a socket, that moves to a private folder under the temporary one.
    pub dir: PathBuf,
    /// Further server settings. They win over the defaults, and later ones over earlier ones.
    /// Only `cluster_name` is ours: it tells the processes of this folder from others.
    pub settings: Vec<(String, String)>,
    /// Lets `initdb` skip its final sync: faster, for data that need not survive a power cut.
    pub initdb_no_sync: bool,
}

impl Options {
    /// Durable defaults in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), settings: Vec::new(), initdb_no_sync: false }
    }
}

/// A running server. Dropping it stops the server and blocks until it is gone.
#[derive(Debug)]
pub struct PrivatePostgres {
    socket_dir: PathBuf,
    version: String,
    state: Arc<State>,
    requests: mpsc::SyncSender<Request>,
    thread: Option<thread::JoinHandle<()>>,
    /// Held until the server is gone.
    _lock: File,
}

impl PrivatePostgres {
    /// Makes the data folder if there is none, starts the server, returns once it takes
    /// connections. Processes that an earlier run left on the folder are ended first.
    pub fn start(options: Options) -> Result<Self, Error> {
        if !options.dir.exists() {
            fs::create_dir_all(&options.dir).at(&options.dir)?;
            // Whatever the umask: the server may run as another user, and has to get to its data.
            fs::set_permissions(&options.dir, Permissions::from_mode(0o711)).at(&options.dir)?;
        }
        let root = options.dir.canonicalize().at(&options.dir)?;
        let lock = lock(&root)?;
        let cluster = Cluster::prepare(&root, options)?;
        let server = Server::start_ready(&cluster)?;

        let state = Arc::new(State::default());
        state.up(server.pid());
        let (requests, inbox) = mpsc::sync_channel(4);
        let socket_dir = cluster.socket.path.clone();
        let version = cluster.binaries.version.clone();
        let supervisor = Supervisor::new(cluster, Arc::clone(&state));
        let thread = thread::Builder::new()
            .name("postgres".into())
            .spawn(move || supervisor.run(server, &inbox))
            .at(&socket_dir)?;
        Ok(Self { socket_dir, version, state, requests, thread: Some(thread), _lock: lock })
    }

    /// Stops the server with a fast shutdown and returns once it is gone.
    pub fn stop(self) {
        drop(self);
    }

    /// The folder of the unix socket; the port in the socket's name is 5432.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// Address of a database, for sqlx and libpq alike.
    pub fn url(&self, database: &str) -> String {
        url(&self.socket_dir, database)
    }

    /// The server's version as it names it, such as `15.18`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The process id of the server, or nothing while it does not take connections.
    pub fn pid(&self) -> Option<u32> {
        self.state.pid()
    }

    /// How often the server was started again after it had died.
    pub fn restarts(&self) -> u64 {
        self.state.restarts()
    }

    /// Kills all processes of the server with SIGKILL; the supervisor then starts it again without
    /// delay. For tests of durability: recovery has to find every acknowledged commit in the log.
    /// Not a power cut, since the system keeps what was written but not synced.
    pub fn kill9(&self) {
        let (done, wait) = mpsc::sync_channel(1);
        if self.requests.send(Request::Kill9(done)).is_ok() {
            // An error means the supervisor has ended, and the server with it.
            wait.recv().ok();
        }
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        self.requests.send(Request::Stop).ok();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the supervisor of postgresql panicked");
        }
    }
}

/// The kernel frees this lock however we end, so it needs no clean-up.
fn lock(root: &Path) -> Result<File, Error> {
    let path = root.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).at(&path)?;
    let begun = now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(Error::Io { path, source }),
            Err(TryLockError::WouldBlock) if begun.elapsed() > LOCK_WAIT_MAX => {
                return Err(Error::InUse { dir: root.into() });
            }
            // Between two tries: a lock file cannot be waited for with a limit.
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_WAIT_MAX / 50),
        }
    }
}

fn url(socket_dir: &Path, database: &str) -> String {
    let mut url = String::from("postgres://postgres@localhost/");
    percent_encode(database.as_bytes(), b"", &mut url);
    url.push_str("?host=");
    percent_encode(socket_dir.as_os_str().as_bytes(), b"/", &mut url);
    url
}

fn percent_encode(bytes: &[u8], keep: &[u8], into: &mut String) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || keep.contains(&byte) {
            into.push(char::from(byte));
        } else {
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

/// The real clock: what is timed here are processes, which no test can pause.
#[expect(clippy::disallowed_methods, reason = "plain threads without a tokio clock")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_escapes_what_a_path_may_hold() {
        assert_eq!(url(Path::new("/a/b"), "db"), "postgres://postgres@localhost/db?host=/a/b");
        assert_eq!(
            url(Path::new("/a b/ü&c+d%"), "x/y?"),
            "postgres://postgres@localhost/x%2Fy%3F?host=/a%20b/%C3%BC%26c%2Bd%25"
        );
    }
}
