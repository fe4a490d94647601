//! What the schemas within a schema apply to: the same value again, or what is in
//! it. References are followed; they lead nowhere but into the schema itself.

use std::collections::{HashMap, HashSet};

use jsonschema::Draft;
use percent_encoding::percent_decode_str;
use serde_json::Value;

/// Schemas that one and the same value may be led through, one within another.
/// Validation is recursive: with the depth of documents this bounds its stack.
const CHAIN_MAX: usize = 16;

/// A schema within the schema.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// Schemas for the same value.
    pub(super) same: Vec<usize>,
    /// Schemas for the values in it: of each group one at most for each value.
    pub(super) inner: Vec<Vec<usize>>,
    /// Whether it asks what the others have not looked at.
    pub(super) unevaluated: bool,
}

/// The schemas that validation may come to. The first is the whole.
#[derive(Debug)]
pub(super) struct Graph {
    nodes: Vec<Node>,
    order: Vec<usize>,
    /// From a schema to one that leads to it.
    back: HashSet<(usize, usize)>,
}

impl Graph {
    /// The graph of a schema that has been compiled, or what is wrong with it.
    pub(super) fn of(schema: &Value) -> Result<Self, String> {
        let is_draft_4 = Draft::default().detect(schema) == Draft::Draft4;
        let mut text = Text { is_draft_4, ..Text::default() };
        text.add(schema, true)?;
        let nodes = text.values.iter().map(|value| text.node(value));
        let nodes = nodes.collect::<Result<_, _>>()?;
        let mut graph = Self { nodes, order: Vec::new(), back: HashSet::new() };
        graph.sort()?;
        graph.find_back();
        Ok(graph)
    }

    /// The schemas, after those that they apply to the same value.
    pub(super) fn innermost_first(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.order.iter().filter_map(|index| Some((*index, self.nodes.get(*index)?)))
    }

    /// A count for each schema.
    pub(super) fn no_steps(&self) -> Vec<u64> {
        vec![0; self.nodes.len()]
    }

    /// Whether the second leads to the first, which leads to it.
    pub(super) fn leads_back(&self, from: usize, to: usize) -> bool {
        self.back.contains(&(from, to))
    }

    fn find_back(&mut self) {
        #[derive(Clone, Copy, PartialEq)]
        enum Visit {
            Never,
            UnderWay,
            Done,
        }
        let mut visits = vec![Visit::Never; self.nodes.len()];
        let mut path = vec![(0, 0)];
        while let Some((index, visited)) = path.pop() {
            let Some(node) = self.nodes.get(index) else { continue };
            let next = node.same.iter().chain(node.inner.iter().flatten()).nth(visited).copied();
            if let Some(visit) = visits.get_mut(index) {
                *visit = if next.is_some() { Visit::UnderWay } else { Visit::Done };
            }
            let Some(next) = next else { continue };
            path.push((index, visited + 1));
            match visits.get(next) {
                Some(Visit::Never) => path.push((next, 0)),
                Some(Visit::UnderWay) => {
                    self.back.insert((index, next));
                }
                Some(Visit::Done) | None => {}
            }
        }
    }

    /// Finds the order of those that the first leads to.
    fn sort(&mut self) -> Result<(), String> {
        // How long the chain is that begins at a schema, when that is known.
        let mut chains: Vec<Option<usize>> = vec![None; self.nodes.len()];
        let mut roots = vec![0];
        while let Some(root) = roots.pop() {
            // Those that are under way, and how many of theirs have been visited.
            let mut path = vec![(root, 0)];
            while let Some((index, visited)) = path.pop() {
                let Some(node) = self.nodes.get(index) else { continue };
                let known = |index: &usize| chains.get(*index).copied().flatten();
                if known(&index).is_some() {
                    continue;
                }
                if let Some(next) = node.same.get(visited) {
                    path.push((index, visited + 1));
                    if path.iter().any(|(under_way, _)| under_way == next) {
                        return Err("refers to itself for one and the same value".into());
                    }
                    path.push((*next, 0));
                    continue;
                }
                let longest = node.same.iter().filter_map(known).max();
                let chain = longest.map_or(0, |longest| longest + 1);
                if chain > CHAIN_MAX {
                    let rule = "schemas one within another, or by references";
                    return Err(format!("leads one value through more than {CHAIN_MAX} {rule}"));
                }
                roots.extend(node.inner.iter().flatten());
                self.order.push(index);
                if let Some(place) = chains.get_mut(index) {
                    *place = Some(chain);
                }
            }
        }
        Ok(())
    }
}

/// The text of a schema: its objects, of which some are schemas.
#[derive(Default)]
struct Text<'s> {
    values: Vec<&'s Value>,
    /// By where they lie in memory.
    numbers: HashMap<*const Value, usize>,
    /// By their anchors.
    anchors: HashMap<&'s str, Vec<usize>>,
    /// The name of the whole.
    id: Option<&'s str>,
    /// Where names are said without a dollar.
    is_draft_4: bool,
}

impl<'s> Text<'s> {
    fn add(&mut self, value: &'s Value, is_whole: bool) -> Result<(), String> {
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| self.add(item, false)),
            Value::Object(fields) => {
                let number = self.values.len();
                self.values.push(value);
                self.numbers.insert(std::ptr::from_ref(value), number);
                let given = |name: &str| fields.get(name).and_then(Value::as_str);
                let id = given("$id").or_else(|| given("id").filter(|_| self.is_draft_4));
                let anchor = id.and_then(|id| id.strip_prefix('#'));
                if is_whole {
                    self.id = id;
                } else if id.is_some() && anchor.is_none() {
                    return Err("has an `$id` below its top".into());
                } else if given("$schema").is_some() {
                    return Err("has a `$schema` below its top".into());
                }
                let anchors = [anchor, given("$anchor"), given("$dynamicAnchor")];
                for anchor in anchors.into_iter().flatten() {
                    self.anchors.entry(anchor).or_default().push(number);
                }
                fields.values().try_for_each(|item| self.add(item, false))
            }
            _ => Ok(()),
        }
    }

    fn node(&self, schema: &'s Value) -> Result<Node, String> {
        let one = |name: &str| schema.get(name).and_then(|it| self.number(it));
        let listed = |name: &str| {
            let items = schema.get(name).and_then(Value::as_array).into_iter().flatten();
            items.filter_map(|it| self.number(it)).collect::<Vec<_>>()
        };
        let named = |name: &str| {
            let items = schema.get(name).and_then(Value::as_object).into_iter().flatten();
            items.filter_map(|(_, it)| self.number(it)).collect::<Vec<_>>()
        };
        let mut same: Vec<_> = ["not", "if", "then", "else"].into_iter().filter_map(one).collect();
        same.extend(["allOf", "anyOf", "oneOf"].into_iter().flat_map(listed));
        same.extend(["dependentSchemas", "dependencies"].into_iter().flat_map(named));
        for name in ["$ref", "$dynamicRef", "$recursiveRef"] {
            if let Some(reference) = schema.get(name).and_then(Value::as_str) {
                let target = self.target(reference);
                same.extend(target.ok_or_else(|| {
                    format!("has the reference {reference:?}; write it as #/$defs/name or #anchor")
                })?);
            }
        }
        // A value is in the object by its name, or in the list by its place, or one
        // of the others.
        let mut by_name = named("properties");
        by_name.extend(one("additionalProperties"));
        let mut by_place = listed("prefixItems");
        by_place.extend(listed("items"));
        by_place.extend(one("items").into_iter().chain(one("additionalItems")));
        let mut inner = vec![by_name, by_place];
        let asks = ["unevaluatedProperties", "unevaluatedItems"];
        let others = ["contains", "propertyNames"].into_iter().chain(asks);
        inner.extend(others.filter_map(one).map(|it| vec![it]));
        inner.extend(named("patternProperties").into_iter().map(|it| vec![it]));
        let unevaluated = asks.into_iter().any(|name| schema.get(name).is_some());
        Ok(Node { same, inner, unevaluated })
    }

    fn number(&self, value: &Value) -> Option<usize> {
        self.numbers.get(&std::ptr::from_ref(value)).copied()
    }

    /// The schemas that a reference may mean; none for one that is a truth value.
    fn target(&self, reference: &str) -> Option<Vec<usize>> {
        let (resource, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let whole = self.id.map(|id| id.trim_end_matches('#'));
        if !resource.is_empty() && whole != Some(resource) {
            return None;
        }
        let fragment = percent_decode_str(fragment).decode_utf8().ok()?;
        if !fragment.is_empty() && !fragment.starts_with('/') {
            return self.anchors.get(fragment.as_ref()).cloned();
        }
        let found = self.values.first()?.pointer(&fragment)?;
        Some(self.number(found).into_iter().collect())
    }
}
