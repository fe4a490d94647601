//! Rules of following, of loading and of digests, as scripts.

use super::desk::*;
use super::server::revision;
use crate::client::engine::{
    Action, Event, Fault, Mode, Page, Phase, Place, Report, RequestNo, Settled, SpaceInfo,
    SpaceStanding, Trigger,
};
use crate::domain::{CollectionName, CursorFault};

fn is_load(action: &Action) -> bool {
    matches!(action, Action::Load { .. })
}

fn is_subscribe(action: &Action) -> bool {
    matches!(action, Action::Subscribe { .. })
}

fn is_exchange(action: &Action) -> bool {
    matches!(action, Action::Exchange { .. })
}

fn names(names: &[&str]) -> Vec<CollectionName> {
    names.iter().map(|it| CollectionName::parse(it).unwrap()).collect()
}

#[test]
fn a_space_is_loaded_then_followed_then_compared_and_acknowledged() {
    let new = SpaceInfo { loaded: false, cursor: revision(0), ..info(queue(0, 1, 0)) };
    let mut desk = Desk::up(Mode::Live, new);
    desk.tell(told(0));
    let request = desk.load();
    assert!(!desk.has(|it| matches!(it, Action::Take { .. })), "nothing is sent meanwhile");
    for _ in 0..5 {
        desk.wait(seconds(30));
        desk.on(Event::Heard);
        desk.on(Event::LoadedPart { space: SPACE, request });
    }
    desk.look();
    desk.on(Event::Loaded { space: SPACE, request, revision: revision(12) });
    let request = desk.subscription();
    assert!(desk.has(|it| matches!(it, Action::Take { .. })), "while it catches up it sends");
    desk.on(Event::Subscribed { space: SPACE, request, head: revision(20) });
    let up_to = revision(15);
    desk.on(Event::Absorbed { space: SPACE, request, up_to, whole: false });
    let (from, head) = (revision(12), revision(20));
    assert_eq!(desk.phase(), Phase::CatchingUp { from, up_to, head });
    assert!(!desk.has(|it| matches!(it, Action::Ack { .. })));
    desk.on(Event::CaughtUp { space: SPACE, request, up_to: head });
    assert_eq!(desk.phase(), Phase::Live);
    assert!(desk.asked.contains(&Action::Ack { space: SPACE, request, revision: head }));
    desk.digest();
}

#[test]
fn what_is_stored_is_acknowledged_but_not_each_time() {
    let mut desk = Desk::live(queue(0, 0, 0));
    let request = desk.subscription();
    for up_to in 11..=60 {
        desk.wait(seconds(1) / 10);
        desk.on(Event::Absorbed { space: SPACE, request, up_to: revision(up_to), whole: true });
    }
    let acks = desk.asked.iter().filter(|it| matches!(it, Action::Ack { .. })).count();
    assert!((4..=6).contains(&acks), "{acks}");
    // The last ones with the next sign of life, which also tells of ranges without changes.
    let (up_to, head) = (revision(70), revision(71));
    let places = vec![Place { space: SPACE, up_to, head }];
    let progress = Event::Progress { store_ok: false, token_expires_in: None, places };
    desk.on(progress.clone());
    assert!(desk.asked.contains(&Action::Ack { space: SPACE, request, revision: up_to }));
    desk.look();
    desk.on(progress);
    assert!(desk.look().is_empty(), "not twice");
    let SpaceStanding { up_to, head, .. } = desk.standing();
    assert_eq!((up_to.get(), head.get(), desk.state().store_ok), (70, 71, false));
}

#[test]
fn a_snapshot_that_stands_still_ends_the_link() {
    let mut desk = Desk::up(Mode::Live, SpaceInfo { loaded: false, ..info(queue(0, 0, 0)) });
    desk.tell(told(0));
    let waited = desk.wait_for_while_heard(|it| matches!(it, Action::Hangup));
    assert_eq!(waited, seconds(60));
}

#[test]
fn a_load_that_fails_is_begun_again_more_slowly() {
    let mut desk = Desk::up(Mode::Live, SpaceInfo { loaded: false, ..info(queue(0, 0, 0)) });
    desk.tell(told(0));
    for full in [1, 2, 4] {
        let request = desk.load();
        desk.look();
        desk.fail(request, fault("SYNC_FAILED"));
        let waited = desk.wait_for_while_heard(|it| matches!(it, Action::AskStatus { .. }));
        assert!(waited >= seconds(full) / 2, "{waited:?}");
        desk.tell(told(0));
    }
    // A snapshot of another epoch: the server is asked at once where the space is.
    let mut desk = Desk::up(Mode::Live, SpaceInfo { loaded: false, ..info(queue(0, 0, 0)) });
    desk.tell(told(0));
    let request = desk.load();
    desk.look();
    desk.fail(request, Fault::of_cursor(CursorFault::EpochChanged));
    assert!(desk.has(|it| matches!(it, Action::AskStatus { .. })));
}

#[test]
fn what_differs_is_loaded_again_three_times() {
    let mut desk = Desk::live(queue(0, 0, 4));
    desk.lose_link("");
    desk.connect();
    desk.tell(told(4));
    let compared = |desk: &mut Desk, differing: &[&str]| {
        let request = desk.subscription();
        desk.on(Event::CaughtUp { space: SPACE, request, up_to: revision(10) });
        let (request, differing) = (desk.digest(), Some(names(differing)));
        desk.look();
        desk.on(Event::DigestCompared { space: SPACE, request, differing });
    };
    for _ in 0..3 {
        compared(&mut desk, &["a", "b"]);
        let collections = Some(names(&["a", "b"]));
        let load =
            |it: &Action| matches!(it, Action::Load { collections: of, .. } if *of == collections);
        assert!(desk.asked.iter().any(load));
        assert!(desk.has(|it| matches!(it, Action::Unsubscribe { .. })));
        assert_eq!(desk.phase(), Phase::Loading { healing: true });
        let (request, revision) = (desk.load(), revision(10));
        desk.on(Event::Loaded { space: SPACE, request, revision });
        assert!(desk.has_report(|it| matches!(it, Report::Healed { .. })));
    }
    compared(&mut desk, &["a", "b"]);
    assert!(desk.has_report(|it| matches!(it, Report::HealingInVain { .. })));
    assert!(!desk.has(is_load));
    assert_eq!(desk.phase(), Phase::Live);
    // The next link begins anew.
    desk.asked.push(Action::Connect { request: RequestNo(0) });
    desk.on(Event::Trigger(Trigger::Offline));
    desk.trigger(Trigger::Network);
    desk.connect();
    desk.tell(told(4));
    compared(&mut desk, &["a"]);
    assert!(desk.has(is_load));
}

#[test]
fn nothing_is_loaded_while_something_is_in_flight() {
    let mut desk = Desk::up(Mode::Live, info(queue(0, 0, 4)));
    desk.tell(told(4));
    let request = desk.subscription();
    desk.on(Event::CaughtUp { space: SPACE, request, up_to: revision(10) });
    desk.trigger(Trigger::Changed { space: SPACE });
    desk.take(1, queue(1, 0, 5));
    let (request, differing) = (desk.digest(), Some(names(&["a"])));
    desk.on(Event::DigestCompared { space: SPACE, request, differing });
    desk.trigger(Trigger::Changed { space: SPACE });
    assert!(!desk.has(is_load));
    let takes =
        |desk: &Desk| desk.asked.iter().filter(|it| matches!(it, Action::Take { .. })).count();
    assert_eq!(takes(&desk), 1);
    desk.answer(queue(0, 1, 5));
    assert!(desk.has(is_load));
    assert_eq!(takes(&desk), 1, "and nothing is sent until it is loaded");
    desk.on(Event::Loaded { space: SPACE, request: desk.load(), revision: revision(10) });
    assert_eq!(takes(&desk), 2);
}

#[test]
fn a_subscription_that_ends_is_begun_again_and_the_link_stays() {
    for (reason, resets, at_once) in [
        ("SYNC_FAILED", false, false),
        ("TOO_MANY_KEYS", false, false),
        ("VALIDATION_ERROR", false, false),
        ("EPOCH_CHANGED", false, true),
        ("CURSOR_EXPIRED", true, true),
        ("CURSOR_AHEAD", true, true),
    ] {
        let mut desk = Desk::live(queue(0, 0, 4));
        let request = desk.subscription();
        desk.look();
        desk.fail(request, fault(reason));
        assert_eq!(desk.has(|it| matches!(it, Action::AskStatus { .. })), at_once, "{reason}");
        desk.wait_for(|it| matches!(it, Action::AskStatus { .. }));
        desk.tell(told(4));
        assert_eq!((desk.has(is_load), desk.has(is_subscribe)), (resets, !resets), "{reason}");
        assert!(desk.is_up());
        // If that goes on, it goes on more slowly.
        if resets {
            let (request, revision) = (desk.load(), revision(10));
            desk.on(Event::Loaded { space: SPACE, request, revision });
        }
        desk.fail(desk.subscription(), fault(reason));
        desk.look();
        let waited = desk.wait_for(|it| matches!(it, Action::AskStatus { .. }));
        assert!(waited >= seconds(1), "{reason}: {waited:?}");
    }
}

#[test]
fn a_range_that_was_missed_and_a_catch_up_that_stands_still() {
    let mut desk = Desk::live(queue(0, 0, 4));
    let request = desk.subscription();
    desk.look();
    desk.on(Event::Missed { space: SPACE, request });
    assert!(desk.has(|it| matches!(it, Action::Unsubscribe { .. })));
    desk.wait_for_while_heard(|it| matches!(it, Action::AskStatus { .. }));
    desk.tell(told(4));
    let request = desk.subscription();
    desk.on(Event::Subscribed { space: SPACE, request, head: revision(20) });
    desk.look();
    let waited = desk.wait_for_while_heard(|it| matches!(it, Action::Unsubscribe { .. }));
    assert_eq!(waited, seconds(60));
    assert!(desk.is_up());
}

#[test]
fn a_digest_that_cannot_be_told_holds_up_nothing() {
    let mut desk = Desk::up(Mode::Live, info(queue(0, 0, 4)));
    desk.tell(told(4));
    let request = desk.subscription();
    desk.on(Event::CaughtUp { space: SPACE, request, up_to: revision(10) });
    let before = desk.digest();
    desk.on(Event::DigestCompared { space: SPACE, request: before, differing: None });
    let differing = Some(names(&["a"]));
    desk.on(Event::DigestCompared { space: SPACE, request: before, differing });
    assert!(!desk.has(is_load), "one that is no longer waited for");
    assert_eq!(desk.phase(), Phase::Live);
    // It is asked for once more, also if nobody answers.
    for _ in 0..2 {
        desk.look_but_keep_numbers();
        let waited = desk.wait_for_while_heard(|it| matches!(it, Action::CompareDigest { .. }));
        assert!(waited >= seconds(300) && waited <= seconds(360), "{waited:?}");
    }
    let (request, differing) = (desk.digest(), Some(names(&["a"])));
    desk.on(Event::DigestCompared { space: SPACE, request, differing });
    assert!(desk.has(is_load));
}

/// A page that ends there.
fn page(desk: &mut Desk, up_to: i64, head: i64, left: crate::client::engine::Queue) {
    let page = Page { up_to: revision(up_to), head: revision(head), more: up_to < head };
    let (request, settled) = (desk.batch(), Settled::default());
    desk.asked.retain(|it| !is_exchange(it));
    desk.on(Event::Exchanged { space: SPACE, request, settled, queue: left, page });
}

#[test]
fn without_a_stream_calls_carry_everything() {
    let every = seconds(600);
    let mut desk = Desk::up(Mode::Poll { every }, info(queue(0, 0, 4)));
    desk.tell(told(4));
    assert_eq!(desk.entries_max(), 0);
    page(&mut desk, 15, 20, queue(0, 0, 4));
    assert!(matches!(desk.phase(), Phase::CatchingUp { .. }));
    page(&mut desk, 20, 20, queue(0, 0, 4));
    assert_eq!((desk.phase(), desk.has(is_exchange)), (Phase::Live, false));
    let (request, differing) = (desk.digest(), Some(Vec::new()));
    desk.on(Event::DigestCompared { space: SPACE, request, differing });
    assert_eq!(desk.wait_for(is_exchange), every);
    page(&mut desk, 20, 20, queue(0, 0, 4));
    for trigger in [Trigger::Periodic, Trigger::Demand, Trigger::Hint { space: SPACE }] {
        desk.wait(seconds(2));
        assert!(!desk.has(is_exchange));
        desk.trigger(trigger);
        assert_eq!(desk.entries_max(), 0, "{trigger:?}");
        page(&mut desk, 20, 20, queue(0, 0, 4));
    }
    desk.trigger(Trigger::Changed { space: SPACE });
    assert_eq!(desk.entries_max(), 100);
    desk.take(2, queue(2, 0, 6));
    page(&mut desk, 22, 22, queue(0, 0, 6));
    let compares = |desk: &Desk| {
        desk.asked.iter().filter(|it| matches!(it, Action::CompareDigest { .. })).count()
    };
    assert_eq!(compares(&desk), 1, "digests cost calls");
    while desk.now < seconds(3_700) {
        desk.wait_for(is_exchange);
        page(&mut desk, 22, 22, queue(0, 0, 6));
        let (request, differing) = (desk.digest(), Some(Vec::new()));
        desk.on(Event::DigestCompared { space: SPACE, request, differing });
    }
    assert_eq!(compares(&desk), 2);
}

#[test]
fn without_a_stream_what_is_in_doubt_is_settled_by_a_call_that_only_sends() {
    let mut desk = Desk::up(Mode::Poll { every: seconds(600) }, info(queue(0, 1, 4)));
    desk.tell(told(4));
    desk.take(1, queue(1, 0, 5));
    let request = desk.batch();
    desk.look();
    desk.fail(request, fault("SYNC_FAILED"));
    desk.wait_for(|it| matches!(it, Action::Take { .. } | Action::Exchange { .. }));
    assert!(desk.has(|it| matches!(it, Action::Take { entries_max: 1, .. })));
    desk.take(1, queue(1, 0, 5));
    desk.answer(queue(0, 0, 5));
    assert!(desk.has(is_exchange));

    // A cursor that cannot be resumed refuses the whole: nothing of it was written.
    desk.look();
    desk.fail(desk.engine.last_request, fault("CURSOR_EXPIRED"));
    desk.wait_for(|it| matches!(it, Action::AskStatus { .. }));
    desk.tell(told(5));
    assert!(desk.has(|it| matches!(it, Action::Load { collections: None, .. })));
}
