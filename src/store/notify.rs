//! Waking other replicas: LISTEN and NOTIFY as a hint that heads have moved.
//! Nothing may rely on it: notifications get lost, and say so or not.

use sqlx::postgres::{PgListener, PgPoolOptions};
use sqlx::{Connection, PgConnection};
use tracing::warn;
use uuid::Uuid;

use super::{Error, Store};
use crate::domain::{Revision, SpaceId};

const CHANNEL: &str = "syncline_heads";
/// PostgreSQL refuses payloads of 8,000 bytes.
const PAYLOAD_BYTES_MAX: usize = 7_900;

/// Tells other replicas. Has a connection of its own, because a NOTIFY in a
/// transaction that writes would serialise all commits of the database.
#[derive(Debug)]
pub struct Notifier {
    connection: PgConnection,
}

impl Notifier {
    /// Connects.
    pub async fn connect(store: &Store) -> Result<Self, Error> {
        let mut connection = store.connection().await?;
        // A notification that is lost in a crash was only a hint.
        sqlx::raw_sql("set synchronous_commit = off").execute(&mut connection).await?;
        Ok(Self { connection })
    }

    /// Says that these spaces have these heads now, and these last conflicts. Not cancel safe.
    pub async fn notify(
        &mut self,
        replica: Uuid,
        heads: &[(SpaceId, Revision, i64)],
    ) -> Result<(), Error> {
        for payload in payloads(replica, heads) {
            sqlx::query("select pg_notify($1, $2)")
                .bind(CHANNEL)
                .bind(payload)
                .execute(&mut self.connection)
                .await?;
        }
        Ok(())
    }

    /// Says goodbye.
    pub async fn close(self) -> Result<(), Error> {
        Ok(self.connection.close().await?)
    }
}

/// What was heard.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// Another replica says that these spaces have these heads and last conflicts.
    Heads(Vec<(SpaceId, Revision, i64)>),
    /// Our own words, or nothing that we understand.
    Nothing,
    /// Notifications may have been missed: read all heads.
    Gap,
}

/// Hears other replicas.
#[derive(Debug)]
pub struct Listener {
    listener: PgListener,
}

impl Listener {
    /// Connects and listens. What happened before must be read by polling.
    pub async fn connect(store: &Store) -> Result<Self, Error> {
        // Out of the pool for reads it would take one connection for good.
        let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(store.connect.clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.ignore_pool_close_event(true);
        listener.listen(CHANNEL).await?;
        Ok(Self { listener })
    }

    /// Waits for the next word. After an error the listener is of no use any
    /// more: sqlx would reconnect without telling. Cancel safe.
    pub async fn hear(&mut self, replica: Uuid) -> Result<Heard, Error> {
        match self.listener.try_recv().await? {
            Some(notification) => Ok(parse(replica, notification.payload())),
            None => Ok(Heard::Gap),
        }
    }
}

/// `replica space:head:conflicts space:head:conflicts …`, cut where one would be too long.
fn payloads(replica: Uuid, heads: &[(SpaceId, Revision, i64)]) -> Vec<String> {
    let mut payloads = Vec::new();
    let mut payload = replica.simple().to_string();
    for (space, head, conflicts) in heads {
        let word = format!(" {}:{head}:{conflicts}", space.0.simple());
        if payload.len() + word.len() > PAYLOAD_BYTES_MAX {
            payloads.push(std::mem::replace(&mut payload, replica.simple().to_string()));
        }
        payload.push_str(&word);
    }
    if !heads.is_empty() {
        payloads.push(payload);
    }
    payloads
}

fn parse(own: Uuid, payload: &str) -> Heard {
    let mut words = payload.split(' ');
    let replica = words.next().and_then(|word| Uuid::try_parse(word).ok());
    if replica == Some(own) {
        return Heard::Nothing;
    }
    let heads: Option<Vec<_>> = words
        .map(|word| {
            let (space, counters) = word.split_once(':')?;
            let (head, conflicts) = counters.split_once(':')?;
            let head = Revision::new(head.parse().ok()?)?;
            Some((SpaceId(Uuid::try_parse(space).ok()?), head, conflicts.parse().ok()?))
        })
        .collect();
    match (replica, heads) {
        (Some(_), Some(heads)) => Heard::Heads(heads),
        _ => {
            warn!("a notification that is not ours came in; reading all heads");
            Heard::Gap
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard() {
        let (here, there) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let head = |n: u128| (SpaceId(Uuid::from_u128(n)), Revision::ZERO.next(), 7);
        let heads: Vec<_> = (0..1_000).map(head).collect();
        let said = payloads(there, &heads);
        assert!(said.len() > 1 && said.iter().all(|payload| payload.len() < 8_000));
        let heard: Vec<_> = said
            .iter()
            .flat_map(|payload| match parse(here, payload) {
                Heard::Heads(heads) => heads,
                Heard::Nothing | Heard::Gap => Vec::new(),
            })
            .collect();
        assert_eq!(heard, heads);
        assert_eq!(parse(there, &said[0]), Heard::Nothing);
        assert_eq!(payloads(here, &[]), Vec::<String>::new());
        for foreign in ["", "x", "00000000000000000000000000000002 x:1:1"] {
            assert_eq!(parse(here, foreign), Heard::Gap, "{foreign:?}");
        }
    }
}
