//! Rules of the link, as scripts.

use super::desk::*;
use crate::client::engine::{
    Action, Code, Event, Fault, LinkState, Mode, Report, TokenTrouble, Trigger,
};

fn is_fetch(action: &Action) -> bool {
    matches!(action, Action::FetchToken { .. })
}

fn is_hangup(action: &Action) -> bool {
    matches!(action, Action::Hangup)
}

#[test]
fn without_a_space_nothing_is_done() {
    let mut desk = Desk::new(Mode::Live);
    desk.on(Event::Tick);
    desk.trigger(Trigger::Demand);
    assert_eq!((desk.look(), desk.engine.next_wake()), (Vec::new(), None));
    assert_eq!(desk.state().link, LinkState::Idle);
    desk.on(Event::SpaceAdded { space: SPACE, info: info(queue(0, 0, 0)) });
    desk.connect();
    desk.look();
    desk.on(Event::SpaceRemoved { space: SPACE });
    assert_eq!((desk.look(), desk.engine.next_wake()), (vec![Action::Hangup], None));
}

#[test]
fn waits_double_until_something_useful_was_answered() {
    let mut desk = Desk::up(Mode::Live, info(queue(0, 0, 0)));
    // To be connected is nothing useful.
    for full in [1, 2, 4, 8, 16, 32, 60, 60] {
        desk.lose_link("");
        desk.look();
        let waited = desk.wait_for(is_fetch);
        assert!(waited >= seconds(full) / 2 && waited <= seconds(full), "{waited:?} of {full} s");
        desk.connect();
    }
    desk.tell(told(0));
    desk.catch_up();
    desk.lose_link("");
    desk.look();
    assert!(desk.wait_for(is_fetch) <= seconds(1));
}

#[test]
fn what_the_server_asks_for_is_the_least_whatever_comes() {
    for (asked, least) in [(20, 20), (4_000, 300)] {
        let mut desk = Desk::up(Mode::Live, info(queue(0, 0, 0)));
        let fault = Fault { retry_after: Some(seconds(asked)), ..fault("OVERLOADED") };
        desk.on(Event::LinkLost { request: desk.link(), fault });
        desk.look();
        for trigger in [Trigger::Network, Trigger::Foreground, Trigger::Demand] {
            desk.trigger(trigger);
        }
        assert_eq!(desk.wait_for(is_fetch), seconds(least));
    }
}

#[test]
fn triggers_cut_waits_short_but_are_no_storm() {
    let triggers =
        [Trigger::Network, Trigger::Foreground, Trigger::Periodic, Trigger::Hint { space: SPACE }];
    for trigger in triggers {
        let mut desk = Desk::up(Mode::Live, info(queue(0, 0, 0)));
        for _ in 0..6 {
            desk.lose_link("");
            desk.look();
            desk.connect();
        }
        desk.lose_link("");
        desk.look();
        (0..1_000).for_each(|_| desk.trigger(trigger));
        assert_eq!(desk.wait_for(is_fetch), seconds(1), "{trigger:?}");
        desk.connect();
        desk.lose_link("");
        desk.look();
        assert!(desk.wait_for(is_fetch) <= seconds(1), "{trigger:?} begins anew");
    }
}

#[test]
fn offline_closes_the_link_and_waits_for_a_network() {
    for (trigger, ends) in [
        (Trigger::Foreground, false),
        (Trigger::Periodic, false),
        (Trigger::Network, true),
        (Trigger::Demand, true),
        (Trigger::Hint { space: SPACE }, true),
    ] {
        let mut desk = Desk::live(queue(0, 0, 0));
        desk.look();
        desk.trigger(Trigger::Offline);
        assert_eq!(desk.look(), [Action::Hangup]);
        assert!(matches!(desk.state().link, LinkState::Offline { .. }));
        desk.trigger(trigger);
        let waited = desk.wait_for(is_fetch);
        assert_eq!(waited, if ends { seconds(0) } else { seconds(60) }, "{trigger:?}");
    }
}

#[test]
fn what_is_silent_is_hung_up() {
    // Connecting takes too long.
    let mut desk = Desk::new(Mode::Live);
    desk.on(Event::SpaceAdded { space: SPACE, info: info(queue(0, 0, 0)) });
    desk.on(Event::TokenReady { request: desk.token() });
    assert_eq!(desk.wait_for(is_hangup), seconds(10));

    // Nothing comes; any sign of life counts.
    let mut desk = Desk::live(queue(0, 0, 0));
    desk.wait(seconds(39));
    desk.on(Event::Heard);
    assert_eq!(desk.wait_for(is_hangup), seconds(40));

    // Less patience where the network may be another one.
    let mut desk = Desk::live(queue(0, 0, 0));
    desk.trigger(Trigger::Network);
    assert_eq!(desk.wait_for(is_hangup), seconds(20));
    assert!(desk.has_report(|it| matches!(it, Report::LinkLost { .. })));
}

#[test]
fn what_comes_from_an_earlier_link_does_not_count() {
    let mut desk = Desk::up(Mode::Live, info(queue(0, 0, 0)));
    let (link, status) = (desk.link(), desk.status());
    desk.lose_link("");
    desk.look();
    desk.connect();
    let fault = fault("");
    desk.on(Event::LinkLost { request: link, fault: fault.clone() });
    desk.on(Event::Connected { request: link });
    desk.fail(status, fault);
    assert!(desk.is_up());
    assert_eq!(desk.phase(), crate::client::engine::Phase::Status);
}

#[test]
fn a_refused_token_is_replaced_at_once_and_then_more_slowly() {
    let refused = || Fault::new(Code::Unauthenticated, "UNAUTHENTICATED", "expired");
    let mut desk = Desk::up(Mode::Live, info(queue(0, 0, 0)));
    desk.look();
    desk.fail_status_with(refused());
    assert!(desk.has(is_hangup), "also when a call says it");
    assert!(desk.has(|it| matches!(it, Action::FetchToken { force: true, .. })));
    assert_eq!(desk.state().token, None);
    for _ in 0..3 {
        desk.on(Event::TokenReady { request: desk.token() });
        desk.on(Event::LinkLost { request: desk.link(), fault: refused() });
        assert_eq!(desk.state().token, Some(TokenTrouble::Refused { fault: refused() }));
        desk.look();
        assert!(desk.wait_for(is_fetch) >= seconds(1) / 2);
        assert!(desk.has(|it| matches!(it, Action::FetchToken { force: true, .. })));
    }
    desk.on(Event::TokenReady { request: desk.token() });
    desk.on(Event::Connected { request: desk.link() });
    desk.fail_status_with(fault("SPACE_NOT_FOUND"));
    assert_eq!(desk.state().token, None, "it was taken, whatever is seen with it");
}

#[test]
fn who_is_asked_for_a_token_in_vain_does_not_connect() {
    let mut desk = Desk::new(Mode::Live);
    desk.on(Event::SpaceAdded { space: SPACE, info: info(queue(0, 0, 0)) });
    let request = desk.token();
    desk.on(Event::SpaceRemoved { space: SPACE });
    assert_eq!(desk.state().link, LinkState::Idle);
    desk.on(Event::TokenReady { request });
    assert!(!desk.has(|it| matches!(it, Action::Connect { .. })));
}

#[test]
fn without_a_stream_calls_show_whether_anybody_is_there() {
    let every = seconds(600);
    let mut desk = Desk::up(Mode::Poll { every }, info(queue(0, 0, 0)));
    assert_eq!(desk.state().link, LinkState::Connecting);
    for full in [1, 2, 4] {
        let unreachable = Fault::new(Code::Unavailable, "", "connection refused");
        desk.fail(desk.status(), unreachable.clone());
        assert!(desk.has(is_hangup));
        let LinkState::Waiting { why, .. } = desk.state().link else { panic!("it is up") };
        assert_eq!(why, Some(unreachable));
        desk.look();
        let waited = desk.wait_for(is_fetch);
        assert!(waited >= seconds(full) / 2 && waited <= seconds(full), "{waited:?} of {full} s");
        desk.connect();
        assert_eq!(desk.state().link, LinkState::Connecting);
    }
    desk.tell(told(0));
    assert!(desk.is_up());
    // What the server says is no reason to leave it.
    desk.look();
    desk.fail(desk.engine.last_request, fault("SYNC_FAILED"));
    assert!(desk.is_up() && !desk.has(is_hangup));
    desk.wait_for(|it| matches!(it, Action::AskStatus { .. } | Action::Exchange { .. }));
    desk.fail(desk.engine.last_request, Fault::new(Code::Unavailable, "", "reset"));
    assert!(desk.has(is_hangup));
}

#[test]
fn an_app_that_gives_no_token_is_asked_again() {
    let mut desk = Desk::new(Mode::Live);
    desk.on(Event::SpaceAdded { space: SPACE, info: info(queue(0, 0, 0)) });
    let message = "nobody is signed in".to_owned();
    desk.on(Event::TokenFailed { request: desk.token(), message: message.clone() });
    assert_eq!(desk.state().token, Some(TokenTrouble::Failed { message }));
    desk.look();
    desk.wait_for(is_fetch);
    desk.look();
    // One that does not answer at all.
    assert!(desk.wait_for(is_fetch) > seconds(30));
}

#[test]
fn a_token_is_renewed_before_it_ends_and_once() {
    let progress = |left| Event::Progress {
        store_ok: true,
        token_expires_in: Some(seconds(left)),
        places: Vec::new(),
    };
    for (life, enough, little) in [(3_600, 721, 719), (100, 30, 29), (20, 10, 9)] {
        let mut desk = Desk::live(queue(0, 0, 0));
        desk.on(progress(life));
        desk.on(progress(enough));
        assert!(!desk.has(is_fetch), "{life}");
        desk.on(progress(little));
        desk.on(Event::TokenFailed { request: desk.token(), message: "later".into() });
        desk.look_at_tokens();
        desk.wait_for(is_fetch);
        desk.on(Event::TokenReady { request: desk.token() });
        assert!(desk.has(|it| matches!(it, Action::RefreshToken)), "{life}");
        desk.look_at_tokens();
        // Not again before the server has told of a good one.
        desk.on(progress(little.saturating_sub(1)));
        assert!(!desk.has(is_fetch), "{life}");
        desk.on(progress(life));
        desk.on(progress(little));
        assert!(desk.has(is_fetch), "{life}");
        assert!(desk.is_up());
    }
}

#[test]
fn who_is_sent_away_comes_back_when_told() {
    let mut desk = Desk::live(queue(0, 0, 0));
    let (retry_after, token_expired) = (seconds(4), true);
    desk.on(Event::GoingAway { retry_after, token_expired });
    desk.trigger(Trigger::Changed { space: SPACE });
    assert!(!desk.has(|it| matches!(it, Action::Take { .. })), "nothing new is begun");
    desk.lose_link("SYNC_FAILED");
    assert!(matches!(desk.state().link, LinkState::Waiting { attempt: 0, .. }));
    let waited = desk.wait_for(is_fetch);
    assert!(waited >= seconds(4) && waited <= seconds(6), "{waited:?}");
    assert!(desk.has(|it| matches!(it, Action::FetchToken { force: true, .. })));

    // A server that stays is left.
    let mut desk = Desk::live(queue(0, 0, 0));
    desk.on(Event::GoingAway { retry_after, token_expired });
    assert_eq!(desk.wait_for(is_hangup), seconds(10));
}
