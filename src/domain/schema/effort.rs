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

/// How many steps one value may take, by its depth in the document, to find all
/// that is wrong with it.
#[derive(Clone, Debug)]
pub(super) struct Effort(Vec<u64>);

impl Effort {
    /// What the schema takes, or why it is too much.
    pub(super) fn of(schema: &Value) -> Result<Self, String> {
        let graph = Graph::of(schema)?;
        // Whether a value is valid for a schema that leads back to itself is found
        // once; all else is looked at again on each way.
        let most = steps(&graph, true).into_iter().flatten().max().unwrap_or(0);
        if most > STEPS_MAX {
            return Err(format!("holds one value against more than {STEPS_MAX} schemas"));
        }
        let whole = |steps: Vec<u64>| steps.first().copied().unwrap_or(0);
        Ok(Self(steps(&graph, false).into_iter().map(whole).collect()))
    }

    /// Whether all places can be found where a document breaks the schema.
    pub(super) fn permits_details(&self, document: &Value) -> bool {
        let mut counts = vec![0; self.0.len()];
        count(document, 0, &mut counts);
        let steps = self.0.iter().zip(&counts).map(|(steps, count)| steps.saturating_mul(*count));
        steps.fold(0, u64::saturating_add) <= DETAILED_STEPS_MAX
    }
}

/// For each depth and each schema, the steps that one value takes so far below the
/// value that the schema is applied to. Those that `lead_back` count as one step.
fn steps(graph: &Graph, lead_back: bool) -> Vec<Vec<u64>> {
    let mut by_depth: Vec<Vec<u64>> = Vec::new();
    for depth in 0..=limits::DOCUMENT_DEPTH_MAX {
        let mut steps = graph.no_steps();
        for (index, node) in graph.innermost_first() {
            let below = by_depth.last();
            let at = |steps: Option<&Vec<u64>>, to: &usize| match steps {
                Some(_) if lead_back && graph.leads_back(index, *to) => 1,
                Some(steps) => steps.get(*to).copied().unwrap_or(0),
                None => 0,
            };
            let same = node.same.iter().map(|to| at(Some(&steps), to)).fold(0, u64::saturating_add);
            let most = |group: &Vec<usize>| group.iter().map(|to| at(below, to)).max();
            let inner = node.inner.iter().filter_map(most).fold(0, u64::saturating_add);
            let own = if depth == 0 { 1 } else { inner };
            let factor = if node.unevaluated { UNEVALUATED_FACTOR } else { 1 };
            if let Some(place) = steps.get_mut(index) {
                *place = own.saturating_add(same).saturating_mul(factor);
            }
        }
        by_depth.push(steps);
    }
    by_depth
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
