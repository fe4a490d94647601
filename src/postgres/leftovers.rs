//! What an earlier run left: a live server, backends without one, stale lock files.
//!
//! A process is signalled only when it is known to be a server on our data folder. A number in
//! `postmaster.pid` proves nothing, it may have passed to somebody else since. Lock files go only
//! after no such process is left: PostgreSQL would refuse to start on them if their number lives.

use std::{
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use super::{
    Error, now,
    process::{recorded_pid, send},
};

const POLL: Duration = Duration::from_millis(10);

/// Ends what still runs on `data` and removes its lock files.
pub(super) fn clear(data: &Path, socket_dir: &Path) -> Result<(), Error> {
    let lock = data.join("postmaster.pid");
    let mut sent: Option<(Signal, Instant)> = None;
    loop {
        let left = processes(data);
        if left.is_empty() {
            break;
        }
        let server = fs::read_to_string(&lock).ok().as_deref().and_then(recorded_pid);
        let server = server.filter(|pid| left.contains(pid));
        let waited = |begun: Instant, seconds| begun.elapsed() > Duration::from_secs(seconds);
        let next = match (sent, server) {
            // Without their server the others can only hold up the next one.
            (None | Some((Signal::SIGINT, _)), None) => Some(Signal::SIGQUIT),
            (None, Some(_)) => Some(Signal::SIGINT),
            (Some((Signal::SIGINT, begun)), Some(_)) => {
                waited(begun, 25).then_some(Signal::SIGQUIT)
            }
            (Some((Signal::SIGQUIT, begun)), _) => waited(begun, 3).then_some(Signal::SIGKILL),
            (Some((_, begun)), _) if waited(begun, 5) => {
                return Err(Error::Leftovers { dir: data.into() });
            }
            _ => None,
        };
        if let Some(signal) = next {
            tracing::info!(%signal, processes = ?left, "ending what an earlier postgresql left");
            match server {
                Some(server) if signal == Signal::SIGINT => send(server, signal),
                _ => left.iter().for_each(|pid| send(*pid, signal)),
            }
            sent = Some((signal, now()));
        }
        // They are no children of ours, so their end can only be looked for.
        thread::sleep(POLL);
    }
    // Mostly there are none, and one that cannot go is reported by the server itself.
    fs::remove_file(lock).ok();
    for name in [".s.PGSQL.5432", ".s.PGSQL.5432.lock"] {
        fs::remove_file(socket_dir.join(name)).ok();
    }
    Ok(())
}

/// Unique to the folder even if that is moved. As the server's `cluster_name` it stands in the
/// title of each of its processes, which everybody may read.
pub(super) fn cluster_name(data: &Path) -> String {
    let (device, inode) = fs::metadata(data).map_or((0, 0), |data| (data.dev(), data.ino()));
    format!("syncline-{device:x}-{inode:x}")
}

/// The processes of a server, or of an `initdb`, on `data`.
pub(super) fn processes(data: &Path) -> Vec<u32> {
    let name = cluster_name(data);
    if cfg!(target_os = "linux") { from_proc(data, &name) } else { from_ps(&ps(), data, &name) }
}

fn from_proc(data: &Path, cluster_name: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let read = |dir: &Path| {
        let pid = dir.file_name()?.to_str()?.parse().ok()?;
        // Refused to root without CAP_SYS_PTRACE, as in most containers; not so the command line.
        let here = || fs::read_link(dir.join("cwd")).is_ok_and(|cwd| cwd == data);
        let told = || {
            let line = fs::read(dir.join("cmdline")).unwrap_or_default();
            is_titled(&line, cluster_name) || names_data(&line, data)
        };
        let ours = match fs::read_to_string(dir.join("comm")).ok()?.trim_end() {
            "postgres" | "initdb" => here() || told(),
            // About to become the server. A guard looks the same, but has left the folder.
            "sh" => here() && told(),
            _ => false,
        };
        ours.then_some(pid)
    };
    entries.filter_map(|entry| read(&entry.path())).collect()
}

/// Whether this is the title of a process that the server `cluster_name` made.
fn is_titled(line: &[u8], cluster_name: &str) -> bool {
    line.starts_with(format!("postgres: {cluster_name}: ").as_bytes())
}

/// Whether a command line, its arguments ended by zero bytes, has `-D` and then our folder.
fn names_data(line: &[u8], data: &Path) -> bool {
    let mut arguments = line.split(|byte| *byte == 0);
    arguments.any(|one| one == b"-D") && arguments.next() == Some(data.as_os_str().as_bytes())
}

fn ps() -> String {
    let output = Command::new("ps").args(["-axww", "-o", "pid=,command="]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

fn from_ps(table: &str, data: &Path, cluster_name: &str) -> Vec<u32> {
    let option = format!(" -D {} ", data.display());
    let read = |line: &str| {
        let (pid, command) = line.trim_start().split_once(' ')?;
        let (program, _) = command.split_once(' ')?;
        let is_server = program.ends_with("/postgres") || program.ends_with("/initdb");
        let ours = is_titled(command.as_bytes(), cluster_name)
            || is_server && format!("{command} ").contains(&option);
        pid.parse().ok().filter(|_| ours)
    };
    table.lines().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_must_name_the_very_folder() {
        let data = Path::new("/a/data");
        assert!(names_data(b"/bin/postgres\0-D\0/a/data\0-k\0/s\0", data));
        assert!(!names_data(b"/bin/postgres\0-D\0/a/data2\0", data));
        assert!(!names_data(b"/bin/postgres\0/a/data\0", data));
        assert!(!names_data(b"postgres: checkpointer", data));
    }

    #[test]
    fn title_must_carry_the_very_name() {
        assert!(is_titled(b"postgres: syncline-1-2: checkpointer \0", "syncline-1-2"));
        assert!(!is_titled(b"postgres: syncline-1-22: checkpointer ", "syncline-1-2"));
        assert!(!is_titled(b"grep\0postgres: syncline-1-2: ", "syncline-1-2"));
    }

    #[test]
    fn ps_table_tells_our_servers_from_others() {
        let table = "    7 /x/bin/postgres -D /a/data -k /s\n\
                     \x20   8 postgres: syncline-1-2: checkpointer  \n\
                     \x20   9 /x/bin/postgres -D /a/data2\n\
                     \x20  10 vi -D /a/data\n\
                     \x20  11 postgres: other: walwriter  \n\
                     1234 /x/bin/initdb -D /a/data\n";
        assert_eq!(from_ps(table, Path::new("/a/data"), "syncline-1-2"), [7, 8, 1234]);
    }

    #[test]
    fn lock_with_the_number_of_an_unrelated_process_is_only_removed() {
        let temp = tempfile::tempdir().unwrap();
        let data = temp.path().canonicalize().unwrap();
        fs::write(data.join("postmaster.pid"), format!("{}\n", std::process::id())).unwrap();
        clear(&data, &data).unwrap();
        assert!(!data.join("postmaster.pid").exists());
    }
}
