//! `doctor`: what it finds, what it advises, and how it ends.

use std::time::Duration;

use pretty_assertions::assert_eq;
use serde_json::Value;
use syncline::clock::Clock;
use syncline::config::{ServerConfig, TlsConfig};

use super::{Desk, end, values};
use crate::support::{Database, TestServer, mint, mint_for};
use crate::tls::certificates::Authority;

/// The verdict of a check.
fn verdict<'v>(found: &'v [Value], check: &str) -> &'v str {
    let found = found.iter().find(|it| it["check"] == check);
    found.and_then(|it| it["verdict"].as_str()).unwrap_or("none")
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_well_with_a_good_server_token_and_database() {
    let desk = Desk::new().await;
    let url = &desk.house.database.url;
    let found = desk.run(&format!("doctor --json --database-url {url}")).await.values();
    let checks = [
        "address",
        "TLS",
        "token",
        "health",
        "round trip",
        "access",
        "clock",
        "limits",
        "room",
        "database",
        "migrations",
    ];
    for check in checks {
        assert_eq!(verdict(&found, check), "ok", "{check} in {found:?}");
    }
    let text = desk.run("doctor").await.good();
    assert!(text.starts_with("ok    address      127.0.0.1:"), "{text}");
    assert!(text.contains("of alice, from syncline-tests, good until 20"), "{text}");
    assert!(!text.contains(&mint("alice")[..40]), "the token is not shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named_with_what_to_do() {
    let desk = Desk::new().await;
    let said = desk.run("doctor --json --server http://127.0.0.1:1").await;
    assert_eq!(said.code, Some(6), "{said:?}");
    let found = values(&said.stdout);
    assert_eq!((verdict(&found, "address"), verdict(&found, "token")), ("fail", "ok"));
    assert!(found.iter().filter(|it| it["verdict"] == "fail").all(|it| it["hint"].is_string()));
    let said = desk.run("doctor --server http://nowhere.invalid:1").await;
    assert_eq!(said.code, Some(6), "{said:?}");
    assert!(said.stdout.contains("does not resolve"), "{said:?}");

    let said = desk.run("doctor --json --token nonsense").await;
    assert_eq!(said.code, Some(7), "{said:?}");
    let found = values(&said.stdout);
    assert_eq!((verdict(&found, "token"), verdict(&found, "access")), ("fail", "fail"));
    assert_eq!(verdict(&found, "clock"), "ok", "it needs no token");
    let over = mint_for("alice", Duration::ZERO);
    let said = desk.run(&format!("doctor --json --token {over}")).await;
    assert_eq!((said.code, verdict(&values(&said.stdout), "token")), (Some(7), "fail"));
    let soon = mint_for("alice", Duration::from_secs(60));
    let found = desk.run(&format!("doctor --json --token {soon}")).await.values();
    assert_eq!((verdict(&found, "token"), verdict(&found, "access")), ("warn", "ok"));
    let mut command = desk.command(&["doctor"]);
    command.env_remove("SYNCLINE_TOKEN");
    let said = end(command).await;
    assert_eq!(said.code, Some(7), "{said:?}");
    assert!(said.stdout.contains("fail  token        there is none\n"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_examined_as_a_start_would() {
    let desk = Desk::new().await;
    let empty = Database::unmigrated().await;
    let found = desk.run(&format!("doctor --json --database-url {}", empty.url)).await.values();
    assert_eq!((verdict(&found, "database"), verdict(&found, "migrations")), ("ok", "warn"));
    let said = desk.run("doctor --database-url postgres://nobody@127.0.0.1:1/x").await;
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.stdout.contains("fail  database     the database is not available"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_and_the_doctor_speak_tls() {
    let desk = Desk::new().await;
    let (authority, clients) = (Authority::new(), Authority::new());
    let (server, client) = (authority.issue(), clients.issue());
    for (name, pem) in [
        ("cert.pem", &server.cert_pem),
        ("key.pem", &server.key_pem),
        ("ca.pem", &authority.pem()),
        ("clients.pem", &clients.pem()),
        ("mine.pem", &client.cert_pem),
        ("mine.key", &client.key_pem),
    ] {
        desk.write(name, pem);
    }
    let database = Database::create().await;
    let tls = TlsConfig {
        cert: desk.path("cert.pem"),
        key: desk.path("key.pem"),
        client_ca: Some(desk.path("clients.pem")),
        look_interval: Duration::from_secs(5),
    };
    let change = |config: &mut ServerConfig| config.tls = Some(tls);
    let house = TestServer::start_with(&database, Clock::system(), change).await;
    let url = format!("https://localhost:{}", house.address().port());
    let mutual = "--ca ca.pem --client-cert mine.pem --client-key mine.key";
    let text = desk.run(&format!("put task 1 {{}} --server {url} {mutual}")).await.good();
    assert_eq!(text, "applied  task/1  revision 1\n");
    let found = desk.run(&format!("doctor --json --server {url} {mutual}")).await.values();
    let tls = found.iter().find(|it| it["check"] == "TLS").unwrap();
    assert_eq!(tls["verdict"], "ok");
    let detail = tls["detail"].as_str().unwrap();
    assert!(detail.starts_with("a certificate for localhost, 127.0.0.1, good until "), "{detail}");

    // Not the system's, and not without a certificate of one's own.
    let said = desk.run(&format!("ls --server {url}")).await;
    assert!(said.ended(6).contains("certificate"), "{said:?}");
    let said = desk.run(&format!("ls --server {url} --ca ca.pem")).await;
    said.ended(6);
    let said = desk.run(&format!("doctor --json --server {url}")).await;
    assert_eq!(said.code, Some(6), "{said:?}");
    let found = values(&said.stdout);
    let health = found.iter().find(|it| it["check"] == "health").unwrap();
    assert!(health["hint"].as_str().unwrap().contains("--ca"), "{health}");
    house.stop().await;
}
