//! Values of the contract as the rest of a program has them: documents as JSON text, times and
//! spans. Must not know what they mean.

use std::time::Duration;

use time::OffsetDateTime;

use crate::rpc::proto::{self, document::Form};

/// A document of the contract, from JSON text.
pub fn document(json: impl Into<String>) -> proto::Document {
    proto::Document { form: Some(Form::Json(json.into().into())) }
}

/// The JSON text of a document that was asked for as JSON; none of another form.
pub fn json_text(document: &proto::Document) -> Option<&str> {
    match document.form.as_ref()? {
        Form::Json(bytes) => str::from_utf8(bytes).ok(),
        Form::Fields(_) => None,
    }
}

/// A time of the contract, if it is one.
pub fn time(stamp: Option<&prost_types::Timestamp>) -> Option<OffsetDateTime> {
    let stamp = stamp?;
    let whole = OffsetDateTime::from_unix_timestamp(stamp.seconds).ok()?;
    whole.checked_add(time::Duration::nanoseconds(i64::from(stamp.nanos)))
}

/// A span of the contract; none if it is negative.
pub fn duration(span: Option<&prost_types::Duration>) -> Option<Duration> {
    let span = span?;
    let (seconds, nanos) = (u64::try_from(span.seconds).ok()?, u32::try_from(span.nanos).ok()?);
    Some(Duration::new(seconds, nanos))
}
