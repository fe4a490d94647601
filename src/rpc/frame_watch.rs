//! Looks at the heads of a connection's HTTP/2 frames as they come in, and finds those who
//! send nothing but pings and the like: hyper answers all of them, and has no limit.

use std::time::Duration;

use tokio::time::Instant;

/// Frames that carry nothing, in each window. Libraries that measure a connection by pings
/// send some hundreds at first.
const IDLE_FRAMES_MAX: u32 = 10_000;
const WINDOW: Duration = Duration::from_secs(10);

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;

/// A connection sends too many frames that carry nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyFrames;

/// What has been seen of a connection.
#[derive(Debug)]
pub(super) struct FrameWatch {
    place: Place,
    idle: u32,
    since: Instant,
}

#[derive(Debug)]
enum Place {
    /// So many bytes of the preface have come.
    Preface(usize),
    Head {
        bytes: [u8; HEAD_BYTES],
        have: usize,
    },
    /// So many bytes of it are still to come.
    Payload(usize),
    /// It is not HTTP/2.
    Off,
}

impl Place {
    fn next_head() -> Self {
        Self::Head { bytes: [0; HEAD_BYTES], have: 0 }
    }
}

impl FrameWatch {
    pub(super) fn new() -> Self {
        Self { place: Place::Preface(0), idle: 0, since: Instant::now() }
    }

    /// Looks at the next bytes.
    pub(super) fn see(&mut self, mut bytes: &[u8]) -> Result<(), TooManyFrames> {
        while let Some((first, rest)) = bytes.split_first() {
            match &mut self.place {
                Place::Off => return Ok(()),
                Place::Preface(have) => {
                    if PREFACE.get(*have) != Some(first) {
                        self.place = Place::Off;
                        return Ok(());
                    }
                    *have += 1;
                    if *have == PREFACE.len() {
                        self.place = Place::next_head();
                    }
                    bytes = rest;
                }
                Place::Head { bytes: head, have } => {
                    if let Some(place) = head.get_mut(*have) {
                        *place = *first;
                    }
                    *have += 1;
                    bytes = rest;
                    if *have == HEAD_BYTES {
                        let [a, b, c, kind, flags, ..] = *head;
                        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                        self.place = Place::Payload(length);
                        self.count(kind, flags, length)?;
                    }
                }
                Place::Payload(left) => {
                    let taken = (*left).min(bytes.len());
                    *left -= taken;
                    bytes = bytes.get(taken..).unwrap_or_default();
                    if *left == 0 {
                        self.place = Place::next_head();
                    }
                }
            }
            // A payload of nothing is over before its first byte.
            if matches!(self.place, Place::Payload(0)) {
                self.place = Place::next_head();
            }
        }
        Ok(())
    }

    fn count(&mut self, kind: u8, flags: u8, length: usize) -> Result<(), TooManyFrames> {
        let carries = match kind {
            DATA => length > 0 || flags & END_STREAM > 0,
            // Those of streams have limits of their own.
            HEADERS | RST_STREAM | CONTINUATION | WINDOW_UPDATE => true,
            _ => false,
        };
        if carries {
            return Ok(());
        }
        self.idle += 1;
        if self.idle <= IDLE_FRAMES_MAX {
            return Ok(());
        }
        if self.since.elapsed() < WINDOW {
            return Err(TooManyFrames);
        }
        (self.idle, self.since) = (1, Instant::now());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: u8 = 6;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &[0; 4], payload].concat()
    }

    /// Sees these bytes cut into parts of this size.
    fn see(bytes: &[u8], size: usize) -> Result<FrameWatch, TooManyFrames> {
        let mut watch = FrameWatch::new();
        bytes.chunks(size).try_for_each(|part| watch.see(part)).map(|()| watch)
    }

    #[test]
    fn frames_that_carry_nothing_are_counted_wherever_the_bytes_are_cut() {
        let mut bytes = PREFACE.to_vec();
        for _ in 0..100 {
            bytes.extend(frame(PING, 0, &[6; 8]));
            bytes.extend(frame(DATA, 0, &[6, 0, 0, 6, 0, 0, 0, 0, 0]));
            bytes.extend(frame(DATA, 0, &[]));
            bytes.extend(frame(DATA, END_STREAM, &[]));
            bytes.extend(frame(HEADERS, 0, &[1; 300]));
            bytes.extend(frame(WINDOW_UPDATE, 0, &[0; 4]));
        }
        for size in [1, 2, 7, 9, 10, 1_000, bytes.len()] {
            assert_eq!(see(&bytes, size).unwrap().idle, 200, "in parts of {size}");
        }
    }

    #[test]
    fn a_flood_of_pings_is_found_and_a_flood_of_data_is_none() {
        let many = |part: Vec<u8>, times: u32| {
            let mut bytes = PREFACE.to_vec();
            (0..times).for_each(|_| bytes.extend(&part));
            bytes
        };
        let ping = frame(PING, 0, &[0; 8]);
        assert!(see(&many(ping.clone(), IDLE_FRAMES_MAX), 4_096).is_ok());
        assert!(see(&many(ping, IDLE_FRAMES_MAX + 1), 4_096).is_err());
        assert!(see(&many(frame(DATA, 0, &[1]), 10 * IDLE_FRAMES_MAX), 4_096).is_ok());
        // HTTP/1.1 has no frames.
        let line = b"POST /syncline.v1.SyncService/Mutate HTTP/1.1\r\n".repeat(10_000);
        assert!(see(&line, 4_096).is_ok());
    }

    #[test]
    fn pings_now_and_then_are_fine() {
        let mut watch = see(PREFACE, 24).unwrap();
        for _ in 0..10 {
            for _ in 0..IDLE_FRAMES_MAX - 1 {
                watch.see(&frame(PING, 0, &[0; 8])).unwrap();
            }
            watch.since = watch.since.checked_sub(WINDOW).unwrap();
        }
    }
}
