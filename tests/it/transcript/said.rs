//! What a client says beside subscribing: writes, acknowledgements, events, tokens.

use std::time::Duration;

use syncline::clock::Clock;
use syncline::rpc::proto::subscribe_request::Frame as Out;
use syncline::rpc::proto::{
    AckFrame, DocumentForm, EchoMode, MutateFrame, Mutation, PublishFrame, RefreshTokenFrame,
    Start, SubscribeFrame,
};

use super::{Session, named};
use crate::support::{Client, Database, TestServer, json, mint, mint_granted, put, wait_for};

const HOUR: Duration = Duration::from_secs(3_600);

fn mutate(request_id: &str, mutations: Vec<Mutation>) -> MutateFrame {
    MutateFrame {
        request_id: request_id.into(),
        device: "phone".into(),
        mutations,
        document_form: DocumentForm::Json.into(),
        ..MutateFrame::default()
    }
}

fn sequenced(id: &str, sequence: i64) -> Mutation {
    Mutation { device_sequence: Some(sequence), ..put(id, id, "{}") }
}

fn live(id: &str) -> SubscribeFrame {
    SubscribeFrame { start: Start::Now.into(), device: "phone".into(), ..named(id) }
}

/// A stream whose token may read bob's space.
async fn house() -> (Database, TestServer, Session) {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let token = mint_granted("alice", &["read:users/bob"], HOUR, &Clock::system());
    let session = Session::open(Client::connect(server.address(), &token).await).await;
    (database, server, session)
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_answered_in_order_and_before_they_show() {
    let (_database, server, mut session) = house().await;
    let all = SubscribeFrame { echo: EchoMode::All.into(), ..live("all") };
    session.subscribe("with echo", all).await;
    session.expect(2).await;
    let frame = mutate("w1", vec![put("m1", "1", r#"{"n":1}"#), put("m2", "1", r#"{"n":2}"#)]);
    session.send("mutate w1", Out::Mutate(frame.clone())).await;
    session.expect_in_order(2).await;
    session.note("# again");
    session.send("mutate w1", Out::Mutate(frame)).await;
    session.expect(1).await;
    let based = Mutation { base: Some(1), ..put("m3", "1", r#"{"n":3}"#) };
    let atomic = MutateFrame { atomic: true, ..mutate("w2", vec![put("m4", "2", "{}"), based]) };
    session.write("desk", put("d1", "1", r#"{"by":"desk"}"#)).await;
    session.expect(1).await;
    session.send("mutate w2, atomic, with a conflict", Out::Mutate(atomic)).await;
    session.expect(1).await;
    for (what, frame) in [
        ("w3, nothing", mutate("w3", vec![])),
        ("w4, twice the same", mutate("w4", vec![put("x", "1", "{}"), put("x", "2", "{}")])),
        ("w5, an id that was used", mutate("w5", vec![put("m1", "9", "{}")])),
        ("w6, with a gap", mutate("w6", vec![sequenced("s2", 2)])),
        (
            "w8, in carol's",
            MutateFrame { space: "users/carol".into(), ..mutate("w8", vec![put("c", "1", "{}")]) },
        ),
        (
            "w9, in bob's",
            MutateFrame { space: "users/bob".into(), ..mutate("w9", vec![put("c", "1", "{}")]) },
        ),
        (
            "w10, a bad device",
            MutateFrame { device: " ".into(), ..mutate("w10", vec![put("c", "1", "{}")]) },
        ),
    ] {
        session.send(&format!("mutate {what}"), Out::Mutate(frame)).await;
        session.expect(1).await;
    }
    session.send("mutate w7, first", Out::Mutate(mutate("w7", vec![sequenced("s1", 1)]))).await;
    session.expect_in_order(2).await;
    session.send("mutate without a name", Out::Mutate(mutate("", vec![]))).await;
    session.end().await;
    insta::assert_snapshot!("writes", session.log);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_are_kept_and_held_against_what_was_sent() {
    let (_database, server, mut session) = house().await;
    session.write("desk", put("m1", "1", "{}")).await;
    session.write("desk", put("m2", "1", "{}")).await;
    session
        .subscribe(
            "from the beginning, as phone",
            SubscribeFrame { device: "phone".into(), ..named("s") },
        )
        .await;
    session.expect(3).await;
    let ack = |id: &str, revision| Out::Ack(AckFrame { subscription_id: id.into(), revision });
    session.send("ack s 2", ack("s", 2)).await;
    session.send("ack s 1", ack("s", 1)).await;
    let client = session.client.clone();
    let acknowledged = async || {
        let request =
            syncline::rpc::proto::GetStatusRequest { device: "phone".into(), ..<_>::default() };
        let status = client.stub.clone().get_status(request).await.unwrap().into_inner();
        (status.acknowledged_revision == 2).then_some(())
    };
    wait_for("the acknowledgement", acknowledged).await;
    session.note("# GetStatus says 2");
    session.send("ack s 3", ack("s", 3)).await;
    session.expect(1).await;
    session.send("ack s 2, which has ended", ack("s", 2)).await;
    session.subscribe("as nobody", named("t")).await;
    session.expect(3).await;
    session.send("ack t 1", ack("t", 1)).await;
    session.expect(1).await;
    session.subscribe("as phone, again", live("u")).await;
    session.expect(2).await;
    session.send("ack u -1", ack("u", -1)).await;
    session.expect(1).await;
    wait_for("the acknowledgement", acknowledged).await;
    insta::assert_snapshot!("acks", session.log);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_reach_the_others_and_bad_ones_end_their_subscription() {
    let (_database, server, mut session) = house().await;
    let hears = |id: &str| SubscribeFrame { events: true, ..live(id) };
    session.subscribe("with events", hears("a")).await;
    session.subscribe("with events", hears("b")).await;
    session.subscribe("without", live("c")).await;
    session.expect(6).await;
    let publish = |id: &str, topic: &str, text: &str| {
        Out::Publish(PublishFrame {
            subscription_id: id.into(),
            topic: topic.into(),
            document: json(text).filter(|_| !text.is_empty()),
        })
    };
    session.send("publish by a", publish("a", "typing", r#"{"at":"x"}"#)).await;
    session.expect(1).await;
    session.send("publish by c, empty", publish("c", "left", "")).await;
    session.expect(2).await;
    session.send("publish by nobody", publish("z", "x", "{}")).await;
    session.expect(1).await;
    session.send("publish by c, no topic", publish("c", "", "{}")).await;
    session.expect(1).await;
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(4_089));
    session.send("publish by b, too large, no topic", publish("b", "", &large)).await;
    session.expect(1).await;
    session.subscribe("bob's", SubscribeFrame { space: "users/bob".into(), ..hears("bob") }).await;
    for _ in 0..2 {
        session.stream.frame().await;
    }
    session.send("publish where she only reads", publish("bob", "x", "{}")).await;
    session.expect(1).await;
    let largest = format!(r#"{{"a":"{}"}}"#, "x".repeat(4_088));
    session.send("publish by a, with nobody there", publish("a", "x", &largest)).await;
    session.unsubscribe("a").await;
    session.expect(1).await;
    insta::assert_snapshot!("events", session.log);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_token_takes_effect_at_once() {
    let (_database, server, mut session) = house().await;
    let bob = server.client("bob").await;
    let refresh = |token: &str| Out::RefreshToken(RefreshTokenFrame { token: token.into() });
    session.subscribe("her own", live("own")).await;
    session.expect(2).await;
    session.subscribe("bob's", SubscribeFrame { space: "users/bob".into(), ..live("bob") }).await;
    for _ in 0..2 {
        session.stream.frame().await;
    }
    let in_bobs = |id: &str| {
        let frame = mutate(id, vec![put(id, id, "{}")]);
        Out::Mutate(MutateFrame { space: "users/bob".into(), ..frame })
    };
    session.send("mutate in bob's", in_bobs("w1")).await;
    session.expect(1).await;
    let token = mint_granted("alice", &["write:users/bob"], HOUR, &Clock::system());
    session.send("refresh_token, with the right to write", refresh(&token)).await;
    session.send("mutate in bob's", in_bobs("w2")).await;
    session.expect(1).await;
    session.send("refresh_token, without bob's space", refresh(&mint("alice"))).await;
    session.expect_in_order(2).await;
    bob.mutate(put("b", "b", "{}")).await.unwrap();
    session.write("desk", put("m1", "1", "{}")).await;
    session.expect(1).await;
    session.send("refresh_token, of bob", refresh(&mint("bob"))).await;
    session.end().await;
    for (what, token) in [("no token", String::new()), ("forged", mint("alice") + "x")] {
        let mut other = Session::open(server.client("alice").await).await;
        other.send(&format!("refresh_token, {what}"), refresh(&token)).await;
        other.end().await;
        session.log.push_str(&other.log);
    }
    insta::assert_snapshot!("tokens", session.log);
    server.stop().await;
}
