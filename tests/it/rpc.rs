//! The calls, one by one, over a real socket.

use crate::support::{Database, Follower, TestServer, put};

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_written_read_and_followed() {
    let database = Database::create().await;
    let (one, two) = (TestServer::start(&database).await, TestServer::start(&database).await);
    let (alice, elsewhere) = (one.client("alice").await, two.client("alice").await);
    let result = alice.mutate(put("m1", "1", r#"{"title":"a"}"#)).await.unwrap();
    assert_eq!(result.revision, 1);
    assert_eq!(elsewhere.task("1").await.unwrap(), r#"{"title":"a"}"#);
    let mut follower = Follower::default();
    follower.follow(&elsewhere, 1).await.unwrap();
    assert_eq!(follower.changes.len(), 1);
    one.stop().await;
    two.stop().await;
}
