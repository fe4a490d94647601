//! The architecture as a test: what may know what, and the habits that a compiler cannot see. The
//! rules are the tables at the top; an offence is mended, not listed. Knows nothing of what the
//! code does.

mod features;
mod migrations;
mod source;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use prost::Message;
use prost_types::FileDescriptorSet;
use source::{Source, is_ident, words};

/// Which modules of the crate each one may name. The domain knows nobody; data flow one way.
const EDGES: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("store", &["domain", "chain"]),
    ("hub", &["bell", "domain"]),
    ("app", &["bell", "domain", "store", "hub", "clock", "tasks", "chain", "failpoint", "metrics"]),
    ("auth", &["chain", "domain"]),
    ("rpc", &["app", "auth", "bell", "domain", "clock", "tasks", "chain"]),
    ("postgres", &[]),
    ("server", &["app", "auth", "rpc", "store", "config", "clock", "tasks", "chain", "metrics"]),
    ("client", &["domain", "chain", "clock", "failpoint", "tasks"]),
    ("config", &["auth", "domain", "exit", "logging"]),
    ("exit", &[]),
    ("logging", &[]),
    ("bell", &[]),
    ("chain", &[]),
    ("clock", &[]),
    ("failpoint", &[]),
    ("metrics", &["chain", "tasks"]),
    ("tasks", &[]),
    (
        "bench",
        &[
            "auth", "client", "clock", "config", "domain", "exit", "logging", "postgres", "rpc",
            "server", "store", "tasks",
        ],
    ),
    (
        "cli",
        &[
            "app", "auth", "bench", "client", "clock", "config", "domain", "exit", "logging",
            "postgres", "server", "store",
        ],
    ),
    ("main", &["cli", "config"]),
    ("lib", &[]),
];

/// What a module may name of one that it may not name otherwise.
const PART_EDGES: &[(&str, &str, &[&str])] =
    &[("client", "rpc", &["parse_policy", "proto"]), ("cli", "rpc", &["proto"])];

/// Single files that may name one more module, and what of it.
const FILE_EDGES: &[(&str, &str, &[&str])] = &[
    ("src/rpc/live.rs", "hub", &["Ahead", "Entry"]),
    ("src/rpc/subscription.rs", "hub", &["Hint", "Watch"]),
    ("src/rpc/session/begin.rs", "hub", &["Waker", "Watch"]),
    ("src/cli/health.rs", "rpc", &["health"]),
    ("src/rpc/status.rs", "store", &["self"]),
];

/// Where a library may be named. A name also stands for those that begin with it and `_`.
const LIBRARIES: &[(&str, &[&str])] = &[
    // The client has a file of its own. The baselines of `bench` write straight to the database.
    ("sqlx", &["store", "client", "bench"]),
    ("tonic", &["rpc", "bench", "client"]),
    ("prost", &["rpc", "bench", "client"]),
    ("tower", &["rpc"]),
    ("governor", &["rpc"]),
    ("jsonwebtoken", &["auth"]),
    ("aws_lc_rs", &["auth"]),
    // The keys of an issuer are the only thing that is fetched.
    ("reqwest", &["auth"]),
    // `doctor` looks at the server's certificate.
    ("tokio_rustls", &["rpc", "cli"]),
    ("x509_parser", &["cli"]),
    ("nix", &["postgres", "bench"]),
    ("hyper", &["metrics"]),
    ("prometheus_client", &["metrics"]),
    ("clap", &["config", "logging"]),
    ("toml", &["config"]),
    ("tracing_subscriber", &["logging"]),
    ("indicatif", &["cli", "bench"]),
    ("hdrhistogram", &["bench"]),
    ("anyhow", &["cli", "config", "exit", "bench"]),
];

/// What a pure core has no use for.
const FORBIDDEN_IN_DOMAIN: &[&str] = &[
    "async",
    "await",
    "tokio",
    "tracing",
    "rand",
    "Instant::now",
    "SystemTime::now",
    "OffsetDateTime::now",
    "new_v4",
    "now_v7",
];

const LINES_MAX: usize = 400;
/// How far above a `select!` the remark about cancellation may end.
const REMARK_LINES_MAX: usize = 4;
/// Folders that belong to one person and one machine.
const MACHINE_FOLDERS: &[&str] = &[
    concat!("/", "home/"),
    concat!("/", "root/"),
    concat!("/", "Users/"),
    concat!("/", "tmp/"),
    concat!("/", "var/folders/"),
];
const TEXT_ENDINGS: &[&str] = &[
    "rs", "toml", "md", "proto", "sql", "py", "sh", "yaml", "yml", "txt", "snap", "ts", "mjs",
    "json",
];

/// All offences found so far.
#[derive(Default)]
struct Offences(Vec<String>);

impl Offences {
    fn add(&mut self, file: &str, line: usize, what: impl std::fmt::Display) {
        self.0.push(format!("{file}:{line}: {what}"));
    }
}

#[test]
fn the_house_is_tidy() {
    let tree = Tree::read();
    let mut offences = Offences::default();
    for file in &tree.files {
        check_text(file, &mut offences);
        if let Some(source) = &file.source {
            check_source(file, source, &mut offences);
        }
    }
    migrations::check(&tree, &mut offences);
    check_calls(&tree, &mut offences);
    check_limits(&tree, &mut offences);
    let Offences(found) = offences;
    assert!(found.is_empty(), "{} offences:\n{}\n", found.len(), found.join("\n"));
}

/// A file of the repository.
struct File {
    /// From the root, with slashes.
    path: String,
    text: String,
    /// If it is Rust.
    source: Option<Source>,
}

impl File {
    /// The module of the crate that it belongs to.
    fn module(&self) -> Option<&str> {
        let path = self.path.strip_prefix("src/")?;
        Some(path.split_once('/').map_or(path, |(folder, _)| folder).trim_end_matches(".rs"))
    }
}

/// The repository.
struct Tree {
    files: Vec<File>,
}

impl Tree {
    fn read() -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let mut paths = from_git(&root).unwrap_or_else(|| {
            let mut paths = Vec::new();
            walk(&root, &root, &mut paths);
            paths
        });
        paths.sort();
        let files = paths.into_iter().filter_map(|path| {
            // A file that was deleted and not yet committed, or one that is not text.
            let text = fs::read_to_string(root.join(&path)).ok()?;
            let source = path.ends_with(".rs").then(|| Source::new(&text));
            Some(File { path, text, source })
        });
        let files: Vec<File> = files.collect();
        assert!(files.len() > 50, "this is not the repository: {}", root.display());
        Self { files }
    }

    fn file(&self, path: &str) -> &File {
        self.files.iter().find(|file| file.path == path).expect(path)
    }
}

/// What git knows of and what it would add; nothing without git.
fn from_git(root: &Path) -> Option<Vec<String>> {
    if !root.join(".git").exists() {
        return None;
    }
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let paths = String::from_utf8(listed.stdout).ok()?;
    Some(paths.split_terminator('\0').map(str::to_owned).collect())
}

fn walk(root: &Path, dir: &Path, paths: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        let skip = ["target", ".git", ".syncline", "__pycache__", ".venv", "node_modules"];
        if skip.iter().any(|skip| name == *skip) {
            continue;
        }
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            walk(root, &path, paths);
        } else {
            paths.push(path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/"));
        }
    }
}

/// Rules for every file, whatever it is written in.
fn check_text(file: &File, offences: &mut Offences) {
    let (name, ending) = file.path.rsplit_once('.').unwrap_or((&file.path, ""));
    let is_text = TEXT_ENDINGS.contains(&ending) || !name.contains('.') || ending == "run";
    if !is_text || file.path == file!() {
        return;
    }
    let prose = ending == "md";
    for (index, line) in file.text.lines().enumerate() {
        for folder in MACHINE_FOLDERS {
            let named = line.match_indices(folder).any(|(at, found)| {
                let before = line[..at].chars().next_back();
                let after = line[at + found.len()..].chars().next();
                !before.is_some_and(|c| is_ident(c) || "}./~".contains(c))
                    && after.is_some_and(|c| c.is_ascii_alphanumeric())
            });
            if named {
                offences.add(&file.path, index + 1, format!("a folder of one machine: {folder}"));
            }
        }
        for word in ["TODO", "FIXME"].iter().filter(|_| !prose) {
            if words(line).any(|(_, found)| found == *word) {
                offences.add(&file.path, index + 1, format!("{word}: do it, or leave it"));
            }
        }
    }
}

/// Rules for Rust.
fn check_source(file: &File, source: &Source, offences: &mut Offences) {
    let path = file.path.as_str();
    if !file.text.starts_with("//!") {
        offences.add(path, 1, "no `//!` that says what the file is for");
    }
    let lines = file.text.lines().count();
    if lines > LINES_MAX {
        offences.add(path, LINES_MAX + 1, format!("{lines} lines; at most {LINES_MAX}"));
    }
    for (line, macro_name) in source.macros() {
        if macro_name == "dbg" {
            offences.add(path, line, "dbg! is for the desk");
        }
        if macro_name == "select" && !source.remarks_on_cancellation(line, REMARK_LINES_MAX) {
            offences.add(path, line, "select! without a comment on what a cancelled branch loses");
        }
    }
    let Some(module) = file.module() else { return };
    check_edges(path, module, source, offences);
    check_libraries(path, module, source, offences);
    if module == "domain" {
        for word in FORBIDDEN_IN_DOMAIN {
            for line in source.mentions(word) {
                offences.add(path, line, format!("`{word}` in the domain"));
            }
        }
    }
}

fn check_edges(path: &str, module: &str, source: &Source, offences: &mut Offences) {
    let Some((_, allowed)) = EDGES.iter().find(|(from, _)| *from == module) else {
        offences.add(path, 1, format!("module `{module}` is not in the table of edges"));
        return;
    };
    for (line, to, items) in source.edges() {
        let by_file = FILE_EDGES.iter().any(|(file, module, of_it)| {
            *file == path && *module == to && items.iter().all(|item| of_it.contains(&&**item))
        });
        let by_part = PART_EDGES.iter().any(|(from, module_named, of_it)| {
            *from == module && *module_named == to && items.iter().all(|it| of_it.contains(&&**it))
        });
        if to != module && !allowed.contains(&&*to) && !by_file && !by_part {
            offences.add(path, line, format!("`{module}` may not use `{to}`"));
        }
    }
    for line in source.mentions("super::super") {
        offences.add(path, line, "write `crate::…`, so that the edge can be seen");
    }
}

fn check_libraries(path: &str, module: &str, source: &Source, offences: &mut Offences) {
    for (line, library) in source.paths() {
        let family = |(name, _): &&(&str, &[&str])| {
            library.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
        };
        if let Some((_, places)) = LIBRARIES.iter().find(family)
            && !places.contains(&module)
        {
            offences.add(path, line, format!("`{library}` may be used in {places:?} only"));
        }
    }
}

/// Every call of the contract is exercised by a test that names it.
fn check_calls(tree: &Tree, offences: &mut Offences) {
    let set = FileDescriptorSet::decode(syncline::rpc::proto::DESCRIPTOR_SET).unwrap();
    let is_test = |file: &&File| {
        file.path.starts_with("tests/it/")
            && !file.path.starts_with("tests/it/support")
            && !file.path.starts_with("tests/it/tidy")
    };
    for proto in set.file.iter().filter(|file| file.package().starts_with("syncline.")) {
        for method in proto.service.iter().flat_map(|service| &service.method) {
            let name = snake_case(method.name());
            let named = |file: &File| {
                let source = file.source.as_ref();
                source.is_some_and(|it| it.words().any(|(_, word)| word.starts_with(&name)))
            };
            if !tree.files.iter().filter(is_test).any(named) {
                let path = format!("proto/{}", proto.name());
                offences.add(&path, 0, format!("no test in tests/it names `{name}`"));
            }
        }
    }
}

/// Every limit is enforced, or told, somewhere.
fn check_limits(tree: &Tree, offences: &mut Offences) {
    let limits = tree.file("src/domain/limits.rs");
    for (index, line) in limits.text.lines().enumerate() {
        let Some(rest) = line.strip_prefix("pub const ") else { continue };
        let name = rest.split(':').next().unwrap();
        let used = tree.files.iter().any(|file| {
            let ours = file.path.starts_with("src/") && file.path != limits.path;
            let source = file.source.as_ref().filter(|_| ours);
            source.is_some_and(|source| source.words().any(|(_, word)| word == name))
        });
        if !used {
            offences.add(&limits.path, index + 1, format!("{name} limits nothing"));
        }
    }
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}
