//! The three sides of a conflict, held against each other value by value. Pure: must not know where
//! they come from, nor how they are shown.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// What the sides have; None where there is nothing.
#[derive(Clone, Debug)]
pub(super) struct Sides {
    /// What both had seen; also None if it is not known any longer.
    pub(super) base: Option<Value>,
    /// The record as it is.
    pub(super) theirs: Option<Value>,
    /// What came.
    pub(super) mine: Option<Value>,
}

/// A value in which they differ.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Difference {
    /// A JSON Pointer; empty stands for the whole.
    pub(super) path: String,
    pub(super) base: Option<Value>,
    pub(super) theirs: Option<Value>,
    pub(super) mine: Option<Value>,
}

impl Difference {
    /// Both sides have changed it, and not in the same way.
    pub(super) fn is_overlap(&self) -> bool {
        self.theirs != self.mine && self.theirs != self.base && self.mine != self.base
    }
}

impl Sides {
    /// Where mine and theirs differ, as deep as all sides are objects.
    pub(super) fn differences(&self) -> Vec<Difference> {
        let mut found = Vec::new();
        walk("", [self.base.as_ref(), self.theirs.as_ref(), self.mine.as_ref()], &mut found);
        found
    }
}

fn walk(path: &str, sides: [Option<&Value>; 3], found: &mut Vec<Difference>) {
    let [base, theirs, mine] = sides;
    // What both have is nothing to decide about, whatever there was before.
    if theirs == mine {
        return;
    }
    let Some(objects) = objects(sides) else {
        let path = path.to_owned();
        let [base, theirs, mine] = [base, theirs, mine].map(Option::<&Value>::cloned);
        found.push(Difference { path, base, theirs, mine });
        return;
    };
    for (name, inner) in objects.entries() {
        walk(&format!("{path}/{}", escaped(name)), inner, found);
    }
}

/// The sides of a value, base first, where they are compared name by name.
pub(super) struct Objects<'v>([Option<&'v Map<String, Value>>; 3]);

/// The sides as objects, if both are, and the base is or there is none: without a base both may have
/// made one.
pub(super) fn objects(sides: [Option<&Value>; 3]) -> Option<Objects<'_>> {
    let [base, theirs, mine] = sides;
    let base = match base {
        Some(base) => Some(base.as_object()?),
        None => None,
    };
    Some(Objects([base, Some(theirs?.as_object()?), Some(mine?.as_object()?)]))
}

impl<'v> Objects<'v> {
    /// Each name that they have together, with what the sides have there.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'v str, [Option<&'v Value>; 3])> {
        let sides = self.0;
        let names: BTreeSet<&'v String> = sides.into_iter().flatten().flat_map(Map::keys).collect();
        let inner = move |name: &'v String| sides.map(|side| side.and_then(|it| it.get(name)));
        names.into_iter().map(move |name| (name.as_str(), inner(name)))
    }
}

/// A name as it stands in a JSON Pointer.
pub(super) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(in crate::cli::remote::resolve) fn sides(base: Value, theirs: Value, mine: Value) -> Sides {
        let some = |value: Value| Some(value).filter(|value| !value.is_null());
        Sides { base: some(base), theirs: some(theirs), mine: some(mine) }
    }

    #[test]
    fn differences_are_told_value_by_value() {
        let sides = sides(
            json!({"a": 1, "b": {"x/y": 1, "z": 1}, "same": [1]}),
            json!({"a": 2, "b": {"x/y": 1, "z": 2}, "same": [1]}),
            json!({"a": 3, "b": {"x/y": 2, "z": 1}, "same": [1]}),
        );
        let found = sides.differences();
        let told: Vec<_> = found.iter().map(|it| (it.path.as_str(), it.is_overlap())).collect();
        assert_eq!(told, [("/a", true), ("/b/x~1y", false), ("/b/z", false)]);
    }

    #[test]
    fn a_deletion_differs_as_a_whole() {
        let sides = sides(json!({"a": 1}), Value::Null, json!({"a": 2}));
        let found = sides.differences();
        assert_eq!((found.len(), found[0].path.as_str()), (1, ""));
        assert!(found[0].is_overlap() && found[0].theirs.is_none());
    }

    #[test]
    fn without_a_base_whatever_differs_overlaps() {
        let sides = sides(Value::Null, json!({"a": 1, "b": 1}), json!({"a": 1, "b": 2}));
        let found = sides.differences();
        assert_eq!((found.len(), found[0].path.as_str(), found[0].is_overlap()), (1, "/b", true));
    }
}
