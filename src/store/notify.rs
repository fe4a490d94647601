//! Waking other replicas: LISTEN and NOTIFY as a hint that heads have moved, and as
//! the way of events. Nothing may rely on it: notifications get lost, and say so or
//! not.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::postgres::{PgListener, PgPoolOptions};
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;
use tracing::warn;
use uuid::Uuid;

use super::{Error, Store};
use crate::domain::{DeviceId, Document, Event, Revision, SpaceId, UserId};

const HEADS: &str = "syncline_heads";
const EVENTS: &str = "syncline_events";
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
        self.send(HEADS, payloads(replica, heads)).await
    }

    /// Tells of events. Not cancel safe.
    pub async fn tell(
        &mut self,
        replica: Uuid,
        events: &[(SpaceId, Arc<Event>)],
    ) -> Result<(), Error> {
        let payload = |(number, (space, event)): (usize, &(SpaceId, Arc<Event>))| {
            event_payload(replica, number, *space, event)
        };
        self.send(EVENTS, events.iter().enumerate().filter_map(payload).collect()).await
    }

    async fn send(&mut self, channel: &str, payloads: Vec<String>) -> Result<(), Error> {
        if !payloads.is_empty() {
            sqlx::query("select pg_notify($1, p) from unnest($2::text[]) p")
                .bind(channel)
                .bind(payloads)
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
    /// An event on another replica.
    Event(SpaceId, Arc<Event>),
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
        listener.listen_all([HEADS, EVENTS]).await?;
        Ok(Self { listener })
    }

    /// Waits for the next word. After an error the listener is of no use any
    /// more: sqlx would reconnect without telling. Cancel safe.
    pub async fn hear(&mut self, replica: Uuid) -> Result<Heard, Error> {
        match self.listener.try_recv().await? {
            Some(told) if told.channel() == EVENTS => Ok(parse_event(replica, told.payload())),
            Some(told) => Ok(parse(replica, told.payload())),
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

/// An event as other replicas hear it.
#[derive(Serialize, Deserialize)]
struct StoredEvent {
    replica: Uuid,
    /// PostgreSQL drops what is said twice in one transaction.
    number: usize,
    space: Uuid,
    topic: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    document: Option<Box<RawValue>>,
    author: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    micros: i64,
}

/// None if it is too large, which no valid event is.
fn event_payload(replica: Uuid, number: usize, space: SpaceId, event: &Event) -> Option<String> {
    let document = event.document.as_ref().map(|it| RawValue::from_string(it.as_str().to_owned()));
    let stored = StoredEvent {
        replica,
        number,
        space: space.0,
        topic: event.topic.clone(),
        document: document.transpose().ok()?,
        author: event.author.as_str().to_owned(),
        device: event.device.as_ref().map(|it| it.as_str().to_owned()),
        micros: i64::try_from(event.published_at.unix_timestamp_nanos() / 1_000).ok()?,
    };
    let payload = serde_json::to_string(&stored).ok()?;
    (payload.len() <= PAYLOAD_BYTES_MAX).then_some(payload)
}

fn parse_event(own: Uuid, payload: &str) -> Heard {
    let Ok(stored) = serde_json::from_str::<StoredEvent>(payload) else {
        warn!("an event that is not ours came in");
        return Heard::Nothing;
    };
    let nanos = i128::from(stored.micros) * 1_000;
    let Ok(published_at) = OffsetDateTime::from_unix_timestamp_nanos(nanos) else {
        return Heard::Nothing;
    };
    if stored.replica == own {
        return Heard::Nothing;
    }
    let document = stored.document.map(|it| Document::from_canonical(it.get().to_owned()));
    let event = Event {
        topic: stored.topic,
        document,
        author: UserId::from_stored(&stored.author),
        device: stored.device.as_deref().map(DeviceId::from_stored),
        published_at,
    };
    Heard::Event(SpaceId(stored.space), Arc::new(event))
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
    use crate::domain::limits;

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
                Heard::Nothing | Heard::Gap | Heard::Event(..) => Vec::new(),
            })
            .collect();
        assert_eq!(heard, heads);
        assert_eq!(parse(there, &said[0]), Heard::Nothing);
        assert_eq!(payloads(here, &[]), Vec::<String>::new());
        for foreign in ["", "x", "00000000000000000000000000000002 x:1:1"] {
            assert_eq!(parse(here, foreign), Heard::Gap, "{foreign:?}");
        }
    }

    #[test]
    fn events_come_as_they_were_told() {
        let (here, there) = (Uuid::from_u128(1), Uuid::from_u128(2));
        // The largest of each.
        let text = |bytes: usize| "\"".repeat(bytes);
        let json = format!("{{\"a\":{:?}}}", "x".repeat(limits::EVENT_BYTES_MAX - 8));
        let document = Document::from_json(json.as_bytes()).unwrap();
        assert_eq!(document.as_str().len(), limits::EVENT_BYTES_MAX);
        let largest = Event {
            topic: text(limits::EVENT_TOPIC_BYTES_MAX),
            document: Some(document),
            author: UserId::parse(&text(limits::USER_ID_BYTES_MAX)).unwrap(),
            device: Some(DeviceId::parse(&text(limits::DEVICE_ID_BYTES_MAX)).unwrap()),
            published_at: OffsetDateTime::UNIX_EPOCH + time::Duration::microseconds(1_234_567),
        };
        let smallest = Event { document: None, device: None, ..largest.clone() };
        let space = SpaceId(Uuid::from_u128(3));
        for event in [Arc::new(largest), Arc::new(smallest)] {
            let payload = event_payload(there, 7, space, &event).unwrap();
            assert_eq!(parse_event(here, &payload), Heard::Event(space, event));
            assert_eq!(parse_event(there, &payload), Heard::Nothing);
        }
        for foreign in ["", "{}", "x"] {
            assert_eq!(parse_event(here, foreign), Heard::Nothing, "{foreign:?}");
        }
    }
}
