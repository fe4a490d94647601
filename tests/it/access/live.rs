//! How soon open streams hear that a membership has changed, on whatever replica it did.

use std::time::Duration;

use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{Role, SubscribeFrame};
use tokio::time::Instant;

use super::{Team, put_in, set, write};
use crate::support::{Client, Stream, TestServer, subscribe_frame};

/// What is promised.
const WITHIN: Duration = Duration::from_secs(5);

fn follow(space: &str, id: &str) -> SubscribeFrame {
    SubscribeFrame { space: space.into(), ..subscribe_frame(id, None) }
}

/// Reads up to a frame, which is one of those that are looked for.
async fn until(stream: &mut Stream, found: impl Fn(&Frame) -> bool) -> Frame {
    loop {
        let frame = stream.frame().await;
        if found(&frame) {
            return frame;
        }
    }
}

/// Follows a space of which somebody else's server tells.
async fn caught_up(client: &Client, space: &str) -> Stream {
    let mut stream = Stream::open(client).await.unwrap();
    stream.subscribe(follow(space, "s")).await;
    until(&mut stream, |frame| matches!(frame, Frame::CaughtUp(_))).await;
    stream
}

fn access(frame: Frame) -> (String, Role, Vec<String>) {
    match frame {
        Frame::Access(frame) => (frame.space.clone(), frame.role(), frame.collections),
        other => panic!("not an access frame: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_removed_sees_no_more_and_comes_back_on_the_same_stream() {
    let team = Team::new().await;
    team.set("bob", Role::Reader, &[]).await;
    let other = TestServer::start(&team.database).await;
    let bob = other.client("bob").await;
    let mut stream = caught_up(&bob, &team.space).await;
    let write_one = async |id: &str| {
        write(&team.alice, &team.space, vec![put_in("task", id, id, "{}")]).await.unwrap();
    };
    write_one("seen").await;
    until(&mut stream, |frame| matches!(frame, Frame::Changes(_))).await;

    let removed_at = Instant::now();
    team.remove("bob").await;
    let removed = until(&mut stream, |frame| matches!(frame, Frame::RemovedFromView(_))).await;
    assert!(removed_at.elapsed() < WITHIN, "{:?}", removed_at.elapsed());
    let Frame::RemovedFromView(removed) = removed else { unreachable!() };
    assert_eq!(removed.subscription_id, "s");
    let Frame::Closed(closed) = stream.frame().await else { panic!("not closed") };
    assert_eq!(closed.reason, "SPACE_NOT_FOUND");
    let (space, role, _) = access(stream.frame().await);
    assert_eq!((&space, role), (&team.space, Role::Unspecified));
    write_one("unseen").await;

    // Back again: the stream hears of it, and begins anew.
    let granted_at = Instant::now();
    team.set("bob", Role::Writer, &[]).await;
    let (space, role, _) = access(stream.frame().await);
    assert!(granted_at.elapsed() < WITHIN, "{:?}", granted_at.elapsed());
    assert_eq!((&space, role), (&team.space, Role::Writer));
    stream.subscribe(follow(&team.space, "again")).await;
    let mut seen = 0;
    until(&mut stream, |frame| matches!(frame, Frame::Changes(_))).await;
    let Frame::CaughtUp(frame) = stream.frame().await else { panic!("not caught up") };
    seen += frame.up_to;
    assert_eq!(seen, 2);
    other.stop().await;
    team.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_changes_ends_nothing_and_narrower_collections_do() {
    let team = Team::new().await;
    team.set("bob", Role::Reader, &[]).await;
    let bob = team.server.client("bob").await;
    let mut stream = caught_up(&bob, &team.space).await;
    team.set("bob", Role::Writer, &[]).await;
    let (_, role, _) = access(stream.frame().await);
    assert_eq!(role, Role::Writer);
    write(&team.alice, &team.space, vec![put_in("task", "1", "1", "{}")]).await.unwrap();
    assert!(matches!(stream.frame().await, Frame::Changes(_)), "it goes on");

    team.set("bob", Role::Writer, &["note"]).await;
    until(&mut stream, |frame| matches!(frame, Frame::RemovedFromView(_))).await;
    let Frame::Closed(closed) = stream.frame().await else { panic!("not closed") };
    assert_eq!(closed.reason, "ACCESS_CHANGED");
    let (_, _, collections) = access(stream.frame().await);
    assert_eq!(collections, ["note"]);
    // What it asks for now is only what it may see; that does not change with more.
    stream.subscribe(SubscribeFrame { collections, ..follow(&team.space, "n") }).await;
    until(&mut stream, |frame| matches!(frame, Frame::CaughtUp(_))).await;
    team.set("bob", Role::Writer, &["note", "task"]).await;
    access(stream.frame().await);
    let mutations = vec![put_in("task", "2", "2", "{}"), put_in("note", "3", "3", "{}")];
    write(&team.alice, &team.space, mutations).await.unwrap();
    let Frame::Changes(changes) = stream.frame().await else { panic!("no changes") };
    let seen: Vec<_> = changes.changes.iter().map(|it| it.revision).collect();
    assert_eq!(seen, [3]);
    team.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_that_is_shared_with_somebody_is_told() {
    let team = Team::new().await;
    let other = TestServer::start(&team.database).await;
    let bob = other.client("bob").await;
    let mut stream = Stream::open(&bob).await.unwrap();
    stream.subscribe(subscribe_frame("own", None)).await;
    until(&mut stream, |frame| matches!(frame, Frame::CaughtUp(_))).await;
    let began = Instant::now();
    set(&team.alice, &team.space, ("bob", Role::Reader, &["task"])).await.unwrap();
    let Frame::Access(frame) = stream.frame().await else { panic!("not told") };
    assert!(began.elapsed() < WITHIN);
    assert_eq!((frame.space.as_str(), frame.title.as_str()), (team.space.as_str(), "The team"));
    other.stop().await;
    team.end().await;
}
