//! The keys of an issuer that publishes them: they change, and it is away, and others make up
//! keys that it never had.

mod issuer;

use std::time::Duration;

use futures_util::future::join_all;
use syncline::auth::{JwksSource, KeyConfig, Pace, Verifier};
use syncline::clock::Clock;
use syncline::rpc::proto::GetStatusRequest;
use tokio::time::Instant;

use crate::support::{
    AUDIENCE, Client, Database, ISSUER, SECRET, TestServer, describe, mint, wait_for,
};
use issuer::{Answer, Issuer, Key};

/// Only what a token asks for is read, after the start.
fn seldom() -> Pace {
    let hour = Duration::from_hours(1);
    Pace { interval: hour, retry: hour, ..Pace::default() }
}

/// Keys are read again and again.
fn often() -> Pace {
    let soon = Duration::from_millis(20);
    Pace { interval: soon, retry: soon, ..Pace::default() }
}

/// A server that lets in whom one issuer does.
struct House {
    server: TestServer,
    database: Database,
}

impl House {
    async fn of(issuer: &Issuer, pace: Pace) -> Self {
        Self::at(&issuer.url(), pace).await
    }

    async fn at(jwks: &str, pace: Pace) -> Self {
        let database = Database::create().await;
        let verifier = Verifier::without_keys(ISSUER, AUDIENCE)
            .with_key(&KeyConfig::Secret(SECRET.into()))
            .unwrap()
            .with_jwks(JwksSource::parse(jwks).unwrap(), pace)
            .unwrap();
        let (store, config) = (database.store().await, TestServer::config());
        let server = TestServer::start_verifying(store, verifier, Clock::system(), &config).await;
        Self { server, database }
    }

    /// What a call with this token is told.
    async fn call(&self, token: &str) -> String {
        let client = Client::connect(self.server.address(), token).await;
        ask(&client).await
    }

    async fn end(self) {
        self.server.stop().await;
        drop(self.database);
    }
}

async fn ask(client: &Client) -> String {
    match client.stub.clone().get_status(GetStatusRequest::default()).await {
        Ok(_) => "Ok".into(),
        Err(status) => describe(&status),
    }
}

const REFUSED: &str = "Unauthenticated UNAUTHENTICATED class=invalid";

#[tokio::test(flavor = "multi_thread")]
async fn the_first_token_of_a_new_key_brings_it() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let issuer = Issuer::start(&[&old]).await;
    let house = House::of(&issuer, seldom()).await;
    assert_eq!(house.call(&old.token("alice")).await, "Ok");
    assert_eq!(issuer.fetched(), 1, "before anybody calls");
    issuer.publish(&[&old, &new]);
    assert_eq!(house.call(&new.token("alice")).await, "Ok", "it waits for the key");
    assert_eq!(house.call(&old.token("alice")).await, "Ok", "both count while keys change");
    assert_eq!(issuer.fetched(), 2);
    // Another one so soon is not asked for, and its token refused at once.
    let newest = Key::new("newest");
    issuer.publish(&[&new, &newest]);
    let began = Instant::now();
    assert_eq!(house.call(&newest.token("alice")).await, REFUSED);
    assert!(began.elapsed() < Duration::from_secs(2), "nothing is waited for");
    assert_eq!(issuer.fetched(), 2);
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_key_is_refused_after_the_next_refresh() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let issuer = Issuer::start(&[&old]).await;
    let house = House::of(&issuer, often()).await;
    let (of_old, of_new) = (old.token("alice"), new.token("alice"));
    assert_eq!(house.call(&of_old).await, "Ok");
    issuer.publish(&[&new]);
    wait_for("the token that was good is refused", async || {
        (house.call(&of_old).await == REFUSED).then_some(())
    })
    .await;
    assert_eq!(house.call(&of_new).await, "Ok");
    // One that is closed to all stays open to those with a key that was given.
    issuer.publish(&[]);
    wait_for("nobody is left", async || (house.call(&of_new).await == REFUSED).then_some(())).await;
    assert_eq!(house.call(&mint("bob")).await, "Ok");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_set_in_a_file_is_read_again() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    std::fs::write(&path, issuer::set(&[&old])).unwrap();
    let house = House::at(path.to_str().unwrap(), often()).await;
    let (of_old, of_new) = (old.token("alice"), new.token("alice"));
    assert_eq!(house.call(&of_old).await, "Ok");
    std::fs::write(&path, issuer::set(&[&new])).unwrap();
    wait_for("the new key counts", async || (house.call(&of_new).await == "Ok").then_some(()))
        .await;
    assert_eq!(house.call(&of_old).await, REFUSED);
    // A file that is gone or broken changes nothing.
    std::fs::remove_file(&path).unwrap();
    assert_eq!(house.call(&new.token("bob")).await, "Ok");
    std::fs::write(&path, "{").unwrap();
    assert_eq!(house.call(&new.token("carol")).await, "Ok");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_unknown_keys_is_one_refresh() {
    let key = Key::new("known");
    let issuer = Issuer::start(&[&key]).await;
    let house = House::of(&issuer, seldom()).await;
    let good = house.server.client("witness").await;
    // Signed by somebody, each with another name for their key.
    let tokens: Vec<String> =
        (0..1_000).map(|n| Key::new(&format!("unknown-{n}")).token("mallory")).collect();
    let began = Instant::now();
    let connections = tokens.chunks(50).map(async |tokens| {
        let channel = Client::channel(house.server.address()).await;
        let calls = tokens.iter().map(async |token| ask(&Client::on(channel.clone(), token)).await);
        join_all(calls).await
    });
    let answers = join_all(connections).await.concat();
    assert_eq!(answers.len(), 1_000);
    assert!(answers.iter().all(|answer| answer == REFUSED), "fail closed");
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(issuer.fetched(), 2, "the start, and once for all");
    assert_eq!(ask(&good).await, "Ok");
    assert_eq!(house.call(&key.token("alice")).await, "Ok");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_is_away_locks_out_nobody_it_has_let_in() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let issuer = Issuer::start(&[&old]).await;
    let house = House::of(&issuer, often()).await;
    let much = "x".repeat(1 << 21);
    for (row, answer) in [
        ("hangs up", Answer::HangUp),
        ("fails", Answer::Http("500 Internal Server Error", String::new(), issuer::set(&[&new]))),
        ("leads elsewhere", Answer::Http("302 Found", issuer.elsewhere(), issuer::set(&[&new]))),
        ("says something else", Answer::Http("200 OK", String::new(), "<html>".into())),
        ("says too much", Answer::Http("200 OK", String::new(), much)),
    ] {
        issuer.answer(answer);
        let before = issuer.fetched();
        wait_for(row, async || (issuer.fetched() > before + 2).then_some(())).await;
        // A token that was never seen before.
        assert_eq!(house.call(&old.token(&format!("user {row}"))).await, "Ok", "{row}");
        assert_eq!(house.call(&new.token("alice")).await, REFUSED, "{row}");
    }
    assert_eq!(issuer.led(), 0, "redirects are not followed");
    issuer.publish(&[&new]);
    wait_for("it is back", async || (house.call(&new.token("alice")).await == "Ok").then_some(()))
        .await;
    assert_eq!(house.call(&old.token("alice")).await, REFUSED);
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_starts_without_its_issuer() {
    let key = Key::new("key");
    let issuer = Issuer::start(&[&key]).await;
    issuer.answer(Answer::HangUp);
    let house = House::of(&issuer, often()).await;
    assert_eq!(house.call(&key.token("alice")).await, REFUSED);
    assert_eq!(house.call(&mint("bob")).await, "Ok", "the key that was given counts");
    issuer.publish(&[&key]);
    wait_for("it has come", async || (house.call(&key.token("alice")).await == "Ok").then_some(()))
        .await;
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_does_not_answer_holds_up_a_call_for_three_seconds() {
    let (key, new) = (Key::new("key"), Key::new("new"));
    let issuer = Issuer::start(&[&key]).await;
    let house = House::of(&issuer, seldom()).await;
    issuer.answer(Answer::Silence);
    let began = Instant::now();
    let (unknown, known) = (new.token("alice"), key.token("alice"));
    let (refused, ()) = tokio::join!(house.call(&unknown), async {
        let waits = "somebody waits for the issuer";
        wait_for(waits, async || (issuer.fetched() == 2).then_some(())).await;
        assert_eq!(house.call(&known).await, "Ok");
        assert!(began.elapsed() < Duration::from_secs(2), "others do not wait");
    });
    let waited = began.elapsed();
    assert_eq!(refused, REFUSED);
    assert!((2_900..4_500).contains(&waited.as_millis()), "{waited:?}");
    house.end().await;
}
