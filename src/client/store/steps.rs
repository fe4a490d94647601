//! What is more than one step of one part of a space: a range that makes a whole state, the
//! end of a snapshot, spaces that come and go, what nobody wants any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::need::{Need, Wanted};
use super::writer::{Done, Transaction};
use super::{Error, SharedIdentity, load, row, write};
use crate::client::replica::{Absorbed, Held, Identity, Lacking, Range};
use crate::domain::{CollectionName, Digest, PolicySet, RecordKey, Scope, Space, Tally};

/// Records that one step of many takes.
pub(super) const PART: i64 = 1_000;

pub(super) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// A conflict to keep, or to forget.
#[derive(Clone, Debug)]
pub(in crate::client) struct NewConflict {
    pub(in crate::client) id: String,
    pub(in crate::client) key: RecordKey,
    /// None = it is closed.
    pub(in crate::client) body: Option<String>,
}

/// Something that takes several steps.
pub(super) enum Work {
    Absorb {
        space: i64,
        range: Arc<Range>,
        fetched: BTreeMap<RecordKey, Held>,
        reply: Reply<Result<Absorbed, Lacking>>,
    },
    FinishLoad {
        space: i64,
        generation: i64,
        reply: Reply<bool>,
    },
    Forget {
        space: i64,
        reply: Reply<()>,
    },
    Follow {
        space: Space,
        scope: Scope,
        reply: Reply<i64>,
    },
    Unfollow {
        space: i64,
        reply: Reply<()>,
    },
    Policies {
        policies: PolicySet,
        identity: SharedIdentity,
        reply: Reply<()>,
    },
    Conflicts {
        space: i64,
        news: Vec<NewConflict>,
        cursor: Option<String>,
        reply: Reply<()>,
    },
    ReplaceConflicts {
        space: i64,
        all: Vec<NewConflict>,
        reply: Reply<()>,
    },
    PassOn {
        wishes: Vec<String>,
        reply: Reply<()>,
    },
    TakeWishes {
        reply: Reply<Vec<String>>,
    },
    Attempts {
        space: i64,
        attempts: i64,
        reply: Reply<()>,
    },
    Collect {
        reply: Reply<bool>,
    },
}

/// Tells whoever asked. That there is no such space is theirs alone: nothing was written then.
fn done<T: Send + 'static>(reply: Reply<T>, value: Result<T, Error>) -> Result<Done, Error> {
    match value {
        Err(error) if error != Error::NoSpace => Err(error),
        // They may have gone.
        value => Ok(Box::new(move |written| drop(reply.send(written.and(value))))),
    }
}

impl Work {
    pub(super) async fn run(
        self: Box<Self>,
        at: &mut Transaction<'_>,
        dones: &mut Vec<Done>,
    ) -> Result<(), Error> {
        let told = match *self {
            Self::Absorb { space, range, fetched, reply } => {
                done(reply, at.absorb(space, &range, &fetched).await)
            }
            Self::FinishLoad { space, generation, reply } => {
                done(reply, at.finish_load(space, generation).await)
            }
            Self::Forget { space, reply } => done(reply, at.forget(space, None).await),
            Self::Follow { space, scope, reply } => done(reply, at.follow(&space, &scope).await),
            Self::Unfollow { space, reply } => done(reply, at.unfollow(space).await),
            Self::Policies { policies, identity, reply } => {
                done(reply, at.policies(policies, &identity).await)
            }
            Self::Conflicts { space, news, cursor, reply } => {
                done(reply, at.conflicts(space, &news, cursor.as_deref()).await)
            }
            Self::ReplaceConflicts { space, all, reply } => {
                let sql = "DELETE FROM conflicts WHERE space = ?1";
                sqlx::query(sql).bind(space).execute(&mut *at.db).await?;
                done(reply, at.conflicts(space, &all, None).await)
            }
            Self::PassOn { wishes, reply } => done(reply, at.pass_on(&wishes).await),
            Self::TakeWishes { reply } => done(reply, at.take_wishes().await),
            Self::Attempts { space, attempts, reply } => {
                done(reply, at.attempts(space, attempts).await)
            }
            Self::Collect { reply } => done(reply, at.collect().await),
        };
        dones.push(told?);
        Ok(())
    }
}

impl Transaction<'_> {
    async fn absorb(
        &mut self,
        space: i64,
        range: &Range,
        fetched: &BTreeMap<RecordKey, Held>,
    ) -> Result<Result<Absorbed, Lacking>, Error> {
        let keys = range.changes.iter().map(|change| change.held.record.key.clone()).collect();
        let mut replica = self.replica(space, &Need::records(keys)).await?;
        let absorbed = replica.absorb(range, fetched);
        if absorbed.is_ok() {
            self.write(space, &mut replica).await?;
        }
        if absorbed == Ok(Absorbed::Whole) {
            self.unstage(space).await?;
        }
        Ok(absorbed)
    }

    /// Shows all that was staged.
    async fn unstage(&mut self, space: i64) -> Result<(), Error> {
        loop {
            let keys = load::staged(self.db, space, PART).await?;
            let mut replica = self.replica(space, &Need::records(keys.clone())).await?;
            if keys.is_empty() {
                replica.complete();
                return self.write(space, &mut replica).await;
            }
            replica.unstage(&keys);
            self.write(space, &mut replica).await?;
        }
    }

    /// Swaps a snapshot in, unless it is no longer the one that is loaded.
    async fn finish_load(&mut self, space: i64, generation: i64) -> Result<bool, Error> {
        let place = load::place(self.db, space).await?;
        let going = place.loading.as_ref().filter(|it| place.epoch == Some(it.epoch));
        if going.is_none_or(|loading| loading.generation != generation) {
            return Ok(false);
        }
        let mut after = None;
        loop {
            let keys = load::unsettled(self.db, space, &place, after.as_ref(), PART).await?;
            let Some(last) = keys.last().cloned() else { break };
            let mut replica = self.replica(space, &Need::records(keys.clone())).await?;
            replica.take_over(&keys);
            self.write(space, &mut replica).await?;
            after = Some(last);
        }
        // The first one has nothing to mend.
        if place.generation > 1 {
            let scope = place.loading.as_ref().and_then(|it| row::stored_scope(&it.scope));
            self.count(space, scope.as_deref()).await?;
        }
        let mut replica = self.replica(space, &Need::entries(Wanted::Answered)).await?;
        replica.finish_load();
        self.write(space, &mut replica).await?;
        let whole = place.loading.as_ref().is_some_and(|loading| loading.whole);
        if whole {
            let mut replica = self.replica(space, &Need::entries(Wanted::Open)).await?;
            replica.go_on();
            self.write(space, &mut replica).await?;
        }
        Ok(true)
    }

    /// Counts the digests of collections anew, from their records: sums that only move would
    /// never be right again.
    async fn count(&mut self, space: i64, scope: Option<&str>) -> Result<(), Error> {
        let mut tallies: BTreeMap<CollectionName, Tally> = BTreeMap::new();
        let mut after = None;
        loop {
            let held = load::checksums(self.db, space, scope, after.as_ref(), PART).await?;
            for (key, checksum) in &held {
                let digest = Digest::of_checksum(key, *checksum);
                *tallies.entry(key.collection.clone()).or_default() += Tally { records: 1, digest };
            }
            match held.into_iter().next_back() {
                Some((last, _)) => after = Some(last),
                None => return write::set_tallies(self.db, space, scope, &tallies).await,
            }
        }
    }

    /// Forgets what the server had of a space, all of it or what is outside of a scope.
    async fn forget(&mut self, space: i64, kept: Option<&Scope>) -> Result<(), Error> {
        let scope = kept.and_then(row::stored_scope);
        let mut replica = self.replica(space, &Need::entries(Wanted::Answered)).await?;
        replica.finish_unwanted(kept);
        self.write(space, &mut replica).await?;
        loop {
            let keys = load::unwanted(self.db, space, scope.as_deref(), PART).await?;
            let mut replica = self.replica(space, &Need::records(keys.clone())).await?;
            if keys.is_empty() {
                if kept.is_none() {
                    replica.forgotten();
                }
                break self.write(space, &mut replica).await?;
            }
            replica.forget(&keys);
            self.write(space, &mut replica).await?;
        }
        let sql = "DELETE FROM conflicts WHERE space = ?1 AND (?2 IS NULL OR collection NOT IN \
                   (SELECT value FROM json_each(?2)))";
        sqlx::query(sql).bind(space).bind(scope).execute(&mut *self.db).await?;
        Ok(())
    }

    /// Makes a space one that is wanted; tells its number.
    async fn follow(&mut self, space: &Space, scope: &Scope) -> Result<i64, Error> {
        let no: i64 = sqlx::query_scalar(
            "INSERT INTO spaces (name, scope, wanted) VALUES (?1, ?2, 1) \
             ON CONFLICT (name) DO UPDATE \
             SET wanted = 1, followed = followed + (wanted = 0) RETURNING no",
        )
        .bind(space.name())
        .bind(row::stored_scope(scope))
        .fetch_one(&mut *self.db)
        .await?;
        let place = load::place(self.db, no).await?;
        if place.scope == *scope {
            return Ok(no);
        }
        // What is loaded is of what was wanted before; and what of it is here is not only what
        // is loaded: a first snapshot is shown as it comes.
        let mut loaded = place.loaded;
        if let Scope::Collections(wanted) = scope {
            self.forget(no, Some(scope)).await?;
            loaded = loaded.map(|loaded| match loaded {
                Scope::Collections(mut names) => {
                    names.retain(|name| wanted.contains(name));
                    Scope::Collections(names)
                }
                _ => scope.clone(),
            });
        }
        sqlx::query(
            "UPDATE spaces SET scope = ?2, loaded = ?3, loading = NULL, followed = followed + 1 \
             WHERE no = ?1",
        )
        .bind(no)
        .bind(row::stored_scope(scope))
        .bind(row::stored_loaded(loaded.as_ref()))
        .execute(&mut *self.db)
        .await?;
        Ok(no)
    }

    /// Nobody wants a space any more. Its queue is still sent.
    async fn unfollow(&mut self, space: i64) -> Result<(), Error> {
        self.forget(space, None).await?;
        sqlx::query(
            "UPDATE spaces SET wanted = 0, scope = '[]', followed = followed + 1 WHERE no = ?1",
        )
        .bind(space)
        .execute(&mut *self.db)
        .await?;
        Ok(())
    }

    async fn policies(
        &mut self,
        policies: PolicySet,
        identity: &SharedIdentity,
    ) -> Result<(), Error> {
        sqlx::query("UPDATE file SET policies = ?1")
            .bind(row::stored_policies(&policies))
            .execute(&mut *self.db)
            .await?;
        let policies = Arc::new(policies);
        let mut shared = identity.lock();
        *shared = Arc::new(Identity { policies, ..Identity::clone(&shared) });
        Ok(())
    }

    async fn conflicts(
        &mut self,
        space: i64,
        news: &[NewConflict],
        cursor: Option<&str>,
    ) -> Result<(), Error> {
        load::place(self.db, space).await?;
        for NewConflict { id, key, body } in news {
            let query = match body {
                Some(body) => sqlx::query(
                    "INSERT INTO conflicts VALUES (?1, ?2, ?3, ?4, ?5) \
                     ON CONFLICT DO UPDATE SET body = excluded.body",
                )
                .bind(space)
                .bind(id)
                .bind(key.collection.as_str())
                .bind(key.id.as_str())
                .bind(body),
                None => sqlx::query("DELETE FROM conflicts WHERE space = ?1 AND id = ?2")
                    .bind(space)
                    .bind(id),
            };
            query.execute(&mut *self.db).await?;
        }
        if let Some(cursor) = cursor {
            sqlx::query("UPDATE spaces SET conflict_cursor = ?2 WHERE no = ?1")
                .bind(space)
                .bind(cursor)
                .execute(&mut *self.db)
                .await?;
        }
        Ok(())
    }

    async fn attempts(&mut self, space: i64, attempts: i64) -> Result<(), Error> {
        sqlx::query("UPDATE spaces SET attempts = ?2 WHERE no = ?1")
            .bind(space)
            .bind(attempts)
            .execute(&mut *self.db)
            .await?;
        Ok(())
    }
}
