//! Exchange: a whole sync in one call.

use prost::Message;
use tonic::{Request, Status};

use super::caller::{device_of, of_caller};
use super::encoded::Encoded;
use super::page::PageBuilder;
use super::service::Service;
use super::{from_proto, proto, status, to_proto};
use crate::app::Reading;
use crate::domain::{Change, DocumentForm, Filter, Revision, Right, Sight, limits};

pub(super) async fn exchange(
    service: &Service,
    request: Request<proto::ExchangeRequest>,
) -> Result<Encoded, Status> {
    let writes = !request.get_ref().mutations.is_empty();
    let right = if writes { Right::Write } else { Right::Read };
    let (principal, access) = service.access(&request, &request.get_ref().space, right).await?;
    let wire = request.into_inner();
    let device = device_of(&principal, &wire.device)?;
    let form = from_proto::document_form(wire.document_form).map_err(status::invalid)?;
    let cursor = from_proto::cursor(wire.cursor.as_ref()).map_err(status::invalid)?;
    let scope = from_proto::scope(&wire.collections, &wire.keys).map_err(status::invalid)?;
    let scope = service.within(&principal, &access, access.scope(scope))?;
    let echo = from_proto::echo(wire.echo).map_err(status::invalid)?;
    let entries_max = from_proto::page_size(wire.page_size).map_err(status::invalid)?;
    let space = access.space.clone();
    let request = if writes {
        let mutations = from_proto::mutations(&wire.mutations, device.as_ref(), wire.atomic);
        let mutations = mutations.map_err(status::invalid)?;
        let (_space, request) =
            of_caller(&principal, access, device.clone(), wire.atomic, mutations);
        Some(request)
    } else {
        None
    };
    let user = principal.caller.user;
    let bytes = wire.encoded_len();
    drop(wire);
    let filter = Filter { scope: scope.clone(), reader: device.map(|device| (user, device)), echo };
    let bytes_max = limits::PAGE_DOCUMENT_BYTES_MAX;
    let reading = Reading { space, cursor, scope, every_step: false, entries_max, bytes_max };
    let reader = filter.reader.as_ref();
    let (results, page) = service.app.exchange(request, bytes, reading, reader).await?;

    let at = page.space;
    let mut rest = proto::ExchangeResponse {
        changes: Vec::new(),
        results: to_proto::results(&results, form),
        cursor: None,
        has_more: false,
        head: at.head.get(),
        floor: at.floor.get(),
    };
    let mut builder = PageBuilder::beside(rest.encoded_len());
    let up_to = show(&mut builder, &page.changes, &filter, cursor.revision, form);
    let up_to = up_to.unwrap_or(page.up_to);
    rest.cursor = Some(to_proto::cursor(at.epoch, up_to));
    rest.has_more = up_to < at.head;
    Ok(builder.finish(&rest))
}

/// Puts changes in, as far as there is room; up to where, if that is not all.
fn show(
    builder: &mut PageBuilder,
    changes: &[std::sync::Arc<Change>],
    filter: &Filter,
    cursor: Revision,
    form: DocumentForm,
) -> Option<Revision> {
    // The cursor may come from the middle of a catch-up, whose pages left out what a
    // later change hid: nobody knows where that one began.
    let since = (cursor > Revision::ZERO).then_some(Revision::ZERO);
    let mut before = cursor;
    for change in changes {
        let entry = match filter.sight_coalesced(change, since) {
            Sight::Not => None,
            Sight::Whole => Some(to_proto::change_entry(change, form)),
            Sight::Marked => Some(to_proto::marked_entry(change)),
        };
        if entry.is_some_and(|entry| !builder.push(&entry)) {
            return Some(before);
        }
        before = change.revision;
    }
    None
}
