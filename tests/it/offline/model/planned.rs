//! What each run of a kind is for, once at a step that is known, and to a phone that is away
//! with a queue: chance alone may leave it out. What comes of it is told to the app.

use syncline::client::{EntryState, NewsKind};
use syncline::rpc::proto::{BatchMutateRequest, GetStatusRequest, Role};

use super::world::{REST, World};
use crate::offline::device::{goes_offline, settled};
use crate::support::{put, wait_for};

/// What must wait while it happens.
const QUEUED: usize = 2;
/// How often a cursor may be resumed from memory.
const ATTEMPTS: u32 = 10;

impl World {
    /// Lets it happen, and waits until the phone has heard of it.
    pub async fn planned(&mut self) {
        let plan = self.plan;
        // In a shared space the second is the first of bob's.
        let phone = usize::from(plan.shared);
        if plan.compacts {
            self.cursor_expires(phone).await;
        }
        if plan.replaces {
            self.away(phone).await;
            self.replace_history().await;
            self.comes_back(phone, NewsKind::Reset).await;
        }
        if plan.erases {
            self.away(phone).await;
            self.erase().await;
            self.comes_back(phone, NewsKind::Reset).await;
        }
        if plan.shared {
            let queue = self.away(phone).await;
            self.admit(None).await;
            self.is_felt().await;
            self.comes_back(phone, NewsKind::AccessLost).await;
            self.all_parked(phone, &queue).await;
            self.admit(Some(Role::Writer)).await;
        }
    }

    /// A phone has what the server has, goes offline, and queues some edits: their ids.
    async fn away(&mut self, phone: usize) -> Vec<String> {
        self.heal().await;
        if let Err(error) = self.phones[phone].client.synced(REST).await {
            panic!("{error}: {:#?}", self.phones[phone].client.status().await);
        }
        goes_offline(&self.phones[phone].client).await;
        loop {
            let pending = self.phones[phone].space.pending().await.unwrap();
            if pending.len() >= QUEUED {
                return pending.into_iter().map(|it| it.id).collect();
            }
            self.edit(phone).await;
        }
    }

    /// The floor rises above what the phone has. A replica that has what the phone lacks in
    /// memory may give it that nevertheless: then once more.
    async fn cursor_expires(&mut self, phone: usize) {
        for _ in 0..ATTEMPTS {
            self.away(phone).await;
            self.others_write().await;
            self.compact(0).await;
            let before = self.phones[phone].heard.of(NewsKind::Reset).len();
            self.mend(phone);
            if let Err(error) = self.phones[phone].client.synced(REST).await {
                panic!("{error}: {:#?}", self.phones[phone].client.status().await);
            }
            if self.phones[phone].heard.of(NewsKind::Reset).len() > before {
                return;
            }
        }
        panic!("no cursor has expired: {:?}", self.phones[phone].heard);
    }

    /// Somebody else writes: the floor can rise above what the phone has seen.
    async fn others_write(&mut self) {
        for text in [r#"{"a":1}"#, r#"{"a":2}"#] {
            self.marks += 1;
            let mut mutation = put(&format!("planned-{}", self.marks), "planned", text);
            mutation.key.as_mut().unwrap().collection = "last".into();
            let request = BatchMutateRequest {
                space: self.space.clone(),
                mutations: vec![mutation],
                ..BatchMutateRequest::default()
            };
            self.admin.stub.clone().batch_mutate(request).await.unwrap();
        }
    }

    /// The phone's network is there again, and it tells what it finds.
    async fn comes_back(&mut self, phone: usize, kind: NewsKind) {
        let before = self.phones[phone].heard.of(kind).len();
        self.mend(phone);
        self.phones[phone].heard.until(kind, before + 1).await;
    }

    /// Both replicas know that bob is out: else he could send once more.
    async fn is_felt(&self) {
        for server in &self.servers {
            let bob = server.client("bob").await;
            wait_for("bob to be shown out", async || {
                let request = GetStatusRequest { space: self.space.clone(), ..Default::default() };
                bob.stub.clone().get_status(request).await.err()
            })
            .await;
        }
    }

    /// None of these may be sent: all are the app's to decide about.
    async fn all_parked(&self, phone: usize, queue: &[String]) {
        let space = &self.phones[phone].space;
        for id in queue {
            let outcome = settled(space, id).await;
            assert_eq!(outcome.state, EntryState::Failed, "{outcome:?}");
        }
    }
}
