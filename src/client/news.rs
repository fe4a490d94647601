//! What an app, or its log, may want to hear of beside the status: what went wrong and was
//! mended, what was set aside.

use futures_util::{Stream, stream};
use tokio::sync::broadcast::error::RecvError;

use super::Client;
use super::engine::Report;

/// Something that has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// In which space; None if it is about all.
    pub space: Option<String>,
    /// Of which kind.
    pub kind: NewsKind,
    /// For people.
    pub text: String,
}

/// Of which kind news are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewsKind {
    /// The connection was lost, or there is no good token. It is tried again.
    Link,
    /// What is here differed from what the server has; it is loaded again.
    Healing,
    /// It is as on the server again.
    Healed,
    /// The state is loaded anew, because the cursor could not be resumed.
    Reset,
    /// The server has another place in this device's queue than the file: what waits goes on
    /// from there, and nothing is loaded anew for it.
    Renumbered,
    /// Edits were set aside.
    Parked,
    /// A space may no longer be seen, or not be written.
    AccessLost,
    /// The local file failed, or is not the one that the server knows.
    File,
}

impl News {
    pub(super) fn of(report: &Report, space: Option<String>) -> Self {
        let (kind, text) = match report {
            Report::LinkLost { fault } => (NewsKind::Link, fault.to_string()),
            Report::TokenRefused { fault } => (NewsKind::Link, fault.to_string()),
            Report::TokenFailed { message } => (NewsKind::Link, message.clone()),
            Report::Healing { collections, .. } => {
                (NewsKind::Healing, format!("differs from the server: {}", list(collections)))
            }
            Report::HealingInVain { collections, .. } => {
                (NewsKind::Healing, format!("differs each time: {}", list(collections)))
            }
            Report::Healed { collections, .. } => {
                (NewsKind::Healed, format!("is as on the server: {}", list(collections)))
            }
            Report::Reset { fault, .. } => {
                (NewsKind::Reset, format!("loaded anew: the cursor is {fault:?}"))
            }
            Report::Renumbered { device_sequence, .. } => {
                (NewsKind::Renumbered, format!("the queue goes on after {device_sequence}"))
            }
            Report::Parked { fault, .. } => (NewsKind::Parked, fault.to_string()),
            Report::AccessLost { fault, .. } => (NewsKind::AccessLost, fault.to_string()),
            Report::FileIsBehind { last_sequence, device_sequence, .. } => (
                NewsKind::File,
                format!(
                    "the server has {device_sequence} edits of this device, the file gave \
                     {last_sequence}: it is an older copy"
                ),
            ),
            Report::StoreFailed { message, .. } => (NewsKind::File, message.clone()),
        };
        Self { space, kind, text }
    }
}

fn list(collections: &[crate::domain::CollectionName]) -> String {
    collections.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
}

impl Client {
    /// What happens from now on. Who does not listen for long misses some.
    pub fn news(&self) -> impl Stream<Item = News> + use<> {
        stream::unfold(self.inner.news.subscribe(), async |mut news| {
            loop {
                match news.recv().await {
                    Ok(told) => return Some((told, news)),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        })
    }
}
