//! Rules of what the server says of a space, of access, and of many spaces, as scripts.

use super::desk::*;
use super::server::{revision, sequence};
use crate::client::engine::{
    Action, Code, Event, Fault, HaltReason, Mode, Parked, Phase, Report, SpaceInfo, SpaceNo, Told,
    Trigger,
};
use crate::domain::CursorFault;

fn is_status(action: &Action) -> bool {
    matches!(action, Action::AskStatus { .. })
}

fn is_load(action: &Action) -> bool {
    matches!(action, Action::Load { .. })
}

#[test]
fn the_first_contact_tells_the_epoch_and_loads() {
    let new = SpaceInfo { epoch: None, loaded: false, cursor: revision(0), ..info(queue(0, 2, 0)) };
    let mut desk = Desk::up(Mode::Live, new);
    assert_eq!(desk.phase(), Phase::Status);
    desk.tell(told(0));
    assert!(desk.has(|it| matches!(it, Action::Adopt { .. })));
    assert!(desk.has(|it| matches!(it, Action::Load { collections: None, .. })));
    assert!(!desk.has_report(|it| matches!(it, Report::Reset { .. })));
    assert_eq!(desk.phase(), Phase::Loading { healing: false });
    // A device that the server knows, of a file that is new.
    let mut desk = Desk::up(Mode::Live, new);
    desk.tell(told(7));
    let (epoch, device_sequence) = (HERE, sequence(7));
    assert!(desk.asked.contains(&Action::Renumber { space: SPACE, epoch, device_sequence }));
}

#[test]
fn another_history_is_loaded_and_keeps_the_sequences_that_fit() {
    // Three were sent and not answered: 5, 6 and 7.
    for (device_sequence, renumbers) in [(3, true), (4, false), (6, false), (7, false), (8, true)] {
        let mut desk = Desk::up(Mode::Live, info(queue(3, 1, 7)));
        desk.tell(Told { epoch: ELSEWHERE, ..told(device_sequence) });
        let renumbered = desk.has(|it| matches!(it, Action::Renumber { epoch: ELSEWHERE, .. }));
        let adopted = desk.has(|it| matches!(it, Action::Adopt { epoch: ELSEWHERE, .. }));
        assert_eq!((renumbered, adopted), (renumbers, !renumbers), "{device_sequence}");
        let fault = CursorFault::EpochChanged;
        assert!(desk.asked.contains(&Action::Report(Report::Reset { space: SPACE, fault })));
        assert_eq!(desk.has(is_load), renumbers, "what was sent is settled first");
        let (frozen, waiting) = if renumbers { (0, 4) } else { (3, 1) };
        assert_eq!((desk.standing().frozen, desk.standing().waiting), (frozen, waiting));
    }
}

#[test]
fn a_queue_that_is_ahead_of_the_server_goes_on_where_that_is() {
    for (device_sequence, renumbers) in [(3, true), (4, false), (5, false), (7, false)] {
        let mut desk = Desk::up(Mode::Live, info(queue(3, 0, 7)));
        desk.tell(told(device_sequence));
        let renumbered = desk.has(|it| matches!(it, Action::Renumber { .. }));
        assert_eq!(renumbered, renumbers, "{device_sequence}");
        assert!(!desk.has(is_load));
    }
}

#[test]
fn what_is_based_on_what_the_server_has_lost_waits_for_the_new_state() {
    for (epoch, device_sequence, renumbers) in
        [(HERE, 4, true), (ELSEWHERE, 4, true), (HERE, 5, false), (ELSEWHERE, 5, false)]
    {
        let mut desk = Desk::up(Mode::Live, info(queue(3, 1, 7)));
        desk.tell(Told { epoch, head: revision(9), ..told(device_sequence) });
        let renumbered = desk.has(|it| matches!(it, Action::Renumber { .. }));
        assert_eq!(renumbered, renumbers, "{epoch:?} {device_sequence}");
        assert_eq!(desk.has(is_load), renumbers, "what was decided is settled first");
    }
}

#[test]
fn a_file_that_is_behind_does_nothing_more() {
    let mut desk = Desk::up(Mode::Live, info(queue(1, 1, 7)));
    let request = desk.status();
    desk.look();
    desk.on(Event::StatusTold { space: SPACE, request, told: told(8) });
    let (last_sequence, device_sequence) = (sequence(7), sequence(8));
    let reason = HaltReason::FileIsBehind { last_sequence, device_sequence };
    assert_eq!(desk.phase(), Phase::Halted(reason));
    assert!(matches!(desk.look()[..], [Action::Report(Report::FileIsBehind { .. })]));
    for trigger in [Trigger::Demand, Trigger::Network, Trigger::Changed { space: SPACE }] {
        desk.trigger(trigger);
    }
    desk.on(Event::AccessChanged { space: SPACE });
    desk.lose_link_of_nobody();
    desk.wait(seconds(500));
    assert!(!desk.asked.iter().any(|it| matches!(it, Action::AskStatus { .. })));
    desk.on(Event::SpaceAdded { space: SPACE, info: info(queue(1, 1, 8)) });
    desk.connect();
    assert!(desk.has(is_status));
}

#[test]
fn a_cursor_that_is_too_old_is_seen_at_once() {
    let mut desk = Desk::up(Mode::Live, info(queue(0, 0, 0)));
    desk.tell(Told { floor: revision(11), head: revision(20), ..told(0) });
    assert!(desk.has(is_load));
    assert!(desk.has_report(|it| matches!(it, Report::Reset { fault: CursorFault::Expired, .. })));
    let mut desk = Desk::up(Mode::Live, info(queue(0, 0, 0)));
    desk.tell(Told { head: revision(9), ..told(0) });
    assert!(desk.has(|it| matches!(it, Action::Distrust { .. })));
    assert!(desk.has_report(|it| matches!(it, Report::Reset { fault: CursorFault::Ahead, .. })));
}

#[test]
fn a_space_that_cannot_be_seen_waits_and_its_queue_fails() {
    let gone = || Fault::new(Code::NotFound, "SPACE_NOT_FOUND", "gone");
    let mut desk = Desk::up(Mode::Live, info(queue(1, 2, 7)));
    desk.fail(desk.status(), gone());
    assert!(desk.has(|it| matches!(it, Action::Park { what: Parked::All, .. })));
    assert!(!desk.has(|it| matches!(it, Action::Forget { .. })), "nobody has said so");
    assert!(matches!(desk.phase(), Phase::NoAccess { .. }));
    desk.look();
    // What is written meanwhile is tried when it is looked at again.
    desk.trigger(Trigger::Changed { space: SPACE });
    let waited = desk.wait_for_while_heard(is_status);
    assert!(waited >= seconds(30) && waited <= seconds(60), "{waited:?}");
    let request = desk.status();
    desk.look();
    desk.fail(request, gone());
    assert!(desk.has(|it| matches!(it, Action::Park { .. })));
    assert!(!desk.has_report(|it| matches!(it, Report::AccessLost { .. })), "told once");
    desk.wait(seconds(1));
    desk.look();
    desk.trigger(Trigger::Foreground);
    assert!(!desk.has(is_status));
    for event in [
        Event::Trigger(Trigger::Demand),
        Event::Trigger(Trigger::Network),
        Event::Trigger(Trigger::Hint { space: SPACE }),
        Event::AccessChanged { space: SPACE },
    ] {
        desk.on(event);
        let request = desk.status();
        desk.look();
        desk.fail(request, gone());
        desk.wait(seconds(1));
    }
    desk.trigger(Trigger::Demand);
    // The sequences of what has failed are free.
    desk.tell(told(6));
    assert!(desk.has(|it| matches!(it, Action::Renumber { .. })));
}

#[test]
fn what_may_no_longer_be_seen_is_forgotten() {
    let mut desk = Desk::live(queue(0, 0, 4));
    let request = desk.subscription();
    desk.on(Event::RemovedFromView { space: SPACE, request });
    assert!(desk.has(|it| matches!(it, Action::Forget { .. })));
    assert!(matches!(desk.phase(), Phase::NoAccess { .. }));
    desk.fail(request, Fault::new(Code::NotFound, "SPACE_NOT_FOUND", "gone"));
    desk.wait(seconds(1));
    desk.on(Event::AccessChanged { space: SPACE });
    desk.tell(told(4));
    assert!(desk.has(|it| matches!(it, Action::Load { collections: None, .. })));
}

#[test]
fn many_spaces_take_turns() {
    let mut desk = Desk::new(Mode::Live);
    for number in 0..20 {
        let info = SpaceInfo { loaded: false, ..info(queue(0, 0, 0)) };
        desk.on(Event::SpaceAdded { space: SpaceNo(number), info });
    }
    desk.connect();
    let (mut asked, mut loads) = (0, 0);
    let mut rounds = 0;
    while loads < 20 {
        rounds += 1;
        assert!(rounds < 100);
        let actions = desk.look();
        let (mut asking, mut loading) = (0, 0);
        for action in &actions {
            match action {
                Action::AskStatus { space, request } => {
                    (asked, asking) = (asked + 1, asking + 1);
                    let (space, request) = (*space, *request);
                    desk.on(Event::StatusTold { space, request, told: told(0) });
                }
                Action::Load { space, request, .. } => {
                    (loads, loading) = (loads + 1, loading + 1);
                    let (space, request, revision) = (*space, *request, revision(10));
                    desk.on(Event::Loaded { space, request, revision });
                }
                _ => {}
            }
        }
        assert!(asking <= 8 && loading <= 8, "{asking} and {loading}");
    }
    assert_eq!(asked, 20);
}

#[test]
fn one_space_does_not_hold_up_another() {
    let mut desk = Desk::live(queue(0, 0, 4));
    let (first, second) = (desk.subscription(), SpaceNo(2));
    desk.on(Event::SpaceAdded { space: second, info: info(queue(0, 0, 0)) });
    let request = desk.status();
    desk.on(Event::StatusTold { space: second, request, told: told(0) });
    let request = desk.subscription();
    desk.on(Event::CaughtUp { space: second, request, up_to: revision(10) });
    // One is refused again and again, the other one sends.
    desk.fail(first, fault("TOO_MANY_SUBSCRIPTIONS"));
    for full in [1, 2, 4] {
        desk.look();
        desk.trigger(Trigger::Changed { space: second });
        assert!(desk.has(|it| matches!(it, Action::Take { space: SpaceNo(2), .. })));
        let (request, queue) = (desk.batch(), queue(1, 0, 1));
        desk.on(Event::Taken { space: second, request, count: 1, first: sequence(1), queue });
        let (settled, queue) = (Default::default(), super::desk::queue(0, 0, 1));
        desk.on(Event::Answered { space: second, request, settled, queue });
        let waited = desk.wait_for_while_heard(is_status);
        assert!(waited >= seconds(full) / 2, "{waited:?}");
        let request = desk.status();
        desk.fail(request, fault("SYNC_FAILED"));
    }
    assert!(desk.is_up());
}

/// One that nobody follows, with this queue.
fn left(queue: crate::client::engine::Queue) -> SpaceInfo {
    SpaceInfo { wanted: false, loaded: false, ..info(queue) }
}

#[test]
fn what_waits_in_a_space_that_nobody_wants_is_sent_and_that_is_all() {
    for mode in [Mode::Live, Mode::Poll { every: seconds(60) }] {
        let mut desk = Desk::up(mode, left(queue(1, 2, 5)));
        desk.tell(told(4));
        assert_eq!(desk.entries_max(), 1, "what was sent first");
        desk.take(1, queue(1, 2, 5));
        desk.answer(queue(0, 2, 5));
        desk.take(2, queue(2, 0, 7));
        desk.answer(queue(0, 0, 7));
        let only = |it: &Action| {
            let mine = it.space() == Some(SPACE);
            let may =
                matches!(it, Action::AskStatus { .. } | Action::Take { .. } | Action::Leave { .. });
            !mine || may
        };
        assert!(desk.asked.iter().all(only), "{:?}", desk.asked);
        assert!(desk.has(|it| matches!(it, Action::Leave { .. })));
        // More of it, before anybody has taken it away.
        desk.look();
        desk.trigger(Trigger::Changed { space: SPACE });
        assert!(desk.has(is_status));
        desk.tell(told(7));
        desk.take(1, queue(1, 0, 8));
        desk.answer(queue(0, 0, 8));
        assert!(desk.has(|it| matches!(it, Action::Leave { .. })));
        desk.look();
        desk.on(Event::SpaceRemoved { space: SPACE });
        assert_eq!(desk.look(), [Action::Hangup]);
    }
}

#[test]
fn a_space_that_nobody_wants_knows_no_cursor() {
    let mut desk = Desk::up(Mode::Live, left(queue(1, 1, 5)));
    desk.tell(Told { epoch: ELSEWHERE, floor: revision(11), head: revision(20), ..told(4) });
    assert!(desk.has(|it| matches!(it, Action::Adopt { .. })));
    assert!(!desk.has_report(|it| matches!(it, Report::Reset { .. })));
    let gone = Fault::new(Code::NotFound, "SPACE_NOT_FOUND", "gone");
    desk.take(1, queue(1, 1, 5));
    desk.fail(desk.batch(), gone);
    assert!(desk.has(|it| matches!(it, Action::Park { what: Parked::All, .. })));
    assert!(desk.has(|it| matches!(it, Action::Leave { .. })), "nothing is left to wait for");
}

#[test]
fn a_load_that_may_have_ended_is_looked_for_in_the_file() {
    let new = SpaceInfo { loaded: false, ..info(queue(0, 0, 0)) };
    let mut desk = Desk::up(Mode::Live, new);
    desk.tell(told(0));
    desk.load();
    desk.lose_link("");
    let request = desk.last(|it| match it {
        Action::Read { request, .. } => Some(*request),
        _ => None,
    });
    desk.on(Event::SpaceRead { space: SPACE, request, info: info(queue(0, 0, 0)) });
    desk.look();
    desk.connect();
    desk.tell(told(0));
    assert!(!desk.has(is_load) && desk.has(|it| matches!(it, Action::Subscribe { .. })));
}
