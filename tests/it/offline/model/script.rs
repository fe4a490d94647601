//! What happens in a run: edits of apps, and everything that goes wrong around them.

use std::time::Duration;

use serde_json::{Value, json};
use syncline::client::{Error, Outcome, Patch, Trigger};
use syncline::rpc::proto::Role;
use tokio::time::timeout;

use super::ledger::Made;
use super::phone::End;
use super::world::{COLLECTIONS, RECORDS, World};
use crate::support::proxy::Fault;

/// An edit, as an app asks for it.
enum Wish {
    Put(Value),
    Create(Value),
    Patch(Patch),
    Delete,
}

impl World {
    /// One more thing happens.
    pub async fn step(&mut self) {
        let phone = self.index(self.phones.len());
        match self.below(100) {
            0..52 => {
                for _ in 0..1 + self.below(3) {
                    self.edit(phone).await;
                }
            }
            52..60 => self.pause(phone).await,
            60..68 => self.disturb(phone),
            68..78 => self.mend(phone),
            78..82 => self.tell(phone),
            82..86 => {
                let server = self.index(self.servers.len());
                self.lead(phone, server);
                self.phones[phone].proxy.cut();
            }
            86..89 => self.restart_phone(phone, End::Closed).await,
            89..91 => self.restart_phone(phone, End::Dropped).await,
            91 => {
                let server = self.index(self.servers.len());
                self.restart_server(server).await;
            }
            92..95 => self.decide(phone).await,
            95 | 96 => self.phones[phone].read_on().await,
            _ => self.happen().await,
        }
    }

    /// What only some runs have.
    async fn happen(&mut self) {
        if self.plan.compacts {
            let keep = self.below(4).cast_signed();
            self.compact(keep).await;
        }
        if self.plan.shared {
            let role = match self.below(4) {
                0 => None,
                1 => Some(Role::Reader),
                _ => Some(Role::Writer),
            };
            self.admit(role).await;
        }
        if self.plan.replaces && self.below(3) == 0 {
            self.replace_history().await;
        }
        if self.plan.erases && self.ledger.era < 2 && self.below(3) == 0 {
            self.erase().await;
        }
    }

    pub async fn edit(&mut self, phone: usize) {
        self.marks += 1;
        let mark = format!("<{}.{}>", self.phones[phone].name, self.marks);
        let (favourite, spread) = (self.favourite, if self.below(5) == 0 { 9 } else { 3 });
        let (collection, ..) = COLLECTIONS[(favourite + self.index(spread)) % COLLECTIONS.len()];
        let number = self.below(RECORDS);
        let (record, adds, wish) = if collection == "count" {
            let adds = 1 + self.below(3).cast_signed();
            let patch = Patch::new().increment("/n", adds).unwrap();
            (format!("c{number}"), adds, Wish::Patch(patch))
        } else {
            let record = format!("r{number}");
            let there = self.phones[phone].space.get(collection, &record).await.unwrap().is_some();
            let wish = self.wish(&mark, there);
            (record, 0, wish)
        };
        let space = &self.phones[phone].space;
        let made = match wish {
            Wish::Put(fields) => space.put(collection, &record, fields).await,
            Wish::Create(fields) => space.create(collection, &record, fields).await,
            Wish::Patch(patch) => space.patch(collection, &record, patch).await,
            Wish::Delete => space.delete(collection, &record).await,
        };
        let (collection, era) = (collection.to_owned(), self.ledger.era);
        match made {
            Ok(id) => {
                self.ledger.made.push(Made { phone, collection, record, mark, adds, id, era });
            }
            Err(Error::Hopeless(trouble)) => {
                self.ledger.refused.push((mark, trouble.reason));
            }
            Err(error) => panic!("{mark} {collection}/{record}: {error}"),
        }
    }

    fn wish(&mut self, mark: &str, there: bool) -> Wish {
        let field = ["/a", "/b", "/x/y", "/x/z"][self.index(4)];
        // Now and then what is there or not is not asked for.
        let kind = match (there, self.below(20)) {
            (false, 0..12) => 0,
            (false, 12..19) => 5,
            (true, 5) => 19,
            (_, kind) => kind,
        };
        match kind {
            0..5 => Wish::Put(json!({"a": mark, "b": 1, "tags": [mark], "k": 0})),
            5 | 6 => Wish::Create(json!({"a": mark, "x": {"y": mark}})),
            7..12 => Wish::Patch(Patch::new().set(field, mark).unwrap()),
            12 | 13 => Wish::Patch(Patch::new().append("/tags", [mark]).unwrap()),
            14 => Wish::Patch(Patch::new().increment("/k", 1).unwrap()),
            15 => Wish::Patch(Patch::new().unset(field).unwrap()),
            16 => {
                let patch = Patch::new().set(field, mark).unwrap().unset("/b").unwrap();
                Wish::Patch(patch.increment("/k", 2).unwrap())
            }
            17 | 18 => Wish::Patch(Patch::new().remove("/tags", [mark]).unwrap()),
            _ => Wish::Delete,
        }
    }

    /// Time for what is under way, or enough of it.
    pub async fn pause(&mut self, phone: usize) {
        let wait = Duration::from_millis(1 << self.below(9));
        // Whether it is synced or not is not the question here.
        timeout(wait, self.phones[phone].client.synced(wait)).await.ok();
    }

    /// Something is wrong with a phone's network.
    pub fn disturb(&mut self, phone: usize) {
        let (kind, bytes) = (self.below(12), 1 << self.below(13));
        let delay = Duration::from_millis(1 + self.below(30));
        let phone = &mut self.phones[phone];
        match kind {
            0 | 1 => phone.proxy.cut(),
            2..6 => phone.proxy.arm(Fault::CutAnswerAfter(bytes)),
            // The name of the device is in what is sent: it arrives, and no answer does.
            6 | 7 => phone.proxy.arm(Fault::CutAfter(phone.name.clone())),
            8 => phone.proxy.refuse(),
            9 => {
                phone.proxy.blackhole();
                phone.silent = true;
            }
            10 => phone.proxy.delay(delay),
            _ => phone.client.sync(Trigger::Offline),
        }
    }

    /// The phone's network is good again.
    pub fn mend(&mut self, phone: usize) {
        let phone = &mut self.phones[phone];
        phone.proxy.heal();
        if std::mem::take(&mut phone.silent) {
            phone.proxy.cut();
        }
        phone.client.sync(Trigger::Network);
    }

    /// The system says something to the app, or the app does something.
    pub fn tell(&mut self, phone: usize) {
        let kind = self.below(5);
        let phone = &self.phones[phone];
        match kind {
            0 => phone.client.sync(Trigger::Foreground),
            1 => phone.client.sync(Trigger::Periodic),
            2 => phone.client.sync(Trigger::Demand),
            3 => phone.space.hint(),
            _ => phone.client.sync(Trigger::Network),
        }
    }

    /// Somebody looks at what was set aside, or asks for the space once more.
    async fn decide(&mut self, phone: usize) {
        let space = self.phones[phone].space.clone();
        let parked = space.parked().await.unwrap();
        // Nobody knows whether it took effect: to queue it anew would perhaps do it twice.
        let known =
            |it: &&Outcome| it.trouble.as_ref().is_none_or(|why| why.reason != "OUTCOME_UNKNOWN");
        let Some(first) = parked.iter().find(known) else {
            match space.name().starts_with("users/") {
                true => self.phones[phone].client.own().await.map(drop).unwrap(),
                false => self.phones[phone].client.space(space.name()).await.map(drop).unwrap(),
            }
            return;
        };
        if self.below(2) == 0 {
            space.discard(&first.id).await.unwrap();
            self.ledger.discarded.insert(first.id.clone());
            return;
        }
        match space.retry(&first.id, None).await {
            Ok(id) => drop(self.ledger.renamed.insert(first.id.clone(), id)),
            Err(Error::Hopeless(_)) => {}
            Err(error) => panic!("{first:?}: {error}"),
        }
    }
}
