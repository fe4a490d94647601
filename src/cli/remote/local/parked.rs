//! `parked`, `retry` and `discard`: edits that were refused, and what is done with them.

use serde_json::json;

use super::outcome::{self, Asked, rejection};
use super::{Local, failed};
use crate::cli::remote::ends::First;
use crate::cli::remote::output::{Columns, safe};
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
            local.out.say_json(&value)
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
    let (mut asked, mut first) = (Vec::new(), First::new(local.json));
    for edit in config.edits {
        match again(local, &edit).await {
            Ok(it) => asked.push(it),
            Err(error) => {
                first.add(Err(failed(format!("cannot queue {} again", safe(&edit)), error)));
            }
        }
    }
    outcome::tell(local, asked, first).await
}

async fn again(local: &Local, edit: &str) -> Result<Asked, Error> {
    let found = local.space.outcome(edit).await?.ok_or(Error::NotParked)?;
    let edit = local.space.retry(edit, None).await?;
    Ok(Asked { edit, collection: found.collection, id: found.record })
}

pub(super) async fn discard(local: &Local, config: ParkedConfig) -> Result<Exit, Failure> {
    let mut first = First::new(local.json);
    for edit in config.edits {
        if let Err(error) = local.space.discard(&edit).await {
            first.add(Err(failed(format!("cannot discard {}", safe(&edit)), error)));
            continue;
        }
        match local.json {
            true => local.out.say_json(&json!({"edit": edit, "outcome": "discarded"}))?,
            false => local.out.say(&format!("discarded  {}", safe(&edit)))?,
        }
    }
    first.end()
}
