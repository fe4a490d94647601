//! QueueService: what is enqueued is applied in its order, once, whatever happens.

mod kill;
mod lanes;
mod order;

use syncline::rpc::proto::{
    ClearSyncedRequest, DiscardQueuedRequest, EnqueueRequest, GetStatusRequest, ListQueuedRequest,
    MarkSyncedRequest, Mutation, MutationOutcome, QueueState, QueuedMutation, RetryQueuedRequest,
};
use tokio::task::JoinSet;
use tonic::Status;

use crate::support::{Client, Database, TestServer, error_reason, mutation, put, scale, wait_for};

async fn enqueue(
    client: &Client,
    device: &str,
    mutations: Vec<Mutation>,
) -> Result<Vec<QueuedMutation>, Status> {
    let request = EnqueueRequest { device: device.into(), mutations, ..Default::default() };
    Ok(client.queue.clone().enqueue(request).await?.into_inner().entries)
}

/// All entries, by small pages.
async fn list(client: &Client, state: QueueState) -> Vec<QueuedMutation> {
    let (mut entries, mut page_token) = (Vec::new(), String::new());
    loop {
        let (state, page_size) = (state.into(), 3);
        let request = ListQueuedRequest { state, page_size, page_token, ..Default::default() };
        let page = client.queue.clone().list_queued(request).await.unwrap().into_inner();
        entries.extend(page.entries);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return entries;
        }
    }
}

/// Waits until nothing is pending.
async fn drained(client: &Client) {
    wait_for("the queue to be drained", async || {
        list(client, QueueState::Pending).await.is_empty().then_some(())
    })
    .await;
}

async fn retry(
    client: &Client,
    id: &str,
    edited: Option<Mutation>,
) -> Result<QueuedMutation, Status> {
    let request = RetryQueuedRequest { mutation_id: id.into(), edited, ..Default::default() };
    Ok(client.queue.clone().retry_queued(request).await?.into_inner().entry.unwrap())
}

fn states(entries: &[QueuedMutation]) -> Vec<(&str, QueueState)> {
    entries.iter().map(|it| (it.mutation_id.as_str(), it.state())).collect()
}

fn stale(id: &str, task: &str) -> Mutation {
    Mutation { base: Some(0), ..put(id, task, "{\"mine\":1}") }
}

fn delete(id: &str, task: &str) -> Mutation {
    use syncline::rpc::proto::{DeleteOperation, mutation::Operation};
    mutation(id, task, Operation::Delete(DeleteOperation {}))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_entry_comes_to_its_end() {
    use QueueState::{Applied, Conflicted, Failed};
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.client("alice").await;
    alice.mutate(put("there", "1", "{}")).await.unwrap();
    let all =
        vec![put("a", "2", "{\"n\":1}"), stale("c", "1"), delete("f", "9"), put("b", "2", "{}")];
    let entries = enqueue(&alice, "phone", all.clone()).await.unwrap();
    let ids: Vec<_> = entries.iter().map(|it| it.mutation_id.as_str()).collect();
    assert_eq!(ids, ["a", "c", "f", "b"]);
    assert!(entries.iter().all(|it| it.device == "phone" && it.author == "alice"));
    drained(&alice).await;
    let entries = list(&alice, QueueState::Unspecified).await;
    assert_eq!(
        states(&entries),
        [("a", Applied), ("c", Conflicted), ("f", Failed), ("b", Applied)]
    );
    assert_eq!(entries.iter().map(|it| it.mutation.clone().unwrap()).collect::<Vec<_>>(), all);
    assert_eq!((entries[0].outcome(), entries[0].revision), (MutationOutcome::Applied, 2));
    assert_eq!((entries[1].outcome(), entries[1].revision), (MutationOutcome::Conflict, 1));
    let fault = entries[2].fault.clone().unwrap();
    assert_eq!(fault.reason, "REJECTED");
    assert!(fault.message.contains("does not exist"), "{}", fault.message);
    assert_eq!(alice.task("2").await.unwrap(), "{}");
    // Sent again it is what is there, and has no second effect.
    let again = enqueue(&alice, "phone", all).await.unwrap();
    assert_eq!(states(&again), states(&entries));
    assert_eq!(alice.head().await, 3);
    let other = enqueue(&alice, "phone", vec![put("n", "3", "{}"), put("a", "7", "{}")]).await;
    assert_eq!(error_reason(&other.unwrap_err()), "MUTATION_ID_REUSED");
    assert_eq!(list(&alice, QueueState::Unspecified).await.len(), 4, "none of them");
    let status = async |device: &str| {
        let request = GetStatusRequest { device: device.into(), ..Default::default() };
        let status = alice.stub.clone().get_status(request).await.unwrap().into_inner();
        (status.queued, status.failed_queued)
    };
    assert_eq!((status("").await, status("desk").await), ((0, 1), (0, 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_failed_can_be_tried_again_marked_or_discarded() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.client("alice").await;
    let all = vec![put("a", "1", "{}"), delete("f1", "8"), delete("f2", "9"), delete("f3", "9")];
    enqueue(&alice, "phone", all).await.unwrap();
    drained(&alice).await;
    // Its id has got its answer for ever.
    let refused = retry(&alice, "f1", None).await.unwrap_err();
    assert_eq!(error_reason(&refused), "QUEUED_STATE");
    assert!(refused.message().contains("an id of its own"), "{}", refused.message());
    let same = retry(&alice, "f1", Some(put("f1", "8", "{}"))).await.unwrap_err();
    assert_eq!(error_reason(&same), "QUEUED_STATE");
    let taken = retry(&alice, "f1", Some(put("f2", "8", "{}"))).await.unwrap_err();
    assert_eq!(error_reason(&taken), "MUTATION_ID_REUSED");
    for (id, reason) in
        [("a", "QUEUED_STATE"), ("none", "QUEUED_NOT_FOUND"), ("", "VALIDATION_ERROR")]
    {
        let refused = retry(&alice, id, None).await.unwrap_err();
        assert_eq!(error_reason(&refused), reason, "{id}");
    }
    let entry = retry(&alice, "f1", Some(put("f1b", "8", "{\"n\":8}"))).await.unwrap();
    assert_eq!((entry.mutation_id.as_str(), entry.state()), ("f1b", QueueState::Pending));
    drained(&alice).await;
    assert_eq!(alice.task("8").await.unwrap(), "{\"n\":8}");
    // Sent again, it is done already.
    let again = retry(&alice, "f1", Some(put("f1b", "8", "{\"n\":8}"))).await.unwrap();
    assert_eq!((again.mutation_id.as_str(), again.state()), ("f1b", QueueState::Applied));
    let other = retry(&alice, "f1", Some(put("f1b", "8", "{}"))).await.unwrap_err();
    assert_eq!(error_reason(&other), "MUTATION_ID_REUSED");
    // And what was edited does not come back, if its client sends it once more.
    let head = alice.head().await;
    let again = enqueue(&alice, "phone", vec![delete("f1", "8")]).await.unwrap();
    assert_eq!(states(&again), [("f1", QueueState::Synced)]);
    drained(&alice).await;
    assert_eq!(alice.head().await, head);

    let discard = async |id: &str| {
        let request = DiscardQueuedRequest { mutation_id: id.into(), ..Default::default() };
        alice.queue.clone().discard_queued(request).await.map(drop)
    };
    discard("f2").await.unwrap();
    assert_eq!(error_reason(&discard("f2").await.unwrap_err()), "QUEUED_NOT_FOUND");
    let mark = async |ids: &[&str]| {
        let mutation_ids = ids.iter().map(ToString::to_string).collect();
        let request = MarkSyncedRequest { mutation_ids, ..Default::default() };
        alice.queue.clone().mark_synced(request).await.map(|it| it.into_inner().marked)
    };
    assert_eq!(mark(&["f3", "a", "none"]).await.unwrap(), 1);
    assert_eq!(error_reason(&mark(&[""]).await.unwrap_err()), "VALIDATION_ERROR");
    let entries = list(&alice, QueueState::Synced).await;
    assert_eq!(states(&entries), [("f1", QueueState::Synced), ("f3", QueueState::Synced)]);
    let request = ClearSyncedRequest::default();
    let cleared = alice.queue.clone().clear_synced(request).await.unwrap().into_inner().cleared;
    assert_eq!(cleared, 4);
    assert_eq!(list(&alice, QueueState::Unspecified).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_enqueued_is_told() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let refused = async |device: &str, mutations| {
        error_reason(&enqueue(&alice, device, mutations).await.unwrap_err())
    };
    assert_eq!(refused("", vec![put("m", "1", "{}")]).await, "VALIDATION_ERROR");
    assert_eq!(refused("phone", vec![]).await, "VALIDATION_ERROR");
    let invalid = vec![put("m", "1", "{}"), put("n", "1", "[]")];
    assert_eq!(refused("phone", invalid).await, "VALIDATION_ERROR");
    let foreign = EnqueueRequest {
        space: "users/alice".into(),
        device: "phone".into(),
        mutations: vec![put("m", "1", "{}")],
    };
    let refused_bob = bob.queue.clone().enqueue(foreign).await.unwrap_err();
    assert_eq!(error_reason(&refused_bob), "SPACE_NOT_FOUND");
    let request = ListQueuedRequest { state: 77, ..Default::default() };
    let status = alice.queue.clone().list_queued(request).await.unwrap_err();
    assert_eq!(error_reason(&status), "VALIDATION_ERROR");
    let request = ListQueuedRequest { page_token: "x".into(), ..Default::default() };
    let status = alice.queue.clone().list_queued(request).await.unwrap_err();
    assert_eq!(error_reason(&status), "VALIDATION_ERROR");

    // As many as there may be, none of which is dealt with.
    enqueue(&alice, "phone", vec![delete("f", "1")]).await.unwrap();
    drained(&alice).await;
    let sql = "insert into queue (space_id, mutation_id, number, device, author, payload,
             fingerprint, state, attempts, enqueued_at, updated_at)
         select space_id, 'x' || n, nextval('queue_numbers'), device, author, payload,
             fingerprint, 4, 0, enqueued_at, updated_at
         from queue, generate_series(1, 9999) n";
    sqlx::query(sql).execute(&mut database.connect().await).await.unwrap();
    assert_eq!(refused("phone", vec![put("m", "1", "{}")]).await, "QUEUE_FULL");
    sqlx::query("delete from queue where mutation_id = 'x1'")
        .execute(&mut database.connect().await)
        .await
        .unwrap();
    enqueue(&alice, "phone", vec![put("m", "1", "{}")]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_counted() {
    let database = Database::create().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let clock = syncline::clock::Clock::system();
    let server = TestServer::start_with(&database, clock, |config| {
        config.metrics_listen = Some(free);
    })
    .await;
    let alice = server.client("alice").await;
    enqueue(&alice, "phone", vec![put("a", "1", "{}"), delete("f", "9")]).await.unwrap();
    drained(&alice).await;
    let page = get(free, "/metrics").await;
    assert!(page.starts_with("HTTP/1.1 200 OK"), "{page}");
    for line in ["syncline_queue_failed_total 1", "syncline_queue_applied_total 1"] {
        assert!(page.lines().any(|it| it == line), "{line} is not in {page}");
    }
    assert!(get(free, "/").await.starts_with("HTTP/1.1 404"));
}

/// What is dealt with is forgotten with the log of its time; what has failed waits.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_dealt_with_is_forgotten_after_a_while() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.client("alice").await;
    enqueue(&alice, "phone", vec![put("a", "1", "{}"), delete("f", "9")]).await.unwrap();
    drained(&alice).await;
    let retention = syncline::domain::Retention {
        log: std::time::Duration::from_hours(1),
        tombstones: std::time::Duration::from_hours(1),
        device_wait: std::time::Duration::ZERO,
    };
    let (store, now) = (database.store().await, syncline::clock::Clock::system().now_to_store());
    let soon = now + time::Duration::minutes(59);
    let later = now + time::Duration::minutes(61);
    for (now, expected) in [(soon, vec!["a", "f"]), (later, vec!["f"])] {
        wait_for("the right to compact", async || {
            syncline::app::compact_once(&store, retention, now).await.unwrap()
        })
        .await;
        let entries = list(&alice, QueueState::Unspecified).await;
        let ids: Vec<_> = entries.iter().map(|it| it.mutation_id.as_str()).collect();
        assert_eq!(ids, expected);
    }
}

/// The same call by many at once is one call, whoever is first.
#[tokio::test(flavor = "multi_thread")]
async fn who_tries_again_together_gets_the_same_entry() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.client("alice").await;
    for round in 0..5 * scale() {
        let (failed, edited) = (format!("f{round}"), format!("e{round}"));
        enqueue(&alice, "phone", vec![delete(&failed, "none")]).await.unwrap();
        drained(&alice).await;
        let mut calls = JoinSet::new();
        for _ in 0..8 {
            let (client, failed) = (alice.clone(), failed.clone());
            let edited = put(&edited, &format!("r{round}"), "{}");
            calls.spawn(async move { retry(&client, &failed, Some(edited)).await });
        }
        for entry in calls.join_all().await {
            assert_eq!(entry.unwrap().mutation_id, edited);
        }
        drained(&alice).await;
    }
    // What has never got an answer, as after five attempts.
    let held = put("held", "1", "{}");
    for round in 0..5 * scale() {
        let id = format!("h{round}");
        enqueue(&alice, "phone", vec![Mutation { id: id.clone(), ..held.clone() }]).await.unwrap();
        drained(&alice).await;
        let sql = "update queue set state = 4, outcome = null where mutation_id = $1";
        sqlx::query(sql).bind(&id).execute(&mut database.connect().await).await.unwrap();
        let mut calls = JoinSet::new();
        for _ in 0..8 {
            let (client, id) = (alice.clone(), id.clone());
            calls.spawn(async move { retry(&client, &id, None).await });
        }
        for entry in calls.join_all().await {
            let refused = entry.as_ref().err().map(error_reason);
            // Who comes when it is applied again is told so.
            assert!(refused.is_none_or(|reason| reason == "QUEUED_STATE"), "{entry:?}");
        }
        drained(&alice).await;
    }
}

/// Whoever edits an entry is the author of what is applied then.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_writes_in_the_name_of_another() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.client("alice").await;
    enqueue(&alice, "phone", vec![delete("f", "1")]).await.unwrap();
    drained(&alice).await;
    let clock = syncline::clock::Clock::system();
    let ttl = std::time::Duration::from_secs(60);
    let token = crate::support::mint_granted("bob", &["write:users/alice"], ttl, &clock);
    let bob = Client::connect(server.address(), &token).await;
    let request = RetryQueuedRequest {
        space: "users/alice".into(),
        mutation_id: "f".into(),
        edited: Some(put("g", "1", "{}")),
    };
    let entry = bob.queue.clone().retry_queued(request).await.unwrap().into_inner().entry;
    assert_eq!(entry.unwrap().author, "bob");
    drained(&alice).await;
    let request = syncline::rpc::proto::GetRecordRequest {
        key: Some(crate::support::key("1")),
        ..Default::default()
    };
    let record = alice.stub.clone().get_record(request).await.unwrap().into_inner().record;
    assert_eq!(record.unwrap().author, "bob");
}

/// A page, with its head, by plain HTTP.
async fn get(address: std::net::SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    page
}
