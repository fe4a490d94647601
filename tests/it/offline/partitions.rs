//! Networks that break at random moments, hundreds of times if asked for: none is stuck
//! afterwards, and nothing is lost. Nobody tells the client that the network is good again in
//! half of the runs: it has to find out in time.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;
use syncline::client::{Client, Options, Patch, Space, Trigger};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::device::url;
use super::model::{ServerState, shown};
use crate::support::proxy::{Fault, Proxy, Target};
use crate::support::{House, Random, mint, scale, seed};

/// Runs of the small size; a larger one has hundreds.
const RUNS: u64 = 100;
/// Runs at the same time: they mostly wait.
const TOGETHER: u64 = 100;
/// One of so many, without a stream, ends behind a connection that is half open.
const STAYS_SILENT: u64 = 25;
/// After the longest wait between two attempts a client must be back, and much more: it is for those that never are.
const AWAKE_WITHIN: Duration = Duration::from_secs(120);

/// A client behind a network that breaks.
struct Run {
    seed: u64,
    random: Random,
    proxy: Proxy,
    client: Client,
    own: Space,
    /// What each edit adds, by its id.
    made: Vec<(String, i64)>,
    poll: bool,
    /// Its connections are silent for good.
    silent: bool,
    /// Nobody ends those, and it has to find out.
    stays_silent: bool,
}

impl Run {
    async fn begin(
        house: &House,
        dir: &tempfile::TempDir,
        user: &str,
        (number, seed): (u64, u64),
    ) -> Self {
        let mut random = Random(seed);
        let proxy = Proxy::start(Target::Tcp(house.server.address())).await;
        let options = Options::new(dir.path().join("app.db"), user).device(user).seed(seed);
        let options = options.server(&url(proxy.address())).token(mint(user));
        let stays_silent = number % STAYS_SILENT == 0;
        let poll = stays_silent || random.below(3) == 0;
        let options = match poll {
            true => options.poll(Duration::from_millis(50 + random.below(300))),
            // Half-open connections show sooner than they do otherwise.
            false => options.silence(Duration::from_secs(3)),
        };
        let client = Client::open(options).await.unwrap();
        let own = client.own().await.unwrap();
        Self {
            seed,
            random,
            proxy,
            client,
            own,
            made: Vec::new(),
            poll,
            silent: false,
            stays_silent,
        }
    }

    async fn go(&mut self) {
        let id = self.own.put("count", "c", json!({"n": 0})).await.unwrap();
        self.made.push((id, 0));
        for _ in 0..6 + self.random.below(10) {
            match self.random.below(5) {
                0 | 1 => self.edit().await,
                2 | 3 => self.disturb(),
                _ => self.pass(150).await,
            }
            self.pass(25).await;
        }
        self.edit().await;
        if self.stays_silent {
            self.proxy.blackhole();
            self.silent = true;
            self.edit().await;
            self.pass(400).await;
        }
    }

    async fn edit(&mut self) {
        let adds = 1 + self.random.below(5).cast_signed();
        let patch = Patch::new().increment("/n", adds).unwrap();
        let id = self.own.patch("count", "c", patch).await.unwrap();
        self.made.push((id, adds));
        let record = format!("r{}", self.random.below(3));
        let fields = json!({"at": self.made.len()});
        let id = self.own.put("task", &record, fields).await.unwrap();
        self.made.push((id, 0));
    }

    fn disturb(&mut self) {
        let (kind, bytes) = (self.random.below(10), 1 << self.random.below(11));
        match kind {
            0 | 1 => self.proxy.cut(),
            2 => self.proxy.arm(Fault::CutAnswerAfter(bytes)),
            3 => self.proxy.refuse(),
            4 => {
                self.proxy.blackhole();
                self.silent = true;
            }
            // Of a mobile network: what is under way is late, also once it is better again.
            5 => self.proxy.delay(Duration::from_millis(2_000 + self.random.below(3_000))),
            6 => self.proxy.finish(),
            7 => self.proxy.delay(Duration::from_millis(1 + u64::from(bytes.trailing_zeros()) * 5)),
            _ => self.mend(),
        }
    }

    fn mend(&mut self) {
        self.proxy.heal();
        // A call without a stream is waited for as long as it may take: of a few only.
        let at_once = !self.stays_silent && (self.poll || self.random.below(2) == 0);
        if std::mem::take(&mut self.silent) && at_once {
            self.proxy.cut();
        }
    }

    /// Some time goes by: that is what makes the moments random.
    async fn pass(&mut self, millis_max: u64) {
        let time = Duration::from_millis(self.random.below(millis_max));
        timeout(time, self.client.synced(time)).await.ok();
    }

    /// The network is good, and the client finds that out.
    async fn end(&mut self, house: &House, user: &str) -> Duration {
        self.mend();
        if self.random.below(2) == 0 {
            self.client.sync(Trigger::Network);
        }
        let began = Instant::now();
        if let Err(error) = self.client.synced(AWAKE_WITHIN).await {
            let status = self.client.status().await;
            panic!("run {} is stuck: {error}: {status:#?}", self.seed);
        }
        let took = began.elapsed();
        let server = house.server.client(user).await;
        let state = ServerState::read(&server, "", &["count", "task"]).await;
        let lost: Vec<_> = self.made.iter().filter(|it| !state.log.contains_key(&it.0)).collect();
        assert!(lost.is_empty(), "run {} lost {lost:?}", self.seed);
        let twice: HashMap<_, _> = state.log.iter().filter(|it| *it.1 > 1).collect();
        assert!(twice.is_empty(), "run {} did twice {twice:?}", self.seed);
        let sum: i64 = self.made.iter().map(|(_, adds)| adds).sum();
        let count: serde_json::Value =
            serde_json::from_str(&state.records["count"]["c"].1).unwrap();
        assert_eq!(count["n"], sum, "run {}", self.seed);
        for (collection, records) in &state.records {
            let theirs = shown(&self.own, collection).await;
            let texts = records.iter().map(|(id, (_, text))| (id.clone(), text.clone())).collect();
            assert_eq!(theirs, texts, "run {}", self.seed);
        }
        self.client.close().await;
        took
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_is_stuck_behind_a_network_that_breaks() {
    let house = std::sync::Arc::new(House::new().await);
    let first = seed();
    let (mut runs, mut waits) = (JoinSet::new(), Vec::new());
    for number in 0..RUNS * scale() {
        if number >= TOGETHER {
            waits.push(runs.join_next().await.unwrap().unwrap());
        }
        let (house, seed) = (house.clone(), first.wrapping_add(number));
        runs.spawn(async move {
            let dir = tempfile::tempdir().unwrap();
            let user = format!("user{number}");
            let mut run = Run::begin(&house, &dir, &user, (number, seed)).await;
            run.go().await;
            run.end(&house, &user).await
        });
    }
    waits.extend(runs.join_all().await);
    waits.sort();
    println!("back after {:?}, at most {:?}", waits[waits.len() / 2], waits.last().unwrap());
}
