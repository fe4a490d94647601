//! The errors of questions about the past.

use syncline::rpc::proto::mutation::Operation;
use syncline::rpc::proto::{
    DeleteOperation, GetRecordRequest, ListRecordHistoryRequest, UndeleteRecordRequest,
};

use super::Table;
use crate::support::compaction::Compaction;
use crate::support::{Database, TestServer, key, mutation, put};

#[tokio::test(flavor = "multi_thread")]
async fn errors_about_the_past_are_what_the_table_says() {
    let mut table = Table::default();
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.client("alice").await;
    for number in 1..=3 {
        alice.mutate(put(&format!("m{number}"), "1", "{}")).await.unwrap();
    }
    let delete = Operation::Delete(DeleteOperation {});
    alice.mutate(mutation("m4", "1", delete)).await.unwrap();
    let get = async |task: &str, revision| {
        let request = GetRecordRequest { key: Some(key(task)), revision, ..Default::default() };
        alice.stub.clone().get_record(request).await.unwrap_err()
    };
    let undelete = async |task: &str, revision| {
        let request = UndeleteRecordRequest {
            mutation_id: "u".into(),
            key: Some(key(task)),
            revision,
            ..Default::default()
        };
        alice.spaces.clone().undelete_record(request).await.unwrap_err()
    };
    table.row("GetRecord at -1", &get("1", -1).await);
    table.row("GetRecord when it was deleted", &get("1", 4).await);
    table.row("GetRecord ahead", &get("1", 5).await);
    table.row("UndeleteRecord of what never was", &undelete("2", 0).await);
    table.row("UndeleteRecord as it was when it was deleted", &undelete("1", 4).await);
    table.row("UndeleteRecord ahead", &undelete("1", 5).await);
    let history = ListRecordHistoryRequest { key: Some(key("2")), ..Default::default() };
    let status = alice.spaces.clone().list_record_history(history).await.unwrap_err();
    table.row("ListRecordHistory of what never was", &status);
    Compaction::prepare(&database).await.raise(0).await;
    table.row("GetRecord below the floor", &get("1", 3).await);
    table.row("UndeleteRecord below the floor", &undelete("1", 3).await);
    table.row("UndeleteRecord without a document", &undelete("1", 0).await);
    insta::assert_snapshot!("past", table.0);
    server.stop().await;
}
