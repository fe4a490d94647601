//! Commands at a terminal: colours, what could move its cursor, questions, and progress.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::pty::{Winsize, openpty};
use parking_lot::Mutex;
use pretty_assertions::assert_eq;

use super::Desk;
use super::conflicts::{document, meet};
use crate::support::program::Running;
use crate::support::wait_for;

/// A command at a terminal, and what that shows.
struct Terminal {
    running: Running,
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let side = || Stdio::from(pty.slave.try_clone().unwrap());
        let running = Running::start(command.stdin(side()).stdout(side()).stderr(side()));
        // It keeps its copies of the other side until it is dropped.
        drop((command, pty.slave));
        let keyboard = File::from(pty.master);
        let mut from = keyboard.try_clone().unwrap();
        let screen = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut buffer = [0; 4_096];
            // Once nobody has the other side open, reading fails.
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                to.lock().extend_from_slice(&buffer[..count]);
            }
        });
        Self { running, keyboard, screen }
    }

    fn shows(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock()).into_owned()
    }

    async fn sees(&self, words: &str) {
        wait_for(words, async || self.shows().contains(words).then_some(())).await;
    }

    fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// Its exit code, and all that it has shown.
    async fn end(self) -> (Option<i32>, String) {
        let Self { running, keyboard, screen } = self;
        let code = running.end().await.status.code();
        drop(keyboard);
        // The reader has the last reference but ours until it has read all.
        wait_for("the rest", async || (Arc::strong_count(&screen) == 1).then_some(())).await;
        let shown = String::from_utf8_lossy(&screen.lock()).into_owned();
        (code, shown)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_are_for_who_wants_them() {
    let desk = Desk::new().await;
    let (code, shown) = Terminal::start(desk.command(&["put", "task", "1", "{}"])).end().await;
    assert_eq!((code, shown.as_str()), (Some(0), "\x1b[32mapplied\x1b[0m  task/1  revision 1\r\n"));
    let mut command = desk.command(&["ls", "task"]);
    command.env("NO_COLOR", "1");
    let (code, shown) = Terminal::start(command).end().await;
    assert!(code == Some(0) && shown.starts_with("ID ") && !shown.contains('\x1b'), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_have_written_does_not_move_the_cursor() {
    let desk = Desk::new().await;
    desk.run("put task 1 {\"t\":\"a\u{9b}31m\u{7f}\"}").await.good();
    desk.run("put task 2 {\"t\":\"a\u{9b}31m\u{7f}\"} --store a.db").await.good();
    for line in ["get task 1", "get task 1 --json", "get task 2 --store a.db", "changes --json"] {
        let words: Vec<_> = line.split_whitespace().collect();
        let mut command = desk.command(&words);
        command.env("NO_COLOR", "1");
        let (code, shown) = Terminal::start(command).end().await;
        let plain = shown.replace("\r\n", "");
        assert!(code == Some(0) && !plain.contains(char::is_control), "{line}: {shown:?}");
        assert!(shown.contains(r"a\u009b31m\u007f"), "{line}: {shown:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_shown_both_sides_and_asked() {
    let desk = Desk::new().await;
    let conflict = meet(&desk, "1").await;
    let mut command = desk.command(&["resolve", &conflict]);
    command.env("NO_COLOR", "1");
    let mut terminal = Terminal::start(command);
    terminal.sees("keep [m]ine, keep [t]heirs, [e]dit a draft of both, or [q]uit? ").await;
    terminal.types("what\n");
    terminal.types("m\n");
    let (code, shown) = terminal.end().await;
    assert_eq!(code, Some(0), "{shown}");
    let sides = "/a  (both changed it)\r\n  base    1\r\n  theirs  2\r\n  mine    3\r\n";
    assert!(shown.contains(sides) && shown.contains("resolved  task/1"), "{shown}");
    assert_eq!(document(&desk, "1").await, serde_json::json!({"a": 3, "b": 2}));
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_decides_about_what_they_were_shown() {
    let desk = Desk::new().await;
    let conflict = meet(&desk, "1").await;
    let mut terminal = Terminal::start(desk.command(&["resolve", &conflict, "--store", "a.db"]));
    terminal.sees("[q]uit? ").await;
    desk.run("put task 1 {\"late\":true} --device tablet").await.good();
    terminal.types("m\n");
    let (code, shown) = terminal.end().await;
    assert!(code == Some(9) && shown.contains("RECORD_CHANGED"), "{shown}");
    assert_eq!(document(&desk, "1").await, serde_json::json!({"late": true}));
    // Who looks again sees it.
    let mut terminal = Terminal::start(desk.command(&["resolve", &conflict, "--store", "a.db"]));
    terminal.sees("/late").await;
    terminal.types("t\n");
    assert_eq!(terminal.end().await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_import_shows_how_far_it_is() {
    let desk = Desk::new().await;
    let line = |n| format!("{{\"collection\":\"a\",\"id\":\"{n}\",\"document\":{{}}}}\n");
    desk.write("in.jsonl", &(0..300).map(line).collect::<String>());
    let (code, shown) = Terminal::start(desk.command(&["import", "in.jsonl"])).end().await;
    assert!(code == Some(0) && shown.contains("importing"), "{shown:?}");
    assert!(shown.ends_with("imported 300 records\r\n"), "{shown:?}");
}
