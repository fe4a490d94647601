//! The last events of a space. Nobody waits for them and nobody keeps them: who is
//! too slow is told how many were missed.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::domain::{Event, limits};

/// Events are numbered as they come in; the numbers are this replica's own.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// The number of the last one.
    last: u64,
    kept: VecDeque<Told>,
    bytes: usize,
}

/// An event, and which reader it came from, if from one here.
#[derive(Clone, Debug)]
struct Told {
    event: Arc<Event>,
    origin: Option<u64>,
}

/// What a reader takes.
#[derive(Debug, Default)]
pub struct News {
    pub events: Vec<Arc<Event>>,
    /// How many came before these and are gone.
    pub missed: u64,
    /// The last number that was looked at.
    pub last: u64,
}

impl Events {
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn add(&mut self, event: Arc<Event>, origin: Option<u64>) {
        self.last += 1;
        self.bytes += event.size_bytes();
        self.kept.push_back(Told { event, origin });
        let full = |it: &Self| {
            it.kept.len() > limits::SPACE_EVENTS_MAX || it.bytes > limits::SPACE_EVENT_BYTES_MAX
        };
        while full(self) {
            self.forget_oldest();
        }
    }

    /// Forgets those that were there at the last call: readers had a while.
    pub(super) fn forget(&mut self, up_to: u64) {
        while !self.kept.is_empty() && self.first() <= up_to {
            self.forget_oldest();
        }
    }

    /// What came after a number, but not from this reader itself.
    pub(super) fn after(&self, seen: u64, reader: u64) -> News {
        let next = seen.saturating_add(1).max(self.first());
        let skip = usize::try_from(next.saturating_sub(self.first())).unwrap_or(usize::MAX);
        let others = self.kept.iter().skip(skip).filter(|told| told.origin != Some(reader));
        News {
            events: others.map(|told| Arc::clone(&told.event)).collect(),
            missed: next.saturating_sub(seen.saturating_add(1)),
            last: self.last,
        }
    }

    /// The number of the oldest that is kept; of the next, if none is.
    fn first(&self) -> u64 {
        self.last + 1 - self.kept.len() as u64
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.kept.pop_front() {
            self.bytes = self.bytes.saturating_sub(oldest.event.size_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::domain::UserId;

    fn event(topic: &str) -> Arc<Event> {
        Arc::new(Event {
            topic: topic.into(),
            document: None,
            author: UserId::parse("alice").unwrap(),
            device: None,
            published_at: OffsetDateTime::UNIX_EPOCH,
        })
    }

    fn seen(events: &Events, after: u64, reader: u64) -> (Vec<String>, u64, u64) {
        let News { events, missed, last } = events.after(after, reader);
        (events.iter().map(|event| event.topic.clone()).collect(), missed, last)
    }

    #[test]
    fn readers_get_what_others_tell_and_hear_what_they_missed() {
        let mut events = Events::default();
        assert_eq!(seen(&events, 0, 7), (vec![], 0, 0));
        events.add(event("a"), None);
        events.add(event("b"), Some(7));
        events.add(event("c"), Some(8));
        let all = vec!["a".to_owned(), "c".to_owned()];
        assert_eq!(seen(&events, 0, 7), (all, 0, 3));
        assert_eq!(seen(&events, 2, 8), (vec![], 0, 3));
        events.forget(2);
        assert_eq!(seen(&events, 0, 7), (vec!["c".to_owned()], 2, 3));
        assert_eq!(seen(&events, 3, 7), (vec![], 0, 3));
        for _ in 0..limits::SPACE_EVENTS_MAX {
            events.add(event("d"), None);
        }
        let (topics, missed, last) = seen(&events, 2, 7);
        assert_eq!(topics.len(), limits::SPACE_EVENTS_MAX);
        assert_eq!((missed, last), (1, 3 + limits::SPACE_EVENTS_MAX as u64));
    }

    #[test]
    fn large_events_do_not_stay() {
        let mut events = Events::default();
        let large = Event { topic: "x".repeat(4_000), ..event("").as_ref().clone() };
        for _ in 0..1_000 {
            events.add(Arc::new(large.clone()), None);
        }
        assert!(events.bytes <= limits::SPACE_EVENT_BYTES_MAX);
        let kept: usize = events.kept.iter().map(|told| told.event.size_bytes()).sum();
        assert_eq!(events.bytes, kept);
    }
}
