//! Why a call failed: all that a status tells, as plain values, and what to do about it. Must not
//! know which call it was.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

pub use crate::domain::Violation;

/// Stands in every ErrorInfo of the service.
const DOMAIN: &str = "syncline.v1";

/// Why a call, a batch, a subscription or a connection failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The gRPC code; [`Code::Unavailable`] where no server has answered.
    pub code: Code,
    /// The service's reason, for programs; empty where it has given none.
    pub reason: String,
    /// The reason, for people.
    pub message: String,
    /// Fields that break a rule.
    pub violations: Vec<Violation>,
    /// What goes with the reason.
    pub metadata: BTreeMap<String, String>,
    /// When to try again, if that may help.
    pub retry_after: Option<Duration>,
}

impl Fault {
    /// One without more to say.
    pub fn new(code: Code, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), ..Self::of(code, message.into()) }
    }

    /// One that no status has told.
    pub fn of(code: Code, message: String) -> Self {
        Self {
            code,
            reason: String::new(),
            message,
            violations: Vec::new(),
            metadata: BTreeMap::new(),
            retry_after: None,
        }
    }

    /// A connection that could not even be prepared.
    pub(super) fn transport(error: &(dyn Error + 'static)) -> Self {
        Self::of(Code::Unavailable, told(error))
    }

    /// A token with characters that no token has.
    pub(super) fn unfit_token() -> Self {
        let message = "the token has characters that cannot be sent".to_owned();
        Self::of(Code::Unauthenticated, message)
    }

    /// Whether the same call may succeed later, without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        self.retry_after.is_some() || matches!(self.code, Code::Unavailable)
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self.reason.as_str() {
            "UNAUTHENTICATED" => "get a new token from whoever signs them",
            "PERMISSION_DENIED" | "NOT_GRANTED" => {
                "ask an admin of the space for more rights, or use a token that grants them"
            }
            "SPACE_NOT_FOUND" => "check its name, and that you are a member of it",
            "MUTATION_ID_REUSED" => "take a new id for other content",
            "SPACE_CHANGED" => "read the space again, then try again",
            "CURSOR_EXPIRED" | "CURSOR_AHEAD" | "EPOCH_CHANGED" => {
                "the cursor cannot be resumed: load the state anew, from the beginning"
            }
            "REQUEST_TOO_LARGE" => "send less at once",
            "RATE_LIMITED" | "OVERLOADED" => "wait a little, then try again",
            "QUOTA_EXCEEDED" => "make room in the space, or ask its operator for a larger quota",
            "SYNC_FAILED" => "try again; a write keeps its id, so that it happens once",
            "INTERNAL" => "report it, with the id in the message, to who runs the server",
            _ => match self.code {
                Code::Unavailable => "check the address, and that a server runs there",
                Code::Unauthenticated => "give a token that this server accepts",
                Code::Unimplemented => "the server is older than this program, or no Syncline",
                _ => return None,
            },
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.message.as_str(), self.reason.as_str()) {
            ("", "") => write!(f, "{}", self.code.description()),
            ("", reason) => f.write_str(reason),
            (message, "") => f.write_str(message),
            (message, reason) => write!(f, "{message} ({reason})"),
        }
    }
}

impl Error for Fault {}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN);
        // What was said on the way, by the library and not by a server, has its causes.
        let source = status.source().filter(|_| info.is_none());
        let (code, message) = match (source, status.code()) {
            (Some(source), Code::Unknown | Code::Unavailable | Code::Internal) => {
                (Code::Unavailable, told(source))
            }
            (_, code) => (code, status.message().to_owned()),
        };
        // The library's way to say that a connection ended within a stream.
        let code = match (code, info) {
            (Code::Unknown | Code::Cancelled | Code::Internal, None)
                if message.starts_with("h2 protocol error")
                    || message.contains("error reading a body from connection")
                    || message.contains("operation was canceled") =>
            {
                Code::Unavailable
            }
            (code, _) => code,
        };
        let violations = details.bad_request().into_iter().flat_map(|it| &it.field_violations);
        let violation = |it: &tonic_types::FieldViolation| Violation {
            field: it.field.clone(),
            description: it.description.clone(),
        };
        Self {
            code,
            reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
            message,
            violations: violations.map(violation).collect(),
            metadata: info.map(|it| it.metadata.clone().into_iter().collect()).unwrap_or_default(),
            retry_after: details.retry_info().and_then(|it| it.retry_delay),
        }
    }
}

/// An error and its causes on one line, each once: libraries repeat their causes.
fn told(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let said = error.to_string().replace(char::is_control, " ");
        if text.is_empty() {
            text = said;
        } else if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn all_that_a_status_tells_is_kept() {
        let mut details = ErrorDetails::with_error_info(
            "CURSOR_EXPIRED",
            DOMAIN,
            [("floor".to_owned(), "7".to_owned())],
        );
        details.set_retry_info(Some(Duration::from_millis(500)));
        details.add_bad_request_violation("cursor", "is below the floor");
        let status = Status::with_error_details(Code::FailedPrecondition, "too old", details);
        let fault = Fault::from(status);
        assert_eq!(
            (fault.code, fault.reason.as_str()),
            (Code::FailedPrecondition, "CURSOR_EXPIRED")
        );
        assert_eq!(fault.metadata["floor"], "7");
        assert_eq!(fault.retry_after, Some(Duration::from_millis(500)));
        assert_eq!(fault.violations[0].field, "cursor");
        assert_eq!(fault.to_string(), "too old (CURSOR_EXPIRED)");
        assert!(fault.hint().unwrap().contains("from the beginning"));
    }

    #[test]
    fn reasons_of_others_are_not_taken_for_ours() {
        let details = ErrorDetails::with_error_info("UNAUTHENTICATED", "other.example", []);
        let fault = Fault::from(Status::with_error_details(Code::NotFound, "no", details));
        assert_eq!((fault.code, fault.reason.as_str()), (Code::NotFound, ""));
        assert_eq!(fault.hint(), None);
    }

    #[test]
    fn what_breaks_on_the_way_is_unavailable_with_its_causes() {
        let io = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "refused");
        let fault = Fault::from(Status::from_error(Box::new(io)));
        assert_eq!((fault.code, fault.to_string().as_str()), (Code::Unavailable, "refused"));
        assert!(fault.is_transient() && fault.hint().unwrap().contains("check the address"));
    }
}
