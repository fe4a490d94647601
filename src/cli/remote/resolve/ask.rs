//! A person who is asked: the sides side by side, a choice, an editor. Must not know of servers.

use std::fs::OpenOptions;
use std::io::{self, BufRead, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, anyhow, bail};
use serde_json::Value;
use uuid::Uuid;

use super::draft;
use super::sides::{Difference, Sides};
use crate::cli::remote::output::{Output, Style, safe};
use crate::config::Side;

/// What somebody has chosen.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Keep(Side),
    /// Edit a draft.
    Edit,
    /// Leave it open.
    Leave,
}

/// The sides of each value in which they differ.
pub(super) fn shown(out: Output, sides: &Sides) -> String {
    let differences = sides.differences();
    let mut text = String::new();
    for it in &differences {
        let path = if it.path.is_empty() { "the whole record" } else { &it.path };
        let mark = if it.is_overlap() { "  (both changed it)" } else { "" };
        text.push_str(&out.paint(Style::Name, &safe(path)));
        text.push_str(&out.paint(Style::Careful, mark));
        text.push('\n');
        for (name, value) in rows(it) {
            let was = value == it.base.as_ref();
            let said = value.map_or_else(|| "nothing".to_owned(), |it| safe(&it.to_string()));
            let style = match name {
                _ if was => Style::Faint,
                "theirs" => Style::Bad,
                _ => Style::Good,
            };
            text.push_str(&format!("  {name:<6}  {}\n", out.paint(style, &said)));
        }
    }
    if differences.is_empty() {
        text.push_str("the sides are the same\n");
    }
    text
}

fn rows(it: &Difference) -> [(&'static str, Option<&Value>); 3] {
    [("base", it.base.as_ref()), ("theirs", it.theirs.as_ref()), ("mine", it.mine.as_ref())]
}

/// Asks until there is an answer; its end is one as well.
pub(super) fn choose(input: &mut impl BufRead, said: &mut impl Write) -> io::Result<Choice> {
    loop {
        write!(said, "keep [m]ine, keep [t]heirs, [e]dit a draft of both, or [q]uit? ")?;
        said.flush()?;
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Ok(Choice::Leave);
        }
        match line.trim() {
            "m" | "mine" => return Ok(Choice::Keep(Side::Mine)),
            "t" | "theirs" => return Ok(Choice::Keep(Side::Theirs)),
            "e" | "edit" => return Ok(Choice::Edit),
            "q" | "quit" => return Ok(Choice::Leave),
            _ => {}
        }
    }
}

/// What somebody has made of a draft.
#[derive(Debug)]
pub(super) struct Edited {
    /// JSON text of an object.
    pub(super) document: String,
    /// Where it stands as it was edited, remarks and all.
    pub(super) file: Draft,
}

/// Lets somebody edit the draft until it is a document; None if they give up, empty the file, or
/// leave it as it was.
pub(super) fn edit(
    draft_text: &str,
    input: &mut impl BufRead,
    said: &mut impl Write,
) -> anyhow::Result<Option<Edited>> {
    let file = Draft::new(draft_text)?;
    loop {
        open_editor(&file.0)?;
        let edited = std::fs::read_to_string(&file.0).context("cannot read the draft")?;
        if edited == draft_text || draft::is_empty(&edited) {
            return Ok(None);
        }
        match draft::read(&edited) {
            Ok(document) => return Ok(Some(Edited { document, file })),
            Err(wrong) => {
                writeln!(said, "this is no document yet: {wrong}")?;
                write!(said, "edit again? [Y/n] ")?;
                said.flush()?;
                let mut line = String::new();
                let is_end = input.read_line(&mut line)? == 0;
                if is_end || matches!(line.trim(), "n" | "N" | "no") {
                    writeln!(said, "what you have made of it is in {}", file.keep().display())?;
                    return Ok(None);
                }
            }
        }
    }
}

/// A file that only its owner can read, gone when dropped.
#[derive(Debug)]
pub(super) struct Draft(PathBuf);

impl Draft {
    fn new(text: &str) -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("syncline-{}.jsonc", Uuid::new_v4().simple()));
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let write = |mut file: std::fs::File| file.write_all(text.as_bytes());
        let written = opened.and_then(write);
        written.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self(path))
    }

    /// Leaves it where it is.
    pub(super) fn keep(mut self) -> PathBuf {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            std::fs::remove_file(&self.0).ok();
        }
    }
}

/// Editors may be given with arguments, so that a shell has to read them.
fn open_editor(path: &Path) -> anyhow::Result<()> {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let editor = named("VISUAL").or_else(|| named("EDITOR")).unwrap_or_else(|| "vi".into());
    let mut script = editor.clone();
    script.push(" \"$@\"");
    let mut command = Command::new("sh");
    // Data go to stdout, which may lead into a file or to another program.
    command.arg("-c").arg(script).arg(&editor).arg(path).stdout(io::stderr());
    let status =
        command.status().map_err(|error| anyhow!(error).context("cannot run an editor"))?;
    if !status.success() {
        bail!("the editor {} ended with {status}", safe(&editor.to_string_lossy()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::remote::resolve::sides::tests::sides;

    #[test]
    fn the_sides_are_shown_value_by_value() {
        let sides = sides(json!({"a": 1, "b": 1}), json!({"a": 2, "b": 1}), json!({"a": 3}));
        let expected = "/a  (both changed it)\n  base    1\n  theirs  2\n  mine    3\n/b\n  base    \
                        1\n  theirs  1\n  mine    nothing\n";
        // Tests write to no terminal, so that there are no colours.
        assert_eq!(shown(Output::plain(), &sides), expected);
    }

    #[test]
    fn somebody_is_asked_until_there_is_an_answer() {
        let ask = |typed: &str| choose(&mut typed.as_bytes(), &mut io::sink()).unwrap();
        assert_eq!(ask("what?\nt\n"), Choice::Keep(Side::Theirs));
        assert_eq!(ask("mine\n"), Choice::Keep(Side::Mine));
        assert_eq!((ask("e\n"), ask("q\n"), ask("")), (Choice::Edit, Choice::Leave, Choice::Leave));
    }
}
