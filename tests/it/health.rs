//! `syncline health`, as a container runs it: what it prints and how it ends.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;

use crate::support::{Database, TestServer};

/// Exit code, stdout and stderr.
async fn health(address: SocketAddr) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_syncline"));
    command.args(["health", "--target", &format!("http://{address}")]).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn said(code: i32, stdout: &str, stderr: &str) -> (Option<i32>, String, String) {
    (Some(code), stdout.to_owned(), stderr.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_serves_is_healthy_and_one_that_has_gone_is_not() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let address = server.address();
    assert_eq!(health(address).await, said(0, "serving\n", ""));
    server.stop().await;
    let (code, stdout, stderr) = health(address).await;
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    let expected = format!("error: the health of http://{address} is unknown: no connection: ");
    assert!(stderr.starts_with(&expected), "{stderr}");
    assert!(stderr.contains("Connection refused"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_so_is_not_serving() {
    let (health_reporter, service) = tonic_health::server::health_reporter();
    health_reporter.set_service_status("", ServingStatus::NotServing).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = tonic::transport::Server::builder().add_service(service);
    let asked = async {
        tokio::select! {
            // Cancel: the server is dropped once it has answered.
            ended = router.serve_with_incoming(TcpIncoming::from(listener)) => panic!("{ended:?}"),
            said = health(address) => said,
        }
    };
    assert_eq!(asked.await, said(1, "not serving\n", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_is_given_up() {
    // The system takes the connection, and nobody ever reads from it.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let line = format!("error: the health of http://{address} is unknown: no answer within 2s\n");
    assert_eq!(health(address).await, said(1, "", &line));
}
