//! The program as a user starts it: without the developer's own settings, and killed when its test
//! ends before it does.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use super::private::blocking;

/// No run takes longer.
const END_WITHIN: Duration = Duration::from_secs(60);

/// Waits until a program has ended; what it says is told if it does not.
pub async fn ended(child: &mut Child, within: Duration, said: impl Fn() -> String) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(began.elapsed() < within, "it does not end: {}", said());
        // Between two looks.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

/// The program, with nothing that the environment says to it, and nothing on stdin.
pub fn syncline() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_syncline"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("SYNCLINE_") || name == "DATABASE_URL" {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A program that runs.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    pub fn stdin(&mut self) -> ChildStdin {
        self.0.stdin.take().unwrap()
    }

    pub fn stdout(&mut self) -> ChildStdout {
        self.0.stdout.take().unwrap()
    }

    /// Types this in, and then there is no more. It may end without reading all.
    pub fn type_in(&mut self, text: impl AsRef<[u8]>) {
        let (mut stdin, text) = (self.stdin(), text.as_ref().to_vec());
        std::thread::spawn(move || stdin.write_all(&text).ok());
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }

    /// Waits for its end, and for all that it says until then.
    pub async fn end(mut self) -> Output {
        let (out, err) = (keep(self.0.stdout.take()), keep(self.0.stderr.take()));
        let status = ended(&mut self.0, END_WITHIN, String::new).await;
        let read = move || (out.join().unwrap(), err.join().unwrap());
        let (stdout, stderr) = blocking(read).await;
        Output { status, stdout, stderr }
    }
}

fn keep(from: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut said = Vec::new();
        if let Some(mut from) = from {
            from.read_to_end(&mut said).unwrap();
        }
        said
    })
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
