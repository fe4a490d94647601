//! Edits of which each can be told from all others by what becomes of the records.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::program::{Line, Program, Run};
use crate::support::put;

/// Increments that one counter can tell from each other: two bits of a number for each.
const INCREMENTS: usize = 26;

/// What an edit does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Does {
    /// Adds 4^bit to a counter.
    Counts { counter: usize, bit: usize },
    /// Makes a record of its own.
    Makes,
    /// Deletes what that edit has made.
    Deletes { by: usize },
    /// Writes the record that many write.
    Shares,
    /// Creates a record that is there.
    Clashes,
}

/// The edits of one user, and what is known of each.
#[derive(Debug, Default)]
pub struct Script {
    pub edits: Vec<Does>,
    /// By number of the edit: the ids under which it is queued.
    pub told: BTreeMap<usize, String>,
    pub refused: BTreeSet<usize>,
    /// Increments that there were.
    counted: usize,
    others: usize,
}

impl Script {
    /// With what the edits need on the server.
    pub async fn new(program: &Program) -> Self {
        Self::seed(program).await;
        Self::default()
    }

    /// The same, once more: the server has lost it.
    pub async fn seed(program: &Program) {
        let mut all = vec![put("taken", "taken", "{}")];
        for counter in 0..24 {
            let mut counter = put(&format!("c{counter}"), &format!("{counter}"), r#"{"n":0}"#);
            counter.key.as_mut().unwrap().collection = "count".into();
            all.push(counter);
        }
        program.client.batch(all, false).await.unwrap();
    }

    /// The next edits, as lines for stdin.
    pub fn some(&mut self, count: u64) -> Vec<Line> {
        (0..count).map(|_| self.next()).collect()
    }

    fn next(&mut self) -> Line {
        let number = self.edits.len();
        let (does, line) = match number % 8 {
            0 | 3 | 4 => {
                let (counter, bit) = (self.counted / INCREMENTS, self.counted % INCREMENTS);
                self.counted += 1;
                let by = json!({"/n": 1_i64 << (2 * bit)});
                let id = counter.to_string();
                let line = json!({"op": "patch", "collection": "count", "id": id, "increment": by});
                (Does::Counts { counter, bit }, line)
            }
            1 | 6 => {
                let id = format!("own{number}");
                let op = if number % 8 == 1 { "put" } else { "create" };
                let document = Self::document(number);
                let line = json!({"op": op, "collection": "task", "id": id, "document": document});
                (Does::Makes, line)
            }
            5 => {
                let id = format!("own{}", number - 4);
                let line = json!({"op": "delete", "collection": "task", "id": id});
                (Does::Deletes { by: number - 4 }, line)
            }
            2 => {
                let document = Self::document(number);
                let line = json!({"op": "put", "collection": "task", "id": "shared",
                    "document": document});
                (Does::Shares, line)
            }
            _ => {
                let line = json!({"op": "create", "collection": "task", "id": "taken",
                    "document": Self::document(number)});
                (Does::Clashes, line)
            }
        };
        self.edits.push(does);
        (number, line.to_string())
    }

    /// What an edit writes.
    pub fn document(number: usize) -> serde_json::Value {
        json!({"mark": format!("mark-{number}-of-many"), "number": number})
    }

    /// Words of the last of those that write a document of its own.
    pub fn last_mark(&self) -> String {
        let own = |does: &Does| *does == Does::Makes;
        let number = self.edits.iter().rposition(own).unwrap();
        format!("mark-{number}-of-many")
    }

    /// Somebody else writes, on another device.
    pub async fn others(&mut self, program: &Program, count: u64) {
        let mut all = Vec::new();
        for _ in 0..count {
            self.others += 1;
            let number = self.others;
            let text = format!("{{\"other\":{number}}}");
            let mut mutation = put(&format!("o{number}"), &number.to_string(), &text);
            mutation.key.as_mut().unwrap().collection = "other".into();
            all.push(mutation);
        }
        if !all.is_empty() {
            program.client.batch(all, false).await.unwrap();
        }
    }

    /// What a run has acknowledged.
    pub fn heard(&mut self, run: &Run) {
        self.told.extend(run.told());
        self.refused.extend(run.refused());
    }
}
