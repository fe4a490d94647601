//! What the log is told of a resolution.

use serde_json::Value;

use super::sides::Sides;
use super::{Resolution, Resolved};
use crate::domain::fields::value_at;
use crate::domain::merge::{Merged, To, about};
use crate::domain::{Base, Document, Pointer, Relation};

impl Sides<'_> {
    pub(super) fn told(&self, result: Resolved, merged: &Merged) -> Resolution {
        Resolution {
            relation: self.relation(merged),
            paths: Pointer::few(merged.overlaps.iter().cloned()),
            lost: self.lost(&result, merged),
            client: self.client_document.clone(),
            result,
        }
    }

    fn relation(&self, merged: &Merged) -> Relation {
        let created = matches!(self.of.base, Base::Known(None));
        match (&self.server, &self.client) {
            (None, None) => Relation::DeleteDelete,
            (Some(_), None) => Relation::UpdateDelete,
            (None, Some(_)) => Relation::DeleteUpdate,
            (Some(_), Some(_)) if created => Relation::CreateCreate,
            (Some(_), Some(_)) if merged.overlaps.is_empty() && !self.is_lost => Relation::Disjoint,
            (Some(_), Some(_)) => Relation::Overlapping,
        }
    }

    /// Where the record is not what a side had made of it.
    fn lost(&self, result: &Resolved, merged: &Merged) -> Vec<Pointer> {
        let becomes = match result {
            Resolved::Client { document, .. } => document.as_ref().map(Document::fields),
            Resolved::Merged { document, .. } => Some(document.fields()),
            Resolved::Server => self.server.clone(),
            Resolved::Open | Resolved::Invalid(_) => return Vec::new(),
        };
        let now = |path: &[String]| becomes.as_ref().and_then(|fields| value_at(fields, path));
        let joined = |path: &[String]| {
            merged.is_joined(path)
                || self.transforms.iter().any(|it| it.path.keys().starts_with(path))
        };
        let edited = self.edits.iter().filter(|edit| match now(&edit.path) {
            Some(Value::Object(_)) if edit.to == To::Object => false,
            now => becomes.is_none() || now != edit.value().as_ref(),
        });
        let edited = edited.map(|edit| edit.path.as_slice());
        let claimed = self.claims.iter().filter(|(claimed, _)| {
            let path = about(claimed);
            let there = self.server.as_ref().and_then(|fields| value_at(fields, path));
            let now = now(path);
            // An object that others went on with is still the one that was begun.
            let goes_on = path.len() < claimed.len() && now.is_some_and(Value::is_object);
            now != there && !goes_on
        });
        let claimed = claimed.map(|(claimed, _)| about(claimed));
        Pointer::few(edited.chain(claimed).filter(|path| !joined(path)).map(<[String]>::to_vec))
    }
}
