//! `conflicts` and `resolve` on a local file: what is open is known here; it is decided on the
//! server, for everybody.

use anyhow::anyhow;
use serde_json::{Value, json};

use super::{Local, failed};
use crate::cli::remote::output::{Columns, Style, safe, say};
use crate::cli::remote::records::table;
use crate::cli::remote::resolve::{Sides, chosen};
use crate::cli::remote::{incomplete, shown, usage};
use crate::client::remote::json_text;
use crate::client::{Conflict, Error, Resolution, Side};
use crate::config::{ConflictsConfig, ResolveConfig, State};
use crate::exit::{Exit, Failure};
use crate::rpc::proto::resolve_conflict_request::Resolution as Wire;

pub(super) async fn list(local: &Local, config: ConflictsConfig) -> Result<(), Failure> {
    if config.state != State::Open {
        return Err(usage("--state is for a server; a local file has what is open"));
    }
    let found = local.space.conflicts().await;
    let mut found = found.map_err(|error| failed("cannot list the conflicts", error))?;
    if let Some(collection) = &config.collection {
        found.retain(|it| it.collection == *collection);
    }
    if local.json {
        return found.iter().try_for_each(|it| say(&as_json(it).to_string()));
    }
    let row = |it: &Conflict| {
        vec![
            safe(&it.id),
            safe(&format!("{}/{}", it.collection, it.record)),
            shown::who(&it.client.author, &it.client.device),
            safe(&it.paths.join(" ")),
        ]
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    let head = ["CONFLICT", "RECORD", "BY", "PATHS"];
    table(local.out, &head, &rows, &mut Columns::default(), true)
}

fn as_json(it: &Conflict) -> Value {
    let side = |side: &Side| {
        json!({
            "document": side.document,
            "deleted": side.deleted,
            "author": side.author,
            "device": side.device,
            "revision": side.revision,
        })
    };
    json!({
        "conflict_id": it.id,
        "collection": it.collection,
        "id": it.record,
        "paths": it.paths,
        "base": it.base,
        "server": side(&it.server),
        "client": side(&it.client),
    })
}

pub(super) async fn run(local: &Local, config: ResolveConfig) -> Result<Exit, Failure> {
    if config.strategy.is_some() {
        return Err(usage("--strategy is for a server: leave out --store"));
    }
    let what = format!("cannot resolve the conflict {}", safe(&config.conflict_id));
    let found = local.space.conflicts().await.map_err(|error| failed(&what, error))?;
    let conflict = found.into_iter().find(|it| it.id == config.conflict_id);
    let conflict = conflict.ok_or_else(|| failed(&what, Error::NoConflict))?;
    let sides = Sides {
        base: conflict.base.clone(),
        theirs: conflict.server.document.clone(),
        mine: conflict.client.document.clone(),
    };
    let key = safe(&format!("{}/{}", conflict.collection, conflict.record));
    let by = |side: &Side| shown::who(&side.author, &side.device);
    let about = vec![
        format!("Conflict {} of {key}", safe(&conflict.id)),
        format!("theirs: the record, by {}", by(&conflict.server)),
        format!("mine: what came, by {}", by(&conflict.client)),
    ];
    let resolution = match chosen(&config, sides, about).await? {
        None => return Ok(Exit::Failure),
        Some(Wire::KeepClient(_)) => Resolution::KeepClient,
        Some(Wire::KeepServer(_)) => Resolution::KeepServer,
        Some(Wire::Document(document)) => {
            let text = json_text(&document).ok_or_else(incomplete)?;
            Resolution::Document(serde_json::from_str(text).map_err(|error| anyhow!(error))?)
        }
        Some(Wire::Strategy(_)) => return Err(incomplete()),
    };
    let resolved = local.space.resolve(&conflict.id, resolution).await;
    resolved.map_err(|error| failed(&what, error))?;
    if local.json {
        let value = json!({
            "outcome": "applied",
            "collection": conflict.collection,
            "id": conflict.record,
            "conflict_id": conflict.id,
        });
        say(&value.to_string())?;
    } else {
        say(&format!("{}  {key}", local.out.paint(Style::Good, "resolved")))?;
    }
    Ok(Exit::Success)
}
