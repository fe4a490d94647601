//! Every reason of the contract, and what comes from elsewhere, in one table.

use super::*;

fn fault(code: Code, reason: &str) -> Fault {
    Fault::new(code, reason, "a message")
}

#[test]
fn each_reason_is_of_one_kind() {
    use Code::*;
    use FaultKind::*;
    let table = [
        // What SyncService says of its calls and streams.
        (InvalidArgument, "VALIDATION_ERROR", Permanent, false),
        (Code::Unauthenticated, "UNAUTHENTICATED", Token, false),
        (NotFound, "SPACE_NOT_FOUND", NoAccess, false),
        (NotFound, "RECORD_NOT_FOUND", Temporary, true),
        (Code::PermissionDenied, "PERMISSION_DENIED", NotPermitted, false),
        (FailedPrecondition, "MUTATION_ID_REUSED", Permanent, false),
        (FailedPrecondition, "SEQUENCE_GAP", SequenceGap, false),
        (FailedPrecondition, "SPACE_CHANGED", Temporary, true),
        (FailedPrecondition, "CURSOR_EXPIRED", Cursor(CursorFault::Expired), false),
        (FailedPrecondition, "CURSOR_AHEAD", Cursor(CursorFault::Ahead), false),
        (FailedPrecondition, "EPOCH_CHANGED", Cursor(CursorFault::EpochChanged), false),
        (ResourceExhausted, "REQUEST_TOO_LARGE", Permanent, false),
        (ResourceExhausted, "OVERLOADED", Link, false),
        (ResourceExhausted, "RATE_LIMITED", Limited, false),
        (ResourceExhausted, "QUOTA_EXCEEDED", Temporary, false),
        (Code::DeadlineExceeded, "DEADLINE_EXCEEDED", Link, true),
        (Unavailable, "SYNC_FAILED", Link, true),
        (Internal, "MALFORMED_REQUEST", Permanent, false),
        (Internal, "INTERNAL", Temporary, true),
        (NotFound, "SUBSCRIPTION_NOT_FOUND", Link, true),
        (ResourceExhausted, "TOO_MANY_SUBSCRIPTIONS", Link, true),
        (ResourceExhausted, "TOO_MANY_KEYS", Link, true),
        (Code::PermissionDenied, "OTHER_SUBJECT", Token, false),
        (Aborted, "ACCESS_CHANGED", Link, true),
        // What a newer server may say.
        (InvalidArgument, "NEVER_HEARD_OF", Temporary, true),
        // What a library, a proxy or a guest network says.
        (Code::Ok, "", Link, true),
        (Cancelled, "", Link, true),
        (Unknown, "", Link, true),
        (InvalidArgument, "", Link, true),
        (Code::DeadlineExceeded, "", Link, true),
        (NotFound, "", Link, true),
        (AlreadyExists, "", Link, true),
        (Code::PermissionDenied, "", Link, true),
        (ResourceExhausted, "", Temporary, true),
        (FailedPrecondition, "", Link, true),
        (Aborted, "", Link, true),
        (OutOfRange, "", Temporary, true),
        (Unimplemented, "", Link, true),
        (Internal, "", Link, true),
        (Unavailable, "", Link, true),
        (DataLoss, "", Link, true),
        (Code::Unauthenticated, "", Token, false),
    ];
    for (code, reason, expected, open) in table {
        let fault = fault(code, reason);
        assert_eq!((kind(&fault), may_have_happened(&fault)), (expected, open), "{fault}");
    }
}

#[test]
fn the_table_has_every_reason_that_the_contract_names() {
    let contract = include_str!("../../../../proto/syncline/v1/sync_service.proto");
    let (head, _) = contract.split_once("service SyncService").unwrap();
    let words = head.split(|c: char| !c.is_ascii_uppercase() && c != '_');
    let table = include_str!("tests.rs");
    let codes = ["NOT_FOUND", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED"];
    for word in words.filter(|it| it.contains('_') && it.len() > 4 && !codes.contains(it)) {
        assert!(table.contains(&format!("\"{word}\"")), "{word} is not in the table");
    }
}

#[test]
fn cursors_are_read_back() {
    for cursor in [CursorFault::Expired, CursorFault::Ahead, CursorFault::EpochChanged] {
        assert_eq!(kind(&Fault::of_cursor(cursor)), FaultKind::Cursor(cursor));
    }
}
