//! What a client tells of itself, kept from when it is listened to.

use std::fmt;
use std::pin::Pin;

use futures_util::{FutureExt, Stream, StreamExt};
use syncline::client::{Client, News, NewsKind};

use crate::support::wait_for;

/// Who listens. It has to read often: a client keeps few of its news for who does not.
pub struct Heard {
    told: Pin<Box<dyn Stream<Item = News> + Send>>,
    pub all: Vec<News>,
}

impl Heard {
    pub fn new(client: &Client) -> Self {
        Self { told: Box::pin(client.news()), all: Vec::new() }
    }

    /// The program was started again; what was heard before stays.
    pub fn go_on(&mut self, client: &Client) {
        self.told = Box::pin(client.news());
    }

    /// Takes what was told since the last time, without waiting.
    pub fn read(&mut self) {
        while let Some(Some(news)) = self.told.next().now_or_never() {
            self.all.push(news);
        }
    }

    /// The texts of what was told of this kind.
    pub fn of(&mut self, kind: NewsKind) -> Vec<&str> {
        self.read();
        let all = self.all.iter().filter(|it| it.kind == kind);
        all.map(|it| it.text.as_str()).collect()
    }

    /// Waits until so many of this kind were told.
    pub async fn until(&mut self, kind: NewsKind, count: usize) {
        wait_for(&format!("{count} {kind:?}"), async || {
            (self.of(kind).len() >= count).then_some(())
        })
        .await;
    }
}

impl fmt::Debug for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.all.fmt(f)
    }
}
