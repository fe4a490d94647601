//! `parked`, `retry` and `discard`: edits that were refused, and what is done with them.

use serde_json::json;

use super::outcome::{self, Asked, rejection};
use super::{Local, failed};
use crate::cli::remote::output::{Columns, safe, say};
use crate::cli::remote::records::table;
use crate::client::{Error, Outcome};
use crate::config::ParkedConfig;
use crate::exit::{Exit, Failure};

pub(super) async fn list(local: &Local) -> Result<(), Failure> {
    let found = local.space.parked().await;
    let found = found.map_err(|error| failed("cannot list what was refused", error))?;
    if local.json {
        return found.iter().try_for_each(|it| {
            let value = json!({
                "edit": it.id,
                "collection": it.collection,
                "id": it.record,
                "op": operation(it),
                "rejection": it.trouble.as_ref().map(rejection),
            });
            say(&value.to_string())
        });
    }
    let row = |it: &Outcome| {
        let trouble = it.trouble.clone().unwrap_or_default();
        vec![
            safe(&it.id),
            safe(&format!("{}/{}", it.collection, it.record)),
            operation(it).to_owned(),
            safe(&trouble.reason),
            safe(&trouble.message),
        ]
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    let head = ["EDIT", "RECORD", "OP", "REASON", "MESSAGE"];
    table(local.out, &head, &rows, &mut Columns::default(), true)
}

fn operation(it: &Outcome) -> &'static str {
    it.edit.as_ref().map_or("-", crate::client::Edit::name)
}

pub(super) async fn retry(local: &Local, config: ParkedConfig) -> Result<Exit, Failure> {
    let mut asked = Vec::new();
    for edit in config.edits {
        let what = format!("cannot queue {} again", safe(&edit));
        let found = local.space.outcome(&edit).await;
        let found = found.and_then(|found| found.ok_or(Error::NotParked));
        let found = found.map_err(|error| failed(&what, error))?;
        let again = local.space.retry(&edit, None).await;
        let edit = again.map_err(|error| failed(what, error))?;
        asked.push(Asked { edit, collection: found.collection, id: found.record });
    }
    outcome::tell(local, asked).await
}

pub(super) async fn discard(local: &Local, config: ParkedConfig) -> Result<(), Failure> {
    for edit in config.edits {
        let what = format!("cannot discard {}", safe(&edit));
        local.space.discard(&edit).await.map_err(|error| failed(what, error))?;
        match local.json {
            true => say(&json!({"edit": edit, "outcome": "discarded"}).to_string())?,
            false => say(&format!("discarded  {}", safe(&edit)))?,
        }
    }
    Ok(())
}
