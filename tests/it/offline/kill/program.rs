//! The program as a user starts it, on a file of theirs, and how it ends.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;

use crate::offline::device::url;
use crate::support::private::blocking;
use crate::support::program::{ended, syncline};
use crate::support::{Client, House, TestServer, mint, wait_for};

/// What ends a program at one of its places, and what kill -9 is.
const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;

/// No run takes longer.
const END_WITHIN: Duration = Duration::from_secs(120);

/// A user's program and file.
#[derive(Debug)]
pub struct Program {
    dir: TempDir,
    pub server: String,
    pub user: String,
    /// What is synced; empty: the user's own space.
    pub space: String,
    /// The same user, elsewhere.
    pub client: Client,
}

/// What a run has said, and how it ended.
#[derive(Debug)]
pub struct Run {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    /// The edits that went in, by number, in their order.
    pub lines: Vec<usize>,
    /// The signals that were to end it.
    deadly: Vec<i32>,
}

/// A line of a script, with the number of its edit.
pub type Line = (usize, String);

impl Program {
    pub async fn new(house: &House, user: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), mint(user)).unwrap();
        let client = Client::connect(house.server.address(), &mint(user)).await;
        let server = url(house.server.address());
        Self { dir, server, user: user.into(), space: String::new(), client }
    }

    /// From now on it is synced with this one.
    pub async fn lead_to(&mut self, server: &TestServer) {
        self.server = url(server.address());
        self.client = Client::connect(server.address(), &mint(&self.user)).await;
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts it on the file, with these lines on stdin.
    pub fn start(&self, arguments: &[&str], lines: &[Line], place: Option<&str>) -> Running {
        let mut command = syncline();
        command
            .args(arguments)
            .args(["--json", "--user", &self.user, "--server", &self.server])
            .args(["--space", &self.space])
            .arg("--store")
            .arg(self.path("app.db"))
            .arg("--token-file")
            .arg(self.path("token"))
            .current_dir(self.dir.path());
        Running::start(&mut command, lines, place)
    }

    pub async fn run(&self, arguments: &[&str], lines: &[Line], place: Option<&str>) -> Run {
        self.start(arguments, lines, place).end().await
    }

    /// Dies at this place of what it does with the file.
    pub async fn dies(&self, arguments: &[&str], place: &str) {
        let run = self.run(arguments, &[], Some(place)).await;
        assert!(run.died(), "{arguments:?} {place}: {run:?}");
    }

    /// Puts these edits in and syncs, to its end or its death.
    pub async fn sync(&self, lines: &[Line], place: Option<&str>) -> Run {
        self.run(&["sync"], lines, place).await
    }

    /// The same, killed after so long.
    pub async fn killed(&self, lines: &[Line], after: Duration) -> Run {
        let running = self.start(&["sync"], lines, None);
        // The moment of its death, not a wait for anything.
        tokio::time::sleep(after).await;
        running.kill().await
    }

    /// What a command that reads the file prints.
    pub async fn values(&self, arguments: &[&str]) -> Vec<Value> {
        let run = self.run(arguments, &[], None).await;
        assert!(run.status.success(), "{arguments:?}: {run:?}");
        run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn keep(mut from: impl Read + Send + 'static, to: Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            to.lock().extend_from_slice(&buffer[..count]);
        }
    })
}

/// A program that runs. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    said: Arc<Mutex<Vec<u8>>>,
    wrong: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
    lines: Vec<usize>,
    deadly: Vec<i32>,
}

impl Running {
    /// With these lines on stdin.
    pub fn start(command: &mut Command, lines: &[Line], place: Option<&str>) -> Self {
        command.stdin(Stdio::piped());
        if let Some(place) = place {
            command.env("SYNCLINE_FAILPOINT", place);
        }
        let mut child = command.spawn().unwrap();
        let text: String = lines.iter().map(|(_, line)| format!("{line}\n")).collect();
        let mut stdin = child.stdin.take().unwrap();
        // It may die before it has read all.
        std::thread::spawn(move || stdin.write_all(text.as_bytes()).ok());
        let said = Arc::new(Mutex::new(Vec::new()));
        let out = keep(child.stdout.take().unwrap(), Arc::clone(&said));
        let wrong = Arc::new(Mutex::new(Vec::new()));
        let err = keep(child.stderr.take().unwrap(), Arc::clone(&wrong));
        let lines = lines.iter().map(|(number, _)| *number).collect();
        let deadly = place.map(|_| SIGABRT).into_iter().collect();
        Self { child, said, wrong, readers: vec![out, err], lines, deadly }
    }

    /// Waits until it has said this.
    pub async fn has_said(&self, words: &str) {
        let said = || String::from_utf8_lossy(&self.said.lock()).contains(words);
        wait_for(words, async || said().then_some(())).await;
    }

    /// kill -9, if it has not ended yet.
    pub async fn kill(mut self) -> Run {
        self.child.kill().ok();
        self.deadly.push(SIGKILL);
        self.end().await
    }

    /// Waits until it ends by itself, or dies.
    pub async fn end(mut self) -> Run {
        let wrong = Arc::clone(&self.wrong);
        let said = || String::from_utf8_lossy(&wrong.lock()).into_owned();
        let status = ended(&mut self.child, END_WITHIN, said).await;
        let readers = std::mem::take(&mut self.readers);
        blocking(move || readers.into_iter().for_each(|it| it.join().unwrap())).await;
        let text = |bytes: &Mutex<Vec<u8>>| String::from_utf8(bytes.lock().clone()).unwrap();
        let (stdout, stderr) = (text(&self.said), text(&self.wrong));
        let (lines, deadly) = (std::mem::take(&mut self.lines), std::mem::take(&mut self.deadly));
        Run { status, stdout, stderr, lines, deadly }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Run {
    /// Whether it has died as it was to; no other death is borne.
    #[track_caller]
    pub fn died(&self) -> bool {
        let signal = self.status.signal();
        assert!(signal.is_none_or(|it| self.deadly.contains(&it)), "{self:?}");
        signal.is_some()
    }

    /// With everything sent; perhaps something was refused.
    #[track_caller]
    pub fn ended_well(&self) {
        assert!(matches!(self.status.code(), Some(0 | 9)), "{}: {self:?}", self.stderr);
    }

    /// The edits that it has told to be on disk: their number, and the id.
    pub fn told(&self) -> Vec<(usize, String)> {
        // What a death has cut off was not told.
        let whole = self.stdout.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let values = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let told = values.filter_map(|it| {
            let at = usize::try_from(it["line"].as_u64()?).unwrap() - 1;
            Some((self.lines[at], it["edit"].as_str()?.to_owned()))
        });
        told.collect()
    }

    /// The edits that were refused before they were queued.
    pub fn refused(&self) -> Vec<usize> {
        let values = self.stdout.lines().filter_map(|it| serde_json::from_str::<Value>(it).ok());
        let refused = values.filter_map(|it| {
            it["error"].as_str()?;
            Some(self.lines[usize::try_from(it["line"].as_u64()?).unwrap() - 1])
        });
        refused.collect()
    }
}
