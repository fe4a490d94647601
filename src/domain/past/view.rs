//! What a device has made of a record: the base, and what its own writes did to it
//! that met, or passed, what it had not seen.

use crate::domain::fields::write_at;
use crate::domain::merge::edits;
use crate::domain::patch::patched;
use crate::domain::{Change, Document, HistoryEntry, Revision, Transform, transform};

/// What a device had made of the record when it last met another's write.
#[derive(Clone, Debug)]
pub struct View {
    /// What it met.
    pub met: HistoryEntry,
    /// The head then: its own writes up to there are in it.
    pub at: Revision,
    /// None = it had deleted the record.
    pub document: Option<Document>,
}

/// What a device's own write, which made `after` of `before` for everybody, made of
/// the document as the device had it.
pub(super) fn followed(
    view: Option<&Document>,
    before: Option<&Document>,
    after: &Change,
) -> Option<Document> {
    let document = after.document.as_ref()?;
    let (Some(view), Some(before)) = (view, before) else { return Some(document.clone()) };
    let differed = || {
        let mut fields = view.fields();
        for edit in edits(&before.fields(), &document.fields()) {
            write_at(&mut fields, &edit.path, edit.value());
        }
        fields
    };
    let passed = after.settlement.as_ref().map(|it| &it.passed);
    let again = |passed: &Vec<Transform>| {
        let mut fields = view.fields();
        transform(&mut fields, passed, after.committed_at).ok().map(|()| fields)
    };
    let fields = passed.filter(|it| !it.is_empty()).and_then(again).unwrap_or_else(differed);
    // Too large for a document, it is as good as what everybody has.
    patched(fields).ok().or_else(|| after.document.clone())
}
