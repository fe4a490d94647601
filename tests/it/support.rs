//! What tests stand on: a PostgreSQL of their own, a database for each test,
//! servers on port 0, typed clients, and waiting on conditions.

mod client;
pub mod compaction;
mod database;
pub mod generic;
pub mod history;
mod house;
pub mod http1;
pub mod load;
pub mod private;
mod process;
pub mod program;
pub mod proxy;
pub mod raw;
pub mod reader;
pub mod seen;
mod server;
mod stream;
pub mod stutter;
pub mod wire;
mod words;

use std::time::Duration;

use tokio::time::Instant;

pub use client::{Client, json, key, mutation, put};
pub use database::{Database, store_at, waiting_since};
pub use house::House;
pub use process::ServerProcess;
pub use server::{
    AUDIENCE, ISSUER, SECRET, TestServer, compacts_rarely, mint, mint_for, mint_granted,
};
pub use stream::{Follower, Stream, subscribe_frame};
pub use words::{describe, error_reason, first, show, text};

/// How much larger than the default the fault, load and random tests run.
pub fn scale() -> u64 {
    let scale = std::env::var("SYNCLINE_TEST_SCALE").ok();
    scale.map_or(1, |text| text.parse().expect("SYNCLINE_TEST_SCALE is a number"))
}

/// A seed for a random test: printed, and taken from SYNCLINE_TEST_SEED if that
/// is given, to run a failed one again.
pub fn seed() -> u64 {
    let given = std::env::var("SYNCLINE_TEST_SEED").ok();
    let seed = given.map_or_else(
        || uuid::Uuid::new_v4().as_u64_pair().0,
        |text| text.parse().expect("SYNCLINE_TEST_SEED is a number"),
    );
    println!("SYNCLINE_TEST_SEED={seed}");
    seed
}

/// A count, to compare with revisions.
pub fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap()
}

/// Small, fast and good enough to shuffle tests with: SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Waits until the condition gives a value, at most 2 min: a limit for what is
/// broken, not for what is slow.
pub async fn wait_for<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(began.elapsed() < Duration::from_secs(120), "waited too long: {what}");
        // Between two looks at the condition, not instead of one.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
