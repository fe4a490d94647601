//! `syncline resolve`: settles an open conflict, as the flags say or as a person decides. What is
//! sent says which revision was looked at, so that nobody decides about what they have not seen.

mod ask;
mod draft;
mod sides;

use std::io::{self, IsTerminal, stderr};

use serde_json::json;
use uuid::Uuid;

use self::ask::{Choice, Draft};
use self::sides::Sides;
use super::output::{Output, Style, note, safe};
use super::{Session, argument_or_stdin, failed, incomplete, put, shown, typed_document, usage};
use crate::client::remote::document;
use crate::config::{ResolveConfig, Side};
use crate::exit::{Exit, Failure};
use crate::rpc::proto::resolve_conflict_request::Resolution;
use crate::rpc::proto::{
    Conflict, ConflictState, DocumentForm, GetConflictRequest, KeepClient, KeepServer,
    MutationOutcome, Record, ResolveConflictRequest, Strategy,
};

pub(super) async fn run(session: &Session, config: ResolveConfig) -> Result<Exit, Failure> {
    let request = GetConflictRequest {
        space: session.space(),
        conflict_id: config.conflict_id.clone(),
        document_form: DocumentForm::Json.into(),
    };
    let what = format!("cannot read the conflict {}", safe(&config.conflict_id));
    let answer = session.remote.conflicts().get_conflict(request).await;
    let answer = answer.map_err(|status| failed(what, status))?.into_inner();
    let conflict = answer.conflict.ok_or_else(incomplete)?;
    let record = answer.record.ok_or_else(incomplete)?;
    if conflict.state() != ConflictState::Open {
        let error = anyhow::anyhow!("the conflict is {}", shown::state(&conflict));
        let hint = "nothing is left to decide; `syncline conflicts` lists what is open";
        return Err(Failure::new(Exit::Refused, error).hint(hint));
    }
    let (sides, about) = (sides(&conflict, &record), about(&conflict, &record));
    let Some(decided) = chosen(&config, sides, about).await? else {
        return Ok(Exit::Failure);
    };
    let ended = resolve(session, &conflict, record.revision, decided.resolution).await;
    match (ended, decided.draft) {
        // What somebody has worked on is not lost with a call.
        (Err(failure), Some(draft)) => {
            note(&format!("what you have made of it is in {}", draft.keep().display()));
            Err(failure)
        }
        (ended, _) => ended,
    }
}

/// What is to become of a conflict.
struct Decided {
    resolution: Resolution,
    /// The file that was edited, if one was.
    draft: Option<Draft>,
}

impl From<Resolution> for Decided {
    fn from(resolution: Resolution) -> Self {
        Self { resolution, draft: None }
    }
}

/// What the flags say, or a person; None if nothing was decided.
async fn chosen(
    config: &ResolveConfig,
    sides: Sides,
    about: Vec<String>,
) -> Result<Option<Decided>, Failure> {
    if let Some(resolution) = given(config)? {
        return Ok(Some(resolution.into()));
    }
    let is_asked = !config.edit;
    if is_asked && !(io::stdin().is_terminal() && stderr().is_terminal()) {
        return Err(usage("nobody can be asked: say --keep, --document, --edit or --strategy"));
    }
    // Waits for a person, which must not hold up the connection.
    let asked = move || by_person(&sides, &about, is_asked);
    let decided = tokio::task::spawn_blocking(asked).await??;
    if decided.is_none() {
        note("nothing was decided; the conflict stays open");
    }
    Ok(decided)
}

/// What the flags say, if they do.
fn given(config: &ResolveConfig) -> Result<Option<Resolution>, Failure> {
    Ok(match (config.keep, &config.document, &config.strategy) {
        (Some(side), ..) => Some(keep(side)),
        (_, Some(text), _) => {
            let text = typed_document(&argument_or_stdin(text)?)?;
            Some(Resolution::Document(document(text)))
        }
        (.., Some(name)) => {
            let name = format!("STRATEGY_{}", name.to_ascii_uppercase());
            let strategy = Strategy::from_str_name(&name);
            let strategy = strategy.ok_or_else(|| usage("there is no such strategy"))?;
            Some(Resolution::Strategy(strategy.into()))
        }
        (None, None, None) => None,
    })
}

fn keep(side: Side) -> Resolution {
    match side {
        Side::Mine => Resolution::KeepClient(KeepClient {}),
        Side::Theirs => Resolution::KeepServer(KeepServer {}),
    }
}

fn sides(conflict: &Conflict, record: &Record) -> Sides {
    let value = |document| Some(shown::value(document)).filter(|value| !value.is_null());
    let base = conflict.base.as_ref().filter(|_| conflict.base_known);
    Sides {
        base: value(base),
        // The record may have been written since the conflict was found; it is what would be lost.
        theirs: value(record.document.as_ref()),
        mine: value(conflict.client.as_ref().and_then(|side| side.document.as_ref())),
    }
}

/// What there is to say above the sides.
fn about(conflict: &Conflict, record: &Record) -> Vec<String> {
    let client = conflict.client.clone().unwrap_or_default();
    let deleted = |is_deleted| if is_deleted { ", deleted" } else { "" };
    let mut lines = vec![
        format!("Conflict {} of {}", safe(&conflict.id), shown::key(conflict.key.as_ref())),
        format!(
            "theirs: the record at revision {}, by {}{}",
            record.revision,
            shown::who(&record.author, &record.device),
            deleted(record.deleted)
        ),
        format!(
            "mine: what came, by {}{}",
            shown::who(&client.author, &client.device),
            deleted(client.deleted)
        ),
    ];
    if !conflict.base_known {
        lines.push("base: no longer known".to_owned());
    }
    lines
}

fn by_person(sides: &Sides, about: &[String], is_asked: bool) -> Result<Option<Decided>, Failure> {
    let (mut input, mut said) = (io::stdin().lock(), stderr());
    if is_asked {
        let out = Output::on_stderr();
        for line in about {
            note(&out.paint(Style::Faint, line));
        }
        note(&ask::shown(out, sides));
        match ask::choose(&mut input, &mut said)? {
            Choice::Keep(side) => return Ok(Some(keep(side).into())),
            Choice::Leave => return Ok(None),
            Choice::Edit => {}
        }
    }
    let mut remarks = about.to_vec();
    remarks.push("Where both changed the same, keep one of the marked parts.".to_owned());
    remarks.push("Lines that begin with // are left out.".to_owned());
    remarks.push("Empty the file to leave the conflict open.".to_owned());
    let edited = ask::edit(&draft::write(sides, &remarks), &mut input, &mut said)?;
    Ok(edited.map(|it| Decided {
        resolution: Resolution::Document(document(it.document)),
        draft: Some(it.file),
    }))
}

async fn resolve(
    session: &Session,
    conflict: &Conflict,
    seen_revision: i64,
    resolution: Resolution,
) -> Result<Exit, Failure> {
    let request = ResolveConflictRequest {
        space: session.space(),
        device: session.device(),
        mutation_id: Uuid::now_v7().to_string(),
        conflict_id: conflict.id.clone(),
        seen_revision,
        resolution: Some(resolution),
        document_form: DocumentForm::Json.into(),
    };
    let answer = session.remote.conflicts().resolve_conflict(request).await;
    let answer = answer.map_err(|status| failed("cannot resolve the conflict", status))?;
    let result = answer.into_inner().result.ok_or_else(incomplete)?;
    let key = conflict.key.clone().unwrap_or_default();
    if session.json() {
        let mut value = shown::result(&result, &key);
        if let Some(object) = value.as_object_mut() {
            object.insert("conflict_id".into(), json!(conflict.id));
        }
        session.out.say_json(&value)?;
    } else if result.outcome() == MutationOutcome::Applied {
        let resolved = session.out.paint(Style::Good, "resolved");
        let key = shown::key(Some(&key));
        session.out.say(&format!("{resolved}  {key}  revision {}", result.revision))?;
    } else {
        put::print_result(session, &result, &key)?;
    }
    put::end(&result, "the resolution")
}
