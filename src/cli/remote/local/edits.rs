//! `put` and `rm` on a local file: durable at once, then a moment's wait for the server.

use serde_json::{Number as JsonNumber, Value};

use super::outcome::{self, Asked};
use super::{Local, failed};
use crate::cli::remote::ends::First;
use crate::cli::remote::output::safe;
use crate::cli::remote::{put, usage};
use crate::client::{Error, Patch};
use crate::config::{Increment, Number, PutConfig, RmConfig};
use crate::exit::{Exit, Failure};

pub(super) async fn put(local: &Local, config: PutConfig) -> Result<Exit, Failure> {
    if config.base.is_some() {
        return Err(usage("--base is for a server; a local file knows what was seen"));
    }
    let given = put::given(&config)?;
    let fields = || match &given {
        // It was looked at: it is an object.
        Some(text) => serde_json::from_str::<Value>(text).unwrap_or_default(),
        None => Value::Object(serde_json::Map::new()),
    };
    let (collection, id) = (config.collection.as_str(), config.id.as_str());
    let space = &local.space;
    let edit = if config.if_new {
        space.create(collection, id, fields()).await
    } else if put::is_patch(&config) {
        match patch(fields(), &config.increment, &config.unset) {
            Ok(patch) => space.patch(collection, id, patch).await,
            Err(error) => Err(error),
        }
    } else {
        space.put(collection, id, fields()).await
    };
    let what = format!("cannot write {}", safe(&format!("{collection}/{id}")));
    let edit = edit.map_err(|error| failed(what, error))?;
    let asked = Asked { edit, collection: collection.to_owned(), id: id.to_owned() };
    outcome::tell(local, vec![asked], First::new(local.json)).await
}

/// A patch as flags or lines have it.
pub(super) fn patch(
    fields: Value,
    increments: &[Increment],
    unset: &[String],
) -> Result<Patch, Error> {
    let mut patch = Patch::merge(fields)?;
    for path in unset {
        patch = patch.unset(path)?;
    }
    for Increment { path, by } in increments {
        let by = match *by {
            Number::Integer(integer) => Some(JsonNumber::from(integer)),
            Number::Real(real) => JsonNumber::from_f64(real),
        };
        let by = by.ok_or_else(|| Error::Invalid(format!("the number at {path} is none")))?;
        patch = patch.increment(path, by)?;
    }
    Ok(patch)
}

pub(super) async fn rm(local: &Local, config: RmConfig) -> Result<Exit, Failure> {
    let (mut asked, mut first) = (Vec::new(), First::new(local.json));
    for id in config.ids {
        let collection = config.collection.clone();
        let what = format!("cannot delete {}", safe(&format!("{collection}/{id}")));
        match local.space.delete(&collection, &id).await {
            Ok(edit) => asked.push(Asked { edit, collection, id }),
            Err(error) => first.add(Err(failed(what, error))),
        }
    }
    outcome::tell(local, asked, first).await
}
