//! Many at once: duplicates, writers of one space, conditional writers, spaces
//! that know nothing of each other. Always two replicas on one database.

mod births;

use std::collections::{BTreeSet, HashMap};

use futures_util::future::join_all;
use syncline::clock::Clock;
use syncline::rpc::proto::{
    DocumentForm, MutateRequest, Mutation, MutationOutcome, MutationResult, document::Form,
};
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::history::Log;
use crate::support::load::Load;
use crate::support::seen::{Seen, View};
use crate::support::{
    Client, Database, Random, ServerProcess, Stream, TestServer, error_reason, mint, put, scale,
    seed, signed, wait_for, waiting_since,
};

/// Two replicas, and some clients of a user on each.
async fn two_replicas(user: &str, clients: usize) -> (Database, [TestServer; 2], Vec<Client>) {
    let database = Database::create().await;
    let servers = [TestServer::start(&database).await, TestServer::start(&database).await];
    let connecting = (0..clients).map(|number| servers[number % 2].client(user));
    let clients = join_all(connecting).await;
    (database, servers, clients)
}

fn as_first(mut results: Vec<MutationResult>) -> Vec<MutationResult> {
    results.iter_mut().for_each(|result| result.replayed = false);
    results
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_at_once_take_effect_once_and_get_one_answer() {
    let (database, servers, clients) = two_replicas("alice", 8).await;
    for round in 0..3 * scale() {
        let id = format!("m{round}");
        let send = |number: usize| {
            let mutation = put(&id, "1", &format!(r#"{{"round":{round}}}"#));
            let client = clients[number % clients.len()].clone();
            async move { client.mutate(mutation).await.unwrap() }
        };
        let results = join_all((0..32).map(send)).await;
        assert_eq!(results.iter().filter(|result| !result.replayed).count(), 1);
        let results = as_first(results);
        assert!(results.iter().all(|result| *result == results[0]), "{results:?}");
        assert_eq!(results[0].revision, i64::try_from(round).unwrap() + 1);
    }
    let log = Log::read(&mut database.connect().await, "alice").await;
    log.check().unwrap();
    assert_eq!(log.head, i64::try_from(3 * scale()).unwrap());
    for server in servers {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_of_an_atomic_batch_take_effect_once_and_get_one_answer() {
    let (database, servers, clients) = two_replicas("alice", 8).await;
    for round in 0..3 * scale() {
        // Every second batch fails as a whole; that answer is kept as well.
        let fails = round % 2 == 1;
        let mut batch: Vec<Mutation> =
            (0..5).map(|n| put(&format!("m{round}-{n}"), &format!("{n}"), r#"{"a":1}"#)).collect();
        batch[3].base = fails.then_some(0);
        let send = |number: usize| {
            let (client, batch) = (clients[number % clients.len()].clone(), batch.clone());
            async move { client.batch(batch, true).await.unwrap() }
        };
        let answers = join_all((0..32).map(send)).await;
        let firsts = answers.iter().filter(|results| results.iter().all(|it| !it.replayed));
        assert_eq!(firsts.count(), 1);
        let replays = answers.iter().filter(|results| results.iter().all(|it| it.replayed));
        assert_eq!(replays.count(), 31);
        let answers: Vec<_> = answers.into_iter().map(as_first).collect();
        for results in &answers {
            pretty_assertions::assert_eq!(results, &answers[0]);
        }
        let applied = i32::from(MutationOutcome::Applied);
        let outcome = answers[0].iter().filter(|result| result.outcome == applied).count();
        assert_eq!(outcome, if fails { 0 } else { 5 });
    }
    let log = Log::read(&mut database.connect().await, "alice").await;
    log.check().unwrap();
    let applied = 3 * scale() - 3 * scale() / 2;
    assert_eq!(log.head, 5 * i64::try_from(applied).unwrap());
    for server in servers {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_different_contents_under_one_id_one_wins_and_the_others_are_told() {
    let (database, servers, clients) = two_replicas("alice", 8).await;
    for round in 0..3 * scale() {
        let id = format!("m{round}");
        let send = |number: usize| {
            let mutation = put(&id, &format!("r{round}"), &format!(r#"{{"by":{}}}"#, number % 4));
            let client = clients[number % clients.len()].clone();
            async move { (number % 4, client.mutate(mutation).await) }
        };
        let answers = join_all((0..32).map(send)).await;
        let winners: BTreeSet<_> =
            answers.iter().filter(|(_, answer)| answer.is_ok()).map(|(by, _)| *by).collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        let (mut firsts, mut refused) = (0, 0);
        for (by, answer) in &answers {
            match answer {
                Ok(result) => firsts += usize::from(!result.replayed),
                Err(status) => {
                    assert!(!winners.contains(by));
                    assert_eq!(status.code(), Code::FailedPrecondition);
                    assert_eq!(error_reason(status), "MUTATION_ID_REUSED");
                    refused += 1;
                }
            }
        }
        assert_eq!((firsts, refused), (1, 24));
        let stored = clients[0].task(&format!("r{round}")).await.unwrap();
        assert_eq!(stored, format!(r#"{{"by":{}}}"#, winners.first().unwrap()));
    }
    Log::read(&mut database.connect().await, "alice").await.check().unwrap();
    for server in servers {
        server.stop().await;
    }
}

/// Two subscribers on each replica for each of these views: one that is there
/// from the beginning, one that comes later, goes and resumes.
fn views() -> Vec<View> {
    vec![
        View::default(),
        View { collections: vec!["task".into()], ..View::default() },
        View { not_by: Some("w-5".into()), ..View::default() },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_at_once_get_gapless_revisions_that_all_subscribers_see_in_order() {
    let (database, servers, clients) = two_replicas("alice", 8).await;
    let mut live: Vec<(Seen, Stream)> = Vec::new();
    for server in &servers {
        for view in views() {
            let mut seen = Seen::new(view);
            // Caught up, so that nothing comes coalesced.
            let stream = seen.open_live(&server.client("alice").await).await.unwrap();
            live.push((seen, stream));
        }
    }
    let load = Load::start("w", 64, 50, &clients);
    load.more(300 * scale()).await;
    let mut resumed = Vec::new();
    for (server, other) in [(&servers[0], &servers[1]), (&servers[1], &servers[0])] {
        for view in views() {
            let mut seen = Seen::new(view);
            let mut stream = seen.open(&server.client("alice").await).await.unwrap();
            seen.follow(&mut stream, 200).await.unwrap();
            drop(stream);
            load.more(20).await;
            let stream = seen.open(&other.client("alice").await).await.unwrap();
            resumed.push((seen, stream));
        }
    }
    load.more(300 * scale()).await;
    let retried = load.retried();
    let acks = load.stop().await;
    // Passes every view, so that every cursor gets there.
    let end = clients[0].mutate(put("end", "1", "{}")).await.unwrap().revision;

    assert_eq!(retried, 0, "nothing was in the way");
    let log = Log::checked(&database, "alice", &acks).await;
    let revisions: BTreeSet<_> = acks.iter().map(|ack| ack.revision).collect();
    assert!(revisions.iter().copied().eq(1..end), "the answers are 1..n");
    assert_eq!((signed(acks.len()), log.head), (end - 1, end));
    assert!(acks.iter().all(|ack| !ack.replayed));
    for (mut seen, mut stream) in live {
        seen.follow(&mut stream, end).await.unwrap();
        seen.check_every_step(&log).unwrap();
    }
    for (mut seen, mut stream) in resumed {
        seen.follow(&mut stream, end).await.unwrap();
        seen.check(&log).unwrap();
        assert_eq!(seen.streams, 2);
    }
    for server in servers {
        server.stop().await;
    }
}

/// Reads the record's counter, adds one, and writes if nobody else has; where
/// somebody has, the answer brings what to go on with.
async fn count_up(client: Client, records: u64, writes: u64, mut random: Random) -> Counted {
    let mut counted = Counted::default();
    let mut known: HashMap<String, (i64, i64)> = HashMap::new();
    for count in 0..writes {
        let record = format!("{}", random.below(records));
        loop {
            let (revision, value) = known.get(&record).copied().unwrap_or_default();
            let id = format!("{}-{count}-{}", random.0, counted.conflicts);
            let mut mutation = put(&id, &record, &format!(r#"{{"n":{}}}"#, value + 1));
            mutation.base = Some(revision);
            let request = MutateRequest {
                mutation: Some(mutation),
                document_form: DocumentForm::Json.into(),
                ..MutateRequest::default()
            };
            let answer = client.stub.clone().mutate(request).await.unwrap();
            let result = answer.into_inner().result.unwrap();
            if result.outcome == i32::from(MutationOutcome::Applied) {
                known.insert(record.clone(), (result.revision, value + 1));
                *counted.successes.entry(record).or_default() += 1;
                break;
            }
            assert_eq!(result.outcome, i32::from(MutationOutcome::Conflict), "{result:?}");
            counted.conflicts += 1;
            let theirs = result.record.unwrap();
            let Some(Form::Json(text)) = theirs.document.unwrap().form else {
                panic!("asked for JSON")
            };
            let document: serde_json::Value = serde_json::from_slice(&text).unwrap();
            known.insert(record.clone(), (theirs.revision, document["n"].as_i64().unwrap()));
        }
    }
    counted
}

#[derive(Default)]
struct Counted {
    successes: HashMap<String, i64>,
    conflicts: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn no_conditional_write_is_lost() {
    let (database, servers, clients) = two_replicas("alice", 16).await;
    let mut random = Random(seed());
    let mut writers = JoinSet::new();
    for client in &clients {
        writers.spawn(count_up(client.clone(), 10, 15 * scale(), Random(random.next())));
    }
    let (mut expected, mut conflicts) = (HashMap::<String, i64>::new(), 0);
    for counted in writers.join_all().await {
        conflicts += counted.conflicts;
        for (record, successes) in counted.successes {
            *expected.entry(record).or_default() += successes;
        }
    }
    assert!(conflicts >= 16 * scale(), "only {conflicts} were in each other's way");
    for (record, count) in &expected {
        assert_eq!(clients[0].task(record).await.unwrap(), format!(r#"{{"n":{count}}}"#));
    }
    let log = Log::read(&mut database.connect().await, "alice").await;
    log.check().unwrap();
    assert_eq!(log.head, expected.values().sum::<i64>());
    // Each step of each counter is there.
    let mut steps: HashMap<&str, i64> = HashMap::new();
    for line in &log.lines {
        let step = steps.entry(&line.id).or_default();
        *step += 1;
        assert_eq!(line.document, Some(format!(r#"{{"n":{step}}}"#)));
    }
    for server in servers {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spaces_in_one_group_neither_block_nor_see_each_other() {
    let database = Database::create().await;
    // One committer each: all spaces of a replica meet in its groups.
    let start = || TestServer::start_with(&database, Clock::system(), |it| it.committers = 1);
    let servers = [start().await, start().await];
    let mut random = Random(seed());
    let (users, rounds) = (30, 4 * scale());
    let mut tasks = JoinSet::new();
    for user in 0..users {
        for server in &servers {
            let client = server.client(&format!("u{user}")).await;
            let mut random = Random(random.next());
            tasks.spawn(async move {
                for round in 0..rounds {
                    let size = 1 + random.below(20);
                    // The same ids in every space, and from both replicas.
                    let batch = (0..size).map(|n| {
                        put(&format!("m{round}-{n}"), &format!("{n}"), &format!("{{\"u\":{user}}}"))
                    });
                    client.batch(batch.collect(), false).await.unwrap();
                }
            });
        }
    }
    tasks.join_all().await;
    let mut connection = database.connect().await;
    let sql = "select deadlocks from pg_stat_database where datname = current_database()";
    let deadlocks: i64 = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
    assert_eq!(deadlocks, 0);
    for user in 0..users {
        let log = Log::read(&mut connection, &format!("u{user}")).await;
        log.check().unwrap();
        let own = Some(format!("{{\"u\":{user}}}"));
        assert!(log.lines.iter().all(|line| line.document == own));
        let ids: BTreeSet<_> = log.lines.iter().map(|line| line.mutation.as_str()).collect();
        assert_eq!(ids.len(), log.lines.len());
        assert!(ids.contains("m0-0"), "others used this id, and it was theirs alone");
    }
    for server in servers {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_start_at_once_on_an_empty_database_both_serve() {
    let database = Database::unmigrated().await;
    let start = |_| {
        let url = database.url.clone();
        tokio::task::spawn_blocking(move || ServerProcess::start(&url))
    };
    let servers = join_all((0..2).map(start)).await;
    for (server, revision) in servers.iter().map(|it| it.as_ref().unwrap()).zip(1..) {
        let client = Client::connect(server.address, &mint("alice")).await;
        let result = client.mutate(put(&format!("m{revision}"), "1", "{}")).await.unwrap();
        assert_eq!(result.revision, revision);
    }
    // And once more, where there is nothing left to do.
    let store = database.store().await;
    assert_eq!(store.migrate().await.unwrap(), 0);
    for server in servers {
        let stopping = tokio::task::spawn_blocking(|| server.unwrap().stop());
        assert_eq!(stopping.await.unwrap(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mutation_that_another_replica_decided_meanwhile_is_a_replay() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    assert_eq!(alice.head().await, 0);
    // What the other replica is going to write for alice.
    bob.mutate(put("m", "1", "{}")).await.unwrap();
    let mut watching = database.connect().await;
    let mut other = database.connect().await;
    for sql in ["begin", "select from spaces where name = 'users/alice' for update"] {
        sqlx::query(sql).execute(&mut other).await.unwrap();
    }
    let mut call = JoinSet::new();
    call.spawn(async move { alice.mutate(put("m", "1", "{}")).await });
    let first = wait_for("a lock", async || waiting_since(&mut watching).await.pop()).await;
    // The first attempt gives up, and has surely written nothing.
    let second = async || waiting_since(&mut watching).await.pop().filter(|since| *since > first);
    wait_for("a second attempt", second).await;
    for sql in [
        "insert into changes
         select (jsonb_populate_record(c, jsonb_build_object('space_id', a.id))).*
         from changes c, spaces a where a.name = 'users/alice'",
        "insert into latest
         select (jsonb_populate_record(l, jsonb_build_object('space_id', a.id))).*
         from latest l, spaces a where a.name = 'users/alice'",
        "update spaces set head = 1 where name = 'users/alice'",
        "commit",
    ] {
        sqlx::query(sql).execute(&mut other).await.unwrap();
    }
    let result = call.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!((result.revision, result.replayed), (1, true));
    Log::read(&mut watching, "alice").await.check().unwrap();
    server.stop().await;
}
