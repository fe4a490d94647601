//! Snapshot: a part of a space as it was at one revision, as a stream of pages. One is
//! read while another is sent, so that memory does not grow with the space.

use std::sync::Arc;

use tonic::{Request, Status};

use super::answers::{Answers, answers};
use super::caller::{not_expired, still};
use super::encoded::Encoded;
use super::from_proto::SnapshotToken;
use super::page::PageBuilder;
use super::service::Service;
use super::{from_proto, proto, status, to_proto};
use crate::app::{App, PageSize, Produced, Snapshot, SnapshotPlace};
use crate::auth::Principal;
use crate::clock::Clock;
use crate::domain::{DocumentForm, Right, Scope, limits};

/// Opens the stream. What does not allow it to begin is its status.
pub(super) async fn open(
    service: &Service,
    request: Request<proto::SnapshotRequest>,
) -> Result<Answers<Encoded>, Status> {
    let (principal, access) =
        service.access(&request, &request.get_ref().space, Right::Read).await?;
    let wire = request.into_inner();
    let form = from_proto::document_form(wire.document_form).map_err(status::invalid)?;
    let wanted = from_proto::scope(&wire.collections, &wire.keys).map_err(status::invalid)?;
    let scope = service.within(&principal, &access, access.scope(wanted.clone()))?;
    let space = access.space;
    let token = from_proto::resume_token(&wire.resume_token).map_err(status::invalid)?;
    let (snapshot, after) = match token {
        Some(SnapshotToken { epoch, at, after }) => {
            (Snapshot { space, epoch, at, scope }, Some(after))
        }
        None => (service.app.snapshot_now(space, scope).await?, None),
    };
    let open = service.limiters.open(principal.caller.really())?;
    let (app, clock) = (Arc::clone(&service.app), service.clock.clone());
    let mut reader = Reader { app, clock, principal, wanted, snapshot, form, after };
    // Why it cannot begin is told at once.
    let mut next = reader.next().await?;
    let stop = service.stop.clone();
    let pages = Produced::begin(&service.streams, "snapshot", async move |outlet| {
        let _open = open;
        loop {
            let last = next.is_last;
            // Cancel: a page that is not sent is not told of, and the client can go on
            // where it was.
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(status::stopping()),
                sent = outlet.send(next.message) => sent?,
            }
            if last {
                return Ok(());
            }
            next = reader.next().await?;
        }
    });
    Ok(answers(pages, Ok))
}

/// A snapshot that is being read.
struct Reader {
    app: Arc<App>,
    clock: Clock,
    principal: Principal,
    wanted: Scope,
    snapshot: Snapshot,
    form: DocumentForm,
    after: Option<SnapshotPlace>,
}

struct Page {
    message: Encoded,
    is_last: bool,
}

impl Reader {
    async fn next(&mut self) -> Result<Page, Status> {
        not_expired(&self.principal, &self.clock)?;
        let Snapshot { space, scope, .. } = &self.snapshot;
        let wanted = (self.wanted.clone(), scope);
        still(&self.app, &self.principal.caller, space, wanted).await?;
        let size = PageSize {
            entries_max: limits::PAGE_ENTRIES_MAX,
            bytes_max: limits::PAGE_DOCUMENT_BYTES_MAX,
        };
        let page = self.app.snapshot_page(self.snapshot.clone(), self.after.clone(), size).await?;
        let mut builder = PageBuilder::default();
        let mut next = page.next;
        let mut last = self.after.take();
        for record in &page.records {
            if !builder.push(&to_proto::record_entry(record, self.form)) {
                next = last;
                break;
            }
            let (collection, id) = (record.key.collection.clone(), record.key.id.to_string());
            last = Some(SnapshotPlace { collection, id });
        }
        let Snapshot { epoch, at, .. } = self.snapshot;
        let token = |after: SnapshotPlace| SnapshotToken { epoch, at, after }.seal();
        let rest = proto::SnapshotResponse {
            records: Vec::new(),
            cursor: Some(to_proto::cursor(epoch, at)),
            last: next.is_none(),
            next_token: next.clone().map_or_else(String::new, token),
        };
        let is_last = next.is_none();
        self.after = next;
        Ok(Page { message: builder.finish(&rest), is_last })
    }
}
