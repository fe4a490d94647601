//! A private PostgreSQL as its users see it: starts, crashes, kills, and what is left of them.
//!
//! Talks to the server with the few messages of its wire protocol that are needed, so that neither
//! `psql` nor a client library takes part.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use syncline::postgres::{Error, Options, PrivatePostgres};
use tempfile::TempDir;

const GUARD_DIR: &str = "SYNCLINE_GUARD_DIR";

/// Open to the user that the server runs as when the tests run as root.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn options(dir: &Path) -> Options {
    Options { initdb_no_sync: true, ..Options::new(dir) }
}

fn start(dir: &Path) -> PrivatePostgres {
    PrivatePostgres::start(options(dir)).unwrap()
}

fn wait_for(what: &str, timeout_s: u32, mut predicate: impl FnMut() -> bool) {
    for _ in 0..timeout_s * 100 {
        if predicate() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("waited {timeout_s} s in vain: {what}");
}

fn is_alive(pid: u32) -> bool {
    let zombie = fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')));
    !zombie && kill(Pid::from_raw(i32::try_from(pid).unwrap()), None).is_ok()
}

fn kill_only(pid: u32) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
}

/// Runs `sql` on a connection of its own; the first column of each row.
fn query(socket_dir: &Path, sql: &str) -> io::Result<Vec<String>> {
    let mut stream = UnixStream::connect(socket_dir.join(".s.PGSQL.5432"))?;
    let startup = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    let frame =
        |body: &[u8]| [&u32::try_from(body.len() + 4).unwrap().to_be_bytes(), body].concat();
    stream.write_all(&frame(startup))?;
    stream.write_all(&[b"Q", &*frame(&[sql.as_bytes(), b"\0"].concat())].concat())?;
    let (mut rows, mut ready) = (Vec::new(), 0);
    while ready < 2 {
        let mut head = [0; 5];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
        let mut body = vec![0; length - 4];
        stream.read_exact(&mut body)?;
        match head[0] {
            b'Z' => ready += 1,
            b'E' => return Err(io::Error::other(String::from_utf8_lossy(&body).into_owned())),
            b'D' => {
                let length = u32::from_be_bytes(body[2..6].try_into().unwrap()) as usize;
                rows.push(String::from_utf8_lossy(&body[6..6 + length]).into_owned());
            }
            _ => {}
        }
    }
    Ok(rows)
}

/// Keeps a backend so busy that it does not see the death of its server.
fn keep_busy(socket_dir: &Path) -> thread::JoinHandle<io::Result<Vec<String>>> {
    let socket_dir = socket_dir.to_owned();
    let busy = thread::spawn({
        let socket_dir = socket_dir.clone();
        move || query(&socket_dir, "SELECT count(*) FROM generate_series(1, 1000000000000)")
    });
    let sql = "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%1000000%0)'";
    wait_for("busy backend", 10, || query(&socket_dir, sql).is_ok_and(|rows| !rows.is_empty()));
    busy
}

#[test]
fn data_and_settings_are_kept_from_a_fresh_start_to_the_next() {
    let folder = folder();
    let settings = [("work_mem", "5MB"), ("max_connections", "33"), ("max_connections", "44")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let server = PrivatePostgres::start(Options { settings, ..options(folder.path()) }).unwrap();
    let show = |name: &str| query(server.socket_dir(), &format!("SHOW {name}")).unwrap().concat();
    for (name, value) in [
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("data_checksums", "on"),
        ("listen_addresses", ""),
        ("server_encoding", "UTF8"),
        ("work_mem", "5MB"),
        ("max_connections", "44"),
    ] {
        assert_eq!(show(name), value, "{name}");
    }
    assert!(show("server_version").starts_with(server.version()));
    assert_eq!(fs::metadata(server.socket_dir()).unwrap().mode() & 0o777, 0o700);
    query(server.socket_dir(), "CREATE TABLE t AS SELECT 7 AS n").unwrap();
    let pid = server.pid().unwrap();
    assert_eq!(server.restarts(), 0);
    server.stop();
    assert!(!is_alive(pid));

    let server = start(folder.path());
    assert_eq!(query(server.socket_dir(), "SELECT n FROM t").unwrap(), ["7"]);
}

#[test]
fn second_start_on_a_folder_in_use_is_refused() {
    let folder = folder();
    let server = start(folder.path());
    let error = PrivatePostgres::start(options(folder.path())).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    assert!(error.to_string().ends_with("is in use by another syncline"), "{error}");
    drop(server);
    start(folder.path()).stop();
}

#[test]
fn server_that_dies_by_itself_is_started_again() {
    let folder = folder();
    let server = start(folder.path());
    let first = server.pid().unwrap();
    let busy = keep_busy(server.socket_dir());
    kill_only(first);
    wait_for("restart", 20, || server.restarts() == 1);
    assert_ne!(server.pid(), Some(first));
    assert_eq!(query(server.socket_dir(), "SELECT 1").unwrap(), ["1"]);
    busy.join().unwrap().unwrap_err();
}

#[test]
fn committed_data_survive_kill9() {
    let folder = folder();
    let server = start(folder.path());
    query(server.socket_dir(), "CREATE TABLE t (n int PRIMARY KEY)").unwrap();
    for round in 0..3_u32 {
        let socket_dir = server.socket_dir().to_owned();
        let writer = thread::spawn(move || {
            let insert = |n| query(&socket_dir, &format!("INSERT INTO t VALUES ({n})"));
            (round * 100_000..).take_while(|n| insert(*n).is_ok()).collect::<Vec<u32>>()
        });
        let sql = format!("SELECT n FROM t WHERE n > {}", round * 100_000 + 20);
        wait_for("rows", 20, || {
            query(server.socket_dir(), &sql).is_ok_and(|rows| !rows.is_empty())
        });
        server.kill9();
        let acknowledged = writer.join().unwrap();
        wait_for("restart", 20, || server.restarts() == u64::from(round) + 1);
        let sql = format!("SELECT n FROM t WHERE n >= {} ORDER BY n", round * 100_000);
        let kept = query(server.socket_dir(), &sql).unwrap();
        let expected: Vec<String> = acknowledged.iter().map(ToString::to_string).collect();
        // One more may have been committed without the answer having arrived.
        assert_eq!(kept[..expected.len()], expected);
        assert!(kept.len() <= expected.len() + 1);
    }
}

#[test]
fn interrupted_initdb_starts_over_and_foreign_files_are_left_alone() {
    let folder = folder();
    let data = folder.path().join("data");
    fs::DirBuilder::new().mode(0o700).create(&data).unwrap();
    fs::write(data.join("PG_VERSION"), "15\n").unwrap();
    fs::create_dir(data.join("base")).unwrap();
    fs::write(folder.path().join("initdb.running"), "").unwrap();
    start(folder.path()).stop();
    assert!(!folder.path().join("initdb.running").exists());

    let other = self::folder();
    let file = other.path().join("data/thesis.txt");
    fs::create_dir(other.path().join("data")).unwrap();
    fs::write(&file, "").unwrap();
    let error = PrivatePostgres::start(options(other.path())).unwrap_err();
    assert!(matches!(error, Error::ForeignFiles { .. }), "{error}");
    assert!(file.exists());
}

#[test]
fn data_of_another_version_and_a_wrong_setting_are_explained() {
    let folder = folder();
    start(folder.path()).stop();
    let settings = vec![("no_such_setting".to_owned(), "1".to_owned())];
    let error = PrivatePostgres::start(Options { settings, ..options(folder.path()) }).unwrap_err();
    assert!(error.to_string().contains("no_such_setting"), "{error}");

    fs::write(folder.path().join("data/PG_VERSION"), "9.6\n").unwrap();
    let error = PrivatePostgres::start(options(folder.path())).unwrap_err();
    assert!(matches!(&error, Error::OtherVersion { data, .. } if data == "9.6"), "{error}");
}

#[test]
fn stale_lock_file_with_the_number_of_a_live_process_does_not_matter() {
    let folder = folder();
    start(folder.path()).stop();
    // Of the user that the server runs as: the server itself would refuse to start.
    let mut other = Command::new("sleep");
    let data = folder.path().join("data");
    if geteuid().is_root() {
        std::os::unix::process::CommandExt::uid(&mut other, fs::metadata(&data).unwrap().uid());
    }
    let mut other = other.arg("600").spawn().unwrap();
    let lock = format!("{}\n{}\n0\n5432\n\n\n\nready\n", other.id(), data.display());
    fs::write(data.join("postmaster.pid"), lock).unwrap();
    start(folder.path()).stop();
    assert!(other.try_wait().unwrap().is_none(), "the other process was signalled");
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn socket_is_in_the_folder_unless_the_path_does_not_do() {
    let folder = folder();
    let near = start(&folder.path().join("a \"b\" %é "));
    assert!(near.socket_dir().starts_with(folder.path()));
    assert_eq!(query(near.socket_dir(), "SELECT 1").unwrap(), ["1"]);
    drop(near);

    for name in ["x".repeat(120), "a,b".to_owned()] {
        let far = start(&folder.path().join(name));
        let socket_dir = far.socket_dir().to_owned();
        assert!(!socket_dir.starts_with(folder.path()));
        assert_eq!(query(&socket_dir, "SELECT 1").unwrap(), ["1"]);
        drop(far);
        assert!(!socket_dir.exists());
    }
}

#[test]
fn folder_closed_to_the_unprivileged_user_is_named() {
    if !geteuid().is_root() {
        return;
    }
    let folder = folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let closed = folder.path().canonicalize().unwrap();
    match PrivatePostgres::start(options(&closed.join("below"))).unwrap_err() {
        Error::Unreachable { folder, .. } => assert_eq!(folder, closed),
        other => panic!("{other}"),
    }
}

/// Not a test of its own: the process that the guard tests kill.
#[test]
fn guard_child() {
    let Some(dir) = std::env::var_os(GUARD_DIR) else { return };
    let server = start(Path::new(&dir));
    let (server_pid, socket_dir) = (server.pid().unwrap(), server.socket_dir().display());
    println!("\nserver {server_pid} of {} at {socket_dir}", std::process::id());
    loop {
        thread::park();
    }
}

/// A process with a server on `dir`, the server's pid and its socket folder.
fn spawn_guard_child(dir: &Path) -> (Child, u32, PathBuf) {
    let mut child = guard_child_by(&mut Command::new(std::env::current_exe().unwrap()), dir);
    let (pid, _, socket_dir) = announced(&mut child);
    (child, pid, socket_dir)
}

/// Starts `guard_child`, whose arguments are the command's last ones.
fn guard_child_by(command: &mut Command, dir: &Path) -> Child {
    let command = command.args(["--exact", "postgres::guard_child", "--nocapture"]);
    command.env(GUARD_DIR, dir).stdout(Stdio::piped()).spawn().unwrap()
}

/// What a guard child says of its server: its pid, that of the child, and its socket folder.
fn announced(child: &mut Child) -> (u32, u32, PathBuf) {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.filter_map(|line| Some(line.strip_prefix("server ")?.to_owned())).next();
    let line = line.expect("the child ends before it has a server");
    let (pids, socket_dir) = line.split_once(" at ").unwrap();
    let (pid, child_pid) = pids.split_once(" of ").unwrap();
    (pid.parse().unwrap(), child_pid.parse().unwrap(), socket_dir.into())
}

fn kill_and_reap(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn server_ends_when_its_process_is_killed() {
    let folder = folder();
    let dir = folder.path().join("x".repeat(120));
    let (child, pid, socket_dir) = spawn_guard_child(&dir);
    assert!(is_alive(pid));
    kill_and_reap(child);
    wait_for("end of the server", 5, || !is_alive(pid));
    start(&dir).stop();
    wait_for("end of the temporary socket folder", 5, || !socket_dir.exists());
}

/// What a script starts with `&` has SIGINT and SIGQUIT ignored, and hands that on.
#[test]
fn server_ends_when_its_process_is_killed_in_the_background_of_a_script() {
    let folder = folder();
    let mut script = Command::new("/bin/sh");
    script.args(["-c", "\"$0\" \"$@\" & wait"]).arg(std::env::current_exe().unwrap());
    let mut script = guard_child_by(&mut script, folder.path());
    let (pid, child_pid, _) = announced(&mut script);
    if cfg!(target_os = "linux") {
        let status = fs::read_to_string(format!("/proc/{child_pid}/status")).unwrap();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
        let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
        assert_eq!(ignored & 0b110, 0b110, "SIGINT and SIGQUIT are not ignored");
    }
    assert!(is_alive(pid));
    kill_only(child_pid);
    wait_for("end of the server", 5, || !is_alive(pid));
    script.wait().unwrap();
}

#[test]
fn start_right_after_a_kill_waits_for_what_is_left() {
    let folder = folder();
    for kill_server_too in [false, true] {
        let (child, pid, socket_dir) = spawn_guard_child(folder.path());
        let busy = keep_busy(&socket_dir);
        if kill_server_too {
            kill_only(pid);
        }
        kill_and_reap(child);
        let server = start(folder.path());
        assert!(!is_alive(pid));
        assert_eq!(query(server.socket_dir(), "SELECT 1").unwrap(), ["1"]);
        drop(server);
        busy.join().unwrap().unwrap_err();
    }
}

#[test]
fn start_right_after_a_kill_during_initdb_starts_over() {
    let folder = folder();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "postgres::guard_child"])
        .env(GUARD_DIR, folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let half_made = folder.path().join("data/base");
    wait_for("initdb", 20, || half_made.exists() || child.try_wait().unwrap().is_some());
    kill_and_reap(child);
    let interrupted = folder.path().join("initdb.running").exists();
    assert!(interrupted, "killed too late to test anything");
    let server = start(folder.path());
    assert_eq!(query(server.socket_dir(), "SELECT 1").unwrap(), ["1"]);
}
