//! Questions about what was, and undeletions, from the wire.

use std::fmt;

use uuid::Uuid;

use super::{Violations, done, key, note, one, revision};
use crate::app::Undeletable;
use crate::domain::{
    Content, DeviceId, Epoch, Fingerprint, Mutation, MutationId, Operation, RecordKey, Rejection,
    RejectionReason, Revision, Seen, Undelete,
};
use crate::rpc::{proto, token};

/// Where a record's history goes on, and of which space's and record's it is.
#[derive(Debug, PartialEq)]
pub(in crate::rpc) struct HistoryToken {
    pub(in crate::rpc) epoch: Epoch,
    pub(in crate::rpc) from: Revision,
    pub(in crate::rpc) key: RecordKey,
}

impl HistoryToken {
    /// The token, or None for the first page.
    pub(in crate::rpc) fn parse(text: &str, key: &RecordKey) -> Result<Option<Self>, Violations> {
        let parsed = token::page(text, |text| {
            let mut parts = text.splitn(3, '.');
            let epoch = Epoch(Uuid::try_parse(parts.next()?).ok()?);
            let from = Revision::new(parts.next()?.parse().ok()?)?;
            Some((epoch, from, parts.next()?.to_owned()))
        })?;
        let of = |(epoch, from, name)| {
            let token = Self { epoch, from, key: key.clone() };
            let own = name == token.name();
            own.then_some(token).ok_or_else(|| one("page_token", "is of another record"))
        };
        parsed.map(of).transpose()
    }

    /// No name contains what is between the two.
    fn name(&self) -> String {
        format!("{}\n{}", self.key.collection, self.key.id)
    }
}

impl fmt::Display for HistoryToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&token::seal(format!("{}.{}.{}", self.epoch.0, self.from, self.name())))
    }
}

/// An undeletion, before it is known what there is to bring back.
#[derive(Debug)]
pub(in crate::rpc) struct Undeletion {
    pub(in crate::rpc) id: MutationId,
    pub(in crate::rpc) fingerprint: Fingerprint,
    pub(in crate::rpc) undelete: Undelete,
}

impl Undeletion {
    /// As a mutation, where this was found. Whoever has written the record since did
    /// not know of it.
    pub(in crate::rpc) fn of(self, found: Undeletable) -> Mutation {
        let Self { id, fingerprint, undelete: Undelete { key, .. } } = self;
        let content = match found {
            Undeletable::Lives => Err(Rejection::new(
                RejectionReason::AlreadyExists,
                "the record lives; use put or patch to change it",
            )),
            Undeletable::Deleted { at, document } => Ok(Content {
                key,
                operation: Operation::Create(document),
                base: Some(Seen::Revision(at)),
                client_micros: None,
            }),
        };
        Mutation { id, device_sequence: None, fingerprint, content }
    }
}

/// An undeletion.
pub(in crate::rpc) fn undeletion(
    wire: &proto::UndeleteRecordRequest,
    device: Option<&DeviceId>,
) -> Result<Undeletion, Violations> {
    let mut violations = Vec::new();
    let id = note(&mut violations, "mutation_id", MutationId::parse(&wire.mutation_id));
    let key = key(wire.key.as_ref(), "key").map_err(|it| violations.extend(it)).ok();
    let at = revision(wire.revision).map_err(|it| violations.extend(it)).ok();
    let undeletion = id.zip(key).zip(at).map(|((id, key), document_at)| {
        let undelete = Undelete { key, document_at };
        let fingerprint = Fingerprint::of_undeletion(&undelete, device);
        Undeletion { id, fingerprint, undelete }
    });
    done(undeletion, violations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{CollectionName, RecordId};

    fn key(collection: &str, id: &str) -> RecordKey {
        RecordKey {
            collection: CollectionName::parse(collection).unwrap(),
            id: RecordId::parse(id).unwrap(),
        }
    }

    #[test]
    fn tokens_come_back_for_their_own_record_only() {
        let own = key("a.b", "c.d/ü");
        let (epoch, from) = (Epoch(Uuid::from_u128(7)), Revision::new(42).unwrap());
        let told = HistoryToken { epoch, from, key: own.clone() };
        let text = told.to_string();
        assert_eq!(HistoryToken::parse(&text, &own), Ok(Some(told)));
        assert_eq!(HistoryToken::parse("", &own), Ok(None));
        let epoch = epoch.to_string();
        let forged = ["1", "-1", "x"].map(|revision| format!("{epoch}.{revision}.a.b"));
        let forged = forged.iter().map(token::seal).chain(["!!".into(), token::seal("x.1.a")]);
        for forged in forged {
            let field = &HistoryToken::parse(&forged, &own).unwrap_err()[0].field;
            assert_eq!(field, "page_token", "{forged}");
        }
        for other in [key("a", "b.c.d/ü"), key("a.b", "c"), key("c.d/ü", "a.b")] {
            assert!(HistoryToken::parse(&text, &other).is_err(), "{other:?}");
        }
    }
}
