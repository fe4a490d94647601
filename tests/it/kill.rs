//! The end of processes: kill -9 of the server, of PostgreSQL and of `dev`,
//! a stop that is asked for, and a start that must be refused.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use sqlx::{Connection, PgConnection};
use syncline::clock::Clock;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tonic::Code;

use crate::support::history::{Log, check_real_time};
use crate::support::load::{Load, passes};
use crate::support::private::{blocking, folder, postgres};
use crate::support::proxy::{Proxy, Target};
use crate::support::seen::{Seen, View};
use crate::support::{
    Client, Database, ServerProcess, Stream, TestServer, mint, put, scale, signed, store_at,
    wait_for,
};

/// Follows up to a revision, over as many streams as that takes.
async fn follow(seen: &mut Seen, client: &Client, up_to: i64) {
    wait_for("the follower", async || {
        let followed = async {
            let mut stream = seen.open(client).await?;
            seen.follow(&mut stream, up_to).await
        };
        match followed.await {
            Ok(()) => Some(()),
            Err(status) => {
                assert!(passes(&status), "{status:?}");
                None
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_server_acknowledged_is_there() {
    let database = Database::create().await;
    let start = || {
        let url = database.url.clone();
        blocking(move || ServerProcess::start(&url))
    };
    let mut server = start().await;
    // Clients keep their address while servers come and go.
    let proxy = Proxy::start(Target::Tcp(server.address)).await;
    let clients: Vec<_> = (0..4).map(|_| Client::lazy(proxy.address(), &mint("alice"))).collect();
    let load = Load::start("w", 16, 40, &clients);
    let mut followers = vec![Seen::new(View::default()); 2];
    followers[1].view.collections = vec!["task".into()];
    for _ in 0..3 * scale() {
        load.more(150).await;
        for seen in &mut followers {
            let head = i64::try_from(load.acknowledged()).unwrap() / 2;
            follow(seen, &clients[0], head).await;
        }
        blocking(|| server.kill()).await;
        server = start().await;
        proxy.lead_to(Target::Tcp(server.address));
    }
    load.more(100).await;
    let retried = load.retried();
    let acks = load.stop().await;
    let end = clients[0].mutate(put("end", "end", "{}")).await.unwrap().revision;
    let log = Log::checked(&database, "alice", &acks).await;
    assert_eq!(log.head, signed(acks.len()) + 1);
    for seen in &mut followers {
        follow(seen, &clients[1], end).await;
        seen.check(&log).unwrap();
        assert!(seen.streams > 3);
    }
    let replayed = acks.iter().filter(|ack| ack.replayed).count();
    println!(
        "{} kills, {} acknowledged, {retried} sent again, {replayed} of them were done",
        3 * scale(),
        acks.len()
    );
    assert!(retried >= 3 * scale(), "nobody was in the middle of a write");
    assert_eq!(blocking(|| server.stop()).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_stopped_in_a_transaction_does_not_hold_its_space() {
    let database = Database::create().await;
    // Over TCP, where the last words of a session arrive although it has ended.
    let (_proxy, url) = Proxy::postgres(&database.url).await;
    let server = blocking(move || ServerProcess::start(&url)).await;
    let other = TestServer::start(&database).await;
    let stopped = Client::connect(server.address, &mint("alice")).await;
    let client = other.client("alice").await;
    // Both write to one space, so that they have to lock it.
    let load = Load::start("w", 1, 40, std::slice::from_ref(&stopped));
    let beside = Load::start("b", 1, 40, std::slice::from_ref(&client));
    load.more(10).await;
    let mut connection = database.connect().await;
    let sql = "select count(*) from pg_stat_activity a
               join pg_locks l on l.pid = a.pid and l.relation = 'spaces'::regclass
               where datname = current_database() and state = 'idle in transaction'
                 and state_change < now() - interval '50 ms'";
    wait_for("a stop in a transaction", async || {
        server.signal(Signal::SIGSTOP);
        // Long enough to be sure that it had sent nothing more.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let idle: i64 = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
        if idle == 0 {
            server.signal(Signal::SIGCONT);
        }
        (idle > 0).then_some(())
    })
    .await;
    let began = Instant::now();
    let write = put("other", "other", "{}");
    wait_for("a write elsewhere", async || client.mutate(write.clone()).await.ok()).await;
    let waited = began.elapsed();
    server.signal(Signal::SIGCONT);
    load.more(10).await;
    let acks = [load.stop().await, beside.stop().await].concat();
    Log::checked(&database, "alice", &acks).await;
    println!("the space was held for {waited:?}");
    assert!(waited > Duration::from_secs(1), "nobody held it");
    assert!(waited < Duration::from_secs(10), "{waited:?}");
    other.stop().await;
    assert_eq!(blocking(|| server.stop()).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_a_killed_postgres() {
    let folder = folder();
    let postgres = postgres(folder.path(), &[]).await;
    let url = postgres.url("postgres");
    let store = store_at(&url).await;
    store.migrate().await.unwrap();
    let server = TestServer::start_on(store, Clock::system(), |_config| {}).await;
    let client = server.client("alice").await;
    let mut followers = Vec::new();
    for view in [View::default(), View { collections: vec!["task".into()], ..View::default() }] {
        let mut seen = Seen::new(view);
        let stream = seen.open_live(&client).await.unwrap();
        followers.push((seen, stream));
    }
    let load = Load::start("w", 16, 40, &[client.clone(), server.client("alice").await]);
    let mut slowest = Duration::ZERO;
    for round in 0..3 * scale() {
        load.more(200).await;
        postgres.kill9();
        let up = async || (postgres.restarts() == round + 1).then_some(());
        wait_for("the restart", up).await;
        let began = Instant::now();
        load.more(20).await;
        let probe = put(&format!("probe{round}"), "probe", "{}");
        let result = wait_for("a write", async || client.mutate(probe.clone()).await.ok()).await;
        for (seen, stream) in &mut followers {
            // Still the same stream.
            seen.follow(stream, result.revision).await.unwrap();
        }
        slowest = slowest.max(began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
    let retried = load.retried();
    let acks = load.stop().await;
    let end = client.mutate(put("end", "end", "{}")).await.unwrap().revision;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let log = Log::read(&mut connection, "alice").await;
    log.check().unwrap();
    log.check_acks(&acks).unwrap();
    check_real_time(&acks).unwrap();
    for (mut seen, mut stream) in followers {
        seen.follow(&mut stream, end).await.unwrap();
        seen.check(&log).unwrap();
    }
    let replayed = acks.iter().filter(|ack| ack.replayed).count();
    println!(
        "{} kills, {} acknowledged, {retried} sent again, {replayed} of them were done, \
         writes and followers again within {slowest:?}",
        3 * scale(),
        acks.len()
    );
    assert!(retried >= scale(), "nobody was in the middle of a write");
    server.stop().await;
    drop(connection);
    blocking(|| postgres.stop()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_asked_to_stop_tells_its_streams_and_ends_in_time() {
    let database = Database::create().await;
    let url = database.url.clone();
    let server = blocking(move || ServerProcess::start(&url)).await;
    let token = mint("alice");
    let mut streams = Vec::new();
    for _ in 0..4 {
        let client = Client::connect(server.address, &token).await;
        for _ in 0..25 {
            let mut seen = Seen::default();
            streams.push(seen.open_live(&client).await.unwrap());
        }
    }
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    let narrow = Client::narrow(server.address, &token);
    let unread = Seen::default().open(&narrow).await.unwrap();
    let writer = Client::connect(server.address, &token).await;
    let load = Load::start("w", 8, 40, std::slice::from_ref(&writer));
    // More than fits into the window of the one that never reads.
    load.more(500).await;
    load.stop().await;
    let reading = streams.into_iter().map(|mut stream| async move {
        loop {
            match stream.next().await {
                Ok(Some(_frame)) => {}
                Ok(None) => return Code::Ok,
                Err(status) => return status.code(),
            }
        }
    });
    let began = Instant::now();
    let (code, ends) = tokio::join!(blocking(|| server.stop()), join_all(reading));
    let lasted = began.elapsed();
    println!("stopped after {lasted:?}");
    assert_eq!(code, Some(0));
    assert!(lasted < Duration::from_millis(11_500), "{lasted:?}");
    assert!(ends.iter().all(|code| *code == Code::Unavailable), "{ends:?}");
    // Ended or reset, after the server's greeting.
    assert!(idle.read_to_end(&mut Vec::new()).await.unwrap_or(0) < 100);
    drop::<Stream>(unread);
}

/// `syncline dev` on a folder, once it says where it listens, and its token.
fn dev(dir: &Path) -> (Child, SocketAddr, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_syncline"))
        .args(["dev", "--listen", "127.0.0.1:0", "--log", "warn", "--data-dir"])
        .arg(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = loop {
        let line = lines.next().expect("it says where it listens").unwrap();
        if let Some(rest) = line.trim().strip_prefix("address") {
            break rest.split_whitespace().next().unwrap().parse().unwrap();
        }
    };
    std::thread::spawn(move || lines.for_each(drop));
    let token = fs::read_to_string(dir.join("dev.token")).unwrap();
    (child, address, token.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_that_is_killed_takes_its_postgres_along_and_starts_again_with_its_data() {
    let folder = folder();
    let dir = folder.path().join("data");
    let start = || {
        let dir = dir.clone();
        blocking(move || dev(&dir))
    };
    let (mut child, address, token) = start().await;
    let client = Client::connect(address, &token).await;
    assert_eq!(client.mutate(put("m1", "1", r#"{"a":1}"#)).await.unwrap().revision, 1);
    let lock = fs::read_to_string(dir.join("data/postmaster.pid")).unwrap();
    let pid: i32 = lock.lines().next().unwrap().parse().unwrap();
    let runs = || nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok();
    assert!(runs());
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("the end of its PostgreSQL", async || (!runs()).then_some(())).await;

    let (mut child, address, token) = start().await;
    let client = Client::connect(address, &token).await;
    assert_eq!(client.task("1").await.unwrap(), r#"{"a":1}"#);
    let again = client.mutate(put("m1", "1", r#"{"a":1}"#)).await.unwrap();
    assert_eq!((again.revision, again.replayed), (1, true));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// `syncline serve` that is expected to end by itself.
async fn serve(url: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_syncline"));
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--jwt-issuer", "i", "--jwt-audience", "a"])
        .args(arguments)
        .env("SYNCLINE_JWT_SECRET", "a secret for tests, longer than 32 bytes")
        .env("DATABASE_URL", url);
    blocking(move || command.output().unwrap()).await
}

/// Ended with 3 and one line that says why, perhaps one with advice.
fn assert_refused(output: &Output, expected: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{text}");
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("error: ") && lines[0].contains(expected), "{text}");
    let advice = |line: &&str| line.starts_with("hint: ");
    assert!(lines.len() <= 2 && lines.get(1).is_none_or(advice), "{text}");
    assert!(output.stdout.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_used_is_refused_in_one_line() {
    let folder = folder();
    let nowhere = format!("postgres://postgres@localhost/x?host={}", folder.path().display());
    assert_refused(&serve(&nowhere, &[]).await, "database");
    assert_refused(&serve("postgres://postgres@127.0.0.1:1/x", &[]).await, "refused");
    assert_refused(&serve("postgres://postgres@host.invalid/x", &[]).await, "database");

    let postgres = postgres(folder.path(), &[("fsync", "off")]).await;
    let url = postgres.url("postgres");
    assert_refused(&serve(&postgres.url("absent"), &[]).await, "absent");
    assert_refused(&serve(&url, &[]).await, "fsync");
    let mut allowed = Command::new(env!("CARGO_BIN_EXE_syncline"))
        .args(["serve", "--listen", "127.0.0.1:0", "--jwt-issuer", "i", "--jwt-audience", "a"])
        .args(["--allow-unsafe-database", "--log-format", "json"])
        .env("SYNCLINE_JWT_SECRET", "a secret for tests, longer than 32 bytes")
        .env("DATABASE_URL", url)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(allowed.stderr.take().unwrap());
    let (allowed, line) = blocking(move || {
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        allowed.kill().unwrap();
        allowed.wait().unwrap();
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        (allowed, line)
    })
    .await;
    drop(allowed);
    assert!(line.contains("\"address\""), "{line}");
    blocking(|| postgres.stop()).await;
}
