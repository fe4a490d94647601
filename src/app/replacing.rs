//! Replacing a whole space. What it is to hold is staged first, which changes nothing;
//! then one transaction decides whatever differs, as puts and deletions like all others.
//! A task does it, so that a caller who goes away cannot leave it half done.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::places::Place;
use super::{App, Error};
use crate::domain::{
    AuditAction, AuditEntry, Caller, ChangeAction, Content, DeviceId, Document, Fingerprint, Known,
    Mutation, MutationId, Operation, Outcome, Record, RecordKey, Refusal, Rejection, Request,
    Revision, Rules, Space, SpaceId, SpaceState, Usage, UserId, Violation, limits,
};
use crate::failpoint;
use crate::hub::Hint;
use crate::store::{self, Decided, Locked, Replaced, SpaceHead, Standing, Store, Wanted, Writer};

/// What is to be replaced, and by whom.
#[derive(Clone, Debug)]
pub struct Replacement {
    pub space: Space,
    pub author: UserId,
    /// Who really does it, if not the author.
    pub actor: Option<UserId>,
    pub device: Option<DeviceId>,
    pub id: MutationId,
    /// What the author had seen; None = whatever is there.
    pub seen: Option<Revision>,
    pub fingerprint: Fingerprint,
    /// It is what an export had, which the audit log says.
    pub imports: bool,
}

/// How it begins.
#[derive(Debug)]
pub enum Begun {
    /// It took place before.
    Before(Replaced),
    Now(Replacing),
}

/// One that is under way. Dropped before its end, it changes nothing.
#[derive(Debug)]
pub struct Replacing {
    parts: mpsc::Sender<Part>,
    task: JoinHandle<Result<Replaced, Error>>,
}

#[derive(Debug)]
enum Part {
    Records(Vec<(RecordKey, Document)>),
    End,
}

/// Parts that wait to be staged.
const PARTS_WAITING: usize = 2;

/// For one of those before to end.
const PLACE_WAIT: Duration = Duration::from_secs(10);

/// Spaces that are being replaced: what is to be written there meanwhile is refused at
/// once, so that it does not hold up what is written elsewhere.
#[derive(Debug, Default)]
pub(super) struct ClosedSpaces(Mutex<HashSet<SpaceId>>);

impl ClosedSpaces {
    pub(super) fn is_closed(&self, space: SpaceId) -> bool {
        self.0.lock().contains(&space)
    }

    /// Closes a space as long as the guard lives; None if it is closed already.
    fn close(self: &Arc<Self>, space: SpaceId) -> Option<Guard> {
        self.0.lock().insert(space).then(|| Guard { closed: Arc::clone(self), space })
    }
}

struct Guard {
    closed: Arc<ClosedSpaces>,
    space: SpaceId,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.closed.0.lock().remove(&self.space);
    }
}

impl Replacing {
    /// Hands records on; waits as long as there are too many before them.
    pub async fn add(&mut self, records: Vec<(RecordKey, Document)>) -> Result<(), Error> {
        match self.parts.send(Part::Records(records)).await {
            Ok(()) => Ok(()),
            Err(_ended) => Err(self.ended().await),
        }
    }

    /// Replaces the space by what was handed on.
    pub async fn finish(mut self) -> Result<Replaced, Error> {
        if self.parts.send(Part::End).await.is_err() {
            return Err(self.ended().await);
        }
        (&mut self.task).await?
    }

    /// Why the task has ended early.
    async fn ended(&mut self) -> Error {
        match (&mut self.task).await {
            Ok(Ok(_)) => Error::Stopping,
            Ok(Err(error)) => error,
            Err(panic) => panic.into(),
        }
    }
}

impl App {
    /// Begins to replace a space, or finds that it took place before.
    pub async fn replace(&self, it: Replacement) -> Result<Begun, Error> {
        if let Some(before) = self.replaced_before(&it).await? {
            return Ok(Begun::Before(before));
        }
        let place = self.replacements.take(it.actor.as_ref().unwrap_or(&it.author));
        // Cancel: who no longer waits has no place in the line.
        let place = timeout(PLACE_WAIT, place).await.map_err(|_full| Error::Overloaded)?;
        let place = place.ok_or(Error::Stopping)?;
        let rules = Rules {
            policies: self.policies.current(),
            quota: self.quotas.usage,
            ..Rules::default()
        };
        let worker = Worker {
            store: self.store.clone(),
            closed: Arc::clone(&self.closed),
            rules,
            now: self.clock.now_to_store(),
            it,
            _place: place,
        };
        let (hub, wakeup) = (Arc::clone(&self.hub), Arc::clone(&self.wakeup));
        let (parts, queue) = mpsc::channel(PARTS_WAITING);
        let task = self.tasks.spawn("replace", async move {
            let space = worker.it.space.id;
            let (replaced, at) = worker.run(queue).await?;
            let hint = Hint { head: at.head, conflicts: at.conflicts };
            hub.hint(space, hint);
            wakeup.moved(space, hint);
            Ok(replaced)
        });
        Ok(Begun::Now(Replacing { parts, task }))
    }

    async fn replaced_before(&self, it: &Replacement) -> Result<Option<Replaced>, Error> {
        let (store, space, id) = (self.store.clone(), it.space.id, it.id.clone());
        let found = self.detached(async move { store.replacement(space, &id).await }).await?;
        match found {
            Some((fingerprint, _)) if fingerprint != it.fingerprint => Err(reused(it)),
            found => Ok(found.map(|(_, replaced)| replaced)),
        }
    }
}

fn reused(it: &Replacement) -> Error {
    Error::Refused(Refusal::MutationIdReused { index: 0, id: it.id.clone() })
}

/// Replaces one space.
struct Worker {
    store: Store,
    closed: Arc<ClosedSpaces>,
    rules: Rules,
    now: OffsetDateTime,
    it: Replacement,
    _place: Place,
}

impl Worker {
    async fn run(self, mut parts: mpsc::Receiver<Part>) -> Result<(Replaced, SpaceHead), Error> {
        let space = &self.it.space;
        let at = self.store.status(space, None).await?.at;
        self.guard(at)?;
        let mut writer = Writer::for_replacing(&self.store).await?;
        let (mut records, mut bytes) = (0, 0);
        loop {
            match parts.recv().await {
                Some(Part::Records(part)) => {
                    records += part.len();
                    bytes += part.iter().map(|(_, it)| it.as_str().len()).sum::<usize>();
                    if records > limits::REPLACE_RECORDS_MAX || bytes > limits::REPLACE_BYTES_MAX {
                        return Err(Error::Refused(Refusal::TooLarge { bytes }));
                    }
                    if let Some(key) = writer.stage(&part).await? {
                        return Err(Error::SentTwice(key));
                    }
                }
                Some(Part::End) => break,
                // The caller has gone before the end, and so does the connection.
                None => return Err(Error::Stopping),
            }
        }
        failpoint::reach("replace.staged");
        let compared = self.store.status(space, None).await?.at.head;
        let count = writer.compare(space.id).await?;
        let _guard = self.closed.close(space.id).ok_or(Error::Replacing)?;
        let mut locked = writer.lock(std::slice::from_ref(space)).await?;
        let standing = self.standing(&mut locked).await?;
        self.guard(standing.at)?;
        // The same may have been sent twice at once.
        let count =
            if standing.at.head == compared { count } else { locked.compare(space.id).await? };
        let (replaced, at) = self.replace(&mut locked, standing, count).await?;
        let key = (space.id, &self.it.id);
        match locked.remember(key, self.it.fingerprint, replaced, self.now).await {
            Err(store::Error::Moved | store::Error::Repeated) => return Err(Error::Replacing),
            other => other?,
        }
        locked.note(space.id, &self.entry(replaced), self.now).await?;
        locked.commit().await?;
        failpoint::reach("replace.committed");
        writer.close().await?;
        Ok((replaced, at))
    }

    fn entry(&self, replaced: Replaced) -> AuditEntry {
        let author = Caller { actor: self.it.actor.clone(), ..Caller::of(self.it.author.clone()) };
        let action = match self.it.imports {
            true => AuditAction::SpaceImported,
            false => AuditAction::SpaceReplaced,
        };
        AuditEntry::new(action, author.audited())
            .with("id", self.it.id.as_str())
            .with("revision", replaced.revision.get())
    }

    /// Whether the author had seen what is there.
    fn guard(&self, at: SpaceHead) -> Result<(), Error> {
        match self.it.seen {
            Some(seen) if at.head > seen => Err(Error::SpaceChanged { head: at.head }),
            _ => Ok(()),
        }
    }

    async fn standing(&self, locked: &mut Locked<'_>) -> Result<Standing, Error> {
        let nothing = MutationId::from_stored("");
        let mutations = vec![(self.it.space.id, &nothing, None)];
        let loaded = locked.load(&Wanted { mutations, ..Wanted::default() }).await?;
        let standing = loaded.standings.get(&self.it.space.id).copied();
        let lost = || store::Error::Corrupt("a space that vanished under its lock".into());
        standing.ok_or_else(|| lost().into())
    }

    /// Decides what differs, part by part.
    async fn replace(
        &self,
        locked: &mut Locked<'_>,
        standing: Standing,
        count: i64,
    ) -> Result<(Replaced, SpaceHead), Error> {
        let staged = locked.staged().await?;
        let last = Revision::new(standing.at.head.get().saturating_add(count));
        let batch_end = last.filter(|_| count > 1).unwrap_or_default();
        let (mut replaced, mut before, mut after) = (Replaced::default(), standing, 0);
        loop {
            let (differing, number) = locked.differing(after).await?;
            if differing.is_empty() {
                break;
            }
            let request = self.request(differing, after);
            after = number;
            let mut state = self.state(locked, before, &request).await?;
            state.join_batch(batch_end);
            let results = state.decide(&request, self.now).map_err(Error::Refused)?;
            for (result, mutation) in results.into_iter().zip(&request.mutations) {
                if let (Outcome::Rejected(rejection), Ok(content)) =
                    (result.outcome, &mutation.content)
                {
                    return Err(broken(&content.key, rejection));
                }
            }
            let writes = state.writes();
            for (change, _) in &writes.changes {
                match change.action {
                    ChangeAction::Created => replaced.created += 1,
                    ChangeAction::Updated => replaced.updated += 1,
                    ChangeAction::Deleted => replaced.deleted += 1,
                }
            }
            let (head, conflicts) = (state.head(), state.conflict_number());
            let space = self.it.space.id;
            let decided = Decided { space, before, head, conflicts, unread: false, writes };
            before = decided.after();
            match locked.write(&[decided], self.now).await {
                Err(store::Error::Repeated) => return Err(reused(&self.it)),
                other => other?,
            }
            failpoint::reach("replace.written");
        }
        let (used, quota, held) = (before.usage, self.rules.quota, standing.usage);
        let grows = used.records > held.records || used.bytes > held.bytes;
        if grows && used.exceeds(quota) {
            return Err(Error::Refused(Refusal::OverQuota { used, quota }));
        }
        replaced.revision = before.at.head;
        replaced.unchanged = staged - replaced.created - replaced.updated;
        Ok((replaced, before.at))
    }

    fn request(&self, differing: Vec<store::Difference>, after: i64) -> Request {
        let mutation = |(number, (key, document)): (i64, store::Difference)| {
            let operation = document.map_or(Operation::Delete, Operation::Put);
            let content = Content { key, operation, base: None, client_micros: None };
            Mutation {
                id: MutationId::from_stored(&format!("{}/{number}", self.it.id)),
                device_sequence: None,
                fingerprint: Fingerprint::of(&content, self.it.device.as_ref(), None),
                content: Ok(content),
            }
        };
        let numbers = after.saturating_add(1)..;
        Request {
            author: self.it.author.clone(),
            actor: self.it.actor.clone(),
            device: self.it.device.clone(),
            atomic: false,
            collections: None,
            mutations: numbers.zip(differing).map(mutation).collect(),
        }
    }

    /// What is known of the records that are written next.
    async fn state(
        &self,
        locked: &mut Locked<'_>,
        before: Standing,
        request: &Request,
    ) -> Result<SpaceState, Error> {
        let space = self.it.space.id;
        let contents = request.mutations.iter();
        let mutations = contents.map(|it| {
            let key = it.content.as_ref().ok().map(|content| &content.key);
            (space, &it.id, key)
        });
        let wanted = Wanted { mutations: mutations.collect(), ..Wanted::default() };
        let records = locked.load(&wanted).await?.records.into_iter();
        let records: Vec<Arc<Record>> = records.map(|(_, record)| record).collect();
        let SpaceHead { head, floor, conflicts, .. } = before.at;
        let known = Known { head, floor, conflicts, records, ..Known::default() };
        // What the parts come to counts, which is looked at once all are decided.
        let rules = Rules { quota: Usage::default(), ..self.rules.clone() };
        Ok(SpaceState::new(known, rules))
    }
}

/// A record that its collection's policy does not take.
fn broken(key: &RecordKey, rejection: Rejection) -> Error {
    let field = format!("records[{}/{}]", key.collection, key.id);
    let violations = rejection
        .violations
        .into_iter()
        .map(|it| Violation::new(format!("{field}.{}", it.field), it.description));
    let mut violations: Vec<_> = violations.collect();
    if violations.is_empty() {
        violations.push(Violation::new(field, rejection.message));
    }
    Error::Invalid(violations)
}
