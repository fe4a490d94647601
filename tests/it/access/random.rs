//! Random grants, revocations and writes: whatever happens, what a client holds is what the
//! server says that it may see, live and after coming back.

use std::collections::{BTreeMap, BTreeSet};

use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{
    Change, ChangesSinceRequest, DeleteOperation, ListMembersRequest, Mutation, Role,
    SubscribeFrame, mutation,
};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, timeout};

use super::{Team, put_in, remove, set, write};
use crate::support::{Client, Random, Stream, TestServer, scale, seed, subscribe_frame};

const COLLECTIONS: [&str; 3] = ["task", "note", "diary"];
const ROLES: [Role; 3] = [Role::Reader, Role::Writer, Role::Admin];

/// The records that somebody holds, with their revisions.
type Held = BTreeMap<(String, String), i64>;

fn take(held: &mut Held, change: &Change) {
    let key = change.key.clone().unwrap();
    match change.document {
        Some(_) => held.insert((key.collection, key.id), change.revision),
        None => held.remove(&(key.collection, key.id)),
    };
}

/// What a user may see now: of all that alice sees, what their membership extends to. What
/// their own server shows may be some seconds late.
async fn visible(alice: &Client, space: &str, user: &str) -> Held {
    let request = ListMembersRequest { space: space.into(), ..Default::default() };
    let members = alice.spaces.clone().list_members(request).await.unwrap().into_inner().members;
    let mut held = Held::new();
    let Some(member) = members.into_iter().find(|it| it.user == user) else { return held };
    let collections = member.collections;
    let request = ChangesSinceRequest {
        space: space.into(),
        page_size: 1_000,
        collections,
        ..Default::default()
    };
    let page = alice.stub.clone().changes_since(request).await.unwrap().into_inner();
    page.changes.iter().for_each(|it| take(&mut held, it));
    held
}

/// A client that follows a space as well as it may.
struct Follower {
    stream: Stream,
    space: String,
    held: Held,
    subscription: u32,
    open: bool,
}

impl Follower {
    async fn open(client: &Client, space: &str) -> Self {
        let stream = Stream::open(client).await.unwrap();
        let (held, space) = (Held::new(), space.to_owned());
        let mut follower = Self { stream, space, held, subscription: 0, open: false };
        follower.subscribe().await;
        follower
    }

    async fn subscribe(&mut self) {
        self.subscription += 1;
        self.open = true;
        self.held.clear();
        let frame = subscribe_frame(&self.subscription.to_string(), None);
        self.stream.subscribe(SubscribeFrame { space: self.space.clone(), ..frame }).await;
    }

    async fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Changes(frame) => frame.changes.iter().for_each(|it| take(&mut self.held, it)),
            Frame::RemovedFromView(_) => self.held.clear(),
            Frame::Closed(frame) => {
                self.open = false;
                match frame.reason.as_str() {
                    "ACCESS_CHANGED" => self.subscribe().await,
                    other => assert_eq!(other, "SPACE_NOT_FOUND"),
                }
            }
            Frame::Access(frame) if frame.role() != Role::Unspecified && !self.open => {
                self.subscribe().await;
            }
            _ => {}
        }
    }

    /// Follows until it holds what the server shows, which must not take long.
    async fn settle(&mut self, (alice, user): (&Client, &str), what: &str) {
        let began = Instant::now();
        loop {
            let next = timeout(Duration::from_millis(50), self.stream.next()).await;
            if let Ok(next) = next {
                self.take(next.unwrap().unwrap()).await;
                continue;
            }
            let expected = visible(alice, &self.space, user).await;
            if self.held == expected {
                return;
            }
            let late = began.elapsed() > Duration::from_secs(20);
            assert!(!late, "{user}, {what}: it has {:?}, and may see {expected:?}", self.held);
        }
    }
}

fn random_write(random: &mut Random, number: u64) -> Mutation {
    let collection = COLLECTIONS[usize::try_from(random.below(3)).unwrap()];
    let (id, record) = (format!("m{number}"), random.below(6).to_string());
    let put = put_in(collection, &id, &record, &format!("{{\"n\":{number}}}"));
    if random.below(4) > 0 {
        return put;
    }
    Mutation { operation: Some(mutation::Operation::Delete(DeleteOperation {})), ..put }
}

async fn step(random: &mut Random, clients: &[&Client; 2], space: &str, number: u64) {
    let alice = clients[usize::try_from(random.below(2)).unwrap()];
    let user = ["bob", "carol", "dave"][usize::try_from(random.below(3)).unwrap()];
    match random.below(8) {
        0 => match remove(alice, space, user).await {
            Ok(()) => {}
            Err(status) => panic!("{status:?}"),
        },
        1 | 2 => {
            let role = ROLES[usize::try_from(random.below(3)).unwrap()];
            let all: BTreeSet<_> = (0..random.below(3)).map(|_| random.below(3)).collect();
            let some = all.iter().map(|it| COLLECTIONS[usize::try_from(*it).unwrap()]);
            let some: Vec<_> = some.filter(|_| role != Role::Admin).collect();
            set(alice, space, (user, role, &some)).await.unwrap();
        }
        _ => {
            write(alice, space, vec![random_write(random, number)]).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_holds_what_it_may_see_whatever_happens_to_its_membership() {
    let team = Team::new().await;
    let other = TestServer::start(&team.database).await;
    let elsewhere = other.client("alice").await;
    let mut random = Random(seed());
    let rounds = 6 * scale();
    for round in 0..rounds {
        let mut following = JoinSet::new();
        let (done, _) = tokio::sync::watch::channel(false);
        for (server, user) in [(&team.server, "bob"), (&other, "carol"), (&other, "dave")] {
            let client = server.client(user).await;
            let (space, alice, mut done) =
                (team.space.clone(), team.alice.clone(), done.subscribe());
            following.spawn(async move {
                let mut follower = Follower::open(&client, &space).await;
                while !*done.borrow() {
                    // Cancel: frames stay in the stream, and the flag in its channel.
                    tokio::select! {
                        frame = follower.stream.next() => {
                            follower.take(frame.unwrap().unwrap()).await;
                        }
                        changed = done.changed() => changed.unwrap(),
                    }
                }
                follower.settle((&alice, user), "live").await;
                let mut anew = Follower::open(&client, &space).await;
                anew.settle((&alice, user), "anew").await;
                assert_eq!(anew.held, follower.held);
            });
        }
        for number in 0..40 {
            let clients = [&team.alice, &elsewhere];
            step(&mut random, &clients, &team.space, round * 40 + number).await;
        }
        done.send(true).unwrap();
        following.join_all().await;
    }
    other.stop().await;
    team.end().await;
}
