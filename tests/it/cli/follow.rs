//! `watch` and `changes`: what happens, without a gap, whatever the server does.

use std::io::{BufRead, BufReader, Lines};
use std::process::ChildStdout;

use nix::sys::signal::Signal;
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use syncline::rpc::proto::Role;

use super::Desk;
use crate::access::Team;
use crate::support::private::blocking;
use crate::support::program::Running;
use crate::support::proxy::{Proxy, Target};
use crate::support::{TestServer, mint};

const OTHER_EPOCH: &str = "018f0000-0000-7000-8000-000000000001";

/// `watch --json` that goes on.
struct Watch {
    running: Running,
    lines: Option<Lines<BufReader<ChildStdout>>>,
}

impl Watch {
    fn start(desk: &Desk, arguments: &[&str]) -> Self {
        let mut command = desk.command(&["watch", "--json"]);
        let mut running = Running::start(command.args(arguments));
        let lines = BufReader::new(running.stdout()).lines();
        Self { running, lines: Some(lines) }
    }

    /// The next line of this kind; what comes before it is left out.
    async fn next(&mut self, kind: &'static str) -> Value {
        let mut lines = self.lines.take().unwrap();
        let (value, lines) = blocking(move || {
            loop {
                let line = lines.next().expect("it goes on").unwrap();
                let value: Value = serde_json::from_str(&line).unwrap();
                if value["type"] == kind {
                    return (value, lines);
                }
            }
        })
        .await;
        self.lines = Some(lines);
        value
    }

    /// Ctrl-C; its exit code.
    async fn stop(self) -> Option<i32> {
        self.running.signal(Signal::SIGINT);
        self.running.end().await.status.code()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_paged_through_and_end_with_a_cursor() {
    let desk = Desk::new().await;
    for n in 1..=3 {
        desk.run(&format!("put task 1 {{\"n\":{n}}}")).await.good();
    }
    desk.run("put note 1 {}").await.good();
    let changes = desk.run("changes --json").await.values();
    let told: Vec<_> =
        changes.iter().map(|it| (it["type"].as_str(), it["revision"].as_i64())).collect();
    assert_eq!(
        told,
        [(Some("change"), Some(3)), (Some("change"), Some(4)), (Some("cursor"), None)]
    );
    assert_eq!(changes[0]["document"], json!({"n": 3}));
    let end = changes[2]["cursor"].as_str().unwrap();
    assert_eq!(changes[1]["cursor"], end);
    assert_eq!(desk.run("changes --every-step task").await.good().lines().count(), 4);
    let first = desk.run("changes --every-step --limit 2 --json").await.values();
    assert_eq!((first.len(), &first[2]["has_more"]), (3, &json!(true)));
    let since = first[2]["cursor"].as_str().unwrap();
    let rest = desk.run(&format!("changes --since {since}")).await.good();
    assert_eq!(rest.lines().count(), 3, "{rest}");
    assert!(rest.starts_with("     3  updated  task/1  {\"n\":3}  alice\n"), "{rest}");
    assert!(rest.ends_with(&format!("cursor  {end}\n")), "{rest}");
    let said = desk.run(&format!("changes --since {OTHER_EPOCH}:1")).await;
    assert!(said.ended(9).contains("EPOCH_CHANGED"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_begins_now_or_at_the_start_or_at_a_cursor() {
    let desk = Desk::new().await;
    desk.run("put task old {}").await.good();
    let mut now = Watch::start(&desk, &[]);
    let subscribed = now.next("subscribed").await;
    desk.run("put note new {}").await.good();
    assert_eq!(now.next("change").await["id"], "new");
    let mut all = Watch::start(&desk, &["--from-start", "task"]);
    assert_eq!(all.next("change").await["id"], "old");
    assert_eq!(
        all.next("caught_up").await["cursor"].as_str().unwrap().rsplit_once(':').unwrap().1,
        "2"
    );
    let cursor = subscribed["cursor"].as_str().unwrap();
    let mut resumed = Watch::start(&desk, &["--cursor", cursor]);
    assert_eq!(resumed.next("change").await["id"], "new");
    for watch in [now, all, resumed] {
        assert_eq!(watch.stop().await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_goes_on_after_the_server_has_been_away() {
    let mut desk = Desk::new().await;
    let proxy = Proxy::start(Target::Tcp(desk.house.server.address())).await;
    let url = format!("http://{}", proxy.address());
    let mut watch = Watch::start(&desk, &["--server", &url]);
    watch.next("subscribed").await;
    desk.run("put task 1 {}").await.good();
    assert_eq!(watch.next("change").await["id"], "1");
    // One goes, and what is written meanwhile is told by the other.
    let second = TestServer::start(&desk.house.database).await;
    let first = std::mem::replace(&mut desk.house.server, second);
    first.stop().await;
    desk.run("put task 2 {}").await.good();
    proxy.lead_to(Target::Tcp(desk.house.server.address()));
    assert_eq!(watch.next("change").await["id"], "2");
    // A cut is no different.
    proxy.cut();
    desk.run("put task 3 {}").await.good();
    assert_eq!(watch.next("change").await["id"], "3");
    assert_eq!(watch.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_see_something_else_begins_again() {
    let (desk, team) = (Desk::new().await, Team::new().await);
    team.set("bob", Role::Reader, &[]).await;
    let url = format!("http://{}", team.server.address());
    let there = format!("--server {url} --space {}", team.space);
    desk.run(&format!("put task 1 {{}} {there}")).await.good();
    desk.run(&format!("put note 1 {{}} {there}")).await.good();
    let bob = mint("bob");
    let place = ["--server", &url, "--space", &team.space, "--token", &bob, "--from-start"];
    let mut watch = Watch::start(&desk, &place);
    watch.next("caught_up").await;
    team.set("bob", Role::Reader, &["note"]).await;
    assert_eq!(watch.next("resync_required").await["reason"], "access_changed");
    assert_eq!(watch.next("change").await["collection"], "note");
    watch.next("caught_up").await;
    assert_eq!(watch.stop().await, Some(0));
    team.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_is_no_longer_good_is_told_and_begins_again() {
    let desk = Desk::new().await;
    desk.run("put task 1 {}").await.good();
    let mut watch = Watch::start(&desk, &["--cursor", &format!("{OTHER_EPOCH}:1")]);
    assert_eq!(watch.next("resync_required").await["reason"], "epoch_changed");
    assert_eq!(watch.next("change").await["id"], "1");
    assert_eq!(watch.stop().await, Some(0));
}
