//! What messages that are on their way may take of memory. A client says how long a message
//! is before it sends any of it, and what decodes messages makes room for all of it at once.
//! So large ones are gathered here, where they take what has come of them, and go on whole;
//! and room for them is lent, to each user some and to all together so much: who wants more is
//! told to come later.

use std::collections::HashMap;
use std::mem;
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
        // What needs no token has small messages only.
        let principal = request.extensions().get::<Principal>();
        let user = principal.map(|principal| principal.caller.really().clone());
        let room = Arc::clone(&self.room);
        self.inner.call(request.map(|body| Body::new(Intake::new(body, room, user))))
    }
}

/// The body of a request, whose large messages have room and come whole.
struct Intake {
    body: Body,
    messages: Messages,
}

impl Intake {
    fn new(body: Body, room: Arc<Room>, user: Option<UserId>) -> Self {
        Self { body, messages: Messages::new(room, user) }
    }
}

impl HttpBody for Intake {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            match self.messages.next() {
                Ok(Some(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Ok(None) => {}
                Err(full) => return Poll::Ready(Some(Err(full))),
            }
            let frame = ready!(Pin::new(&mut self.body).poll_frame(context)).transpose()?;
            match frame.map(Frame::into_data) {
                Some(Ok(data)) => self.messages.see(data),
                // Half a message is for what decodes to complain of.
                end => {
                    let half = self.messages.half().map(Frame::data);
                    return Poll::Ready(half.or_else(|| end?.err()).map(Ok));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.messages.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Finds the messages in bytes, however these are cut.
struct Messages {
    room: Arc<Room>,
    /// None has no room.
    user: Option<UserId>,
    /// What has come and was not looked at.
    unseen: Bytes,
    head: [u8; HEAD_BYTES],
    have: usize,
    /// Bytes of the message that are still to come.
    left: usize,
    /// What has come of a large message.
    gathered: Vec<u8>,
    /// Of the last large message: it may not be decoded yet.
    loan: Option<Loan>,
}

impl Messages {
    fn new(room: Arc<Room>, user: Option<UserId>) -> Self {
        let (unseen, head, gathered) = (Bytes::new(), [0; HEAD_BYTES], Vec::new());
        Self { room, user, unseen, head, have: 0, left: 0, gathered, loan: None }
    }

    /// Takes more bytes, once [`Self::next`] has nothing.
    fn see(&mut self, bytes: Bytes) {
        debug_assert!(self.unseen.is_empty(), "bytes are looked at in their order");
        self.unseen = bytes;
    }

    fn is_empty(&self) -> bool {
        self.unseen.is_empty() && self.gathered.is_empty()
    }

    /// What may go on: small messages as they come, large ones once they are whole.
    fn next(&mut self) -> Result<Option<Bytes>, Status> {
        while !self.unseen.is_empty() {
            let bytes = if self.gathered.is_empty() { self.pass()? } else { self.gather() };
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// What has come of a message whose rest will not come.
    fn half(&mut self) -> Option<Bytes> {
        self.left = 0;
        Some(Bytes::from(mem::take(&mut self.gathered))).filter(|half| !half.is_empty())
    }

    /// Everything up to the next large message.
    fn pass(&mut self) -> Result<Bytes, Status> {
        let mut seen = 0;
        while let Some(byte) = self.unseen.get(seen).copied() {
            if self.left > 0 {
                let taken = self.left.min(self.unseen.len() - seen);
                self.left -= taken;
                seen += taken;
                continue;
            }
            if let Some(place) = self.head.get_mut(self.have) {
                *place = byte;
            }
            self.have += 1;
            if self.have == HEAD_BYTES && self.begin()? {
                // Without its last byte a head says nothing yet.
                let before = self.unseen.split_to(seen);
                self.gathered.extend_from_slice(&self.unseen.split_to(1));
                return Ok(before);
            }
            seen += 1;
        }
        Ok(mem::take(&mut self.unseen))
    }

    /// Whether a large message begins, for which there is room.
    fn begin(&mut self) -> Result<bool, Status> {
        let [_flag, length @ ..] = self.head;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        (self.have, self.left) = (0, length);
        // The one before has been decoded by now.
        self.loan = None;
        let small = length < limits::INTAKE_FREE_BYTES;
        // What is too large for users is refused by what decodes, before it makes room.
        if small || (length > limits::MESSAGE_BYTES_MAX && self.user.is_some()) {
            return Ok(false);
        }
        let Some(user) = &self.user else {
            return Err(Status::out_of_range("only small messages are taken without a token"));
        };
        self.loan = Some(self.room.lend(user, length).ok_or_else(status::overloaded)?);
        Ok(true)
    }

    /// The large message, if this is its end; otherwise nothing.
    fn gather(&mut self) -> Bytes {
        let part = self.unseen.split_to(self.left.min(self.unseen.len()));
        let (len, more) = (self.gathered.len(), part.len());
        if self.gathered.capacity() - len < more {
            // It doubles, and never has more room than the message takes.
            self.gathered.reserve_exact(len.max(more).min(self.left));
        }
        self.gathered.extend_from_slice(&part);
        self.left -= more;
        if self.left > 0 {
            return Bytes::new();
        }
        Bytes::from(mem::take(&mut self.gathered))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages_of(room: &Arc<Room>, user: &str) -> Messages {
        Messages::new(Arc::clone(room), Some(UserId::parse(user).unwrap()))
    }

    fn message(length: usize) -> Vec<u8> {
        let length_bytes = u32::try_from(length).unwrap().to_be_bytes();
        [&[0], &length_bytes[..], &vec![7; length]].concat()
    }

    /// What goes on of these bytes.
    fn passed(messages: &mut Messages, bytes: &[u8]) -> Result<Vec<Bytes>, Status> {
        messages.see(Bytes::copy_from_slice(bytes));
        std::iter::from_fn(|| messages.next().transpose()).collect()
    }

    #[test]
    fn messages_are_found_wherever_the_bytes_are_cut() {
        let large = limits::INTAKE_FREE_BYTES;
        let sizes = [3, 0, large, large + 1, 1];
        let bytes: Vec<u8> = sizes.iter().flat_map(|length| message(*length)).collect();
        for size in [1, 4, 5, 6, 1_000, bytes.len()] {
            let room = Arc::default();
            let mut messages = messages_of(&room, "alice");
            let (mut all, mut whole) = (Vec::new(), 0);
            for part in bytes.chunks(size) {
                let passed = passed(&mut messages, part).unwrap();
                // The last byte of a head comes with what it tells of.
                whole += passed.iter().filter(|bytes| bytes.len() > large).count();
                all.extend(passed.concat());
            }
            assert_eq!(all, bytes, "in parts of {size}");
            assert!(whole >= 2, "{whole} in parts of {size}");
            assert!(messages.is_empty() && messages.half().is_none());
            assert_eq!((messages.left, messages.have), (0, 0), "in parts of {size}");
            assert_eq!(room.lent.lock().total, 0, "in parts of {size}");
        }
    }

    #[test]
    fn a_large_message_takes_what_has_come_of_it() {
        let bytes = message(limits::MESSAGE_BYTES_MAX);
        let mut messages = messages_of(&Arc::default(), "alice");
        // What came before it does not wait for it.
        let begun = [&message(2)[..], &bytes[..HEAD_BYTES + 1]].concat();
        let before = passed(&mut messages, &begun).unwrap().concat();
        assert_eq!(before.len(), HEAD_BYTES + 2 + HEAD_BYTES - 1);
        assert!(messages.gathered.capacity() < 64, "{}", messages.gathered.capacity());
        let mut come = HEAD_BYTES + 1;
        for part in bytes[come..].chunks(16 << 10) {
            let passed = passed(&mut messages, part).unwrap();
            come += part.len();
            assert_eq!(passed.is_empty(), come < bytes.len());
            assert!(messages.gathered.capacity() <= (2 * come).min(bytes.len()), "{come}");
        }
        // Half of one is not lost where the bytes end.
        passed(&mut messages, &bytes[..100]).unwrap();
        assert_eq!(messages.half().unwrap().len(), 100 - HEAD_BYTES + 1);
        assert!(messages.is_empty());
    }

    #[test]
    fn a_user_has_some_room_and_all_have_so_much() {
        let room = Arc::default();
        let head = message(limits::MESSAGE_BYTES_MAX)[..HEAD_BYTES].to_vec();
        let fits = limits::USER_INTAKE_BYTES_MAX / limits::MESSAGE_BYTES_MAX;
        let open = |user: &str| {
            let mut messages = messages_of(&room, user);
            passed(&mut messages, &head).map(|_| messages)
        };
        let mut held: Vec<_> = (0..fits).map(|_| open("alice").unwrap()).collect();
        assert_eq!(open("alice").err().unwrap().code(), tonic::Code::ResourceExhausted);
        held.pop();
        held.push(open("alice").unwrap());
        let others = limits::INTAKE_BYTES_MAX / limits::MESSAGE_BYTES_MAX - fits;
        held.extend((0..others).map(|number| open(&format!("u{number}")).unwrap()));
        assert!(open("bob").is_err());
        // Small ones need no room, and those beyond all limits get none.
        let mut small = messages_of(&room, "bob");
        passed(&mut small, &message(limits::INTAKE_FREE_BYTES - 1)).unwrap();
        passed(&mut small, &[0, 255, 255, 255, 255]).unwrap();
        // Nobody has none.
        let mut nobody = Messages::new(Arc::clone(&room), None);
        passed(&mut nobody, &message(limits::INTAKE_FREE_BYTES - 1)).unwrap();
        for length in [limits::INTAKE_FREE_BYTES, limits::MESSAGE_BYTES_MAX + 1] {
            let mut nobody = Messages::new(Arc::clone(&room), None);
            let refused = passed(&mut nobody, &message(length)[..HEAD_BYTES]).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::OutOfRange);
        }
        drop(held);
        assert_eq!(room.lent.lock().total, 0);
        assert!(room.lent.lock().of_users.is_empty());
    }
}
