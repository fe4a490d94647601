//! Many subscribers of one server, and some that are slow, far behind or do not read
//! at all: nobody waits for them, they are heard, and they end complete.

mod bounded;
mod fair;
mod heard;
mod lean;
mod many;
mod told;

use syncline::domain::limits;
use syncline::rpc::proto::Mutation;

use crate::support::{Client, Database, ServerProcess, put};

/// What one stream may make its server hold: as many batches of frames as can wait,
/// the one that is being sent and the one that is gathered, each with a last frame
/// that comes when it is all but full; and answers.
const STREAM_BYTES_MAX: usize = (limits::STREAM_QUEUE_BATCHES_MAX + 2)
    * (limits::FRAME_CHANGE_BYTES_MAX + limits::FRAME_BATCH_BYTES_MAX)
    + limits::STREAM_ANSWER_BYTES_MAX;

/// Puts of records that are all new, so that nothing stands for anything else.
pub async fn fill(client: &Client, documents: usize, bytes: usize) {
    let text = format!(r#"{{"text":"{}"}}"#, "x".repeat(bytes.saturating_sub(11)));
    let puts: Vec<Mutation> = (0..documents)
        .map(|number| put(&format!("f{number}"), &format!("f{number}"), &text))
        .collect();
    for some in puts.chunks(((2 << 20) / bytes).min(1_000)) {
        client.batch(some.to_vec(), false).await.unwrap();
    }
}

/// What a server's memory goes up and down by anyway, with the buffers of its threads
/// and of its connections.
const NOISE_BYTES: usize = 16 << 20;

/// A server whose memory can be told from that of its clients, with little of it for
/// recent changes.
async fn server_process(database: &Database) -> ServerProcess {
    let url = database.url.clone();
    let start = move || ServerProcess::start_with(&url, &["--ring-bytes", "1MiB"]);
    tokio::task::spawn_blocking(start).await.unwrap()
}
