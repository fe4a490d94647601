//! What is printed: data on stdout, all else on stderr; aligned, and in colours only where a person
//! looks. Must not know what the data mean.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use crate::exit::Failure;

/// Nobody reads what is printed any longer: the end, but no failure.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the output")]
pub(super) struct ReaderGone;

/// How a piece of text stands out.
#[derive(Clone, Copy, Debug)]
pub(super) enum Style {
    Good,
    Careful,
    Bad,
    Name,
    Faint,
}

/// Where a command prints.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    /// A person looks at it.
    pub(super) is_terminal: bool,
    has_colours: bool,
    /// Without a reader there is nothing left to do.
    ends_with_reader: bool,
}

impl Output {
    /// Of a command that only reads: it ends with its reader.
    pub(super) fn of_reading() -> Self {
        Self { ends_with_reader: true, ..Self::of_writing() }
    }

    /// Of a command that writes: whether somebody reads what it says or not, it does its work, and
    /// its exit code tells how that went.
    pub(super) fn of_writing() -> Self {
        Self::on(io::stdout().is_terminal())
    }

    /// For what is said to a person who is asked something.
    pub(super) fn on_stderr() -> Self {
        Self::on(io::stderr().is_terminal())
    }

    #[cfg(test)]
    pub(super) fn plain() -> Self {
        Self { is_terminal: false, has_colours: false, ends_with_reader: true }
    }

    fn on(is_terminal: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let has_colours = is_terminal && !refused;
        Self { is_terminal, has_colours, ends_with_reader: false }
    }

    /// Prints one line of data.
    pub(super) fn say(self, line: &str) -> Result<(), Failure> {
        match written(writeln!(io::stdout(), "{line}")) {
            Err(failure) if !self.ends_with_reader && failure.error.is::<ReaderGone>() => Ok(()),
            other => other,
        }
    }

    /// Prints a value on one line.
    pub(super) fn say_json(self, value: &Value) -> Result<(), Failure> {
        self.say(&escaped(&value.to_string()))
    }

    /// Prints what is known of one thing: names, and what they have.
    pub(super) fn say_facts(self, facts: Vec<(&str, String)>) -> Result<(), Failure> {
        let rows: Vec<_> = facts.into_iter().map(|(name, it)| vec![name.to_owned(), it]).collect();
        let mut columns = Columns::default();
        columns.fit(&rows);
        rows.iter().try_for_each(|row| {
            let line = columns.line(row);
            let (name, rest) = line.split_once("  ").unwrap_or((&line, ""));
            self.say(&format!("{}  {rest}", self.paint(Style::Faint, name)))
        })
    }

    pub(super) fn paint(self, style: Style, text: &str) -> String {
        if !self.has_colours || text.is_empty() {
            return text.to_owned();
        }
        let code = match style {
            Style::Good => "32",
            Style::Careful => "33",
            Style::Bad => "31",
            Style::Name => "36",
            Style::Faint => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Whether it could be printed.
pub(super) fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        other => Ok(other?),
    }
}

/// Says something about the data, on stderr. With that gone there is nobody to tell.
pub(super) fn note(text: &str) {
    writeln!(io::stderr(), "{text}").ok();
}

/// Rows whose columns are as wide as the widest so far, but for the last one.
#[derive(Debug, Default)]
pub(super) struct Columns {
    widths: Vec<usize>,
}

impl Columns {
    /// Makes room for all of these rows before the first is printed.
    pub(super) fn fit(&mut self, rows: &[Vec<String>]) {
        for row in rows {
            for (index, cell) in row.iter().enumerate() {
                let width = cell.chars().count();
                match self.widths.get_mut(index) {
                    Some(known) => *known = width.max(*known),
                    None => self.widths.push(width),
                }
            }
        }
    }

    /// One row as a line.
    pub(super) fn line(&self, row: &[String]) -> String {
        let mut line = String::new();
        for (index, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if index + 1 < row.len() {
                let width = self.widths.get(index).copied().unwrap_or_default();
                let padding = width.saturating_sub(cell.chars().count()) + 2;
                line.extend(std::iter::repeat_n(' ', padding));
            }
        }
        line.trim_end().to_owned()
    }
}

/// Text from others, in a line of its own: control characters would move the cursor.
pub(super) fn safe(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// JSON text that is safe on a terminal as well, and the same value: JSON itself lets DEL and the
/// control characters beyond it stand as they are.
pub(super) fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '\n' => text.push(character),
            it if it.is_control() => text.push_str(&format!("\\u{:04x}", u32::from(it))),
            it => text.push(it),
        }
    }
    text
}

/// The beginning of a text, if it is longer than that.
pub(super) fn shortened(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text.to_owned(),
        Some(_) => text.chars().take(chars_max.saturating_sub(1)).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_with_their_text() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [row(["a", "12", ""]), row(["länger", "1", "x"])];
        let mut columns = Columns::default();
        columns.fit(&rows);
        let lines: Vec<_> = rows.iter().map(|row| columns.line(row)).collect();
        assert_eq!(lines, ["a       12", "länger  1   x"]);
    }

    #[test]
    fn what_is_too_long_is_shortened_to_fit() {
        assert_eq!((shortened("abc", 3), shortened("abcd", 3)), ("abc".into(), "ab…".into()));
    }

    #[test]
    fn without_a_terminal_there_are_no_colours() {
        assert_eq!(Output::plain().paint(Style::Bad, "x"), "x");
        let out = Output { has_colours: true, ..Output::plain() };
        assert_eq!(out.paint(Style::Bad, "x"), "\x1b[31mx\x1b[0m");
        assert_eq!(safe("a\x1b[31mb\n"), "a [31mb ");
    }

    #[test]
    fn json_moves_no_cursor_and_stays_the_same_value() {
        let value = Value::from("a\u{9b}31m\u{7f}ü\n");
        let text = escaped(&value.to_string());
        assert_eq!(text, r#""a\u009b31m\u007fü\n""#);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
