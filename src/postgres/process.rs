//! One running server, and the guard that ends it after us.
//!
//! Each child begins as a shell that leaves a guard behind and then becomes the program, so its
//! process id is the program's. The guard waits on a pipe that only we can write to. A word on it
//! says that the program has ended; an end without a word says that we were killed. No moment is
//! unguarded, and no `unsafe` hook between fork and exec is needed.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User},
};

use super::{Error, cluster::Cluster, error::IoContext, leftovers, now};

/// `$1` is a folder to remove in the end, or nothing; the program and its arguments follow.
///
/// Plain POSIX. The guard is forked twice, or the server would meet a child it does not know. The
/// shell gives what runs in the background an empty input, so the pipe moves to descriptor 3.
/// `$$` names the program even in there, and each `kill` also asks whether that still runs.
const GUARD: &str = r#"
folder=$1
shift
exec 3<&0 </dev/null
(
    cd / && exec >/dev/null 2>&1
    PATH=/usr/bin:/bin
    (
        read -r word <&3 && exit
        for signal in INT QUIT KILL; do
            seconds=0
            while [ $seconds -lt 20 ]; do
                kill -$signal $$ || break 2
                sleep 1
                seconds=$((seconds + 1))
            done
        done
        [ -z "$folder" ] || rmdir "$folder"
    ) &
)
exec "$@" 3<&-
"#;

const POLL: Duration = Duration::from_millis(5);
/// Recovery after a crash reads the whole log since the last checkpoint.
const READY_WAIT_MAX: Duration = Duration::from_secs(300);
const LOG_BYTES_MAX: u64 = 10 << 20;
const LOG_TAIL_BYTES: u64 = 4 << 10;

/// The program `name` under a guard: own process group, so that Ctrl-C in the terminal reaches us
/// alone, and an environment that does not depend on ours.
fn guarded(cluster: &Cluster, name: &str) -> Command {
    let bin = &cluster.binaries.dir;
    let mut path = bin.clone().into_os_string();
    path.push(":/usr/bin:/bin");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", GUARD, "sh"]);
    command.arg(if cluster.socket.temporary { cluster.socket.path.as_path() } else { "".as_ref() });
    command.arg(bin.join(name)).arg("-D").arg(&cluster.data);
    command.current_dir(&cluster.data);
    command.env_clear().env("PATH", path).env("LC_ALL", "C").env("TZ", "UTC");
    command.process_group(0).stdin(Stdio::piped());
    if let Some(user) = &cluster.user {
        run_as(&mut command, user);
    }
    command
}

/// std also clears the supplementary groups when it changes the user as root.
pub(super) fn run_as(command: &mut Command, user: &User) {
    command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
}

/// Tells the guard that its program has ended, so that it signals nobody who inherits the id.
fn release(guard: Option<ChildStdin>) {
    if let Some(mut guard) = guard {
        // An error means the guard is gone, which is what is wanted.
        guard.write_all(b"ended\n").ok();
    }
}

pub(super) fn initdb(cluster: &Cluster, no_sync: bool) -> Result<(), Error> {
    let mut command = guarded(cluster, "initdb");
    command.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--data-checksums"]);
    if no_sync {
        command.arg("--no-sync");
    }
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().at(&cluster.data)?;
    let guard = child.stdin.take();
    let output = child.wait_with_output().at(&cluster.data)?;
    release(guard);
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Initdb { output: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

/// A child that is, or soon will be, a postmaster. Dropped without `stop`, its guard stops it.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    guard: Option<ChildStdin>,
    /// Length of the log before this server wrote to it.
    log_start: u64,
}

impl Server {
    /// Starts the server and waits until it takes connections.
    pub(super) fn start_ready(cluster: &Cluster) -> Result<Self, Error> {
        let begun = now();
        let mut server = Self::start(cluster)?;
        while server.exited().is_none() && begun.elapsed() < READY_WAIT_MAX {
            if server.is_ready(cluster) {
                return Ok(server);
            }
            // Between two looks: it says in its log only that it is ready.
            thread::sleep(POLL);
        }
        let log = server.log_tail(cluster);
        server.stop(cluster);
        Err(Error::NotStarted { log })
    }

    pub(super) fn start(cluster: &Cluster) -> Result<Self, Error> {
        let path = &cluster.log;
        let log = File::options().create(true).append(true).open(path).at(path)?;
        let mut log_start = log.metadata().at(path)?.len();
        if log_start > LOG_BYTES_MAX {
            log.set_len(0).at(path)?;
            log_start = 0;
        }
        let mut command = guarded(cluster, "postgres");
        command.arg("-k").arg(&cluster.socket.path);
        let mut set = |name: &str, value: &str| {
            command.arg("-c").arg(format!("{name}={value}"));
        };
        set("listen_addresses", "");
        set("unix_socket_permissions", "0700");
        set("fsync", "on");
        set("full_page_writes", "on");
        set("synchronous_commit", "on");
        set("max_connections", "200");
        set("shared_buffers", "128MB");
        if cfg!(target_os = "linux") && cluster.binaries.major >= 14 {
            // One call for the file system, instead of opening every file before recovery.
            set("recovery_init_sync_method", "syncfs");
        }
        for (name, value) in &cluster.settings {
            set(name, value);
        }
        set("cluster_name", &leftovers::cluster_name(&cluster.data));
        command.stdout(log.try_clone().at(path)?).stderr(log);
        let mut child = command.spawn().at(&cluster.data)?;
        let guard = child.stdin.take();
        Ok(Self { child, guard, log_start })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn is_ready(&self, cluster: &Cluster) -> bool {
        fs::read_to_string(cluster.data.join("postmaster.pid"))
            .is_ok_and(|file| says_ready(&file, self.pid()))
    }

    /// How the server ended, if it has; it then needs no guard any more.
    pub(super) fn exited(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().ok().flatten()?;
        release(self.guard.take());
        Some(status)
    }

    /// What this server wrote to the log last.
    pub(super) fn log_tail(&self, cluster: &Cluster) -> String {
        let mut tail = Vec::new();
        let read = File::open(&cluster.log).and_then(|mut log| {
            let length = log.metadata()?.len();
            log.seek(SeekFrom::Start(self.log_start.max(length.saturating_sub(LOG_TAIL_BYTES))))?;
            log.read_to_end(&mut tail)
        });
        match read {
            Ok(_) => String::from_utf8_lossy(&tail).trim().to_owned(),
            Err(_) => format!("see {}", cluster.log.display()),
        }
    }

    /// Fast shutdown, with harder means for a server that does not react.
    pub(super) fn stop(mut self, cluster: &Cluster) {
        // A collected process id may be somebody else's by now.
        if self.guard.is_none() {
            return;
        }
        for (signal, wait_s) in [(Signal::SIGINT, 25), (Signal::SIGQUIT, 10), (Signal::SIGKILL, 5)]
        {
            send(self.pid(), signal);
            let begun = now();
            while begun.elapsed() < Duration::from_secs(wait_s) {
                if self.exited().is_some() {
                    // Ends what a killed server left; after an orderly stop there is nothing.
                    leftovers::clear(&cluster.data, &cluster.socket.path).ok();
                    return;
                }
                thread::sleep(POLL);
            }
            tracing::warn!(%signal, "postgresql does not react");
        }
    }

    /// Kills all processes of the server at one blow.
    pub(super) fn kill9(mut self, data: &Path) {
        // Halted first, or it would see its children die and report that to its clients.
        send(self.pid(), Signal::SIGSTOP);
        let mut left = leftovers::processes(data);
        left.push(self.pid());
        for pid in left {
            send(pid, Signal::SIGKILL);
        }
        self.child.wait().ok();
        release(self.guard.take());
    }
}

/// Signals one process. The ids 0 and 1 would mean a whole group and the system itself.
pub(super) fn send(pid: u32, signal: Signal) {
    if let Ok(raw @ 2..) = i32::try_from(pid) {
        // It may have ended by itself meanwhile.
        let _ = kill(Pid::from_raw(raw), signal);
    }
}

/// `postmaster.pid` begins with the process id and ends with a state that is padded with spaces.
fn says_ready(file: &str, pid: u32) -> bool {
    recorded_pid(file) == Some(pid)
        && file.lines().last().is_some_and(|line| line.trim() == "ready")
}

/// The process id in `postmaster.pid`.
pub(super) fn recorded_pid(file: &str) -> Option<u32> {
    file.lines().next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn ready_needs_the_right_pid_and_the_last_line() {
        let file = |state: &str| format!("42\n/data\n1700000000\n5432\n/socket\n\n 1 2\n{state}");
        assert!(says_ready(&file("ready   \n"), 42));
        assert!(says_ready(&file("ready"), 42));
        assert!(!says_ready(&file("ready\n"), 43));
        assert!(!says_ready(&file("starting\n"), 42));
        assert!(!says_ready(&file("standby \n"), 42));
        assert!(!says_ready("42\n/data\n", 42));
        assert!(!says_ready("", 42));
        assert_eq!(recorded_pid("junk\n"), None);
    }

    /// Starts a program with SIGINT and SIGQUIT as they are by default, if `env` can do that.
    /// Started in the background by a script, we have them ignored, and hand that on to all that
    /// does not ask for something else, as PostgreSQL does.
    fn with_default_signals() -> Option<Command> {
        let command = || {
            let mut command = Command::new("env");
            command.arg("--default-signal=INT,QUIT");
            command
        };
        let probed = command().arg("true").stderr(Stdio::null()).status();
        probed.is_ok_and(|status| status.success()).then(command)
    }

    #[test]
    fn guard_ends_the_program_in_every_shell_unless_told_not_to() {
        let check = |shell: &str| {
            let folder = tempfile::tempdir().unwrap();
            let begin = || {
                let mut command = Command::new(shell);
                if let Some(env) = with_default_signals() {
                    command = env;
                    command.arg(shell);
                }
                command.args(["-c", GUARD, "sh"]).arg(folder.path());
                command.args(["sleep", "60"]).stdin(Stdio::piped()).process_group(0);
                command.spawn().unwrap()
            };
            let mut told = begin();
            release(told.stdin.take());
            let mut lost = begin();
            drop(lost.stdin.take());
            let signal = lost.wait().unwrap().signal();
            // SIGKILL comes last, for a program that ignores the others.
            let ignored = with_default_signals().is_none() && signal == Some(9);
            assert!(signal == Some(2) || ignored, "{shell}: {signal:?}");
            assert!(told.try_wait().unwrap().is_none(), "{shell}");
            told.kill().unwrap();
            told.wait().unwrap();
            let removed = (0..500).any(|_| {
                thread::sleep(POLL * 2);
                !folder.path().exists()
            });
            assert!(removed, "{shell}");
        };
        let shells = ["/bin/sh", "/bin/dash", "/bin/bash", "/bin/ksh", "/bin/zsh"];
        thread::scope(|scope| {
            for shell in shells.into_iter().filter(|shell| Path::new(shell).exists()) {
                scope.spawn(move || check(shell));
            }
        });
    }
}
