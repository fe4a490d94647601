//! What each policy makes of two sides, held against tables that people can
//! read: `tests/golden/*.txt`. A table begins with what was there and the two
//! sides; each line after that is a policy, and what becomes of the record if
//! the client's write is later than the server's, if it is earlier, and in
//! advisory mode. `SYNCLINE_GOLDEN=write` writes the outcomes anew, to be read
//! before they are kept.

mod core;
mod wire;

use std::fs;
use std::path::PathBuf;

use crate::support::scale;
use syncline::domain::{
    DeleteRule, Document, Fallback, FieldRule, Operation, Patch, Pattern, Pointer, Policy,
    PolicyMode, Strategy, Transform, TransformKind,
};

/// One table.
struct Table {
    name: String,
    base: Option<String>,
    server: String,
    client: String,
    /// The lines as they are, and what their policies say.
    rows: Vec<(String, Policy)>,
    head: String,
}

/// How two writes meet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meeting {
    ClientLater,
    ClientEarlier,
    Advisory,
}

const MEETINGS: [Meeting; 3] = [Meeting::ClientLater, Meeting::ClientEarlier, Meeting::Advisory];

impl Meeting {
    fn mode(self) -> PolicyMode {
        match self {
            Self::ClientLater | Self::ClientEarlier => PolicyMode::Enforced,
            Self::Advisory => PolicyMode::Advisory,
        }
    }

    /// When the base, the server's side and the client's were written.
    fn micros(self) -> [i64; 3] {
        const BASE: i64 = 1_700_000_000_000_000;
        const MINUTE: i64 = 60_000_000;
        match self {
            Self::ClientLater | Self::Advisory => [BASE, BASE + MINUTE, BASE + 2 * MINUTE],
            Self::ClientEarlier => [BASE, BASE + 2 * MINUTE, BASE + MINUTE],
        }
    }
}

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "golden"].iter().collect()
}

fn tables() -> Vec<Table> {
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    files.iter().map(Table::parse).collect()
}

impl Table {
    fn parse(file: &PathBuf) -> Self {
        let text = fs::read_to_string(file).unwrap();
        let (head, rows) = text.split_once("\n\n").expect("a blank line after the sides");
        let side = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name));
            line.map(|line| line.trim().to_owned())
        };
        let policies = rows.lines().skip(1).map(|line| (line.to_owned(), policy(spec(line))));
        Self {
            name: file.file_stem().unwrap().to_str().unwrap().to_owned(),
            base: side("base "),
            server: side("server ").expect("a server's side"),
            client: side("client ").expect("a client's side"),
            rows: policies.collect(),
            head: head.to_owned(),
        }
    }

    /// The table's text with these outcomes.
    fn render(&self, outcomes: &[[String; 3]]) -> String {
        let specs: Vec<_> = self.rows.iter().map(|(line, _)| spec(line)).collect();
        let titles = ["policy", "the client's is later", "the client's is earlier", "advisory"];
        let mut lines = vec![titles.map(str::to_owned)];
        lines.extend(specs.iter().zip(outcomes).map(|(spec, [later, earlier, advisory])| {
            [(*spec).to_owned(), later.clone(), earlier.clone(), advisory.clone()]
        }));
        let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap();
        let widths = [0, 1, 2].map(width);
        let mut text = format!("{}\n\n", self.head);
        for [spec, later, earlier, advisory] in &lines {
            let [a, b, c] = widths;
            text += &format!("{spec:a$} | {later:b$} | {earlier:c$} | {advisory}\n");
        }
        text
    }

    /// Holds outcomes against the file, or writes them into it.
    fn check(&self, outcomes: &[[String; 3]]) {
        let file = folder().join(format!("{}.txt", self.name));
        let text = self.render(outcomes);
        if std::env::var("SYNCLINE_GOLDEN").is_ok_and(|it| it == "write") {
            fs::write(file, text).unwrap();
        } else {
            let expected = fs::read_to_string(file).unwrap();
            pretty_assertions::assert_eq!(expected, text, "{}", self.name);
        }
    }
}

/// The part of a line that says the policy.
fn spec(line: &str) -> &str {
    line.split('|').next().unwrap().trim()
}

/// `merge fallback=manual deletes=delete_wins /n=max /lines=union:sku`.
fn policy(spec: &str) -> Policy {
    let mut words = spec.split_whitespace();
    let read = |name: &str| serde_json::Value::from(name);
    let strategy: Strategy = serde_json::from_value(read(words.next().unwrap())).unwrap();
    let mut policy = Policy { strategy, ..Policy::default() };
    for (key, value) in words.map(|word| word.split_once('=').expect("key=value")) {
        match key {
            "fallback" => {
                policy.fallback = serde_json::from_value::<Fallback>(read(value)).unwrap();
            }
            "deletes" => {
                policy.deletes = serde_json::from_value::<DeleteRule>(read(value)).unwrap();
            }
            "version_field" => policy.version_field = Some(Pointer::parse(value).unwrap()),
            path => {
                let (kind, key_field) = match value.split_once(':') {
                    Some((kind, field)) => (kind, Some(field.to_owned())),
                    None => (value, None),
                };
                policy.fields.push(FieldRule {
                    path: Pattern::parse(path).unwrap(),
                    kind: serde_json::from_value(read(kind)).unwrap(),
                    key_field,
                });
            }
        }
    }
    policy
}

fn document(text: &str) -> Document {
    Document::from_json(text.as_bytes()).unwrap()
}

/// `put {…}`, `create {…}`, `delete`, `patch {…} - /a /b`, `increment /n 2`.
fn operation(text: &str) -> Operation {
    let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
    match name {
        "put" => Operation::Put(document(rest)),
        "create" => Operation::Create(document(rest)),
        "delete" => Operation::Delete,
        "patch" => {
            let (set, unset) = rest.split_once(" - ").unwrap_or((rest, ""));
            let unset = unset.split_whitespace().map(|path| Pointer::parse(path).unwrap());
            let (set, unset) = (document(set), unset.collect());
            Operation::Patch(Patch { set, unset, transforms: Vec::new() })
        }
        name => {
            let (path, operand) = rest.split_once(' ').unwrap();
            let number = || serde_json::from_str(operand).unwrap();
            let list = || serde_json::from_str(operand).unwrap();
            let kind = match name {
                "increment" => TransformKind::Increment(number()),
                "max" => TransformKind::Max(number()),
                "min" => TransformKind::Min(number()),
                "append_missing" => TransformKind::AppendMissing(list()),
                "remove_all" => TransformKind::RemoveAll(list()),
                other => panic!("an unknown operation: {other}"),
            };
            let path = Pointer::parse(path).unwrap();
            let (set, transforms) = (document("{}"), vec![Transform { path, kind }]);
            Operation::Patch(Patch { set, unset: Vec::new(), transforms })
        }
    }
}

/// Whether a table's row is tried at the small size, or at any.
fn is_due(table: usize, row: usize) -> bool {
    scale() > 1 || (table + row).is_multiple_of(4)
}

/// Words for what became of a write, from what both tests can see of it.
struct Seen {
    outcome: &'static str,
    /// The record after it; None = deleted.
    document: Option<String>,
    lost: Vec<String>,
    /// What was decided, if that was only told.
    told: Option<&'static str>,
}

impl Seen {
    fn show(&self) -> String {
        let document = self.document.as_deref().unwrap_or("deleted");
        let mut text = format!("{} {document}", self.outcome);
        if !self.lost.is_empty() {
            text += &format!(" lost {}", self.lost.join(" "));
        }
        if let Some(told) = self.told {
            text += &format!(" (told: {told})");
        }
        text
    }
}

/// Every strategy is in every table, and nothing else would be a full one.
#[test]
fn each_table_has_every_strategy() {
    let tables = tables();
    assert!(tables.len() >= 11, "{} tables", tables.len());
    let all = [
        Strategy::LastWriteWins,
        Strategy::FirstWriteWins,
        Strategy::HighestVersionWins,
        Strategy::ServerWins,
        Strategy::ClientWins,
        Strategy::Merge,
        Strategy::Additive,
        Strategy::Manual,
        Strategy::Auto,
    ];
    for table in tables.iter().filter(|table| !table.name.starts_with("rule")) {
        for strategy in all {
            let mut policies = table.rows.iter().map(|(_, policy)| policy.strategy);
            assert!(policies.any(|it| it == strategy), "{}: {strategy:?}", table.name);
        }
    }
}
