//! `syncline put`: one mutation, and what became of it.

use std::io::{self, IsTerminal};

use anyhow::anyhow;
use uuid::Uuid;

use super::output::{Output, Style, safe};
use super::{Session, argument_or_stdin, ends, failed, incomplete, shown, typed_document, usage};
use crate::client::remote::document;
use crate::config::{Number, PutConfig};
use crate::exit::{Exit, Failure};
use crate::rpc::proto::mutation::Operation;
use crate::rpc::proto::{
    self, CreateOperation, DocumentForm, FieldTransform, MutateRequest, Mutation, MutationOutcome,
    MutationResult, PatchOperation, PutOperation, RecordKey, RejectionReason,
    field_transform::Transform, number,
};

pub(super) async fn run(session: &Session, config: PutConfig) -> Result<Exit, Failure> {
    let key = RecordKey { collection: config.collection.clone(), id: config.id.clone() };
    let base = config.base;
    let operation = operation(config)?;
    let mutation = Mutation {
        id: Uuid::now_v7().to_string(),
        key: Some(key.clone()),
        operation: Some(operation),
        base,
        ..Default::default()
    };
    let result = mutate(session, mutation).await?;
    print_result(session, &result, &key)?;
    end(&result, "the write")
}

/// Sends one mutation.
pub(super) async fn mutate(
    session: &Session,
    mutation: Mutation,
) -> Result<MutationResult, Failure> {
    let what = format!("cannot write {}", shown::key(mutation.key.as_ref()));
    let request = MutateRequest {
        space: session.space(),
        device: session.device(),
        mutation: Some(mutation),
        document_form: DocumentForm::Json.into(),
    };
    let answer = session.remote.sync().mutate(request).await;
    let answer = answer.map_err(|status| failed(what, status))?.into_inner();
    answer.result.ok_or_else(incomplete)
}

/// Whether what is there is to be changed, and not replaced.
pub(super) fn is_patch(config: &PutConfig) -> bool {
    config.patch || !config.increment.is_empty() || !config.unset.is_empty()
}

/// The document that was given; None where there need not be one.
pub(super) fn given(config: &PutConfig) -> Result<Option<String>, Failure> {
    let is_whole =
        !is_patch(config) || config.patch && config.increment.is_empty() && config.unset.is_empty();
    let text = match &config.document {
        Some(given) => argument_or_stdin(given)?,
        // With increments and the like there need not be anything else.
        None if !is_whole => return Ok(None),
        None if io::stdin().is_terminal() => {
            return Err(usage("there is no document: give a JSON object, or pipe one in"));
        }
        None => argument_or_stdin("-")?,
    };
    typed_document(&text).map(Some)
}

fn operation(config: PutConfig) -> Result<Operation, Failure> {
    let given = given(&config)?.map(document);
    if config.if_new {
        return Ok(Operation::Create(CreateOperation { document: given }));
    }
    if !is_patch(&config) {
        return Ok(Operation::Put(PutOperation { document: given }));
    }
    let transform = |it: crate::config::Increment| {
        let value = match it.by {
            Number::Integer(integer) => number::Value::Integer(integer),
            Number::Real(real) => number::Value::Real(real),
        };
        let by = proto::Number { value: Some(value) };
        FieldTransform { path: it.path, transform: Some(Transform::Increment(by)) }
    };
    let transforms = config.increment.into_iter().map(transform).collect();
    Ok(Operation::Patch(PatchOperation { set: given, unset: config.unset, transforms }))
}

/// Prints what became of a mutation.
pub(super) fn print_result(
    session: &Session,
    result: &MutationResult,
    key: &RecordKey,
) -> Result<(), Failure> {
    if session.json() {
        return session.out.say_json(&shown::result(result, key));
    }
    session.out.say(&line(session.out, result, key))
}

fn line(out: Output, result: &MutationResult, key: &RecordKey) -> String {
    let outcome = shown::outcome(result);
    let style = match result.outcome() {
        MutationOutcome::Applied => Style::Good,
        MutationOutcome::Merged | MutationOutcome::Superseded => Style::Careful,
        _ => Style::Bad,
    };
    let reason = result.rejection.as_ref().map(|it| shown::rejection_reason(it.reason()));
    let key = shown::key(Some(key));
    let mut line = shown::outcome_line(out, (&outcome, style), &key, reason, result.revision);
    if let (MutationOutcome::Conflict, Some(conflict)) = (result.outcome(), &result.conflict) {
        line.push_str(&format!("  conflict {}", safe(&conflict.id)));
    }
    if result.replayed {
        line.push_str("  replayed");
    }
    line
}

/// How the program ends after such an answer.
pub(super) fn end(result: &MutationResult, what: &str) -> Result<Exit, Failure> {
    let refused = |error| Failure::new(Exit::Refused, error);
    match result.outcome() {
        MutationOutcome::Applied => Ok(Exit::Success),
        MutationOutcome::Merged => {
            ends::note_merged();
            Ok(Exit::Success)
        }
        MutationOutcome::Superseded => {
            ends::note_superseded();
            Ok(Exit::Success)
        }
        MutationOutcome::Conflict => {
            let id = result.conflict.as_ref().map(|it| safe(&it.id)).unwrap_or_default();
            let error = anyhow!("{what} met a conflict, and changed nothing");
            Err(refused(error).hint(format!("syncline resolve {id}")))
        }
        MutationOutcome::Rejected => Err(rejected(result, what)),
        MutationOutcome::Unspecified => Err(incomplete()),
    }
}

fn rejected(result: &MutationResult, what: &str) -> Failure {
    let Some(rejection) = &result.rejection else { return incomplete() };
    let reason = rejection.reason();
    let name = shown::rejection_reason(reason);
    let violations = shown::violations(&rejection.violations);
    let what = format!("{what} was rejected");
    let failure = ends::rejected(what, name, &rejection.message, violations);
    match reason {
        RejectionReason::AlreadyExists => failure.hint("leave out --if-new to replace it"),
        RejectionReason::NotFound => failure.hint("`syncline ls COLLECTION` lists what is there"),
        RejectionReason::RecordGone => {
            failure.hint("it may have been deleted: put it without --base to make it anew")
        }
        RejectionReason::RecordChanged => failure.hint(
            "somebody has written the record since it was shown: look at it again, then decide",
        ),
        RejectionReason::ConflictClosed => {
            failure.hint("nothing is left to decide; `syncline conflicts` lists what is open")
        }
        _ => failure,
    }
}
