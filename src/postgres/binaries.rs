//! Finds the installed PostgreSQL.
//!
//! Nothing is downloaded. A folder counts when it holds both `postgres` and `initdb` of a version
//! that we support; which folders are looked at, and in which order, is `candidates`.

use std::{
    cmp::Reverse,
    env, fs,
    path::{self, Path, PathBuf},
    process::Command,
};

use super::Error;

const MAJOR_MIN: u32 = 13;

/// A usable installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binaries {
    pub dir: PathBuf,
    pub major: u32,
    /// As the server names it, such as `15.18`.
    pub version: String,
}

/// The first usable installation, or a later one if only that can read data of version `prefer`.
pub(super) fn find(prefer: Option<u32>) -> Result<Binaries, Error> {
    match env::var_os("SYNCLINE_PG_BIN").filter(|dir| !dir.is_empty()) {
        // Set on purpose: a silent second choice would hide the mistake in it.
        Some(dir) => choose([dir.into()], prefer),
        None => {
            let usable = |dir: &PathBuf| dir.is_absolute() && holds_both(dir);
            choose(candidates().into_iter().filter(usable), prefer)
        }
    }
}

/// Another program of the installation that is used.
pub fn program(name: &str) -> Result<PathBuf, Error> {
    Ok(find(None)?.dir.join(name))
}

fn holds_both(dir: &Path) -> bool {
    dir.join("postgres").is_file() && dir.join("initdb").is_file()
}

fn candidates() -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        dirs.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    dirs.extend(newest_first("/usr/lib/postgresql", ""));
    dirs.extend(newest_first("/usr", "pgsql-"));
    dirs.extend(newest_first("/opt/homebrew/opt", "postgresql@"));
    dirs.extend(newest_first("/usr/local/opt", "postgresql@"));
    dirs.extend(newest_first("/Applications/Postgres.app/Contents/Versions", ""));
    dirs.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    dirs
}

/// The folders `parent/<prefix><version>/bin`.
fn newest_first(parent: impl AsRef<Path>, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let major = leading_number(entry.file_name().to_str()?.strip_prefix(prefix)?)?;
            Some((major, entry.path().join("bin")))
        })
        .collect();
    found.sort_by_key(|(major, _)| Reverse(*major));
    found.into_iter().map(|(_, dir)| dir).collect()
}

fn choose(dirs: impl IntoIterator<Item = PathBuf>, prefer: Option<u32>) -> Result<Binaries, Error> {
    let mut first = None;
    let mut notes = Vec::new();
    for dir in dirs {
        // A relative folder would mean another one to a child that begins elsewhere.
        let dir = path::absolute(&dir).unwrap_or(dir);
        if !holds_both(&dir) {
            notes.push(format!("{}: not both postgres and initdb", dir.display()));
            continue;
        }
        match ask_version(&dir) {
            Some((major, version)) if major >= MAJOR_MIN => {
                let binaries = Binaries { dir, major, version };
                if prefer.is_none_or(|prefer| prefer == major) {
                    return Ok(binaries);
                }
                first.get_or_insert(binaries);
            }
            Some((_, version)) => notes.push(format!("{}: version {version}", dir.display())),
            None => notes.push(format!("{}: does not tell its version", dir.display())),
        }
    }
    let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) };
    first.ok_or(Error::NotFound { notes })
}

fn ask_version(dir: &Path) -> Option<(u32, String)> {
    let output = Command::new(dir.join("postgres")).arg("--version").env_clear().output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// Reads `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, also `17beta2` and `18devel`.
fn parse_version(text: &str) -> Option<(u32, String)> {
    let version = text.split_once("(PostgreSQL)")?.1.split_whitespace().next()?;
    Some((leading_number(version)?, version.to_owned()))
}

/// The major version that a text such as `15`, `9.6` or `17beta2` begins with.
pub(super) fn leading_number(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn install(parent: &Path, folder: &str, answer: &str) -> PathBuf {
        let dir = parent.join(folder).join("bin");
        fs::create_dir_all(&dir).unwrap();
        for name in ["postgres", "initdb"] {
            let path = dir.join(name);
            fs::write(&path, format!("#!/bin/sh\necho '{answer}'\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        dir
    }

    #[test]
    fn version_is_read_from_all_known_forms() {
        for (text, expected) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some((15, "15.18"))),
            ("postgres (PostgreSQL) 17beta2", Some((17, "17beta2"))),
            ("postgres (PostgreSQL) 18devel", Some((18, "18devel"))),
            ("postgres (PostgreSQL) 9.6.24", Some((9, "9.6.24"))),
            ("postgres (EDB) 15", None),
            ("postgres (PostgreSQL) ", None),
            ("", None),
        ] {
            let expected = expected.map(|(major, version)| (major, version.to_owned()));
            assert_eq!(parse_version(text), expected, "{text}");
        }
    }

    #[test]
    fn newest_folder_comes_first_by_number_not_by_text() {
        let temp = tempfile::tempdir().unwrap();
        for name in ["pg-9.6", "pg-13", "pg-15", "pg-latest", "other-99"] {
            fs::create_dir(temp.path().join(name)).unwrap();
        }
        let expected = ["pg-15", "pg-13", "pg-9.6"].map(|name| temp.path().join(name).join("bin"));
        assert_eq!(newest_first(temp.path(), "pg-"), expected);
        assert!(newest_first(temp.path().join("missing"), "").is_empty());
    }

    #[test]
    fn choice_skips_incomplete_and_old_and_prefers_the_version_of_the_data() {
        let temp = tempfile::tempdir().unwrap();
        let half = install(temp.path(), "half", "postgres (PostgreSQL) 16.1");
        fs::remove_file(half.join("initdb")).unwrap();
        let old = install(temp.path(), "old", "postgres (PostgreSQL) 12.9");
        let mute = install(temp.path(), "mute", "hello");
        let new = install(temp.path(), "new", "postgres (PostgreSQL) 16.2");
        let other = install(temp.path(), "other", "postgres (PostgreSQL) 14.3");
        let all = [half.clone(), old.clone(), mute, new.clone(), other.clone()];

        assert_eq!(choose(all.clone(), None).unwrap().dir, new);
        assert_eq!(choose(all.clone(), Some(14)).unwrap().dir, other);
        assert_eq!(choose(all, Some(15)).unwrap().dir, new, "none matches: the first one");

        let message = choose([half, old], None).unwrap_err().to_string();
        assert!(message.contains("half/bin: not both"), "{message}");
        assert!(message.contains("old/bin: version 12.9"), "{message}");
        for advice in ["apt install", "dnf install", "brew install", "SYNCLINE_PG_BIN", "serve"] {
            assert!(message.contains(advice), "{message}");
        }
    }
}
