//! What a stream does when its caller's memberships have changed.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::Session;
use crate::app::{App, Error};
use crate::domain::{Access, Caller, Right, Scope};
use crate::rpc::frames::{encode, removed_from_view};
use crate::rpc::proto::subscribe_response::Frame as Response;
use crate::rpc::to_proto;

/// What does not answer in this time is asked again later.
const ACCESS_TIMEOUT: Duration = Duration::from_secs(3);
const ACCESS_RETRY: Duration = Duration::from_millis(500);

/// What a caller may do in the space of this name, if that can be known soon.
pub(super) async fn access(
    app: &App,
    caller: &Caller,
    name: &str,
    right: Right,
) -> Result<Access, Error> {
    // Cancel: who no longer waits is not let in.
    let asking = timeout(ACCESS_TIMEOUT, app.access(caller, name, right));
    asking.await.unwrap_or(Err(Error::SlowStore))
}

impl Session {
    /// Ends what may no longer be seen, and tells of the rest.
    pub(super) async fn heed_access(&mut self) {
        self.access_due = None;
        let news = self.hold.news();
        self.review().await;
        if self.watch.is_some() {
            return;
        }
        for space in news {
            // Cancel: it is asked again.
            let seat = self.app.seat(&self.principal.caller.user, space);
            match timeout(ACCESS_TIMEOUT, seat).await {
                Ok(Ok(seat)) => {
                    // Of a space that was erased there is no more to say.
                    if let Some(frame) = to_proto::access_frame(&seat) {
                        self.out.answer(encode(Response::Access(frame)));
                    }
                }
                Ok(Err(_)) | Err(_) => {
                    self.hold.put_back(space);
                    self.access_due = Some(Instant::now() + ACCESS_RETRY);
                }
            }
        }
    }

    /// Asks for each subscription whether it may go on, and ends the others.
    pub(super) async fn review(&mut self) {
        for index in (0..self.subscriptions.all.len()).rev() {
            let Some(subscription) = self.subscriptions.all.get(index) else { continue };
            let scope = &subscription.view.filter.scope;
            let wanted = if subscription.narrowed { Scope::All } else { scope.clone() };
            let listens = subscription.events.is_some();
            let name = subscription.space.name();
            let allowed = access(&self.app, &self.principal.caller, name, Right::Read).await;
            let allowed = allowed.and_then(|access| {
                if listens {
                    access.whole()?;
                }
                Ok(access.scope(wanted)?)
            });
            let error = match allowed {
                Ok(allowed) if allowed == *scope => continue,
                Ok(_other) => Error::AccessChanged,
                Err(error) if error.is_retryable() => {
                    self.access_due = Some(Instant::now() + ACCESS_RETRY);
                    continue;
                }
                Err(error) => error,
            };
            self.out.answer(removed_from_view(subscription.id.clone()));
            self.drop_subscription(index, error.into());
        }
    }
}
