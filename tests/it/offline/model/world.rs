//! Two replicas on one database, and the phones of a run: what happens to them, and when all
//! of it is at rest.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::Row;
use syncline::client::{NewsKind, Trigger};
use syncline::rpc::proto::{
    BatchMutateRequest, EraseUserRequest, FieldRule, FieldRuleKind, ListPoliciesRequest, Policy,
    Role, Strategy,
};

use super::ledger::{Ledger, Possible};
use super::phone::{End, Manner, Phone, shown};
use super::replica::Replica;
use super::state::{ServerState, head};
use crate::access;
use crate::support::compaction::Compaction;
use crate::support::proxy::Target;
use crate::support::{Client, Database, Random, put, wait_for};

/// Each collection has a policy of its own. What is in the first is only ever counted.
pub const COLLECTIONS: [(&str, Strategy, Strategy); 9] = [
    ("count", Strategy::Merge, Strategy::LastWriteWins),
    ("last", Strategy::LastWriteWins, Strategy::Unspecified),
    ("first", Strategy::FirstWriteWins, Strategy::Unspecified),
    ("server", Strategy::ServerWins, Strategy::Unspecified),
    ("client", Strategy::ClientWins, Strategy::Unspecified),
    ("careful", Strategy::Merge, Strategy::Manual),
    ("additive", Strategy::Additive, Strategy::LastWriteWins),
    ("manual", Strategy::Manual, Strategy::Unspecified),
    ("auto", Strategy::Auto, Strategy::Unspecified),
];
/// Of each collection, so that phones meet.
pub const RECORDS: u64 = 2;
/// How long all may take to be at rest.
pub const REST: Duration = Duration::from_secs(120);

/// What a run is made of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    pub steps: u64,
    pub phones: usize,
    /// The phones are those of two users, in a space that they share.
    pub shared: bool,
    /// Cursors expire.
    pub compacts: bool,
    /// Histories are replaced.
    pub replaces: bool,
    /// The space is erased with all that is in it.
    pub erases: bool,
    /// Answers come twice and late.
    pub stutters: bool,
}

pub struct World {
    pub database: Database,
    pub servers: Vec<Replica>,
    pub admin: Client,
    pub space: String,
    pub phones: Vec<Phone>,
    /// Where each phone is led.
    pub led: Vec<usize>,
    pub ledger: Ledger,
    pub random: Random,
    pub plan: Plan,
    pub marks: u64,
    /// The first of the collections that are edited most.
    pub favourite: usize,
    /// How often each thing that only some runs have has happened.
    pub happened: BTreeMap<&'static str, u64>,
    compaction: Option<Compaction>,
    /// Calls, and messages of streams, that were there twice.
    doubled: (u64, u64),
}

impl World {
    pub async fn new(plan: Plan, mut random: Random) -> Self {
        let database = Database::create().await;
        let stutters = plan.stutters.then_some(random.0);
        let start = || Replica::start(&database, stutters);
        let servers = vec![start().await, start().await];
        let admin = servers[0].admin("alice").await;
        set_policies(&admin, &servers[1]).await;
        let space = match plan.shared {
            true => share(&admin).await,
            false => "users/alice".into(),
        };
        for record in 0..RECORDS {
            let mutation = put(&format!("seed-{record}"), &format!("c{record}"), r#"{"n":0}"#);
            let mut mutation = mutation;
            mutation.key.as_mut().unwrap().collection = "count".into();
            let request = BatchMutateRequest {
                space: space.clone(),
                mutations: vec![mutation],
                ..BatchMutateRequest::default()
            };
            admin.stub.clone().batch_mutate(request).await.unwrap();
        }
        let names: Vec<_> = COLLECTIONS.iter().map(|(name, ..)| *name).collect();
        let (mut phones, mut led) = (Vec::new(), Vec::new());
        for number in 0..plan.phones {
            let user = if plan.shared && number > 0 { "bob" } else { "alice" };
            let name = format!("phone{number}");
            let manner = if number % 3 == 2 { Manner::Poll } else { Manner::Stream };
            let server = number % 2;
            let address = servers[server].address();
            phones.push(Phone::new((&name, user, &space), address, manner, &names).await);
            led.push(server);
        }
        for phone in &phones {
            // Counters are only counted: they have to be there.
            phone.client.synced(REST).await.unwrap();
        }
        let compaction = match plan.compacts {
            true => Some(Compaction::prepare(&database).await),
            false => None,
        };
        let favourite = usize::try_from(random.below(COLLECTIONS.len() as u64)).unwrap();
        Self {
            database,
            servers,
            admin,
            space,
            phones,
            led,
            ledger: Ledger::default(),
            random,
            plan,
            marks: 0,
            favourite,
            happened: BTreeMap::new(),
            compaction,
            doubled: (0, 0),
        }
    }

    /// All servers end.
    pub async fn end(mut self) {
        self.stop_servers().await;
        let (calls, messages) = self.doubled;
        println!("{calls} calls and {messages} messages were there twice");
        assert_eq!(self.plan.stutters, calls > 0 && messages > 0);
    }

    async fn stop_servers(&mut self) {
        while let Some(server) = self.servers.pop() {
            self.stopped(server).await;
        }
    }

    async fn stopped(&mut self, server: Replica) {
        let (calls, messages) = server.stop().await;
        self.doubled = (self.doubled.0 + calls, self.doubled.1 + messages);
    }

    async fn start_server(&mut self) -> Replica {
        let stutters = self.plan.stutters.then(|| self.random.next());
        Replica::start(&self.database, stutters).await
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    pub fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.below(bound as u64)).unwrap()
    }

    /// What is new of what the clients tell is kept.
    pub fn listen(&mut self) {
        self.phones.iter_mut().for_each(|phone| phone.heard.read());
    }

    fn note(&mut self, what: &'static str) {
        *self.happened.entry(what).or_default() += 1;
    }

    pub async fn restart_phone(&mut self, at: usize, end: End) {
        let phone = self.phones.remove(at);
        self.phones.insert(at, phone.restarted(end).await);
    }

    pub fn lead(&mut self, phone: usize, server: usize) {
        self.led[phone] = server;
        let address = self.servers[server].address();
        self.phones[phone].proxy.lead_to(Target::Tcp(address));
    }

    /// One replica ends, and another one takes its place, at another address.
    pub async fn restart_server(&mut self, at: usize) {
        let server = self.servers.remove(at);
        self.stopped(server).await;
        let server = self.start_server().await;
        self.servers.insert(at, server);
        self.admin = self.servers[0].admin("alice").await;
        for phone in 0..self.phones.len() {
            self.lead(phone, self.led[phone]);
        }
    }

    /// The log is shortened to its last few changes.
    pub async fn compact(&mut self, keep: i64) {
        self.note("compacted");
        if let Some(compaction) = &mut self.compaction {
            compaction.raise(keep).await;
        }
    }

    /// As if the database had been brought back from a copy that lacks nothing.
    pub async fn replace_history(&mut self) {
        self.note("replaced");
        self.stop_servers().await;
        let sql = "update spaces set epoch = gen_random_uuid() where name = $1";
        let query = sqlx::query(sql).bind(&self.space);
        query.execute(&mut self.database.connect().await).await.unwrap();
        for _ in 0..2 {
            let server = self.start_server().await;
            self.servers.push(server);
        }
        self.admin = self.servers[0].admin("alice").await;
        for phone in 0..self.phones.len() {
            self.lead(phone, self.led[phone]);
        }
    }

    /// All that was is gone.
    pub async fn erase(&mut self) {
        self.note("erased");
        let request = EraseUserRequest { user: String::new(), confirm: "alice".into() };
        self.admin.spaces.clone().erase_user(request).await.unwrap();
        self.ledger.era += 1;
    }

    /// What bob may do in the shared space; nothing.
    pub async fn admit(&mut self, role: Option<Role>) {
        match role {
            Some(role) => {
                access::set(&self.admin, &self.space, ("bob", role, &[])).await.unwrap();
            }
            None => {
                self.note("revoked");
                // He may be out already.
                access::remove(&self.admin, &self.space, "bob").await.ok();
            }
        }
    }

    /// Nothing is wrong any more, and everybody may come in.
    pub async fn heal(&mut self) {
        if self.plan.shared {
            self.admit(Some(Role::Writer)).await;
        }
        for phone in &mut self.phones {
            phone.proxy.heal();
            if std::mem::take(&mut phone.silent) {
                phone.proxy.cut();
            }
            phone.client.sync(Trigger::Demand);
        }
    }

    /// Waits until all phones are as the server, and nothing waits.
    pub async fn rest(&mut self) {
        self.heal().await;
        // What one sends the others have to hear of: first all queues.
        for phone in &self.phones {
            if let Err(error) = phone.client.synced(REST).await {
                panic!("{} {error}: {:#?}", phone.name, phone.client.status().await);
            }
        }
        let head = head(&self.admin, &self.space).await;
        for phone in &self.phones {
            wait_for(&format!("{} to be at {head}", phone.name), async || {
                let status = phone.status().await;
                (status.is_synced() && status.up_to == head).then_some(())
            })
            .await;
        }
        self.listen();
    }

    /// Everything that must be true at rest.
    pub async fn check(&mut self) {
        let names: Vec<_> = COLLECTIONS.iter().map(|(name, ..)| *name).collect();
        let mut state = ServerState::read(&self.admin, &self.space, &names).await;
        self.read_compacted(&mut state).await;
        for phone in &mut self.phones {
            check_shown(phone, &state).await;
            phone.check_watches().await;
            assert_eq!(phone.space.pending().await.unwrap(), []);
        }
        let possible = Possible {
            parked_blindly: self.happened.contains_key("revoked"),
            answers_forgotten: self.plan.compacts,
        };
        let fates = self.ledger.check(&self.phones, &state, possible).await;
        let refused = self.ledger.refused.len();
        println!("{} changes, refused {refused}, {fates:?}, {:?}", state.head, self.happened);
        if !self.plan.erases {
            for (record, (_, document)) in &state.records["count"] {
                let count: serde_json::Value = serde_json::from_str(document).unwrap();
                assert_eq!(count["n"], self.ledger.sum(record, &state), "counter {record}");
            }
        }
        self.check_news();
    }

    /// What the plan asks for has happened, and the clients have told what it asks for only.
    fn check_news(&mut self) {
        let Plan { shared, compacts, replaces, erases, .. } = self.plan;
        let asked = [
            (compacts, "compacted"),
            (replaces, "replaced"),
            (erases, "erased"),
            (shared, "revoked"),
        ];
        for (asked, what) in asked {
            assert_eq!(asked, self.happened.contains_key(what), "{what}: {:?}", self.happened);
        }
        self.listen();
        let mut kinds = BTreeMap::<_, u64>::new();
        for news in self.phones.iter().flat_map(|phone| &phone.heard.all) {
            let expected = match news.kind {
                NewsKind::Link | NewsKind::Parked => true,
                NewsKind::Reset => compacts || replaces || erases,
                // A device that is not known any more, or that gave sequences which nobody took.
                NewsKind::Renumbered => erases || shared,
                NewsKind::AccessLost => shared,
                // Nothing that happens here makes a file wrong.
                NewsKind::Healing | NewsKind::Healed | NewsKind::File => false,
            };
            assert!(expected, "{news:?}");
            *kinds.entry(format!("{:?}", news.kind)).or_default() += 1;
        }
        println!("told: {kinds:?}");
    }

    /// What compaction has taken out of the log belongs to it all the same.
    async fn read_compacted(&self, state: &mut ServerState) {
        if self.compaction.is_none() {
            return;
        }
        let sql = "select mutation_id, document from compacted";
        let rows = sqlx::query(sql).fetch_all(&mut self.database.connect().await).await.unwrap();
        for row in rows {
            *state.log.entry(row.get(0)).or_default() += 1;
            state.texts.extend(row.get::<Option<String>, _>(1));
        }
    }
}

/// What a phone shows is what the server has.
async fn check_shown(phone: &Phone, state: &ServerState) {
    for (collection, records) in &state.records {
        let theirs = shown(&phone.space, collection).await;
        let texts: std::collections::BTreeMap<_, _> =
            records.iter().map(|(id, (_, text))| (id.clone(), text.clone())).collect();
        assert_eq!(theirs, texts, "{} shows {collection}", phone.name);
        for (id, (revision, _)) in records {
            let record = phone.space.get(collection, id).await.unwrap().unwrap();
            let known = (record.revision, record.pending);
            assert_eq!(known, (*revision, false), "{} {collection}/{id}", phone.name);
        }
    }
}

/// Sets all policies, and waits until the other replica holds to them.
async fn set_policies(admin: &Client, other: &Replica) {
    for (collection, strategy, fallback) in COLLECTIONS {
        let sum = FieldRule {
            path: "/n".into(),
            kind: FieldRuleKind::Sum.into(),
            ..FieldRule::default()
        };
        let policy = Policy {
            collection: collection.into(),
            strategy: strategy.into(),
            fallback: fallback.into(),
            fields: if collection == "count" { vec![sum] } else { Vec::new() },
            ..Policy::default()
        };
        admin.set_policy(policy).await.unwrap();
    }
    let there = other.client("alice").await;
    wait_for("the policies on the other replica", async || {
        let list = there.policies.clone().list_policies(ListPoliciesRequest::default()).await;
        (list.unwrap().into_inner().policies.len() == COLLECTIONS.len()).then_some(())
    })
    .await;
}

/// A space of alice's, that bob may write to.
async fn share(admin: &Client) -> String {
    let space = access::create(admin, "team").await.unwrap().space;
    access::set(admin, &space, ("bob", Role::Writer, &[])).await.unwrap();
    space
}
