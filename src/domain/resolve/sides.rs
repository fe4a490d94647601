//! Two sides, taken apart, and what each strategy makes of them.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde_json::Value;
use time::OffsetDateTime;

use super::{Concurrency, Resolution, Resolved};
use crate::domain::document::JsonObject;
use crate::domain::fields::{value_at, write_at};
use crate::domain::merge::{self, Claims, Edit, Merge, Merged, To, Winner, about, edits};
use crate::domain::patch::patched;
use crate::domain::{
    Base, DeleteRule, Document, Operation, Pointer, Policy, Relation, Strategy, Transform, Version,
    Violation, limits, number, transform,
};

/// The sides, taken apart.
pub(super) struct Sides<'a> {
    pub(super) policy: &'a Policy,
    pub(super) of: &'a Concurrency<'a>,
    /// The base is no longer kept.
    pub(super) is_lost: bool,
    /// The document before the client's write, and after it without and with
    /// what is relative. None = there was none.
    pub(super) view: Option<JsonObject>,
    pub(super) client: Option<JsonObject>,
    pub(super) client_document: Option<Document>,
    pub(super) server: Option<JsonObject>,
    pub(super) server_document: Option<&'a Document>,
    /// The last version that the other side claims.
    server_version: Option<Version>,
    pub(super) transforms: &'a [Transform],
    pub(super) edits: Vec<Edit>,
    pub(super) claims: &'a Claims,
}

impl<'a> Sides<'a> {
    pub(super) fn of(policy: &'a Policy, of: &'a Concurrency<'a>) -> Result<Self, Resolution> {
        let last = of.steps.last();
        let server_document = last.and_then(|step| step.document.as_ref());
        let server = server_document.map(Document::fields);
        let is_lost = *of.base == Base::Lost;
        let view = if is_lost { None } else { of.view.document().map(Document::fields) };
        // A patch of what is no longer known is one of the nearest that there is.
        let before = if is_lost { &server } else { &view };
        let client = client_side(of.operation, before.as_ref());
        let transforms = match of.operation {
            Operation::Patch(patch) => patch.transforms.as_slice(),
            _ => &[],
        };
        let client_document = with_transforms(client.as_ref(), transforms, of.now);
        let client_document = client_document.map_err(|violation| Resolution {
            relation: Relation::Overlapping,
            paths: Vec::new(),
            lost: Vec::new(),
            client: None,
            result: Resolved::Invalid(vec![violation]),
        })?;
        let unseen = of.steps.iter().filter(|step| !step.seen);
        Ok(Self {
            policy,
            of,
            server_version: unseen.map(|step| &step.claimed).max().cloned(),
            is_lost,
            edits: made_edits(of.operation, is_lost, view.as_ref(), client.as_ref()),
            claims: of.claims,
            view,
            client,
            client_document,
            server,
            server_document,
            transforms,
        })
    }

    pub(super) fn resolve(&self) -> Resolution {
        let (result, merged) = match (&self.server, &self.client) {
            (None, None) => (self.both_deleted(), Merged::default()),
            (Some(_), None) => (self.beside_deletion(Winner::Client), Merged::default()),
            (None, Some(_)) => (self.beside_deletion(Winner::Server), Merged::default()),
            (Some(server), Some(client)) => self.both_live(server, client),
        };
        self.told(result, &merged)
    }

    pub(super) fn accept(&self) -> Resolution {
        let result = match (&self.server, &self.client, self.of.operation) {
            (Some(server), Some(_), Operation::Patch(patch)) => {
                let mut fields = server.clone();
                patch.edit(&mut fields);
                match with_transforms(Some(&fields), self.transforms, self.of.now) {
                    Ok(document) => Resolved::Client { document, claims: self.claimed_paths() },
                    Err(violation) => Resolved::Invalid(vec![violation]),
                }
            }
            _ => self.client_taken(),
        };
        self.told(result, &Merged::default())
    }

    /// The later deletion is to be known, for updates that are between the two.
    fn both_deleted(&self) -> Resolved {
        match self.winner(self.server_version.as_ref()) {
            Winner::Client => self.client_taken(),
            Winner::Server | Winner::Nobody => Resolved::Server,
        }
    }

    /// An update beside a deletion, which is the side of `deleting`.
    fn beside_deletion(&self, deleting: Winner) -> Resolved {
        // What the client has deleted itself, it may make anew.
        if deleting == Winner::Server && self.of.steps.last().is_some_and(|last| last.seen) {
            return self.client_taken();
        }
        match self.winner_beside_deletion(deleting, self.server_version.as_ref()) {
            Winner::Server => Resolved::Server,
            Winner::Client => self.client_taken(),
            Winner::Nobody => Resolved::Open,
        }
    }

    fn winner_beside_deletion(&self, deleting: Winner, version: Option<&Version>) -> Winner {
        let updating = match deleting {
            Winner::Server => Winner::Client,
            Winner::Client | Winner::Nobody => Winner::Server,
        };
        match (self.policy.deletes, self.policy.strategy) {
            (DeleteRule::DeleteWins, _) | (DeleteRule::ByStrategy, Strategy::Auto) => deleting,
            (DeleteRule::UpdateWins, _) => updating,
            (DeleteRule::ByStrategy, _) => self.winner(version),
        }
    }

    /// Who wins as a whole, against a version of the other side.
    fn winner(&self, version: Option<&Version>) -> Winner {
        let before_all = Version { micros: i64::MIN, device: None, sequence: 0 };
        let version = version.unwrap_or(&before_all);
        let later = merge::later(version, self.of.claimed);
        match self.policy.strategy {
            Strategy::HighestVersionWins => match self.compare_numbers() {
                Ordering::Less => Winner::Server,
                Ordering::Equal => later,
                Ordering::Greater => Winner::Client,
            },
            _ => merge::by_fallback(self.policy.fallback(), version, self.of.claimed),
        }
    }

    /// The client's number beside the server's; none is lowest.
    fn compare_numbers(&self) -> Ordering {
        let default = ["version".to_owned()];
        let path = self.policy.version_field.as_ref().map_or(&default[..], Pointer::keys);
        let number = |side: Option<&JsonObject>| match value_at(side?, path) {
            Some(Value::Number(number)) => Some(number.clone()),
            _ => None,
        };
        let client = self.client_document.as_ref().map(Document::fields);
        match (number(client.as_ref()), number(self.server.as_ref())) {
            (Some(client), Some(server)) => number::compare(&client, &server),
            (client, server) => client.is_some().cmp(&server.is_some()),
        }
    }

    fn client_taken(&self) -> Resolved {
        let document = self.client_document.clone();
        Resolved::Client { document, claims: self.claimed_paths() }
    }

    /// Two documents: value by value, or as wholes but for what has rules.
    fn both_live(&self, server: &JsonObject, client: &JsonObject) -> (Resolved, Merged) {
        let empty = JsonObject::new();
        let merge = Merge {
            policy: self.policy,
            base: self.view.as_ref().unwrap_or(&empty),
            base_known: !self.is_lost,
            server,
            claims: self.claims,
            claimed: self.of.claimed,
            deletion: self.claims.deletion().map_or(Winner::Client, |version| {
                self.winner_beside_deletion(Winner::Server, Some(version))
            }),
        };
        let all = merge.run(&self.edits);
        if self.by_value() {
            let (open, stays) = (all.open, self.edits.is_empty() || all.is_void);
            let result = if open { Resolved::Open } else { self.becomes(&all.fields, stays) };
            return (result, all);
        }
        let is_ruled = |path: &[String]| self.policy.rule(path).is_some();
        let ruled = self.edits.iter().filter(|edit| is_ruled(&edit.path));
        let ruled: Vec<_> = ruled.cloned().collect();
        let Merged { mut fields, joined, open, is_void, .. } = merge.run(&ruled);
        let merged = Merged { joined, ..all };
        // Where rules decide all that the client wrote, there is no more to decide.
        let by_rules = !ruled.is_empty() && ruled.len() == self.edits.len();
        let winner = if by_rules { Winner::Server } else { self.winner(self.claims.unruled()) };
        let result = match winner {
            _ if open => Resolved::Open,
            Winner::Nobody => Resolved::Open,
            Winner::Server => self.becomes(&fields, ruled.is_empty() || is_void),
            Winner::Client => {
                let mut taken = client.clone();
                let claimed = self.claims.iter().map(|(path, _)| about(path));
                let edited = ruled.iter().map(|edit| edit.path.as_slice());
                let relative = self.transforms.iter().map(|it| it.path.keys());
                let kept = claimed.chain(edited).filter(|path| is_ruled(path)).chain(relative);
                for path in kept {
                    write_at(&mut taken, path, value_at(&fields, path).cloned());
                }
                fields = taken;
                self.becomes(&fields, false)
            }
        };
        (result, merged)
    }

    /// Whether values are decided one by one, for which there must be a base.
    fn by_value(&self) -> bool {
        let strategy = self.policy.strategy;
        matches!(strategy, Strategy::Merge | Strategy::Additive | Strategy::Auto) && !self.is_lost
    }

    /// The record becomes this, with what is relative; or it stays as it is, if
    /// nothing came of the edits.
    fn becomes(&self, fields: &JsonObject, stays: bool) -> Resolved {
        let document = match with_transforms(Some(fields), self.transforms, self.of.now) {
            Ok(document) => document,
            Err(violation) => return Resolved::Invalid(vec![violation]),
        };
        let claims = self.claimed_paths();
        match document {
            None => Resolved::Server,
            Some(_) if stays && self.transforms.is_empty() => Resolved::Server,
            document
                if document == self.client_document
                    && document.as_ref() != self.server_document =>
            {
                Resolved::Client { document, claims }
            }
            Some(document) => Resolved::Merged { document, claims },
        }
    }

    /// The paths that the client's side set.
    fn claimed_paths(&self) -> Option<Vec<Pointer>> {
        let edited = self.edits.iter().flat_map(Edit::claims);
        let relative = self.transforms.iter().map(|it| it.path.keys().to_vec());
        let paths: BTreeSet<_> = edited.chain(relative).filter_map(Pointer::from_keys).collect();
        let keys = paths.iter().flat_map(Pointer::keys);
        let fits = paths.len() <= limits::CLAIMED_PATHS_MAX
            && keys.map(|key| key.len() + 1).sum::<usize>() <= limits::CLAIMED_PATHS_BYTES_MAX
            && self.client.is_some();
        fits.then(|| paths.into_iter().collect())
    }
}

/// The document that the client had after its write, without what is relative.
fn client_side(operation: &Operation, view: Option<&JsonObject>) -> Option<JsonObject> {
    match operation {
        Operation::Create(document) | Operation::Put(document) => Some(document.fields()),
        Operation::Patch(patch) => {
            let mut fields = view.cloned().unwrap_or_default();
            patch.edit(&mut fields);
            Some(fields)
        }
        // A resolution never meets another write.
        Operation::Delete | Operation::Resolve(_) => None,
    }
}

/// What the client changed. Without a base that is all that it says.
fn made_edits(
    operation: &Operation,
    is_lost: bool,
    view: Option<&JsonObject>,
    client: Option<&JsonObject>,
) -> Vec<Edit> {
    let empty = JsonObject::new();
    match (operation, client) {
        (_, None) => Vec::new(),
        (Operation::Patch(patch), Some(_)) if is_lost => {
            // Each once, and none that lies in another: as in a patch, before what is set.
            let gone: BTreeSet<_> = patch.unset.iter().map(Pointer::keys).collect();
            let mut made: Vec<Edit> = Vec::new();
            for path in gone {
                let last = made.last().filter(|last| path.starts_with(&last.path));
                if last.is_none() {
                    made.push(Edit { path: path.to_vec(), to: To::Nothing });
                }
            }
            made.extend(edits(&empty, &patch.set.fields()));
            made
        }
        (_, Some(client)) => edits(view.unwrap_or(&empty), client),
    }
}

fn with_transforms(
    fields: Option<&JsonObject>,
    transforms: &[Transform],
    now: OffsetDateTime,
) -> Result<Option<Document>, Violation> {
    let Some(fields) = fields else { return Ok(None) };
    let mut fields = fields.clone();
    transform(&mut fields, transforms, now)?;
    patched(fields).map(Some)
}
