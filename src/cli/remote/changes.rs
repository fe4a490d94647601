//! `syncline changes`: what changed after a cursor, page by page, and the cursor to go on from.

use serde_json::json;

use super::output::safe;
use super::{PAGE_SIZE_MAX, Session, failed, incomplete, shown};
use crate::config::ChangesConfig;
use crate::exit::Failure;
use crate::rpc::proto::{ChangesSinceRequest, Cursor, DocumentForm};

pub(super) async fn run(session: &Session, config: ChangesConfig) -> Result<(), Failure> {
    let mut left = config.limit.unwrap_or(usize::MAX);
    let since = config.since;
    let mut cursor = since.map(|it| Cursor { epoch: it.epoch, revision: it.revision });
    loop {
        let page_size = left.min(PAGE_SIZE_MAX);
        let request = ChangesSinceRequest {
            space: session.space(),
            cursor,
            collections: config.collections.clone(),
            page_size: i32::try_from(page_size).unwrap_or_default(),
            every_step: config.every_step,
            document_form: DocumentForm::Json.into(),
            ..Default::default()
        };
        let answer = session.remote.sync().changes_since(request).await;
        let answer = answer.map_err(|status| failed("cannot read the changes", status))?;
        let page = answer.into_inner();
        let reached = page.cursor.ok_or_else(incomplete)?;
        for change in &page.changes {
            match session.json() {
                true => session.out.say_json(&shown::change(change, &reached.epoch))?,
                false => session.out.say(&shown::change_line(session.out, change))?,
            }
        }
        left = left.saturating_sub(page.changes.len());
        if !page.has_more || left == 0 {
            let at = format!("{}:{}", reached.epoch, reached.revision);
            let end = json!({"type": "cursor", "cursor": at, "has_more": page.has_more});
            return match session.json() {
                true => session.out.say_json(&end),
                false => session.out.say(&format!("cursor  {}", safe(&at))),
            };
        }
        cursor = Some(reached);
    }
}
