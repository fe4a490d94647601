//! Answers as one line of text, so that a case of a table can say what it
//! expects.

use syncline::rpc::proto::{Document, MutationOutcome, MutationResult, RejectionReason, document};
use tonic::Status;
use tonic_types::StatusExt;

/// A status: code, reason, metadata, retry, fields at fault.
pub fn describe(status: &Status) -> String {
    let details = status.get_error_details();
    let mut words = vec![format!("{:?}", status.code())];
    if let Some(info) = details.error_info() {
        assert_eq!(info.domain, "syncline.v1");
        words.push(info.reason.clone());
        let mut metadata: Vec<_> =
            info.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
        metadata.sort();
        words.extend(metadata);
    }
    if let Some(retry) = details.retry_info() {
        words.push(format!("retry after {:?}", retry.retry_delay.unwrap_or_default()));
    }
    let fields = details.bad_request().into_iter().flat_map(|it| &it.field_violations);
    words.extend(fields.map(|it| it.field.clone()));
    words.join(" ")
}

/// What became of a mutation: outcome, revision, and what comes with it.
pub fn show(result: &MutationResult) -> String {
    let outcome = match result.outcome() {
        MutationOutcome::Unspecified => panic!("never sent"),
        MutationOutcome::Applied => format!("applied {}", result.revision),
        outcome @ (MutationOutcome::Conflict
        | MutationOutcome::Merged
        | MutationOutcome::Superseded) => {
            let record = result.record.as_ref().expect("it has its record");
            assert_eq!(record.revision, result.revision);
            assert_eq!(record.deleted, record.document.is_none());
            let document = record.document.as_ref().map_or_else(|| "deleted".into(), text);
            let outcome = outcome.as_str_name().trim_start_matches("MUTATION_OUTCOME_");
            format!("{} {} {document}", outcome.to_lowercase(), result.revision)
        }
        MutationOutcome::Rejected => {
            let rejection = result.rejection.as_ref().expect("a rejection has its reason");
            let fields = rejection.violations.iter().map(|it| format!(" {}", it.field));
            format!("rejected {}{}", reason(rejection.reason()), fields.collect::<String>())
        }
    };
    match result.replayed {
        true => format!("{outcome} replayed"),
        false => outcome,
    }
}

/// Why a call failed, for programs; empty if the status does not say.
pub fn error_reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

fn reason(reason: RejectionReason) -> &'static str {
    reason.as_str_name().trim_start_matches("REJECTION_REASON_")
}

/// The JSON text of a document in that form; of the other form only its size.
pub fn text(document: &Document) -> String {
    match document.form.as_ref().expect("a document has a form") {
        document::Form::Json(text) => String::from_utf8(text.to_vec()).unwrap(),
        document::Form::Fields(fields) => format!("struct of {}", fields.fields.len()),
    }
}

/// The same answer, as if it were given for the first time.
pub fn first(mut result: MutationResult) -> MutationResult {
    assert!(std::mem::take(&mut result.replayed), "not marked as replayed: {result:?}");
    result
}
