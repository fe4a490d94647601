//! `syncline conflicts`: the conflict log, page by page, the latest first.

use super::output::{Columns, safe};
use super::records::table;
use super::{Session, failed, shown};
use crate::client::remote::time;
use crate::config::{ConflictsConfig, State};
use crate::exit::Failure;
use crate::rpc::proto::{Conflict, ConflictState, DocumentForm, ListConflictsRequest};

pub(super) async fn run(session: &Session, config: ConflictsConfig) -> Result<(), Failure> {
    let state = match config.state {
        State::Open => ConflictState::Open,
        State::Resolved => ConflictState::Resolved,
        State::Superseded => ConflictState::Superseded,
        State::Any => ConflictState::Unspecified,
    };
    let mut page_token = String::new();
    let mut columns = Columns::default();
    let mut is_first = true;
    loop {
        let request = ListConflictsRequest {
            space: session.space(),
            state: state.into(),
            collection: config.collection.clone().unwrap_or_default(),
            device: session.device(),
            page_token,
            document_form: DocumentForm::Json.into(),
            ..Default::default()
        };
        let answer = session.remote.conflicts().list_conflicts(request).await;
        let answer = answer.map_err(|status| failed("cannot list the conflicts", status))?;
        let page = answer.into_inner();
        if session.json() {
            let mut values = page.conflicts.iter().map(shown::conflict);
            values.try_for_each(|value| session.out.say_json(&value))?;
        } else {
            let rows: Vec<_> = page.conflicts.iter().map(row).collect();
            let head = ["CONFLICT", "RECORD", "STATE", "RELATION", "FOUND", "PATHS"];
            table(session.out, &head, &rows, &mut columns, is_first)?;
        }
        is_first = false;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(());
        }
    }
}

fn row(conflict: &Conflict) -> Vec<String> {
    vec![
        safe(&conflict.id),
        shown::key(conflict.key.as_ref()),
        shown::state(conflict),
        shown::relation(conflict),
        shown::when(time(conflict.create_time.as_ref())),
        safe(&conflict.paths.join(" ")),
    ]
}
