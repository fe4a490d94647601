//! A whole sync in one call: what a device has to say is decided, and then it reads what
//! it lacks. The page is read after the commit, by one statement: whatever an answer
//! says is at or below the head that comes with the page.

use super::reading::check;
use super::{App, Error, Reading};
use crate::domain::{DeviceId, MutationResult, Request, Revision, UserId};
use crate::store::ChangesPage;

impl App {
    /// Decides the request, if there is one, and reads a page of changes. Nothing is
    /// decided if the cursor cannot be resumed; if it can, `reader` has everything up
    /// to there. `size_bytes` is what the request holds in memory, about.
    ///
    /// Cancel safe: a request that a committer has taken is decided anyway.
    pub async fn exchange(
        &self,
        request: Option<Request>,
        size_bytes: usize,
        reading: Reading,
        reader: Option<&(UserId, DeviceId)>,
    ) -> Result<(Vec<MutationResult>, ChangesPage), Error> {
        let mut results = Vec::new();
        if let Some(request) = request {
            check(reading.cursor, self.heads.read(&reading.space).await?)?;
            results = self.mutate(reading.space.clone(), request, size_bytes).await?;
        }
        let (space, cursor) = (reading.space.id, reading.cursor.revision);
        let page = self.changes(reading).await?;
        if let Some((user, device)) = reader.filter(|_| cursor > Revision::ZERO) {
            self.acknowledge(space, user.clone(), device.clone(), cursor);
        }
        Ok((results, page))
    }
}
