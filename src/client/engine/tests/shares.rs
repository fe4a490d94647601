//! Rules of many spaces on one link, as scripts.

use super::desk::*;
use super::server::revision;
use crate::client::engine::{Action, Code, Event, Fault, Mode, Parked, Settled, SpaceNo};

#[test]
fn a_batch_that_ends_the_link_is_found_out() {
    let fatal = || Fault::new(Code::ResourceExhausted, "REQUEST_TOO_LARGE", "too large");
    let (other, many) = (SpaceNo(2), 40);
    let mut desk = Desk::new(Mode::Live);
    desk.on(Event::SpaceAdded { space: SPACE, info: info(queue(many, 0, 40)) });
    desk.on(Event::SpaceAdded { space: other, info: info(queue(1, 0, 1)) });
    let (mut fatal_sends, mut innocent) = (0, queue(1, 0, 1));
    let parked = |desk: &Desk| {
        desk.asked.iter().find_map(|it| match it {
            Action::Park { space, what, .. } => Some((*space, *what)),
            _ => None,
        })
    };
    for _ in 0..40 {
        desk.connect();
        let link = desk.link();
        let mut ended = false;
        // Whatever is asked for is answered; what comes from the first space ends the link.
        for _ in 0..20 {
            for action in desk.look() {
                match action {
                    Action::AskStatus { space, request } => {
                        let told = told(if space == SPACE { 0 } else { 1 });
                        desk.on(Event::StatusTold { space, request, told });
                    }
                    Action::Take { space: SPACE, request, entries_max } => {
                        fatal_sends += 1;
                        let (space, count) = (SPACE, u64::from(entries_max));
                        let queue = queue(many, 0, 40);
                        let first = first(count, &queue);
                        desk.on(Event::Taken { space, request, count, first, queue });
                        ended = true;
                    }
                    Action::Take { space, request, .. } => {
                        let (count, queue) = (1, innocent);
                        let first = first(count, &queue);
                        desk.on(Event::Taken { space, request, count, first, queue });
                        if !ended {
                            innocent = super::desk::queue(0, 0, 1);
                            let (settled, queue) = (Settled::default(), innocent);
                            desk.on(Event::Answered { space, request, settled, queue });
                        }
                    }
                    action @ Action::Park { .. } => {
                        desk.asked.push(action);
                        assert_eq!(parked(&desk), Some((SPACE, Parked::Front)));
                        assert_eq!(fatal_sends, 5 + 5, "halved five times, alone five times");
                        return;
                    }
                    _ => {}
                }
            }
        }
        desk.on(Event::LinkLost { request: link, fault: fatal() });
    }
    panic!("it goes on for ever");
}

#[test]
fn spaces_take_turns_with_what_the_stream_can_hold() {
    let mut desk = Desk::new(Mode::Live);
    for number in 0..40 {
        desk.on(Event::SpaceAdded { space: SpaceNo(number), info: info(queue(0, 90_000, 0)) });
    }
    desk.connect();
    let mut sends = vec![0; 40];
    let mut in_flight = std::collections::VecDeque::new();
    for _ in 0..2_000 {
        for action in desk.look() {
            match action {
                Action::AskStatus { space, request } => {
                    desk.on(Event::StatusTold { space, request, told: told(0) });
                }
                Action::Subscribe { space, request } => {
                    desk.on(Event::CaughtUp { space, request, up_to: revision(10) });
                }
                Action::Take { space, request, .. } => {
                    sends[usize::try_from(space.0).unwrap()] += 1;
                    in_flight.push_back((space, request));
                    let (count, queue) = (1, queue(1, 90_000, 1));
                    let first = first(count, &queue);
                    desk.on(Event::Taken { space, request, count, first, queue });
                }
                _ => {}
            }
        }
        assert!(in_flight.len() <= 16, "{in_flight:?}");
        if let Some((space, request)) = in_flight.pop_front() {
            let (settled, queue) = (Settled::default(), queue(0, 90_000, 1));
            desk.on(Event::Answered { space, request, settled, queue });
        }
    }
    let (least, most) = (sends.iter().min().unwrap(), sends.iter().max().unwrap());
    assert!(*least > 20 && most - least <= 2, "{sends:?}");
}
