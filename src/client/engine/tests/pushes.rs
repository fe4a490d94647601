//! Rules of what a space sends, as scripts.

use super::desk::*;
use super::server::sequence;
use crate::client::engine::{Action, Event, Fault, Mode, Parked, Phase, Report, Settled, Trigger};

fn is_take(action: &Action) -> bool {
    matches!(action, Action::Take { .. })
}

/// A live space that has just sent so many entries, of which all are frozen.
fn sent(count: u64) -> Desk {
    let mut desk = Desk::live(queue(0, 0, 4));
    desk.trigger(Trigger::Changed { space: SPACE });
    desk.take(count, queue(count, 0, 4 + count.cast_signed()));
    desk
}

#[test]
fn batches_grow_when_they_are_answered_quickly_and_shrink_when_slowly() {
    let mut desk = Desk::live(queue(0, 0, 4));
    desk.trigger(Trigger::Changed { space: SPACE });
    for expected in [100, 200, 400, 800, 1_000, 1_000] {
        assert_eq!(desk.entries_max(), expected);
        desk.take(u64::from(expected), queue(u64::from(expected), 9_000, 4));
        desk.wait(seconds(1) / 10);
        desk.answer(queue(0, 9_000, 4));
    }
    // One that was not full says nothing.
    desk.take(3, queue(3, 9_000, 4));
    desk.answer(queue(0, 9_000, 4));
    assert_eq!(desk.entries_max(), 1_000);
    for expected in [1_000, 500, 250] {
        assert_eq!(desk.entries_max(), expected);
        desk.take(u64::from(expected), queue(u64::from(expected), 9_000, 4));
        desk.wait(seconds(3));
        desk.answer(queue(0, 9_000, 4));
    }
    let before = desk.batch();
    desk.answer(queue(0, 0, 4));
    assert_eq!(desk.batch(), before, "nothing is left");
}

#[test]
fn one_batch_is_in_flight_and_the_next_follows_its_answer() {
    let mut desk = sent(3);
    desk.look_but_keep_numbers();
    desk.trigger(Trigger::Changed { space: SPACE });
    desk.trigger(Trigger::Demand);
    desk.wait(seconds(5));
    assert!(!desk.has(is_take));
    let settled = Settled { applied: 3, ..Settled::default() };
    let request = desk.engine.last_request;
    desk.on(Event::Answered { space: SPACE, request, settled, queue: queue(0, 1, 7) });
    assert!(desk.has(is_take));
}

#[test]
fn what_can_never_be_taken_is_isolated_and_fails_and_the_rest_goes_on() {
    let mut desk = sent(100);
    for expected in [50, 25, 12, 6, 3, 1] {
        let request = desk.batch();
        desk.look();
        desk.fail(request, fault("VALIDATION_ERROR"));
        assert_eq!((desk.entries_max(), desk.has(is_take)), (expected, true), "at once");
        desk.take(u64::from(expected), queue(100, 0, 104));
    }
    let request = desk.batch();
    desk.look();
    desk.fail(request, fault("VALIDATION_ERROR"));
    assert!(!desk.has(is_take), "the server is asked first");
    desk.tell(told(4));
    let what = Parked::Front;
    let park = Action::Park { space: SPACE, what, fault: fault("VALIDATION_ERROR") };
    assert!(desk.asked.contains(&park));
    assert!(!desk.has(|it| matches!(it, Action::Renumber { .. })), "that frees all sequences");
    assert_eq!(desk.entries_max(), 1);
    assert_eq!((desk.standing().frozen, desk.standing().waiting), (0, 99));
    desk.take(1, queue(1, 98, 5));
    desk.answer(queue(0, 98, 5));
    assert_eq!(desk.entries_max(), 2, "and it grows again");
    assert_eq!(desk.phase(), Phase::Live);
}

#[test]
fn what_may_be_taken_another_time_is_tried_five_times() {
    let mut desk = sent(1);
    for (attempt, full) in [1, 2, 4, 8].into_iter().enumerate() {
        let request = desk.batch();
        desk.look();
        desk.fail(request, fault("QUOTA_EXCEEDED"));
        assert!(desk.has(|it| matches!(it, Action::CountAttempt { .. })), "{attempt}");
        let waited = desk.wait_for(is_take);
        assert!(waited >= seconds(full) / 2 && waited <= seconds(full), "{waited:?} of {full}");
        desk.take(1, queue(1, 0, 5));
    }
    desk.fail(desk.batch(), fault("QUOTA_EXCEEDED"));
    desk.tell(told(4));
    assert!(desk.has(|it| matches!(it, Action::Park { what: Parked::Front, .. })));
}

#[test]
fn attempts_are_of_one_entry() {
    let mut desk = sent(1);
    for round in 0..8 {
        let request = desk.batch();
        desk.look();
        desk.fail(request, fault("QUOTA_EXCEEDED"));
        desk.wait_for_while_heard(is_take);
        desk.take(1, queue(1, 9, 5));
        // Each is refused three times, and then taken.
        if round % 3 == 2 {
            desk.answer(queue(0, 9, 5));
            desk.take(1, queue(1, 8, 6));
        }
        assert!(!desk.has(|it| matches!(it, Action::AskStatus { .. })), "{round}");
    }
}

#[test]
fn attempts_outlive_a_crash() {
    let info = crate::client::engine::SpaceInfo { attempts: 4, ..info(queue(1, 0, 5)) };
    let mut desk = Desk::up(Mode::Live, info);
    desk.tell(told(4));
    desk.take(1, queue(1, 0, 5));
    desk.fail(desk.batch(), fault("INTERNAL"));
    desk.tell(told(4));
    assert!(desk.has(|it| matches!(it, Action::Park { what: Parked::Front, .. })));
}

#[test]
fn what_the_server_has_does_not_fail_as_if_it_had_not() {
    let mut desk = sent(3);
    // It has the first two of them, but never manages to answer.
    let mut refusals = 0;
    for _ in 0..20 {
        refusals += 1;
        let request = desk.batch();
        desk.look();
        desk.fail(request, fault("INTERNAL"));
        if desk.has(|it| matches!(it, Action::AskStatus { .. })) {
            desk.tell(told(6));
        }
        if desk.has(|it| matches!(it, Action::Park { .. })) {
            break;
        }
        desk.wait_for_while_heard(is_take);
        desk.take(u64::from(desk.entries_max()).min(3), queue(3, 0, 7));
    }
    assert!(desk.has(|it| matches!(it, Action::Park { what: Parked::Decided, .. })));
    assert_eq!(refusals, 1 + 10, "once with others, then alone");
    assert!(!desk.has(|it| matches!(it, Action::Renumber { .. })), "the others stay as they are");
}

#[test]
fn what_is_in_doubt_is_settled_before_anything_else_comes() {
    for (reason, in_doubt) in [
        ("SYNC_FAILED", true),
        ("DEADLINE_EXCEEDED", true),
        ("INTERNAL", true),
        ("OVERLOADED", false),
    ] {
        let mut desk = sent(2);
        desk.look_but_keep_numbers();
        let request = desk.engine.last_request;
        desk.fail(request, fault(reason));
        let unsubscribed = desk.has(|it| matches!(it, Action::Unsubscribe { .. }));
        assert_eq!(unsubscribed, in_doubt, "{reason}");
        desk.asked.retain(|it| !matches!(it, Action::Subscribe { .. }));
        desk.trigger(Trigger::Changed { space: SPACE });
        desk.wait_for(is_take);
        if in_doubt {
            assert!(desk.entries_max() <= 2, "only what was sent");
            desk.take(2, queue(2, 1, 6));
            desk.answer(queue(0, 1, 6));
            desk.subscription();
        }
    }
}

#[test]
fn links_and_limits_are_not_the_entrys_fault() {
    let mut desk = sent(1);
    for _ in 0..30 {
        let request = desk.batch();
        desk.asked.retain(|it| !is_take(it));
        desk.fail(request, fault("SYNC_FAILED"));
        desk.wait_for_while_heard(is_take);
        desk.take(1, queue(1, 0, 5));
    }
    assert!(!desk.has(|it| matches!(it, Action::Park { .. } | Action::CountAttempt { .. })));
    let retry_after = Some(seconds(90));
    let request = desk.batch();
    desk.look();
    desk.fail(request, Fault { retry_after, ..fault("RATE_LIMITED") });
    desk.trigger(Trigger::Demand);
    assert_eq!(desk.wait_for_while_heard(is_take), seconds(90));

    let mut desk = sent(100);
    desk.fail(desk.batch(), fault("RATE_LIMITED"));
    assert_eq!(desk.standing().batch_entries, 100, "it was not too large");
}

#[test]
fn a_batch_without_an_answer_ends_the_link_and_is_sent_again_as_it_was() {
    let mut desk = sent(2);
    desk.wait(seconds(29));
    assert!(desk.is_up());
    desk.wait(seconds(1));
    assert!(!desk.is_up());
    desk.look();
    desk.connect();
    desk.trigger(Trigger::Changed { space: SPACE });
    desk.tell(told(4));
    assert_eq!((desk.phase(), desk.entries_max()), (Phase::Settling, 1), "and less of it");
    desk.take(1, queue(2, 1, 6));
    desk.answer(queue(1, 1, 6));
    assert_eq!(desk.entries_max(), 1);
    desk.take(1, queue(1, 1, 6));
    assert!(!desk.has(|it| matches!(it, Action::Subscribe { .. })));
    desk.answer(queue(0, 1, 6));
    assert!(desk.has(|it| matches!(it, Action::Subscribe { .. })));
    assert!(desk.entries_max() >= 2);
}

#[test]
fn who_may_only_read_goes_on_reading() {
    let mut desk = sent(2);
    let request = desk.batch();
    desk.look();
    desk.fail(request, fault("PERMISSION_DENIED"));
    assert!(desk.has(|it| matches!(it, Action::Park { what: Parked::All, .. })));
    desk.tell(told(4));
    assert!(desk.has(|it| matches!(it, Action::Renumber { .. })), "their sequences are free");
    desk.catch_up();
    assert_eq!((desk.phase(), desk.standing().read_only), (Phase::Live, true));
    desk.trigger(Trigger::Changed { space: SPACE });
    desk.wait(seconds(20));
    assert!(!desk.has(is_take));
    let waited = desk.wait_for_while_heard(is_take);
    assert!(waited >= seconds(10) && waited <= seconds(40), "{waited:?}");
    desk.take(1, queue(1, 0, 5));
    desk.answer(queue(0, 0, 5));
    assert!(!desk.standing().read_only);

    let mut desk = sent(2);
    desk.fail(desk.batch(), fault("PERMISSION_DENIED"));
    desk.tell(told(4));
    desk.catch_up();
    desk.trigger(Trigger::Changed { space: SPACE });
    desk.trigger(Trigger::Foreground);
    desk.wait(seconds(1));
    assert!(!desk.has(is_take));
    desk.on(Event::AccessChanged { space: SPACE });
    desk.wait(seconds(1));
    assert!(desk.has(is_take), "at once if the server says that it has changed");
}

#[test]
fn a_gap_is_closed_also_where_the_status_shows_none() {
    let mut desk = sent(2);
    let request = desk.batch();
    desk.look();
    desk.fail(request, fault("SEQUENCE_GAP"));
    desk.tell(told(4));
    assert!(desk.has(|it| matches!(it, Action::Renumber { .. })));
    assert!(desk.has_report(|it| matches!(it, Report::Renumbered { .. })));
    // Again and again: more slowly each time.
    for full in [2, 4, 8] {
        desk.take(2, queue(2, 0, 6));
        let request = desk.batch();
        desk.look();
        desk.fail(request, fault("SEQUENCE_GAP"));
        let waited = desk.wait_for_while_heard(|it| matches!(it, Action::AskStatus { .. }));
        assert!(waited >= seconds(full) / 2, "{waited:?} of {full}");
        desk.tell(told(4));
    }
}

#[test]
fn an_answer_that_crosses_the_status_lets_it_ask_again() {
    let mut desk = Desk::up(Mode::Live, info(queue(2, 0, 6)));
    let before = desk.status();
    let settled = Settled { applied: 2, ..Settled::default() };
    // Of a batch that was sent for the space before it was added once more.
    let request = crate::client::engine::RequestNo(0);
    desk.on(Event::Answered { space: SPACE, request, settled, queue: queue(0, 0, 6) });
    let after = desk.status();
    assert_ne!(before, after);
    desk.on(Event::StatusTold { space: SPACE, request: before, told: told(4) });
    desk.tell(told(6));
    assert!(!desk.has(|it| matches!(it, Action::Renumber { .. })));
}

#[test]
fn a_file_that_fails_while_a_batch_is_in_flight_waits_for_its_answer() {
    let mut desk = sent(2);
    desk.look_but_keep_numbers();
    let batch = desk.engine.last_request;
    let message = || "the disk is full".to_owned();
    desk.on(Event::StoreFailed { space: SPACE, request: None, message: message() });
    desk.wait(seconds(2));
    let request = desk.last(|it| match it {
        Action::Read { request, .. } => Some(*request),
        _ => None,
    });
    desk.on(Event::SpaceRead { space: SPACE, request, info: info(queue(2, 0, 6)) });
    assert!(!desk.has(|it| matches!(it, Action::AskStatus { .. })));
    let settled = Settled { applied: 2, ..Settled::default() };
    desk.on(Event::Answered { space: SPACE, request: batch, settled, queue: queue(0, 0, 6) });
    assert!(desk.has(|it| matches!(it, Action::AskStatus { .. })));

    // But not if that is what could not be stored.
    let mut desk = sent(2);
    let request = Some(desk.batch());
    desk.look();
    desk.on(Event::StoreFailed { space: SPACE, request, message: message() });
    assert_eq!(desk.standing().store_error, Some(message()));
    let request = loop {
        desk.wait(seconds(1));
        if let Some(Action::Read { request, .. }) = desk.asked.last() {
            break *request;
        }
    };
    desk.on(Event::SpaceRead { space: SPACE, request, info: info(queue(2, 0, 6)) });
    desk.tell(told(6));
    desk.take(2, queue(2, 0, 6));
    desk.answer(queue(0, 0, 6));
    assert_eq!(desk.standing().store_error, None);
}

#[test]
fn a_take_that_finds_nothing_is_no_loop() {
    let mut desk = Desk::live(queue(0, 0, 4));
    desk.trigger(Trigger::Changed { space: SPACE });
    desk.take(0, queue(0, 3, 4));
    desk.look();
    desk.wait(seconds(20));
    assert!(!desk.has(is_take), "until something is told");
    desk.trigger(Trigger::Changed { space: SPACE });
    assert!(desk.has(is_take));
}

#[test]
fn a_gap_behind_a_front_that_was_never_used_is_closed() {
    // The file says that 7 and 8 are frozen; what it sends are 9 and 10.
    let mut desk = Desk::up(Mode::Live, info(queue(2, 0, 8)));
    desk.tell(told(7));
    let (request, queue) = (desk.batch(), queue(2, 0, 8));
    let first = sequence(9);
    desk.on(Event::Taken { space: SPACE, request, count: 2, first, queue });
    desk.look();
    desk.fail(request, fault("SEQUENCE_GAP"));
    desk.tell(told(7));
    assert!(desk.has(|it| matches!(it, Action::Renumber { .. })));
    // What the server has from there on is not taken from it.
    let mut desk = sent(2);
    desk.fail(desk.batch(), fault("SEQUENCE_GAP"));
    desk.tell(told(5));
    assert!(!desk.has(|it| matches!(it, Action::Renumber { .. })));
}
