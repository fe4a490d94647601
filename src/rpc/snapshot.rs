//! Snapshot: a part of a space as it was at one revision, as a stream of pages. One is
//! read while another is sent, so that memory does not grow with the space.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use super::auth::unauthenticated;
use super::caller::still;
use super::encoded::Encoded;
use super::from_proto::SnapshotToken;
use super::page::PageBuilder;
use super::service::Service;
use super::session::EXPIRY_GRACE_SECONDS;
use super::{from_proto, proto, status, to_proto};
use crate::app::{App, PageSize, Snapshot, SnapshotPlace};
use crate::auth::{Principal, RefusalClass};
use crate::clock::Clock;
use crate::domain::{DocumentForm, Right, Scope, limits};

/// Pages that are ready while others are sent.
const PAGES_READY: usize = 1;

/// Opens the stream. What does not allow it to begin is its status.
pub(super) async fn open(
    service: &Service,
    request: Request<proto::SnapshotRequest>,
) -> Result<ReceiverStream<Result<Encoded, Status>>, Status> {
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
    let (sender, receiver) = mpsc::channel(PAGES_READY);
    let stop = service.stop.clone();
    drop(service.streams.spawn("snapshot", async move {
        let _open = open;
        loop {
            let last = next.is_last;
            // Cancel: a page that is not sent is not told of, and the client can go on
            // where it was.
            let sent = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    let _gone = sender.send(Err(status::stopping())).await;
                    return;
                }
                sent = sender.send(Ok(next.message)) => sent,
            };
            if sent.is_err() || last {
                return;
            }
            match reader.next().await {
                Ok(page) => next = page,
                Err(error) => {
                    let _gone = sender.send(Err(error)).await;
                    return;
                }
            }
        }
    }));
    Ok(ReceiverStream::new(receiver))
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
        let ends_at = self.principal.expires_at.saturating_add(EXPIRY_GRACE_SECONDS);
        if self.clock.unix_seconds() >= ends_at {
            return Err(unauthenticated(RefusalClass::Expired));
        }
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
