//! How a command ends because of what has failed: one table of exit codes for servers and local
//! files, what is told to people, and the same for programs. Must not know what a command does.

use std::fmt::Display;
use std::io::{self, Write};

use anyhow::anyhow;
use serde_json::{Value, json};

use super::output::note;
use crate::client::remote::{Code, Fault, Violation};
use crate::exit::{Exit, Failure};

/// For a call that has failed with this code.
pub(super) fn exit_of(code: Code) -> Exit {
    match code {
        Code::Unavailable | Code::DeadlineExceeded => Exit::Unreachable,
        Code::Unauthenticated => Exit::Token,
        Code::NotFound => Exit::NotFound,
        Code::InvalidArgument
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange => Exit::Refused,
        _ => Exit::Failure,
    }
}

/// For a write that was rejected for this reason.
pub(super) fn exit_of_reason(reason: &str) -> Exit {
    match reason {
        "NOT_FOUND" => Exit::NotFound,
        _ => Exit::Refused,
    }
}

/// How the program ends because of a failed call.
pub(super) fn failed(what: impl Display, fault: impl Into<Fault>) -> Failure {
    let fault = fault.into();
    let exit = exit_of(fault.code);
    let mut hint = fault.hint().map(str::to_owned);
    if let (Code::Unavailable, "", Some(hint)) = (fault.code, fault.reason.as_str(), &mut hint) {
        hint.push_str("; `syncline doctor` looks closer");
    }
    let failure = Failure::new(exit, anyhow::Error::new(fault).context(what.to_string()));
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// How it ends because of a write that was rejected.
pub(super) fn rejected(
    what: impl Display,
    reason: &str,
    message: &str,
    violations: Vec<Violation>,
) -> Failure {
    let fault = Fault {
        reason: reason.to_owned(),
        violations,
        ..Fault::of(Code::FailedPrecondition, message.to_owned())
    };
    let error = anyhow::Error::new(fault).context(what.to_string());
    Failure::new(exit_of_reason(reason), error)
}

/// Whose write was joined with another's, or gave way to it, is told so; neither is a failure.
pub(super) fn note_merged() {
    note("another device had written meanwhile; the record is now something of both");
}

pub(super) fn note_superseded() {
    note("another device had written meanwhile, and its policy kept that; yours is logged");
}

pub(super) fn no_token() -> Failure {
    let hint = "give --token-file, or SYNCLINE_TOKEN in the environment; beside `syncline dev`, its \
                own token is found where it runs";
    Failure::new(Exit::Token, anyhow!("there is no token")).hint(hint)
}

/// A command that makes no sense as it was given.
pub(super) fn usage(reason: impl Display) -> Failure {
    Failure::new(Exit::Usage, anyhow!("{reason}"))
}

/// A file that cannot be used.
pub(super) fn unusable(what: impl Display, error: io::Error) -> Failure {
    Failure::new(Exit::Usage, anyhow!(error).context(what.to_string()))
}

/// An answer without what it always has.
pub(super) fn incomplete() -> Failure {
    Failure::from(anyhow!("the server's answer is not complete"))
        .hint("the server may be newer than this program")
}

/// Tells of a failure, and gives the code to end with.
pub(super) fn tell(failure: &Failure, json: bool) -> Exit {
    if !json {
        return failure.report();
    }
    // With stderr gone there is nobody to tell.
    writeln!(io::stderr(), "{}", as_json(failure)).ok();
    failure.exit
}

fn as_json(failure: &Failure) -> Value {
    let fault = failure.error.downcast_ref::<Fault>();
    let violations = fault.map(|it| it.violations.as_slice()).unwrap_or_default();
    json!({
        "error": failure.told(),
        "reason": fault.map(|it| it.reason.as_str()).filter(|reason| !reason.is_empty()),
        "exit": failure.exit as u8,
        "hint": failure.hint,
        "violations": violations_json(violations),
    })
}

/// Fields that break a rule, for programs.
pub(super) fn violations_json(violations: &[Violation]) -> Vec<Value> {
    let value = |it: &Violation| json!({"field": it.field, "description": it.description});
    violations.iter().map(value).collect()
}

/// A write's rejection, for programs.
pub(super) fn rejection_json(reason: &str, message: &str, violations: &[Violation]) -> Value {
    let mut value = json!({"reason": reason, "message": message});
    if let (false, Some(object)) = (violations.is_empty(), value.as_object_mut()) {
        object.insert("violations".into(), violations_json(violations).into());
    }
    value
}

/// Several things, one after the other: the first that fails decides how the program ends, the
/// others are told at once.
#[derive(Debug)]
pub(super) struct First {
    json: bool,
    kept: Result<Exit, Failure>,
}

impl First {
    pub(super) fn new(json: bool) -> Self {
        Self { json, kept: Ok(Exit::Success) }
    }

    pub(super) fn add(&mut self, ended: Result<Exit, Failure>) {
        match (&self.kept, ended) {
            (Ok(_), ended) => self.kept = ended,
            (Err(_), Err(failure)) => _ = tell(&failure, self.json),
            (Err(_), Ok(_)) => {}
        }
    }

    pub(super) fn end(self) -> Result<Exit, Failure> {
        self.kept
    }
}

/// Whether what comes next would fail in the same way.
pub(super) fn is_hopeless(failure: &Failure) -> bool {
    matches!(failure.exit, Exit::Unreachable | Exit::Token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_the_reason_and_the_fields() {
        let violation = Violation { field: "/a".into(), description: "is no number".into() };
        let failure = rejected("the write was rejected", "SCHEMA", "does not fit", vec![violation]);
        let expected = json!({
            "error": "the write was rejected: does not fit (SCHEMA)",
            "reason": "SCHEMA",
            "exit": 9,
            "hint": null,
            "violations": [{"field": "/a", "description": "is no number"}],
        });
        assert_eq!(as_json(&failure), expected);
        let value = as_json(&usage("no").hint("yes"));
        assert_eq!((&value["reason"], &value["hint"]), (&Value::Null, &json!("yes")));
    }

    #[test]
    fn the_first_failure_decides() {
        let mut first = First::new(false);
        for ended in [Ok(Exit::Success), Err(usage("one")), Ok(Exit::Success), Err(no_token())] {
            first.add(ended);
        }
        assert_eq!(first.end().unwrap_err().exit, Exit::Usage);
    }
}
