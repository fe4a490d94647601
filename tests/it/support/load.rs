//! Writers at full speed, who never give a mutation up: an answer that did not
//! come is asked for again, with the same id, from whichever server answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use syncline::rpc::proto::{DeleteOperation, MutateRequest, MutationOutcome, mutation::Operation};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::history::Ack;
use super::{Client, put, wait_for};

/// Writers of one space, until they are told to stop.
#[derive(Debug)]
pub struct Load {
    writers: JoinSet<Vec<Ack>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    retried: AtomicU64,
}

impl Load {
    /// Starts writers, each with all these clients in turn. Two collections,
    /// `task` and `note`, with as many records in each, and a record of its own
    /// that each writes and deletes in turn. Each writer is a device.
    pub fn start(name: &str, writers: usize, records: usize, clients: &[Client]) -> Self {
        let counts = Arc::new(Counts::default());
        let mut tasks = JoinSet::new();
        for number in 0..writers {
            let mut clients = clients.to_vec();
            let first = number % clients.len();
            clients.rotate_left(first);
            let name = format!("{name}-{number}");
            tasks.spawn(write(name, number, records, clients, Arc::clone(&counts)));
        }
        Self { writers: tasks, counts }
    }

    pub fn acknowledged(&self) -> u64 {
        self.counts.acknowledged.load(SeqCst)
    }

    /// Requests that failed and were sent again.
    pub fn retried(&self) -> u64 {
        self.counts.retried.load(SeqCst)
    }

    /// Waits until this many more writes are acknowledged.
    pub async fn more(&self, writes: u64) {
        let before = self.acknowledged();
        // In steps, so that a slow machine is not taken for one that stands still.
        for step in (0..writes).step_by(50).chain([writes]) {
            let reached = async || (self.acknowledged() >= before + step).then_some(());
            wait_for("acknowledged writes", reached).await;
        }
    }

    /// Lets each writer finish what it began.
    pub async fn stop(self) -> Vec<Ack> {
        self.counts.stop.store(true, SeqCst);
        self.writers.join_all().await.into_iter().flatten().collect()
    }
}

async fn write(
    name: String,
    number: usize,
    records: usize,
    clients: Vec<Client>,
    counts: Arc<Counts>,
) -> Vec<Ack> {
    let mut acks = Vec::new();
    for count in 0.. {
        if counts.stop.load(SeqCst) {
            break;
        }
        let id = format!("{name}-{count}");
        let record = format!("{}", (number * 7 + count) % records);
        let document = format!(r#"{{"by":"{id}","pad":"{:0200}"}}"#, 0);
        let mut mutation = match count % 10 {
            4 => put(&id, &name, &document),
            9 => super::mutation(&id, &name, Operation::Delete(DeleteOperation {})),
            _ => put(&id, &record, &document),
        };
        if count % 3 == 0 && count % 5 != 4 {
            mutation.key.as_mut().unwrap().collection = "note".into();
        }
        let request = MutateRequest {
            device: name.clone(),
            mutation: Some(mutation),
            ..MutateRequest::default()
        };
        acks.push(insist(&clients[count % clients.len()..], &clients, request, &counts).await);
    }
    acks
}

/// Sends it until it is answered.
async fn insist(
    first: &[Client],
    others: &[Client],
    request: MutateRequest,
    counts: &Counts,
) -> Ack {
    let began = Instant::now();
    let mutation = request.mutation.as_ref().unwrap().id.clone();
    for client in first.iter().chain(others.iter().cycle()) {
        let answer = client.stub.clone().mutate(request.clone()).await;
        match answer {
            Ok(answer) => {
                let result = answer.into_inner().result.unwrap();
                assert_eq!(result.outcome, i32::from(MutationOutcome::Applied), "{result:?}");
                counts.acknowledged.fetch_add(1, SeqCst);
                let (revision, replayed) = (result.revision, result.replayed);
                return Ack { mutation, revision, replayed, began, ended: Instant::now() };
            }
            Err(status) => {
                assert!(passes(&status), "{mutation}: {status:?}");
                assert!(began.elapsed() < Duration::from_secs(60), "{mutation}: {status:?}");
                counts.retried.fetch_add(1, SeqCst);
                // As a client does, so that a server that is away is not flooded.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    unreachable!("there is always one more client")
}

/// Whether trying again is right.
pub fn passes(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded => true,
        // What the client's library makes of a connection that breaks.
        Code::Unknown | Code::Cancelled => {
            std::error::Error::source(status).is_some() || status.message().contains("transport")
        }
        Code::Internal => status.message().contains("h2 protocol error"),
        _ => false,
    }
}
