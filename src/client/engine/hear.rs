//! What is told of one space, and of whom: only whether it can still matter. Must not decide.

use super::fault::{FaultKind, kind};
use super::turn::Turn;
use super::{Engine, Event};

impl Engine {
    pub(super) fn hear_of_space(&mut self, event: Event, turn: &mut Turn) {
        if is_from_server(&event) {
            self.link.heard(turn.now);
        }
        if has_spoken(&event) {
            self.link.spoken();
        }
        match event {
            Event::SpaceRead { space, request, info } => {
                self.with(space, |it| it.read(request, &info, turn));
            }
            Event::StatusTold { space, request, told } => {
                self.with(space, |it| it.told(request, &told, turn));
            }
            Event::Taken { space, request, count, first, queue } => {
                self.with(space, |it| it.taken(request, (count, first), queue, turn));
            }
            Event::Answered { space, request, settled, queue } => {
                self.with(space, |it| it.answered(request, &settled, queue, turn));
            }
            Event::Exchanged { space, request, settled, queue, page } => {
                self.with(space, |it| it.exchanged(request, &settled, queue, page, turn));
            }
            Event::Failed { space, request, fault } => {
                self.with(space, |it| it.failed(request, fault, turn));
            }
            Event::StoreFailed { space, request, message } => {
                self.with(space, |it| it.store_failed(request, message, turn));
            }
            event => self.hear_of_changes(event, turn),
        }
    }

    fn hear_of_changes(&mut self, event: Event, turn: &mut Turn) {
        match event {
            Event::Subscribed { space, request, head } => {
                self.with(space, |it| it.subscribed(request, head, turn.now));
            }
            Event::Absorbed { space, request, up_to, whole } => {
                self.with(space, |it| it.absorbed(request, up_to, whole, turn));
            }
            Event::Missed { space, request } => self.with(space, |it| it.missed(request, turn)),
            Event::CaughtUp { space, request, up_to } => {
                self.with(space, |it| it.caught_up(request, up_to, turn));
            }
            Event::RemovedFromView { space, request } => {
                self.with(space, |it| it.removed_from_view(request, turn));
            }
            Event::LoadedPart { space, request } => {
                self.with(space, |it| it.loaded_part(request, turn.now));
            }
            Event::Loaded { space, request, revision } => {
                self.with(space, |it| it.loaded(request, revision, turn));
            }
            Event::DigestCompared { space, request, differing } => {
                self.with(space, |it| it.compared(request, differing, turn));
            }
            // These are not of one space, or begin or end one: `Engine::hear` has them.
            Event::SpaceAdded { .. }
            | Event::SpaceRead { .. }
            | Event::SpaceRemoved { .. }
            | Event::Trigger(_)
            | Event::Tick
            | Event::TokenReady { .. }
            | Event::TokenFailed { .. }
            | Event::Connected { .. }
            | Event::LinkLost { .. }
            | Event::Heard
            | Event::Progress { .. }
            | Event::GoingAway { .. }
            | Event::AccessChanged { .. }
            | Event::StatusTold { .. }
            | Event::Taken { .. }
            | Event::Answered { .. }
            | Event::Exchanged { .. }
            | Event::Failed { .. }
            | Event::StoreFailed { .. } => {}
        }
    }
}

/// Whether the server has answered, and not that the token is bad.
fn has_spoken(event: &Event) -> bool {
    match event {
        Event::StatusTold { .. } | Event::Exchanged { .. } => true,
        Event::Failed { fault, .. } => !fault.reason.is_empty() && kind(fault) != FaultKind::Token,
        event => is_from_server(event),
    }
}

/// Whether the stream has brought it.
fn is_from_server(event: &Event) -> bool {
    matches!(
        event,
        Event::Answered { .. }
            | Event::Subscribed { .. }
            | Event::Absorbed { .. }
            | Event::Missed { .. }
            | Event::CaughtUp { .. }
            | Event::RemovedFromView { .. }
    )
}
