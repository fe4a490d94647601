//! How the program ends: the exit codes that scripts and supervisors rely on, and the one line that
//! tells people why. Owns what is printed to stderr besides logs; must not know what went wrong.

use std::fmt::Write as _;
use std::io;
use std::io::Write as _;
use std::process::ExitCode;

/// The documented exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Success = 0,
    /// Something unexpected.
    Failure = 1,
    /// A flag, a variable or the configuration file is wrong.
    Usage = 2,
    /// The database is unreachable, refuses us, is unsafe, or cannot be migrated.
    Database = 3,
    /// There is no PostgreSQL to run privately, or it would not start.
    Postgres = 4,
    /// The address cannot be listened on.
    Listen = 5,
    /// The server cannot be reached, or does not answer.
    Unreachable = 6,
    /// The token is missing or refused.
    Token = 7,
    /// What was asked for is not there.
    NotFound = 8,
    /// The server has refused it: it breaks a rule, is not permitted, or conflicts.
    Refused = 9,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error together with how the program ends because of it.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What went wrong, with its causes.
    pub error: anyhow::Error,
    /// What to do about it, if we know.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure with a code of its own; `?` on any error gives [`Exit::Failure`].
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into(), hint: None }
    }

    /// The same failure with advice.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// What went wrong, with its causes, on one line.
    pub fn told(&self) -> String {
        told(&self.error)
    }

    /// Prints it and gives the code to end with.
    pub fn report(&self) -> Exit {
        report(&self.error, self.hint.as_deref());
        self.exit
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(Exit::Failure, error)
    }
}

/// Prints `error: what: why: why` and, on a second line, `hint: …` to stderr.
pub fn report(error: &anyhow::Error, hint: Option<&str>) {
    // With stderr gone there is nobody to tell.
    io::stderr().write_all(render(error, hint).as_bytes()).ok();
}

fn render(error: &anyhow::Error, hint: Option<&str>) -> String {
    let mut text = format!("error: {}\n", told(error));
    if let Some(hint) = hint {
        let _ = writeln!(text, "hint: {}", line(hint));
    }
    text
}

fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = line(&cause.to_string());
        // Others repeat their cause in their own text.
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            let _ = write!(text, ": {cause}");
        }
    }
    text
}

/// Some libraries break lines; ours stays one line, which logs and greps keep together. Servers and
/// files may have sent control characters, which would move a terminal's cursor.
fn line(text: &str) -> String {
    let plain = text.replace(char::is_control, " ");
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn an_error_is_one_line_with_its_causes_and_advice() {
        let error = Err::<(), _>(anyhow!("connection refused\n  (os error 111)"))
            .context("no answer from 127.0.0.1:5432")
            .context("the database is unreachable")
            .unwrap_err();
        assert_eq!(
            render(&error, Some("is PostgreSQL running?")),
            "error: the database is unreachable: no answer from 127.0.0.1:5432: connection refused \
             (os error 111)\nhint: is PostgreSQL running?\n"
        );
    }

    #[test]
    fn a_cause_that_its_error_has_told_is_not_repeated() {
        let error = anyhow!("refused").context("cannot listen: refused");
        assert_eq!(render(&error, None), "error: cannot listen: refused\n");
    }

    #[test]
    fn what_others_have_written_does_not_move_the_cursor() {
        let error = anyhow!("a\u{9b}2Jb\x7f\x1b[31mc");
        assert_eq!(render(&error, Some("d\u{9b}e")), "error: a 2Jb [31mc\nhint: d e\n");
    }

    #[test]
    fn any_error_becomes_a_failure() {
        fn fails() -> Result<(), Failure> {
            Err(io::Error::other("disk"))?
        }
        let failure = fails().unwrap_err();
        assert_eq!((failure.exit, failure.hint), (Exit::Failure, None));
        let failure = Failure::new(Exit::Listen, anyhow!("taken")).hint("choose another port");
        assert_eq!((failure.exit as u8, failure.hint.as_deref()), (5, Some("choose another port")));
    }
}
