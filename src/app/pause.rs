//! A pause of what a task writes now and then, while something is written that must not
//! be followed by it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Either the task writes, or somebody has it pause.
#[derive(Debug)]
pub(super) struct Pause(Arc<Semaphore>);

/// Lasts as long as this.
#[derive(Debug)]
pub(super) struct Held {
    _only: Option<OwnedSemaphorePermit>,
}

impl Default for Pause {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Pause {
    /// Waits until nobody else holds it. Cancel safe.
    pub(super) async fn hold(&self) -> Held {
        // Nobody closes it.
        Held { _only: Arc::clone(&self.0).acquire_owned().await.ok() }
    }
}
