//! What a client shows that does as the contract says: it applies each change to what
//! it holds, and shows it where a range ends that is not marked as partial. There it
//! must be the log's state, whole.

use std::collections::{BTreeSet, HashMap};

use sha2::{Digest, Sha256};
use syncline::rpc::proto::{Change, EchoMode};

use super::apply::applied;
use super::{Seen, line};
use crate::support::history::{Line, Log};

type Key<'l> = (&'l str, &'l str);

/// For each record the line of the log that it is as of.
#[derive(Default)]
struct Records<'l>(HashMap<Key<'l>, &'l Line>);

impl<'l> Records<'l> {
    fn set(&mut self, line: &'l Line) {
        self.0.insert(line.key(), line);
    }

    /// The revision, if the record lives.
    fn living(&self, key: Key<'_>) -> Option<i64> {
        let line = self.0.get(&key).filter(|line| line.document.is_some());
        line.map(|line| line.revision)
    }
}

impl Seen {
    pub(super) fn check_shown(&self, log: &Log) -> Result<(), String> {
        let (mut held, mut actual) = (Records::default(), Records::default());
        let mut points = self.points.iter().copied().peekable();
        let mut touched = BTreeSet::new();
        for line in log.lines.iter().filter(|line| self.view.has(line.key())) {
            while let Some(point) = points.next_if(|point| *point < line.revision) {
                check_point(point, &held, &actual, &mut touched)?;
            }
            if line.revision > self.cursor {
                break;
            }
            actual.set(line);
            touched.insert(line.key());
            match self.changes.get(&line.revision) {
                _ if line.revision <= self.began => held.set(line),
                Some(change) => {
                    check_change(self, &held, change, line)?;
                    held.set(line);
                }
                // It knows what it wrote.
                None if self.view.is_own(line) && self.view.echo != EchoMode::All => held.set(line),
                None => {}
            }
        }
        points.try_for_each(|point| check_point(point, &held, &actual, &mut touched))
    }
}

/// Where a state may be shown, what changed since the last such place is as it is.
fn check_point(
    point: i64,
    held: &Records<'_>,
    actual: &Records<'_>,
    touched: &mut BTreeSet<Key<'_>>,
) -> Result<(), String> {
    for key in std::mem::take(touched) {
        let (shown, is) = (held.living(key), actual.living(key));
        if shown != is {
            return Err(format!("at {point}, {key:?} is shown as of {shown:?}, but is {is:?}"));
        }
    }
    Ok(())
}

/// What came is what the log says, in whichever form it came.
fn check_change(
    seen: &Seen,
    held: &Records<'_>,
    change: &Change,
    expected: &Line,
) -> Result<(), String> {
    let revision = expected.revision;
    let bare = change.own || change.delta.is_some();
    if !change.checksum.is_empty() || bare {
        let checksum = expected.document.as_ref().map(|it| Sha256::digest(it.as_bytes()));
        if change.checksum != checksum.map(|it| it.to_vec()).unwrap_or_default() {
            return Err(format!("the checksum of {revision} is wrong"));
        }
    }
    let mut came = line(change).ok_or("no key, or another form than JSON")?;
    if bare {
        if came.document.is_some() || (change.own && change.delta.is_some()) {
            return Err(format!("{revision} comes in two forms"));
        }
        came.document.clone_from(&expected.document);
    }
    if came != *expected {
        return Err(format!("{came:?} is not {expected:?}"));
    }
    let Some(delta) = &change.delta else { return Ok(()) };
    if !seen.view.delta {
        return Err(format!("{revision} is a difference, and nobody asked for one"));
    }
    let base = held.0.get(&expected.key());
    let base = base.filter(|base| base.revision == delta.base_revision);
    let base = base.and_then(|base| base.document.as_ref());
    let base = base.ok_or_else(|| {
        let holds = held.living(expected.key());
        format!("{revision} is told from {}, but {holds:?} is held", delta.base_revision)
    })?;
    let after = applied(base, delta).map_err(|error| format!("{revision}: {error}"))?;
    let document = expected.document.as_deref().unwrap_or("null");
    let document: serde_json::Value = serde_json::from_str(document).unwrap_or_default();
    (after == document)
        .then_some(())
        .ok_or_else(|| format!("with its difference, {revision} is {after}, not {document}"))
}
