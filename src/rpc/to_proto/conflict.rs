//! Conflicts to the wire.

use bytes::Bytes;

use super::{device, document, entry, key, timestamp};
use crate::app::ConflictPlace;
use crate::domain::{
    Base, Closing, ClosingKind, Conflict, ConflictState, DocumentForm, Epoch, Pointer, Relation,
    Side, Strategy, Verdict,
};
use crate::rpc::{proto, token};

/// A conflict, with its documents or without.
pub(in crate::rpc) fn conflict(
    it: &Conflict,
    form: DocumentForm,
    documents: bool,
) -> proto::Conflict {
    let base = it.base.document();
    let texts = |paths: &[Pointer]| paths.iter().map(ToString::to_string).collect();
    let result = it.closing.as_ref().map_or(it.result_revision, |closing| closing.revision);
    proto::Conflict {
        id: it.id.as_str().to_owned(),
        key: Some(key(&it.key)),
        state: state(it.state()).into(),
        relation: relation(it.relation).into(),
        strategy: strategy(it.strategy).into(),
        decision: decision(it.decision).into(),
        paths: texts(&it.paths),
        lost_paths: texts(&it.lost),
        base: base.filter(|_| documents).map(|it| document(it, form)),
        base_known: it.base != Base::Lost,
        server: Some(side(&it.server, form, documents)),
        client: Some(side(&it.client, form, documents)),
        policy_version: it.policy_version,
        policy_collection: it
            .policy_collection
            .as_ref()
            .map_or_else(String::new, |it| it.as_str().to_owned()),
        advisory: it.advisory,
        result_revision: result.get(),
        create_time: Some(timestamp(it.found_at)),
        closing: it.closing.as_ref().map(closing),
        revision: it.moved_at().get(),
    }
}

/// A conflict as an entry of `conflicts`, which is field 1 where it stands.
pub(in crate::rpc) fn conflict_entry(it: &Conflict, form: DocumentForm) -> Bytes {
    entry(&conflict(it, form, true))
}

/// A place in the log of conflicts; empty if there is none.
pub(in crate::rpc) fn conflict_cursor(epoch: Epoch, place: Option<ConflictPlace>) -> String {
    let text = |it: ConflictPlace| format!("{epoch}.{}.{}", it.moved_at, it.number);
    place.map_or_else(String::new, |it| token::seal(text(it)))
}

fn side(side: &Side, form: DocumentForm, documents: bool) -> proto::ConflictSide {
    proto::ConflictSide {
        document: side.document.as_ref().filter(|_| documents).map(|it| document(it, form)),
        deleted: side.document.is_none(),
        version: side.version.to_string(),
        revision: side.revision.get(),
        author: side.author.as_str().to_owned(),
        device: device(side.device.as_ref()),
    }
}

fn closing(closing: &Closing) -> proto::ConflictClosing {
    let kind = match closing.kind {
        ClosingKind::Client => proto::ConflictClosingKind::Client,
        ClosingKind::Server => proto::ConflictClosingKind::Server,
        ClosingKind::Document => proto::ConflictClosingKind::Document,
        ClosingKind::Strategy => proto::ConflictClosingKind::Strategy,
        ClosingKind::Write => proto::ConflictClosingKind::Write,
    };
    proto::ConflictClosing {
        kind: kind.into(),
        author: closing.author.as_str().to_owned(),
        device: device(closing.device.as_ref()),
        mutation_id: closing.mutation_id.as_str().to_owned(),
        time: Some(timestamp(closing.at)),
    }
}

fn state(state: ConflictState) -> proto::ConflictState {
    match state {
        ConflictState::Open => proto::ConflictState::Open,
        ConflictState::Resolved => proto::ConflictState::Resolved,
        ConflictState::Superseded => proto::ConflictState::Superseded,
    }
}

fn relation(relation: Relation) -> proto::ConflictRelation {
    match relation {
        Relation::Disjoint => proto::ConflictRelation::Disjoint,
        Relation::Overlapping => proto::ConflictRelation::Overlapping,
        Relation::CreateCreate => proto::ConflictRelation::CreateCreate,
        Relation::UpdateDelete => proto::ConflictRelation::UpdateDelete,
        Relation::DeleteUpdate => proto::ConflictRelation::DeleteUpdate,
        Relation::DeleteDelete => proto::ConflictRelation::DeleteDelete,
    }
}

pub(super) fn decision(verdict: Verdict) -> proto::ConflictDecision {
    match verdict {
        Verdict::Client => proto::ConflictDecision::Client,
        Verdict::Server => proto::ConflictDecision::Server,
        Verdict::Merged => proto::ConflictDecision::Merged,
        Verdict::Open => proto::ConflictDecision::Open,
    }
}

/// A strategy.
pub(super) fn strategy(strategy: Strategy) -> proto::Strategy {
    match strategy {
        Strategy::LastWriteWins => proto::Strategy::LastWriteWins,
        Strategy::FirstWriteWins => proto::Strategy::FirstWriteWins,
        Strategy::HighestVersionWins => proto::Strategy::HighestVersionWins,
        Strategy::ServerWins => proto::Strategy::ServerWins,
        Strategy::ClientWins => proto::Strategy::ClientWins,
        Strategy::Merge => proto::Strategy::Merge,
        Strategy::Additive => proto::Strategy::Additive,
        Strategy::Manual => proto::Strategy::Manual,
        Strategy::Auto => proto::Strategy::Auto,
    }
}
