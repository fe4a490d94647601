//! Exchange: a whole sync in one call.

use prost::Message;
use syncline::rpc::proto::{
    Cursor, EchoMode, ExchangeRequest, GetStatusRequest, Mutation, MutationOutcome,
};
use tokio::task::JoinSet;

use super::{Copy, exchange, proven, random_write};
use crate::support::{
    Client, Database, Random, TestServer, error_reason, mint_granted, put, scale, seed, wait_for,
};

/// Calls until there is no more.
async fn sync(client: &Client, copy: &mut Copy, first: ExchangeRequest) -> Vec<MutationOutcome> {
    let form = ExchangeRequest { mutations: Vec::new(), ..first.clone() };
    let (mut outcomes, mut request) = (Vec::new(), first);
    loop {
        request.cursor.clone_from(&copy.cursor);
        let answer = exchange(client, request).await.unwrap();
        assert!(answer.encoded_len() <= 3 << 20, "{} bytes", answer.encoded_len());
        assert!(answer.results.iter().all(|it| it.revision <= answer.head));
        let up_to = answer.cursor.as_ref().unwrap().revision;
        assert_eq!(answer.has_more, up_to < answer.head);
        outcomes.extend(answer.results.iter().map(|it| it.outcome()));
        copy.apply(&answer.changes, answer.cursor);
        if !answer.has_more {
            return outcomes;
        }
        request = form.clone();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_call_pushes_and_pulls() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.client("alice").await;
    alice.mutate(put("m1", "1", "{\"n\":1}")).await.unwrap();
    let request = |device: &str, cursor, mutations: Vec<Mutation>, echo: EchoMode| {
        let (device, echo) = (device.to_owned(), echo.into());
        ExchangeRequest { device, cursor, mutations, echo, ..Default::default() }
    };
    // From nothing: everything, what it wrote itself as well.
    let own = vec![put("m2", "2", "{\"n\":2}")];
    let first = exchange(&alice, request("phone", None, own, EchoMode::Unspecified)).await.unwrap();
    let revisions: Vec<_> = first.changes.iter().map(|it| it.revision).collect();
    assert_eq!((revisions, first.has_more, first.head, first.floor), (vec![1, 2], false, 2, 0));
    assert_eq!((first.results.len(), first.results[0].revision), (1, 2));
    // From there on, only what others wrote, unless it asks.
    for (number, (echo, seen, whole)) in
        [(EchoMode::Unspecified, 0, false), (EchoMode::Mark, 1, false), (EchoMode::All, 1, true)]
            .into_iter()
            .enumerate()
    {
        let head = alice.head().await;
        let cursor = Some(Cursor { revision: head, ..first.cursor.clone().unwrap() });
        let own = vec![put(&format!("e{number}"), &format!("e{number}"), "{}")];
        let answer = exchange(&alice, request("phone", cursor, own, echo)).await.unwrap();
        assert_eq!(answer.changes.len(), seen, "{echo:?}");
        assert!(answer.changes.iter().all(|it| it.own != whole && it.document.is_some() == whole));
        assert_eq!(answer.cursor.unwrap().revision, head + 1);
    }
    // Its cursor was an acknowledgement.
    wait_for("the acknowledgement", async || {
        let request = GetStatusRequest { device: "phone".into(), ..Default::default() };
        let status = alice.stub.clone().get_status(request).await.unwrap().into_inner();
        let done = status.acknowledged_revision == status.head - 1;
        (done && status.lag == 1 && status.last_sync_time.is_some()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_for_a_cursor_that_cannot_be_resumed() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.client("alice").await;
    alice.mutate(put("m1", "1", "{}")).await.unwrap();
    let epoch = proven(&alice).await.epoch;
    let other = uuid::Uuid::new_v4().to_string();
    for (reason, epoch, revision) in [("CURSOR_AHEAD", &epoch, 7), ("EPOCH_CHANGED", &other, 1)] {
        let cursor = Some(Cursor { epoch: epoch.clone(), revision });
        let mutations = vec![put("m2", "2", "{}")];
        let request = ExchangeRequest { cursor, mutations, ..Default::default() };
        assert_eq!(error_reason(&exchange(&alice, request).await.unwrap_err()), reason);
        assert_eq!(alice.head().await, 1);
    }
    // And what the writing half refuses is refused as in a batch.
    let twice = vec![put("m3", "1", "{}"), put("m3", "2", "{}")];
    let request = ExchangeRequest { mutations: twice, ..Default::default() };
    assert_eq!(error_reason(&exchange(&alice, request).await.unwrap_err()), "VALIDATION_ERROR");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_read_may_pull() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    server.client("alice").await.mutate(put("m1", "1", "{}")).await.unwrap();
    let clock = syncline::clock::Clock::system();
    let grants = &["read:users/alice"];
    let token = mint_granted("bob", grants, std::time::Duration::from_secs(60), &clock);
    let bob = Client::connect(server.address(), &token).await;
    let request = ExchangeRequest { space: "users/alice".into(), ..Default::default() };
    assert_eq!(exchange(&bob, request.clone()).await.unwrap().changes.len(), 1);
    let request = ExchangeRequest { mutations: vec![put("m2", "2", "{}")], ..request };
    assert_eq!(error_reason(&exchange(&bob, request).await.unwrap_err()), "PERMISSION_DENIED");
    let request = ExchangeRequest { space: "users/carol".into(), ..Default::default() };
    assert_eq!(error_reason(&exchange(&bob, request).await.unwrap_err()), "SPACE_NOT_FOUND");
}

/// Large results and large changes share one answer, and pages are cut.
#[tokio::test(flavor = "multi_thread")]
async fn answers_stay_small() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.client("alice").await;
    let large = format!("{{\"text\":\"{}\"}}", "x".repeat(200 << 10));
    for number in 0..20 {
        alice.mutate(put(&format!("m{number}"), &number.to_string(), &large)).await.unwrap();
    }
    // Conflicts show the record and both sides.
    let stale = |number: usize| {
        let mutation = put(&format!("c{number}"), &number.to_string(), "{}");
        Mutation { base: Some(0), ..mutation }
    };
    let mutations = (0..20).map(stale).collect();
    let mut copy = Copy::default();
    let request = ExchangeRequest { device: "phone".into(), mutations, ..Default::default() };
    let request = ExchangeRequest { page_size: 1_000, ..request };
    let outcomes = sync(&alice, &mut copy, request).await;
    assert_eq!(outcomes, [MutationOutcome::Conflict; 20]);
    assert_eq!(copy.records.len(), 20);
}

/// Devices that do nothing but exchange end up with what the server has, whatever they
/// write meanwhile, on two replicas.
#[tokio::test(flavor = "multi_thread")]
async fn devices_that_exchange_converge() {
    let database = Database::create().await;
    let servers = [TestServer::start(&database).await, TestServer::start(&database).await];
    let mut random = Random(seed());
    let mut devices = JoinSet::new();
    for number in 0..4 {
        let client = servers[number % 2].client("alice").await;
        let mut random = Random(random.next());
        devices.spawn(async move {
            let mut copy = Copy::default();
            for round in 0..10 * scale() {
                let count = random.below(6);
                let base = u64::try_from(number).unwrap() * 1_000_000 + round * 100;
                let write = |at| {
                    let mutation = random_write(&mut random, base + at);
                    Mutation { base: Some(copy.revision()), ..mutation }
                };
                let mutations: Vec<_> = (0..count).map(write).collect();
                let request = ExchangeRequest {
                    device: format!("d{number}"),
                    mutations,
                    page_size: 3,
                    echo: EchoMode::All.into(),
                    ..Default::default()
                };
                sync(&client, &mut copy, request).await;
            }
            (client, copy, format!("d{number}"))
        });
    }
    for (client, mut copy, device) in devices.join_all().await {
        let request = ExchangeRequest { device, echo: 1, ..Default::default() };
        sync(&client, &mut copy, request).await;
        copy.check(proven(&client).await.digest.as_ref().unwrap());
    }
}
