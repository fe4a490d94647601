//! A shopping list that two people share, each on a device that is offline now and then.
//!
//! ```sh
//! cargo run                          # in one terminal
//! cargo run --example shared_list    # in another one
//! ```
//!
//! It finds `syncline dev` and its secret by itself, with which it makes tokens for alice and bob.
//! `-- http://host:port path/to/.syncline` says where they are; for any other server
//! `-- https://host alice=TOKEN bob=TOKEN` does, where alice's token grants `policies`. It tells
//! what happens, and ends with 0 if both devices have the same list at the end.

#![expect(clippy::print_stdout, reason = "it tells a story")]

use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::StreamExt;
use serde_json::{Value, json};
use syncline::auth::{Grant, KeyConfig, Minter};
use syncline::client::remote::{Remote, Target};
use syncline::client::{Client, Link, Options, Patch, Query, Resolution, Space, Status, Trigger};
use syncline::clock::Clock;
use syncline::config::{DEV_AUDIENCE, DEV_ISSUER, dev_secret_path, read_secret};
use syncline::domain::UserId;
use syncline::rpc::proto;
use tokio::task::JoinSet;

const SOON: Duration = Duration::from_secs(30);

/// An app on somebody's device: a file, and a client on it.
struct Device {
    user: &'static str,
    client: Client,
    list: Space,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (server, tokens) = settings()?;
    let [alices, bobs] = &tokens;
    let files = tempfile::tempdir()?;

    println!("Alice makes a list, lets bob in, and says what happens to conflicts.");
    let space = shared_space(&server, alices).await?;

    let alice = Device::open(files.path(), "alice", &server, alices, &space).await?;
    alice.list.put("shopping", "milk", json!({"title": "Milk", "count": 1})).await?;
    alice.list.put("shopping", "bread", json!({"title": "Bread", "count": 1})).await?;
    alice.client.synced(SOON).await?;

    let bob = Device::open(files.path(), "bob", &server, bobs, &space).await?;
    bob.client.synced(SOON).await?;
    let mut watching = JoinSet::new();
    watching.spawn(watch(bob.list.clone()));

    println!("\nBoth go underground. Each edits the milk, and sees the own edits at once.");
    alice.offline().await?;
    bob.offline().await?;
    let more = |count: i32| Patch::new().increment("/count", count);
    alice.list.patch("shopping", "milk", more(2)?).await?;
    alice.list.patch("shopping", "milk", json!({"title": "Oat milk"})).await?;
    let bobs_count = bob.list.patch("shopping", "milk", more(1)?).await?;
    let bobs_title = bob.list.patch("shopping", "milk", json!({"title": "Soy milk"})).await?;
    alice.tell().await?;
    bob.tell().await?;

    println!("\nAlice is back first, then bob. The counts add up; of the titles one waits.");
    alice.client.sync(Trigger::Network);
    alice.client.synced(SOON).await?;
    bob.client.sync(Trigger::Network);
    for (what, edit) in [("one more", &bobs_count), ("the title", &bobs_title)] {
        let outcome = bob.list.settled(edit).await?.context("the edit is not known")?;
        println!("  what became of bob's edit ({what}): {}", outcome.state.as_str());
    }
    bob.until(|status| status.spaces.iter().any(|space| space.conflicts == 1)).await?;
    bob.tell().await?;

    println!("\nBob looks at both sides, and decides for everybody.");
    let conflicts = bob.list.conflicts().await?;
    let conflict = conflicts.first().context("there is no conflict")?;
    let (server_side, bobs_side) = (&conflict.server.document, &conflict.client.document);
    let (server_side, bobs_side) = server_side.as_ref().zip(bobs_side.as_ref()).context("gone")?;
    println!("  the server has {}", server_side["title"]);
    println!("  bob wanted     {}", bobs_side["title"]);
    let mut milk = server_side.clone();
    if let Some(fields) = milk.as_object_mut() {
        fields.insert("title".into(), json!("Oat or soy milk"));
    }
    bob.list.resolve(conflict, Resolution::Document(milk)).await?;

    let decided = json!({"title": "Oat or soy milk", "count": 4});
    alice.sees(&decided).await?;
    bob.sees(&decided).await?;
    println!("\nBoth have it:");
    alice.tell().await?;
    bob.tell().await?;
    let same = alice.items().await? == bob.items().await?;
    watching.shutdown().await;
    alice.client.close().await;
    bob.client.close().await;
    ensure!(same, "the devices do not agree");
    println!("\nThey agree.");
    Ok(())
}

impl Device {
    async fn open(
        files: &Path,
        user: &'static str,
        server: &str,
        token: &str,
        space: &str,
    ) -> anyhow::Result<Self> {
        let options = Options::new(files.join(format!("{user}.db")), user);
        let client = Client::open(options.server(server).token(token)).await?;
        let list = client.space(space).await?;
        Ok(Self { user, client, list })
    }

    /// The system says that there is no network.
    async fn offline(&self) -> anyhow::Result<()> {
        self.client.sync(Trigger::Offline);
        self.until(|status| status.link == Link::Offline).await
    }

    /// Waits until the status is so.
    async fn until(&self, is: impl Fn(&Status) -> bool) -> anyhow::Result<()> {
        let wait = async {
            let mut status = pin!(self.client.watch_status());
            while let Some(status) = status.next().await {
                if is(&status?) {
                    break;
                }
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(SOON, wait).await.context("that took too long; see the status")?
    }

    /// All items, as they are shown.
    async fn items(&self) -> anyhow::Result<Vec<String>> {
        let found = self.list.query(&Query::all("shopping").order_by("/title")).await?;
        Ok(found.iter().map(|record| record.json().to_owned()).collect())
    }

    /// What an app would show.
    async fn tell(&self) -> anyhow::Result<()> {
        let status = self.client.status().await?;
        let space = status.spaces.first().context("no space is followed")?;
        println!(
            "  {}: {:?}, {} to send, {} to decide",
            self.user, status.link, space.pending, space.conflicts
        );
        for item in self.items().await? {
            println!("    {item}");
        }
        Ok(())
    }

    /// Waits until the milk is this, and nothing is left to decide.
    async fn sees(&self, expected: &Value) -> anyhow::Result<()> {
        let wait = async {
            let mut milk = pin!(self.list.watch_record("shopping", "milk"));
            while let Some(record) = milk.next().await {
                if record?.is_some_and(|record| record.value() == *expected) {
                    break;
                }
            }
            anyhow::Ok(())
        };
        let late = || format!("{} does not see {expected}", self.user);
        tokio::time::timeout(SOON, wait).await.with_context(late)??;
        self.until(|status| {
            status.spaces.iter().all(|space| space.is_synced() && space.conflicts == 0)
        })
        .await
    }
}

/// Prints what a list shows, whenever it shows something else. Ends with the client.
async fn watch(list: Space) {
    let mut changes = pin!(list.watch(&Query::all("shopping")));
    while let Some(Ok(changes)) = changes.next().await {
        for record in changes.changed {
            let mark = if record.pending { " (not sent yet)" } else { "" };
            println!("    … bob's screen: {}{mark}", record.json());
        }
        for id in changes.removed {
            println!("    … bob's screen: {id} is gone");
        }
    }
}

/// What takes the server: a space, its members, and a policy. Usually an admin does that once.
async fn shared_space(server: &str, token: &str) -> anyhow::Result<String> {
    let remote = Remote::new(&Target { url: server.parse()?, ca_pem: None, identity: None })?;
    remote.set_token(Some(token))?;
    let mut spaces = remote.spaces();
    let request_id = uuid::Uuid::new_v4().to_string();
    let title = "Groceries".to_owned();
    let request = proto::CreateSpaceRequest { request_id, title, ..Default::default() };
    let made = spaces.create_space(request).await?.into_inner();
    let space = made.space.context("no space was made")?.space;
    let (user, role) = ("bob".to_owned(), proto::Role::Writer.into());
    let member =
        proto::SetMemberRequest { space: space.clone(), user, role, collections: Vec::new() };
    spaces.set_member(member).await?;

    // Value by value; counts are summed up, and what is left somebody has to decide.
    let count = proto::FieldRule {
        path: "/count".into(),
        kind: proto::FieldRuleKind::Sum.into(),
        ..Default::default()
    };
    let policy = proto::Policy {
        collection: "shopping".into(),
        strategy: proto::Strategy::Merge.into(),
        fallback: proto::Strategy::Manual.into(),
        fields: vec![count],
        ..Default::default()
    };
    let request = proto::SetPolicyRequest { policy: Some(policy), expected_version: None };
    remote.policies().set_policy(request).await?;
    Ok(space)
}

/// The server, and the tokens of alice and bob, from the arguments or from `syncline dev`.
fn settings() -> anyhow::Result<(String, [String; 2])> {
    let mut arguments = std::env::args().skip(1);
    let server = arguments.next().unwrap_or_else(|| "http://127.0.0.1:50051".into());
    let rest: Vec<_> = arguments.collect();
    if let [first, second] = rest.as_slice() {
        let given = first.strip_prefix("alice=").zip(second.strip_prefix("bob="));
        let (alice, bob) = given.context("say alice=TOKEN bob=TOKEN")?;
        return Ok((server, [alice.to_owned(), bob.to_owned()]));
    }
    let folder = rest.first().map_or(".syncline", String::as_str);
    let secret = read_secret(&dev_secret_path(Path::new(folder)))
        .context("there is no `syncline dev`; see the head of this example")?;
    let minter = Minter::new(&KeyConfig::Secret(secret))?.with_grants(vec![Grant::Policies]);
    let now = Clock::system().unix_seconds();
    let token = |name: &str| {
        let user = UserId::parse(name).map_err(anyhow::Error::msg)?;
        let ttl = Duration::from_secs(3_600);
        Ok::<_, anyhow::Error>(minter.mint(&user, ttl, now, DEV_ISSUER, DEV_AUDIENCE)?)
    };
    Ok((server, [token("alice")?, token("bob")?]))
}
