//! How far a long command is, for a person who looks; nobody else is told. Must not know what it
//! counts.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar on stderr, or nothing where that is no terminal.
pub(super) fn bar(total: u64, what: &'static str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{msg} {wide_bar} {human_pos}/{human_len} {eta}";
    let mut bar = ProgressBar::new(total).with_message(what);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar = bar.with_style(style);
    }
    // Draws it for the first time.
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
