//! How much work a schema can make of a document, found before it is used: what is
//! out of all proportion is refused, or is not told in detail.

use serde_json::Value;

use super::graph::Graph;
use crate::domain::limits;

/// Schemas that one and the same value may be held against.
const STEPS_MAX: u64 = 10_000;
/// What is not evaluated is found by looking at all the rest again.
const UNEVALUATED_FACTOR: u64 = 6;
/// Steps to find the places at fault. All of them are found before the first is
/// told, so this is also what they take in memory.
const DETAILED_STEPS_MAX: u64 = 500_000;

/// How many steps one value may take, by its depth in the document.
#[derive(Clone, Debug)]
pub(super) struct Effort(Vec<u64>);

impl Effort {
    /// What the schema takes, or why it is too much.
    pub(super) fn of(schema: &Value) -> Result<Self, String> {
        let graph = Graph::of(schema)?;
        // For each schema, the steps that one value takes so far below the value
        // that it is applied to.
        let mut below = graph.no_steps();
        let mut by_depth = Vec::new();
        for depth in 0..=limits::DOCUMENT_DEPTH_MAX {
            let mut steps = graph.no_steps();
            for (index, node) in graph.innermost_first() {
                let at = |steps: &[u64], index: &usize| steps.get(*index).copied().unwrap_or(0);
                let same = node.same.iter().map(|it| at(&steps, it)).fold(0, u64::saturating_add);
                let most = |group: &Vec<usize>| group.iter().map(|it| at(&below, it)).max();
                let inner = node.inner.iter().filter_map(most).fold(0, u64::saturating_add);
                let own = if depth == 0 { 1 } else { inner };
                let factor = if node.unevaluated { UNEVALUATED_FACTOR } else { 1 };
                if let Some(place) = steps.get_mut(index) {
                    *place = own.saturating_add(same).saturating_mul(factor);
                }
            }
            if depth == 0 && steps.iter().any(|count| *count > STEPS_MAX) {
                return Err(format!("holds one value against more than {STEPS_MAX} schemas"));
            }
            by_depth.push(steps.first().copied().unwrap_or(0));
            below = steps;
        }
        Ok(Self(by_depth))
    }

    /// Whether all places can be found where a document breaks the schema.
    pub(super) fn permits_details(&self, document: &Value) -> bool {
        let mut counts = vec![0; self.0.len()];
        count(document, 0, &mut counts);
        let steps = self.0.iter().zip(&counts).map(|(steps, count)| steps.saturating_mul(*count));
        steps.fold(0, u64::saturating_add) <= DETAILED_STEPS_MAX
    }
}

/// Values by depth.
fn count(value: &Value, depth: usize, counts: &mut [u64]) {
    if let Some(count) = counts.get_mut(depth) {
        *count += 1;
    }
    match value {
        Value::Array(items) => items.iter().for_each(|item| count(item, depth + 1, counts)),
        Value::Object(fields) => fields.values().for_each(|item| count(item, depth + 1, counts)),
        _ => {}
    }
}
