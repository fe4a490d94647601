//! Every RPC of the contract, called by everybody: who gets how far. What a call comes to
//! behind the door does not matter here, only that it came there.

use std::fmt::Write as _;

use prost::Message;
use syncline::clock::Clock;
use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{self, Role};
use tonic::{Code, Status};

use super::requests::request;
use super::{Team, put_in, write};
use crate::support::generic::{Generic, methods};
use crate::support::{describe, mint_granted};

/// How far a call came.
fn word(answer: Result<Option<bytes::Bytes>, Status>, streams: bool) -> &'static str {
    let status = match answer {
        Ok(Some(message)) if streams => {
            let frame = proto::SubscribeResponse::decode(message).unwrap().frame;
            match frame {
                Some(Frame::Closed(frame)) => {
                    return if frame.reason == "SPACE_NOT_FOUND" { "unseen" } else { "denied" };
                }
                _ => return "in",
            }
        }
        Ok(_) => return "in",
        Err(status) => status,
    };
    assert_ne!(status.code(), Code::Unknown, "{status:?}");
    assert_ne!(status.code(), Code::Internal, "{status:?}");
    match (status.code(), describe(&status)) {
        (Code::Unauthenticated, _) => "no token",
        (Code::PermissionDenied, _) => "denied",
        (Code::NotFound, words) if words.contains("SPACE_NOT_FOUND") => "unseen",
        _ => "in",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_lets_in_whom_it_should() {
    let team = Team::new().await;
    write(&team.alice, &team.space, vec![put_in("task", "m", "1", "{}")]).await.unwrap();
    team.set("limited", Role::Writer, &["other"]).await;
    team.set("reader", Role::Reader, &[]).await;
    team.set("writer", Role::Writer, &[]).await;
    team.set("admin", Role::Admin, &[]).await;
    let callers: [(&str, &str, &[&str]); 11] = [
        ("nobody", "", &[]),
        ("stranger", "stranger", &[]),
        ("limited", "limited", &[]),
        ("reader", "reader", &[]),
        ("writer", "writer", &[]),
        ("admin", "admin", &[]),
        ("read:*", "service", &["read:*"]),
        ("write:*", "service", &["write:*"]),
        ("admin:*", "service", &["admin:*"]),
        ("policies", "service", &["policies"]),
        ("audit", "service", &["audit"]),
    ];
    let mut table = format!("{:32}", "");
    callers.iter().for_each(|(name, ..)| write!(table, "{name:>10}").unwrap());
    let call = Generic::connect(team.server.address()).await;
    for path in methods() {
        let method = path.strip_prefix("/syncline.v1.").unwrap();
        write!(table, "\n{method:32}").unwrap();
        for (_, user, grants) in callers {
            let token = (!user.is_empty()).then(|| {
                let ttl = std::time::Duration::from_hours(1);
                format!("Bearer {}", mint_granted(user, grants, ttl, &Clock::system()))
            });
            let metadata: Vec<_> =
                token.iter().map(|token| ("authorization", token.as_str())).collect();
            let streams = method == "SyncService/Subscribe";
            let message = request(method, &team.space);
            let word = word(call.call(&path, &metadata, vec![message]).await, streams);
            write!(table, "{word:>10}").unwrap();
        }
    }
    // Nobody whom it did not let in has changed anything.
    let mut connection = team.database.connect().await;
    let sql = "select author from changes group by author order by min(author)";
    let authors = sqlx::query_scalar(sql).fetch_all(&mut connection).await;
    let authors: Vec<String> = authors.unwrap();
    assert_eq!(authors, ["admin", "alice", "service", "writer"]);
    insta::assert_snapshot!("roles", table);
    team.end().await;
}
