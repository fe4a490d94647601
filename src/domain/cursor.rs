//! Where a client is in a space's history, and whether it may go on from there.

use std::fmt;

use uuid::Uuid;

use super::Revision;

/// A space's identity across erasure and restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(pub Uuid);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// All that a client needs to resume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// None only at revision 0: the beginning of any history.
    pub epoch: Option<Epoch>,
    /// Everything up to here has been seen.
    pub revision: Revision,
}

impl Cursor {
    /// The beginning of any history.
    pub const BEGINNING: Self = Self { epoch: None, revision: Revision::ZERO };

    /// Whether a reader at this cursor may go on in a space that is so.
    pub fn check(&self, epoch: Epoch, floor: Revision, head: Revision) -> Result<(), CursorFault> {
        match self.epoch {
            None if self.revision == Revision::ZERO => {}
            Some(own) if own == epoch => {}
            _ => return Err(CursorFault::EpochChanged),
        }
        if self.revision > head {
            return Err(CursorFault::Ahead);
        }
        // At 0 there is nothing to have missed: the reader takes the whole state.
        if self.revision < floor && self.revision != Revision::ZERO {
            return Err(CursorFault::Expired);
        }
        Ok(())
    }
}

/// Why a cursor cannot be resumed. The reader begins again from the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CursorFault {
    /// Below the floor: the changes after it are no longer kept.
    Expired,
    /// Above the head: this history did not give it.
    Ahead,
    /// The space's history was replaced.
    EpochChanged,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cursors_of_this_history_resume() {
        let (here, other) = (Epoch(Uuid::from_u128(1)), Epoch(Uuid::from_u128(2)));
        for (epoch, revision, expected) in [
            (None, 0, Ok(())),
            (Some(here), 0, Ok(())),
            (Some(other), 0, Err(CursorFault::EpochChanged)),
            (None, 5, Err(CursorFault::EpochChanged)),
            (Some(here), 4, Err(CursorFault::Expired)),
            (Some(here), 5, Ok(())),
            (Some(here), 9, Ok(())),
            (Some(here), 10, Err(CursorFault::Ahead)),
            (Some(here), i64::MAX, Err(CursorFault::Ahead)),
            (Some(other), 7, Err(CursorFault::EpochChanged)),
        ] {
            let revision = Revision::new(revision).unwrap();
            let (floor, head) = (Revision::new(5).unwrap(), Revision::new(9).unwrap());
            assert_eq!(Cursor { epoch, revision }.check(here, floor, head), expected);
        }
    }
}
