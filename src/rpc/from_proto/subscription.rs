//! What a client wants to follow, and the other frames of a stream.

use super::document::document;
use super::{
    Violations, collections, conflict_cursor, cursor, device, document_form, done, key, note, one,
};
use crate::app::{ConflictPlace, SnapshotPlace};
use crate::domain::{
    CollectionName, Cursor, DeviceId, Document, DocumentForm, Echo, Epoch, RecordId, Revision,
    Scope, Violation, limits,
};
use crate::rpc::{proto, token};

/// A subscription, apart from its space.
#[derive(Debug)]
pub(in crate::rpc) struct Wanted {
    pub(in crate::rpc) start: Start,
    pub(in crate::rpc) scope: Scope,
    pub(in crate::rpc) device: Option<DeviceId>,
    pub(in crate::rpc) echo: Echo,
    pub(in crate::rpc) form: DocumentForm,
    pub(in crate::rpc) delta: bool,
    pub(in crate::rpc) events: bool,
    pub(in crate::rpc) conflicts: bool,
    pub(in crate::rpc) digest: bool,
    /// Where to go on with conflicts.
    pub(in crate::rpc) told: Option<(Epoch, ConflictPlace)>,
}

/// Where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::rpc) enum Start {
    Cursor(Cursor),
    Now,
    /// Perhaps in the middle of one.
    Snapshot(Option<SnapshotToken>),
}

/// Where an interrupted snapshot goes on.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::rpc) struct SnapshotToken {
    pub(in crate::rpc) epoch: Epoch,
    pub(in crate::rpc) at: Revision,
    pub(in crate::rpc) after: SnapshotPlace,
}

/// All rules that the frame breaks, or what it wants.
pub(in crate::rpc) fn subscription(wire: &proto::SubscribeFrame) -> Result<Wanted, Violations> {
    let mut broken = Vec::new();
    let start = take(&mut broken, start(wire));
    let scope = take(&mut broken, scope(&wire.collections, &wire.keys));
    let device = take(&mut broken, device(&wire.device));
    let echo = take(&mut broken, echo(wire.echo));
    let form = take(&mut broken, document_form(wire.document_form));
    let told = take(&mut broken, conflict_cursor(&wire.conflict_cursor));
    if wire.digest && !wire.keys.is_empty() {
        let rule = "is of whole collections; it cannot be given together with `keys`";
        broken.push(Violation::new("digest", rule));
    }
    if !broken.is_empty() {
        return Err(broken);
    }
    match (start, scope, device, echo, form, told) {
        (Some(start), Some(scope), Some(device), Some(echo), Some(form), Some(told)) => {
            Ok(Wanted {
                start,
                scope,
                device,
                echo,
                form,
                delta: wire.delta,
                events: wire.events,
                conflicts: wire.conflicts,
                digest: wire.digest,
                told,
            })
        }
        _ => Err(broken),
    }
}

fn take<T>(broken: &mut Violations, parsed: Result<T, Violations>) -> Option<T> {
    parsed.map_err(|violations| broken.extend(violations)).ok()
}

fn start(wire: &proto::SubscribeFrame) -> Result<Start, Violations> {
    let mut broken = Vec::new();
    let start = match proto::Start::try_from(wire.start) {
        Ok(proto::Start::Unspecified) => {
            cursor(wire.cursor.as_ref()).map(Start::Cursor).map_err(|it| broken.extend(it)).ok()
        }
        Ok(proto::Start::Now) => Some(Start::Now),
        Ok(proto::Start::Snapshot) => {
            let token = snapshot_token(&wire.snapshot_token);
            note(&mut broken, "snapshot_token", token).map(Start::Snapshot)
        }
        Err(_unknown) => note(&mut broken, "start", Err(format!("has no value {}", wire.start))),
    };
    if wire.cursor.is_some() && wire.start != i32::from(proto::Start::Unspecified) {
        broken.push(Violation::new("cursor", "cannot be given together with `start`"));
    }
    if !wire.snapshot_token.is_empty() && wire.start != i32::from(proto::Start::Snapshot) {
        broken.push(Violation::new("snapshot_token", "is for START_SNAPSHOT only"));
    }
    done(start, broken)
}

/// Where an interrupted snapshot goes on; None for a new one.
fn snapshot_token(text: &str) -> Result<Option<SnapshotToken>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let token = SnapshotToken::parse(text);
    token.map(Some).ok_or_else(|| "is not one that this server gave".to_owned())
}

/// The same of a Snapshot call.
pub(in crate::rpc) fn resume_token(text: &str) -> Result<Option<SnapshotToken>, Violations> {
    snapshot_token(text).map_err(|rule| one("resume_token", rule))
}

/// The part of a space that a filter leaves.
pub(in crate::rpc) fn scope(
    names: &[String],
    keys: &[proto::RecordKey],
) -> Result<Scope, Violations> {
    if !names.is_empty() && !keys.is_empty() {
        return Err(one("keys", "cannot be given together with `collections`"));
    }
    if keys.is_empty() {
        let collections = collections(names)?;
        let all = collections.is_empty();
        return Ok(if all { Scope::All } else { Scope::Collections(collections) });
    }
    if keys.len() > limits::FILTER_RECORDS_MAX {
        let max = limits::FILTER_RECORDS_MAX;
        return Err(one("keys", format!("has {} records; at most {max}", keys.len())));
    }
    let mut broken = Vec::new();
    let parsed = keys
        .iter()
        .enumerate()
        .map(|(index, wire)| take(&mut broken, key(Some(wire), &format!("keys[{index}]"))));
    let parsed: Vec<_> = parsed.collect();
    done(parsed.into_iter().collect::<Option<_>>().map(Scope::Records), broken)
}

pub(in crate::rpc) fn echo(mode: i32) -> Result<Echo, Violations> {
    match proto::EchoMode::try_from(mode) {
        Ok(proto::EchoMode::Unspecified) => Ok(Echo::LeaveOut),
        Ok(proto::EchoMode::All) => Ok(Echo::Send),
        Ok(proto::EchoMode::Mark) => Ok(Echo::Mark),
        Err(_unknown) => Err(one("echo", format!("has no value {mode}"))),
    }
}

/// An event's topic and document.
pub(in crate::rpc) fn event(
    wire: &proto::PublishFrame,
) -> Result<(String, Option<Document>), Violations> {
    let mut broken = Vec::new();
    let topic = token_name(&wire.topic, limits::EVENT_TOPIC_BYTES_MAX);
    let topic = note(&mut broken, "topic", topic);
    let content = wire.document.as_ref().map(|_| document(wire.document.as_ref(), "document"));
    let content = take(&mut broken, content.transpose());
    let bytes = content.iter().flatten().map(|it| it.as_str().len()).sum::<usize>();
    if bytes > limits::EVENT_BYTES_MAX {
        let max = limits::EVENT_BYTES_MAX;
        broken.push(Violation::new("document", format!("has {bytes} bytes; at most {max}")));
    }
    done(topic.zip(content), broken)
}

/// A name that a client chooses for something on its stream, or the rule that it breaks.
pub(in crate::rpc) fn token_name(text: &str, bytes_max: usize) -> Result<String, String> {
    let valid =
        (1..=bytes_max).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_graphic());
    if valid {
        Ok(text.to_owned())
    } else {
        Err(format!("must be 1 to {bytes_max} visible ASCII characters"))
    }
}

/// The device of a `mutate` frame and its mutations' form.
pub(in crate::rpc) fn writer(
    wire: &proto::MutateFrame,
) -> Result<(Option<DeviceId>, DocumentForm), Violations> {
    let mut broken = Vec::new();
    let device = take(&mut broken, device(&wire.device));
    let form = take(&mut broken, document_form(wire.document_form));
    done(device.zip(form), broken)
}

impl SnapshotToken {
    fn parse(text: &str) -> Option<Self> {
        let text = token::open(text)?;
        let mut parts = text.splitn(4, '.');
        let epoch = Epoch(parts.next()?.parse().ok()?);
        let at = Revision::new(parts.next()?.parse().ok()?)?;
        let collection_bytes: usize = parts.next()?.parse().ok()?;
        let (collection, id) = parts.next()?.split_at_checked(collection_bytes)?;
        if !id.is_empty() {
            RecordId::parse(id).ok()?;
        }
        let collection = CollectionName::parse(collection).ok()?;
        Some(Self { epoch, at, after: SnapshotPlace { collection, id: id.to_owned() } })
    }

    /// As clients keep it.
    pub(in crate::rpc) fn seal(&self) -> String {
        let Self { epoch, at, after: SnapshotPlace { collection, id } } = self;
        token::seal(format!("{}.{at}.{}.{collection}{id}", epoch.0, collection.as_str().len()))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn snapshot_tokens_come_back_and_forged_ones_do_not_pass() {
        for (collection, id) in [("task", "1"), ("a.b", "c.d.e"), ("ü", ""), ("1", "1")] {
            let collection = CollectionName::parse(collection).unwrap();
            let token = SnapshotToken {
                epoch: Epoch(Uuid::from_u128(7)),
                at: Revision::new(42).unwrap(),
                after: SnapshotPlace { collection, id: id.into() },
            };
            assert_eq!(SnapshotToken::parse(&token.seal()), Some(token));
        }
        let epoch = Uuid::from_u128(7);
        for forged in ["x.1.1.ab", "{}.-1.1.ab", "{}.1.9.ab", "{}.1.1.üb", "{}.1.0.ab", "{}.1.1"] {
            let forged = token::seal(forged.replace("{}", &epoch.to_string()));
            assert_eq!(SnapshotToken::parse(&forged), None, "{forged}");
        }
    }
}
