//! Merges two texts that were one: word by word, or line by line if they are
//! long.

use std::ops::Range;

use similar::{Algorithm, capture_diff_slices};

use crate::domain::limits;

/// Whose words stay where both sides changed the same ones; None = nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Server,
    Client,
}

/// What a merge of texts comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Merged {
    /// And whether nothing of either side was left out.
    Text(String, bool),
    /// Both sides changed the same words, and neither is to win.
    Open,
    /// They are too long to be compared.
    TooLong,
}

/// A part of the base that a side replaced.
struct Hunk<'t> {
    base: Range<usize>,
    text: &'t [&'t str],
}

/// Merges. Where both sides changed the same words, `winner` wins. What both
/// inserted at the same place is kept from both, `first`'s first. `steps` counts
/// what all texts of a document have taken: with too many, the rest is too long.
pub(super) fn merge(
    base: &str,
    server: &str,
    client: &str,
    (winner, first): (Option<Side>, Side),
    steps: &mut usize,
) -> Merged {
    for pieces in [words, lines] {
        let (base, server, client) = (pieces(base), pieces(server), pieces(client));
        let longest = base.len().max(server.len()).max(client.len());
        let so_far = *steps + base.len() * (server.len() + client.len());
        if longest <= limits::TEXT_PIECES_MAX && so_far <= limits::TEXT_STEPS_MAX {
            *steps = so_far;
            return merge_pieces(&base, &server, &client, winner, first);
        }
    }
    Merged::TooLong
}

fn merge_pieces(
    base: &[&str],
    server: &[&str],
    client: &[&str],
    winner: Option<Side>,
    first: Side,
) -> Merged {
    let (ours, theirs) = (hunks(base, server), hunks(base, client));
    let (mut ours, mut theirs) = (ours.as_slice(), theirs.as_slice());
    let mut merged = String::new();
    let (mut done, mut whole) = (0, true);
    loop {
        // The next region: hunks that touch each other are decided together.
        let next = [ours.first(), theirs.first()].into_iter().flatten();
        let Some(start) = next.map(|hunk| hunk.base.start).min() else { break };
        let mut end = start;
        let (mut our_count, mut their_count) = (0, 0);
        loop {
            let more = |rest: &[Hunk<'_>], count: usize| {
                let hunk = rest.get(count)?;
                let joins = hunk.base.start < end || hunk.base.start == start;
                joins.then_some(hunk.base.end)
            };
            if let Some(to) = more(ours, our_count) {
                (our_count, end) = (our_count + 1, end.max(to));
            } else if let Some(to) = more(theirs, their_count) {
                (their_count, end) = (their_count + 1, end.max(to));
            } else {
                break;
            }
        }
        let (our_hunks, our_rest) = ours.split_at(our_count);
        let (their_hunks, their_rest) = theirs.split_at(their_count);
        (ours, theirs) = (our_rest, their_rest);
        push(&mut merged, base, done..start);
        done = end;
        let region = Region { base, range: start..end };
        let (server, client) = (region.text(our_hunks), region.text(their_hunks));
        let (server_first, client_first) = (first == Side::Server, first == Side::Client);
        match (our_hunks, their_hunks, winner) {
            (_, [], _) => merged.push_str(&server),
            ([], _, _) => merged.push_str(&client),
            _ if server == client => merged.push_str(&server),
            _ if start == end && server_first => merged.extend([server, client]),
            _ if start == end && client_first => merged.extend([client, server]),
            (.., None) => return Merged::Open,
            (.., Some(winner)) => {
                whole = false;
                merged.push_str(if winner == Side::Server { &server } else { &client });
            }
        }
    }
    push(&mut merged, base, done..base.len());
    Merged::Text(merged, whole)
}

/// A part of the base that both sides may have changed.
struct Region<'t> {
    base: &'t [&'t str],
    range: Range<usize>,
}

impl Region<'_> {
    /// What one side made of it.
    fn text(&self, hunks: &[Hunk<'_>]) -> String {
        let mut text = String::new();
        let mut done = self.range.start;
        for hunk in hunks {
            push(&mut text, self.base, done..hunk.base.start);
            hunk.text.iter().for_each(|piece| text.push_str(piece));
            done = hunk.base.end;
        }
        push(&mut text, self.base, done..self.range.end);
        text
    }
}

fn push(text: &mut String, pieces: &[&str], range: Range<usize>) {
    pieces.get(range).unwrap_or_default().iter().for_each(|piece| text.push_str(piece));
}

fn hunks<'t>(base: &[&str], side: &'t [&'t str]) -> Vec<Hunk<'t>> {
    let ops = capture_diff_slices(Algorithm::Myers, base, side);
    let hunk = |op: similar::DiffOp| {
        let (tag, base, side_range) = op.as_tag_tuple();
        let text = side.get(side_range).unwrap_or_default();
        (tag != similar::DiffTag::Equal).then_some(Hunk { base, text })
    };
    ops.into_iter().filter_map(hunk).collect()
}

fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

/// Words, gaps between them, and each other character for itself.
fn words(text: &str) -> Vec<&str> {
    #[derive(PartialEq)]
    enum Kind {
        Word,
        Gap,
        Other,
    }
    let kind = |char: char| match char {
        _ if char.is_alphanumeric() => Kind::Word,
        _ if char.is_whitespace() => Kind::Gap,
        _ => Kind::Other,
    };
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut last = None;
    for (index, char) in text.char_indices() {
        let next = kind(char);
        if index > start && (last.as_ref() != Some(&next) || next == Kind::Other) {
            pieces.extend(text.get(start..index));
            start = index;
        }
        last = Some(next);
    }
    pieces.extend(text.get(start..).filter(|rest| !rest.is_empty()));
    pieces
}
