//! Just enough of Rust's grammar for `tidy`: what is code, what is a comment, and which paths the
//! code names. Texts and comments never count as code.

/// A file, split into code and comments. Both have the lines of the file; what belongs to the other
/// is blank.
pub(super) struct Source {
    code: String,
    comments: String,
}

/// What the scanner is in the middle of.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Code,
    LineComment,
    /// How deep it is nested.
    BlockComment(usize),
    Text,
    /// With this many `#`.
    RawText(usize),
}

impl Source {
    pub(super) fn new(text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let (mut code, mut comments) = (String::new(), String::new());
        let mut state = State::Code;
        let mut at = 0;
        while let Some(&c) = chars.get(at) {
            let before = at.checked_sub(1).map_or(' ', |before| chars[before]);
            let (next, taken) = step(state, &chars[at..], before);
            for &c in &chars[at..at + taken] {
                let is_comment = matches!(
                    (state, next),
                    (State::LineComment | State::BlockComment(_), _)
                        | (_, State::LineComment | State::BlockComment(_))
                );
                let is_code = state == State::Code && next == State::Code && taken == 1;
                let blank = if c == '\n' { '\n' } else { ' ' };
                code.push(if is_code { c } else { blank });
                comments.push(if is_comment { c } else { blank });
            }
            state = if c == '\n' && next == State::LineComment { State::Code } else { next };
            at += taken;
        }
        Self { code, comments }
    }

    /// All words of the code, with their lines.
    pub(super) fn words(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code
            .lines()
            .enumerate()
            .flat_map(|(index, line)| words(line).map(move |(_, word)| (index + 1, word)))
    }

    /// Lines that name a path such as `Instant::now`, or a word.
    pub(super) fn mentions(&self, path: &str) -> Vec<usize> {
        let lines = self.code.lines().enumerate();
        let mentions = |line: &str| {
            line.match_indices(path).any(|(at, _)| {
                !line[..at].ends_with(is_ident) && !line[at + path.len()..].starts_with(is_ident)
            })
        };
        lines.filter(|(_, line)| mentions(line)).map(|(index, _)| index + 1).collect()
    }

    /// Macros that are called, with their lines.
    pub(super) fn macros(&self) -> Vec<(usize, &str)> {
        let called = |(index, line)| {
            words(line)
                .filter(move |(end, _)| {
                    line[*end..].starts_with('!') && !line[*end..].starts_with("!=")
                })
                .map(move |(_, word)| (index + 1, word))
        };
        self.code.lines().enumerate().flat_map(called).collect()
    }

    /// The first words of all paths, and of all imports.
    pub(super) fn paths(&self) -> Vec<(usize, &str)> {
        let lines = self.code.lines().enumerate();
        lines
            .flat_map(|(index, line)| first_words(line).map(move |word| (index + 1, word)))
            .collect()
    }

    /// The modules of the crate that the code names, with the line and what of them it names.
    pub(super) fn edges(&self) -> Vec<(usize, String, Vec<String>)> {
        let mut edges = Vec::new();
        for root in ["crate::", "syncline::"] {
            for (at, _) in self.code.match_indices(root) {
                if self.code[..at].ends_with(|c| is_ident(c) || c == ':' || c == '$') {
                    continue;
                }
                let line = 1 + self.code[..at].matches('\n').count();
                let (tree, _) = parse(&self.code[at + root.len()..]);
                edges.extend(tree.into_iter().map(|(module, items)| (line, module, items)));
            }
        }
        edges
    }

    /// Whether a comment near the `select!` on this line, or inside it, speaks of cancellation.
    pub(super) fn remarks_on_cancellation(&self, line: usize, above: usize) -> bool {
        let mut depth = 0_i32;
        let mut inside = 0;
        for code in self.code.lines().skip(line - 1) {
            inside += 1;
            for c in code.chars() {
                depth += i32::from(c == '{') - i32::from(c == '}');
            }
            if depth <= 0 {
                break;
            }
        }
        let first = (line - 1).saturating_sub(above);
        let near = self.comments.lines().skip(first).take(line - 1 - first + inside);
        near.into_iter().any(|comment| comment.contains("ancel"))
    }
}

/// What comes after the first few of these characters, and how many those are.
fn step(state: State, rest: &[char], before: char) -> (State, usize) {
    let starts = |text: &str| {
        rest.len() >= text.len() && text.chars().zip(rest).all(|(wanted, c)| wanted == *c)
    };
    match state {
        State::Code if starts("//") => (State::LineComment, 2),
        State::Code if starts("/*") => (State::BlockComment(1), 2),
        State::Code if starts("\"") => (State::Text, 1),
        State::Code if starts("r") && !is_ident(before) || starts("br\"") || starts("br#") => {
            raw_text(rest)
        }
        // `'"'` and `'\''` are characters; `'a` is a lifetime.
        State::Code if starts("'\\") => (State::Code, 3.min(rest.len())),
        State::Code if starts("'") && rest.get(2) == Some(&'\'') => (State::Code, 3),
        State::Code => (State::Code, 1),
        State::LineComment if starts("\n") => (State::Code, 1),
        State::LineComment => (State::LineComment, 1),
        State::BlockComment(depth) if starts("/*") => (State::BlockComment(depth + 1), 2),
        State::BlockComment(1) if starts("*/") => (State::Code, 2),
        State::BlockComment(depth) if starts("*/") => (State::BlockComment(depth - 1), 2),
        State::BlockComment(depth) => (State::BlockComment(depth), 1),
        State::Text if starts("\\") => (State::Text, 2.min(rest.len())),
        State::Text if starts("\"") => (State::Code, 1),
        State::Text => (State::Text, 1),
        State::RawText(hashes) => {
            let end: String = ['"'].into_iter().chain(std::iter::repeat_n('#', hashes)).collect();
            if starts(&end) { (State::Code, end.len()) } else { (State::RawText(hashes), 1) }
        }
    }
}

/// `r"`, `r#"`, `br"` and so on; anything else that begins with these letters is code.
fn raw_text(rest: &[char]) -> (State, usize) {
    let letters = rest.iter().take_while(|c| "br".contains(**c)).count();
    let hashes = rest[letters..].iter().take_while(|c| **c == '#').count();
    match rest.get(letters + hashes) {
        Some('"') => (State::RawText(hashes), letters + hashes + 1),
        _ => (State::Code, 1),
    }
}

/// Modules with what is named of them, from `a::{self, B}`, `{a::B, c}` or `a::b()`; and how much of
/// the text that was.
fn parse(text: &str) -> (Vec<(String, Vec<String>)>, usize) {
    let skipped = text.len() - text.trim_start().len();
    let inner = &text[skipped..];
    let Some(group) = inner.strip_prefix('{') else {
        let length = inner.find(|c| !is_ident(c)).unwrap_or(inner.len());
        let name = inner[..length].to_owned();
        let Some(rest) = inner[length..].strip_prefix("::") else {
            return (vec![(name, vec!["self".into()])], skipped + length);
        };
        let (items, taken) = parse(rest);
        let items = items.into_iter().map(|(item, _)| item).collect();
        return (vec![(name, items)], skipped + length + 2 + taken);
    };
    let (mut all, mut at) = (Vec::new(), 0);
    loop {
        at += group[at..].find(|c: char| !c.is_whitespace() && c != ',').unwrap_or(0);
        if !group[at..].starts_with(is_ident) {
            return (all, skipped + 1 + at + 1);
        }
        let (some, taken) = parse(&group[at..]);
        all.extend(some);
        at += taken;
        // `name as other`
        at += group[at..].find([',', '}']).unwrap_or(0);
    }
}

/// The words of a line that begin a path, or are all of it.
fn first_words(line: &str) -> impl Iterator<Item = &str> {
    words(line).filter_map(move |(end, word)| {
        let before = line[..end - word.len()].trim_end();
        let rest = &line[end..];
        let leads = rest.starts_with("::") && !before.ends_with("::");
        let alone = before.ends_with("use") && rest.starts_with([';', ' ']);
        (leads || alone).then_some(word)
    })
}

pub(super) fn is_ident(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The words of a line, each with where it ends.
pub(super) fn words(line: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let begin = at + line[at..].find(is_ident)?;
        let length = line[begin..].find(|c| !is_ident(c)).unwrap_or(line.len() - begin);
        at = begin + length;
        Some((at, &line[begin..at]))
    })
}

#[test]
fn texts_and_comments_are_not_code() {
    let source = Source::new(
        "use a::b; // crate::one\n/* crate::two /* */ */ let x = \"crate::three \\\" //\";\n\
         let y = r#\"crate::four\"#; let z = ('\"', 'c', '\\''); crate::five::f::<'a>();\n",
    );
    let named: Vec<_> = source.edges().into_iter().map(|(line, to, _)| (line, to)).collect();
    assert_eq!(named, [(3, "five".to_owned())]);
    assert_eq!(source.paths().iter().map(|it| it.1).collect::<Vec<_>>(), ["a", "crate"]);
}

#[test]
fn edges_are_found_in_all_forms_of_use() {
    let source = Source::new(
        "use crate::{a::{self, B}, c, d::e::F};\npub(crate) use crate::g::{\n H, i::J,\n};\n\
         fn f() -> crate::k::L { crate::m::n() }\nuse syncline::{o, p};",
    );
    let edge = |line, to: &str, items: &[&str]| {
        (line, to.to_owned(), items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>())
    };
    let expected = [
        edge(1, "a", &["self", "B"]),
        edge(1, "c", &["self"]),
        edge(1, "d", &["e"]),
        edge(2, "g", &["H", "i"]),
        edge(5, "k", &["L"]),
        edge(5, "m", &["n"]),
        edge(6, "o", &["self"]),
        edge(6, "p", &["self"]),
    ];
    assert_eq!(source.edges(), expected);
}

#[test]
fn a_select_needs_a_remark_in_a_comment() {
    let inside = "f();\ntokio::select! {\n  // Cancel safe: nothing is lost.\n  x => y,\n}\n";
    let above = "// Cancel: only waits.\ntokio::select! {\n  x => y,\n}\n";
    let neither = "tokio::select! {\n  stop.cancelled() => y,\n}\n// Cancel: too late.\n";
    for (text, line, expected) in [(inside, 2, true), (above, 2, true), (neither, 1, false)] {
        let source = Source::new(text);
        assert_eq!(source.macros(), [(line, "select")]);
        assert_eq!(source.remarks_on_cancellation(line, 4), expected, "{text}");
    }
}
