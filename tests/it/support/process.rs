//! The server as a process of its own, to be killed.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;

use super::server::{AUDIENCE, ISSUER, SECRET};

/// `syncline serve` on port 0. Killed when dropped.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
    pub address: SocketAddr,
    log: Arc<Mutex<String>>,
}

/// Limits that are off unless a test says otherwise.
const UNLIMITED: [&str; 7] = [
    "SYNCLINE_READS_PER_SECOND",
    "SYNCLINE_WRITES_PER_SECOND",
    "SYNCLINE_OPENS_PER_SECOND",
    "SYNCLINE_USER_STREAMS",
    "SYNCLINE_SPACE_RECORDS",
    "SYNCLINE_SPACE_BYTES",
    "SYNCLINE_SPACE_SUBSCRIPTIONS",
];

impl ServerProcess {
    /// Starts it and waits until it says where it listens.
    pub fn start(database_url: &str) -> Self {
        Self::start_with(database_url, &[])
    }

    /// The same with more arguments.
    pub fn start_with(database_url: &str, arguments: &[&str]) -> Self {
        Self::start_in(database_url, arguments, &[])
    }

    /// The same with more of the environment.
    pub fn start_in(database_url: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_syncline"))
            .args(["serve", "--log-format", "json", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .args(["--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE])
            .env("SYNCLINE_JWT_SECRET", SECRET)
            .env("DATABASE_URL", database_url)
            // What is limited is limited by the tests of limits.
            .envs(UNLIMITED.map(|name| (name, "0")))
            .envs(environment.iter().copied())
            // What is freed goes back at once, so that memory can be compared.
            .env("MIMALLOC_PURGE_DELAY", "0")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("the server says where it listens").unwrap();
            let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            let address = line["address"].as_str();
            let address = address.or_else(|| line["fields"]["address"].as_str());
            if let Some(address) = address {
                break address.parse().unwrap();
            }
        };
        // Its log goes on; a full pipe would stop it.
        let log = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        Self { child, address, log }
    }

    /// What it has logged since it serves.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Memory that it holds, in bytes; None where nothing tells.
    pub fn memory_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib << 10)
    }

    /// Whether it dies by itself within some seconds.
    pub async fn died(mut self) -> bool {
        for _ in 0..1_000 {
            if self.child.try_wait().unwrap().is_some() {
                return true;
            }
            // Between two looks, as in `wait_for`: here it may also live on.
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        false
    }

    /// kill -9, and gone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
    }

    /// Asks it to stop and waits; its exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.child.wait().unwrap().code()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
