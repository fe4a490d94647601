//! What a committer takes for granted about a space that it has just written:
//! where it stands, and that the next record is as new as the last ones were.
//! Every test makes one of these wrong, and expects the answer of a server that
//! had looked.

use syncline::clock::Clock;
use syncline::config::ServerConfig;
use syncline::rpc::proto::{BatchMutateRequest, Mutation, MutationOutcome, MutationResult};
use tonic::Status;

use crate::support::history::Log;
use crate::support::{Client, Database, TestServer, error_reason, put};

/// Puts of new records: enough of them to expect more.
fn many(name: &str) -> Vec<Mutation> {
    let put = |number| put(&format!("{name}-{number}"), &format!("{name}-{number}"), "{}");
    (0..20).map(put).collect()
}

/// A server that expects new records in alice's space, and her client.
async fn trusting(database: &Database, head: i64) -> (TestServer, Client) {
    let one = |it: &mut ServerConfig| it.committers = 1;
    let server = TestServer::start_with(database, Clock::system(), one).await;
    let client = server.client("alice").await;
    // Birth needs locks, and some groups after it have them as well.
    assert_eq!(client.head().await, head);
    client.batch(many("warm"), false).await.unwrap();
    (server, client)
}

async fn check(database: &Database, head: i64) {
    let log = Log::read(&mut database.connect().await, "alice").await;
    log.check().unwrap();
    assert_eq!(log.head, head);
}

/// Ordinary writes, until a server no longer expects more of what was not.
async fn calm_down(client: &Client) {
    for number in 0..10 {
        let id = format!("calm-{number}");
        client.mutate(put(&id, &id, "{}")).await.unwrap();
    }
}

/// Told that an id was used before, by a server that does not expect it.
async fn is_reused(client: &Client, mutation: Mutation) {
    calm_down(client).await;
    let status = client.mutate(mutation).await.unwrap_err();
    assert_eq!(error_reason(&status), "MUTATION_ID_REUSED");
}

fn applied(result: &MutationResult, revision: i64) {
    assert_eq!(result.outcome(), MutationOutcome::Applied, "{result:?}");
    assert_eq!((result.revision, result.replayed), (revision, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_not_new_after_all_is_updated() {
    let database = Database::create().await;
    let other = TestServer::start(&database).await;
    let first = put("first", "old", r#"{"is":"old"}"#);
    applied(&other.client("alice").await.mutate(first).await.unwrap(), 1);
    other.stop().await;

    let (server, client) = trusting(&database, 1).await;
    let neighbour = server.client("bob").await;
    assert_eq!(neighbour.head().await, 0);
    neighbour.batch(many("warm"), false).await.unwrap();
    let (ours, theirs) = tokio::join!(
        client.mutate(put("second", "old", r#"{"is":"newer"}"#)),
        neighbour.mutate(put("theirs", "new", "{}")),
    );
    applied(&ours.unwrap(), 22);
    applied(&theirs.unwrap(), 21);
    assert_eq!(client.task("old").await.unwrap(), r#"{"is":"newer"}"#);
    let mut connection = database.connect().await;
    let sql = "select previous_revision from changes where mutation_id = 'second'";
    let previous: i64 = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
    assert_eq!(previous, 1);
    check(&database, 22).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_took_effect_before_is_replayed() {
    let database = Database::create().await;
    let (server, client) = trusting(&database, 0).await;
    let again = client.mutate(put("warm-3", "warm-3", "{}")).await.unwrap();
    assert!(again.replayed);
    assert_eq!(again.revision, 4);
    // Known by its id, also when its record looks new.
    is_reused(&client, put("warm-3", "other", "{}")).await;
    check(&database, 30).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_conflict_is_replayed() {
    let database = Database::create().await;
    let other = TestServer::start(&database).await;
    let elsewhere = other.client("alice").await;
    elsewhere.mutate(put("first", "contested", "{}")).await.unwrap();
    let stale = Mutation { base: Some(0), ..put("stale", "contested", r#"{"mine":1}"#) };
    let conflict = elsewhere.mutate(stale.clone()).await.unwrap();
    assert_eq!(conflict.outcome(), MutationOutcome::Conflict);
    other.stop().await;

    // To this server the record looks new, and its base would fit.
    let (server, client) = trusting(&database, 1).await;
    let again = client.mutate(stale).await.unwrap();
    assert!(again.replayed);
    assert_eq!(again.record, conflict.record);
    // Now the record is known, and nothing of it shows that the id was used.
    is_reused(&client, put("stale", "contested", "{}")).await;
    check(&database, 31).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_that_was_written_elsewhere_is_looked_at() {
    let database = Database::create().await;
    let (server, client) = trusting(&database, 0).await;
    let other = TestServer::start(&database).await;
    let elsewhere = other.client("alice").await;
    applied(&elsewhere.mutate(put("theirs", "warm-7", r#"{"n":2}"#)).await.unwrap(), 21);

    let stale = Mutation { base: Some(8), ..put("stale", "warm-7", r#"{"n":1}"#) };
    let conflict = client.mutate(stale).await.unwrap();
    assert_eq!(conflict.outcome(), MutationOutcome::Conflict);
    assert_eq!(conflict.record.unwrap().revision, 21);
    let fresh = Mutation { base: Some(21), ..put("fresh", "warm-7", r#"{"n":3}"#) };
    applied(&client.mutate(fresh).await.unwrap(), 22);
    check(&database, 22).await;
    server.stop().await;
    other.stop().await;
}

/// A numbered mutation of the device "phone", of a new record.
async fn numbered(client: &Client, number: i64) -> Result<MutationResult, Status> {
    let id = format!("s-{number}-{}", uuid::Uuid::new_v4());
    send_numbered(client, number, put(&id, &id, "{}")).await
}

async fn send_numbered(
    client: &Client,
    number: i64,
    mutation: Mutation,
) -> Result<MutationResult, Status> {
    let mutation = Mutation { device_sequence: Some(number), ..mutation };
    let device = "phone".into();
    let request = BatchMutateRequest { mutations: vec![mutation], device, ..Default::default() };
    let results = client.stub.clone().batch_mutate(request).await?.into_inner().results;
    Ok(results.into_iter().next().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn sequences_are_known_without_being_read_and_still_checked() {
    let database = Database::create().await;
    let (server, client) = trusting(&database, 0).await;
    for number in 1..=5 {
        applied(&numbered(&client, number).await.unwrap(), 20 + number);
    }
    let gap = numbered(&client, 7).await.unwrap_err();
    assert_eq!(error_reason(&gap), "SEQUENCE_GAP");
    let used = numbered(&client, 5).await.unwrap();
    assert_eq!(used.outcome(), MutationOutcome::Rejected, "{used:?}");

    calm_down(&client).await;
    applied(&numbered(&client, 6).await.unwrap(), 36);
    // The device goes on with another replica, and leaves no change there.
    let other = TestServer::start(&database).await;
    let stale = Mutation { base: Some(0), ..put("stale", "warm-1", "{}") };
    let conflict = send_numbered(&other.client("alice").await, 7, stale).await.unwrap();
    assert_eq!(conflict.outcome(), MutationOutcome::Conflict, "{conflict:?}");
    let used = numbered(&client, 7).await.unwrap();
    assert_eq!(used.outcome(), MutationOutcome::Rejected, "{used:?}");
    applied(&numbered(&client, 8).await.unwrap(), 37);
    let mut connection = database.connect().await;
    let sql = "select sequence from devices where device = 'phone'";
    let last: i64 = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
    assert_eq!(last, 8);
    check(&database, 37).await;
    server.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_was_replaced_is_not_taken_for_the_old_one() {
    let database = Database::create().await;
    let (server, client) = trusting(&database, 0).await;
    // As far as the old one was, but with another record.
    let mut connection = database.connect().await;
    for sql in
        ["update spaces set epoch = gen_random_uuid()", "delete from latest where id = 'warm-3'"]
    {
        sqlx::query(sql).execute(&mut connection).await.unwrap();
    }
    applied(&client.mutate(put("anew", "warm-3", "{}")).await.unwrap(), 21);
    let sql = "select action from changes where mutation_id = 'anew'";
    let action: i16 = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
    assert_eq!(action, 1, "created");
    server.stop().await;
}
