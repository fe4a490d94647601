//! Whole states: how a client begins, comes back after a long absence, and proves that
//! it has what the server has.

mod compaction;
mod copy;
mod digests;
mod exchange;
mod plans;
mod replace;
mod snapshot;
mod verify;

use syncline::rpc::proto::{
    DocumentForm, ExchangeRequest, ExchangeResponse, GetStatusRequest, GetStatusResponse, Mutation,
    SnapshotRequest,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::Status;

use crate::support::{Client, Random, put};
use copy::Copy;

/// The status with the digest of the whole space.
async fn proven(client: &Client) -> GetStatusResponse {
    let request = GetStatusRequest { digest: true, ..Default::default() };
    client.stub.clone().get_status(request).await.unwrap().into_inner()
}

async fn exchange(client: &Client, request: ExchangeRequest) -> Result<ExchangeResponse, Status> {
    let request = ExchangeRequest { document_form: DocumentForm::Json.into(), ..request };
    Ok(client.stub.clone().exchange(request).await?.into_inner())
}

/// A whole snapshot; how many responses it came in.
async fn snapshot(client: &Client, collections: &[&str]) -> Result<(Copy, usize), Status> {
    let request = SnapshotRequest {
        collections: collections.iter().map(ToString::to_string).collect(),
        document_form: DocumentForm::Json.into(),
        ..Default::default()
    };
    let mut stream = client.stub.clone().snapshot(request).await?.into_inner();
    let (mut copy, mut responses) = (Copy::default(), 0);
    while let Some(response) = stream.message().await? {
        responses += 1;
        if copy.load(response) {
            assert_eq!(stream.message().await?, None, "something came after the last one");
            return Ok((copy, responses));
        }
    }
    panic!("a snapshot ended without its last response");
}

/// Clients that write at random, as fast as it goes, until they are told to stop.
struct Writers {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Writers {
    fn start(clients: impl IntoIterator<Item = Client>, random: &mut Random) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        // No two of them use the same ids.
        for (client, place) in clients.into_iter().zip(0_u64..) {
            let (mut random, stopped) = (Random(random.next()), stopped.clone());
            tasks.spawn(async move {
                for number in (place << 32) + 1.. {
                    if *stopped.borrow() {
                        break;
                    }
                    client.mutate(random_write(&mut random, number)).await.unwrap();
                }
            });
        }
        Self { stop, tasks }
    }

    async fn stop(self) {
        self.stop.send(true).unwrap();
        self.tasks.join_all().await;
    }
}

/// A random write of one of a few records in two collections.
fn random_write(random: &mut Random, number: u64) -> Mutation {
    use syncline::rpc::proto::DeleteOperation;
    use syncline::rpc::proto::mutation::Operation;
    let record = random.below(12).to_string();
    let mut mutation = put(&format!("w{number}"), &record, &format!("{{\"n\":{number}}}"));
    if random.below(4) == 0 {
        mutation.operation = Some(Operation::Delete(DeleteOperation {}));
    }
    if random.below(3) == 0 {
        mutation.key.as_mut().unwrap().collection = "note".into();
    }
    mutation
}
