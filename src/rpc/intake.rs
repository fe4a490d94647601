//! What messages that are on their way may take of memory: a client says how long a message is
//! before it sends any of it, and room is made at once. Room for large ones is lent, to each
//! user some and to all together so much; who wants more is told to come later.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Request;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::status;
use crate::auth::Principal;
use crate::domain::{UserId, limits};

const HEAD_BYTES: usize = 5;

/// How much is lent, in bytes.
#[derive(Debug, Default)]
pub(super) struct Room {
    lent: Mutex<Lent>,
}

#[derive(Debug, Default)]
struct Lent {
    total: usize,
    of_users: HashMap<UserId, usize>,
}

/// What one message has of it, as long as it is on its way.
#[derive(Debug)]
struct Loan {
    room: Arc<Room>,
    user: UserId,
    bytes: usize,
}

impl Room {
    fn lend(self: &Arc<Self>, user: &UserId, bytes: usize) -> Option<Loan> {
        let mut lent = self.lent.lock();
        let of_user = lent.of_users.get(user).copied().unwrap_or_default() + bytes;
        let total = lent.total + bytes;
        if of_user > limits::USER_INTAKE_BYTES_MAX || total > limits::INTAKE_BYTES_MAX {
            return None;
        }
        lent.total = total;
        lent.of_users.insert(user.clone(), of_user);
        Some(Loan { room: Arc::clone(self), user: user.clone(), bytes })
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let mut lent = self.room.lent.lock();
        lent.total = lent.total.saturating_sub(self.bytes);
        if let Some(of_user) = lent.of_users.get_mut(&self.user) {
            *of_user = of_user.saturating_sub(self.bytes);
            if *of_user == 0 {
                lent.of_users.remove(&self.user);
            }
        }
    }
}

/// Puts an [`Intake`] around the bodies of requests.
#[derive(Clone, Debug, Default)]
pub(super) struct IntakeLayer(Arc<Room>);

impl<S> Layer<S> for IntakeLayer {
    type Service = IntakeService<S>;

    fn layer(&self, inner: S) -> IntakeService<S> {
        IntakeService { room: Arc::clone(&self.0), inner }
    }
}

/// The service that [`IntakeLayer`] makes.
#[derive(Clone, Debug)]
pub(super) struct IntakeService<S> {
    room: Arc<Room>,
    inner: S,
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for IntakeService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(principal) = request.extensions().get::<Principal>() else {
            return self.inner.call(request);
        };
        let (room, user) = (Arc::clone(&self.room), principal.caller.really().clone());
        self.inner.call(request.map(|body| Body::new(Intake::new(body, room, user))))
    }
}

/// The body of a request, whose large messages have room.
struct Intake {
    body: Body,
    room: Arc<Room>,
    user: UserId,
    head: [u8; HEAD_BYTES],
    have: usize,
    /// Bytes of the message that are still to come.
    left: usize,
    loan: Option<Loan>,
}

impl Intake {
    fn new(body: Body, room: Arc<Room>, user: UserId) -> Self {
        Self { body, room, user, head: [0; HEAD_BYTES], have: 0, left: 0, loan: None }
    }

    /// Finds the messages in the next bytes, and makes room for those that begin.
    fn see(&mut self, mut bytes: &[u8]) -> Result<(), Status> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let taken = self.left.min(bytes.len());
                self.left -= taken;
                bytes = bytes.get(taken..).unwrap_or_default();
                continue;
            }
            let Some((first, rest)) = bytes.split_first() else { break };
            if let Some(place) = self.head.get_mut(self.have) {
                *place = *first;
            }
            self.have += 1;
            bytes = rest;
            if self.have == HEAD_BYTES {
                let [_flag, length @ ..] = self.head;
                self.begin(usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX))?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, length: usize) -> Result<(), Status> {
        (self.have, self.left) = (0, length);
        // The one before has been decoded by now.
        self.loan = None;
        // What is too large is refused without making room for it.
        let large = limits::INTAKE_FREE_BYTES..=limits::MESSAGE_BYTES_MAX;
        if large.contains(&length) {
            self.loan = self.room.lend(&self.user, length);
            if self.loan.is_none() {
                return Err(status::overloaded());
            }
        }
        Ok(())
    }
}

impl HttpBody for Intake {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Err(full) = self.see(data)
        {
            return Poll::Ready(Some(Err(full)));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intake(room: &Arc<Room>, user: &str) -> Intake {
        Intake::new(Body::empty(), Arc::clone(room), UserId::parse(user).unwrap())
    }

    fn message(length: usize) -> Vec<u8> {
        let length_bytes = u32::try_from(length).unwrap().to_be_bytes();
        [&[0], &length_bytes[..], &vec![7; length]].concat()
    }

    #[test]
    fn messages_are_found_wherever_the_bytes_are_cut() {
        let large = limits::INTAKE_FREE_BYTES;
        let bytes: Vec<u8> =
            [3, 0, large, large + 1, 1].iter().flat_map(|length| message(*length)).collect();
        for size in [1, 4, 5, 6, 1_000, bytes.len()] {
            let room = Arc::default();
            let mut intake = intake(&room, "alice");
            let (mut loans, mut lent) = (0, 0);
            for part in bytes.chunks(size) {
                intake.see(part).unwrap();
                let now = room.lent.lock().total;
                loans += usize::from(now > lent && size < large);
                lent = now;
            }
            assert!(size >= large || loans == 2, "{loans} in parts of {size}");
            assert_eq!((intake.left, intake.have, lent), (0, 0, 0), "in parts of {size}");
        }
    }

    #[test]
    fn a_user_has_some_room_and_all_have_so_much() {
        let room = Arc::default();
        let head = message(limits::MESSAGE_BYTES_MAX)[..HEAD_BYTES].to_vec();
        let fits = limits::USER_INTAKE_BYTES_MAX / limits::MESSAGE_BYTES_MAX;
        let open = |user: &str| {
            let mut intake = intake(&room, user);
            intake.see(&head).map(|()| intake)
        };
        let mut held: Vec<_> = (0..fits).map(|_| open("alice").unwrap()).collect();
        assert_eq!(open("alice").err().unwrap().code(), tonic::Code::ResourceExhausted);
        held.pop();
        held.push(open("alice").unwrap());
        let others = limits::INTAKE_BYTES_MAX / limits::MESSAGE_BYTES_MAX - fits;
        held.extend((0..others).map(|number| open(&format!("u{number}")).unwrap()));
        assert!(open("bob").is_err());
        // Small ones need no room, and those beyond all limits get none.
        let mut small = intake(&room, "bob");
        small.see(&message(limits::INTAKE_FREE_BYTES - 1)).unwrap();
        small.see(&[0, 255, 255, 255, 255]).unwrap();
        drop(held);
        assert_eq!(room.lent.lock().total, 0);
        assert!(room.lent.lock().of_users.is_empty());
    }
}
