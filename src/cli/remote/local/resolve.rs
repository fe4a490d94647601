//! `conflicts` and `resolve` on a local file: what is open is known here; it is decided on the
//! server, for everybody, by who has seen what the server has.

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Local, WAIT, failed};
use crate::cli::remote::output::{Columns, note, safe};
use crate::cli::remote::records::table;
use crate::cli::remote::{Session, resolve, shown, usage};
use crate::client::{Conflict, Error, Side};
use crate::config::{ConflictsConfig, ConnectionConfig, ResolveConfig, State};
use crate::exit::{Exit, Failure};

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
        return found.iter().try_for_each(|it| local.out.say_json(&as_json(it)));
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

/// As a server's conflicts are told, with what a file knows of them.
fn as_json(it: &Conflict) -> Value {
    let mut value = json!({
        "conflict_id": it.id,
        "collection": it.collection,
        "id": it.record,
        "state": "open",
        "paths": it.paths,
        "theirs": side(&it.server),
        "mine": side(&it.client),
    });
    if let (Some(base), Some(object)) = (&it.base, value.as_object_mut()) {
        object.insert("base".into(), base.clone());
    }
    value
}

fn side(side: &Side) -> Value {
    let document = side.document.clone().unwrap_or_default();
    shown::side_of(side.deleted, document, (&side.author, &side.device), side.revision)
}

pub(super) async fn run(
    local: &Local,
    mut connection: ConnectionConfig,
    config: ResolveConfig,
) -> Result<Exit, Failure> {
    if !local.syncs {
        let what = format!("cannot resolve the conflict {}", safe(&config.conflict_id));
        return Err(failed(what, Error::NoServer));
    }
    local.space.name().clone_into(&mut connection.space);
    connection.device = local.client.device();
    let session = Session::open(connection, local.out)?;
    let conflict = config.conflict_id.clone();
    let ended = resolve::run(&session, config).await?;
    if ended == Exit::Success {
        let heard = timeout(local.wait.unwrap_or(WAIT), closed(local, &conflict)).await;
        if heard.is_err() {
            note("the local file hears of it later");
        }
    }
    Ok(ended)
}

/// Waits until the file does not have it open any more.
async fn closed(local: &Local, conflict: &str) {
    let mut statuses = local.client.watch_status();
    while let Some(Ok(_)) = statuses.next().await {
        let open = local.space.conflicts().await.unwrap_or_default();
        if !open.iter().any(|it| it.id == conflict) {
            break;
        }
    }
}
