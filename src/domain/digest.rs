//! What tells that two states are the same: a record's digest, and the sum of many. It
//! finds what went wrong by chance or by a bug; it is no proof against somebody who
//! chooses records so that their sums are equal.

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};

use sha2::{Digest as _, Sha256};

use super::{CollectionName, Document, RecordKey};

/// A number modulo 2^256.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Digest {
    /// Least significant first.
    limbs: [u64; 4],
}

impl Digest {
    /// Of a living record.
    pub fn of(key: &RecordKey, document: &Document) -> Self {
        Self::of_checksum(key, document.checksum())
    }

    /// Of a living record whose document has this checksum.
    pub fn of_checksum(key: &RecordKey, checksum: [u8; 32]) -> Self {
        let mut hash = Sha256::new();
        // No name contains a zero byte.
        for name in [key.collection.as_str(), key.id.as_str()] {
            hash.update(name.as_bytes());
            hash.update([0]);
        }
        hash.update(checksum);
        Self::from_bytes(hash.finalize().into())
    }

    /// From 32 bytes, the most significant first.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let mut limbs = [0; 4];
        let (chunks, _) = bytes.as_chunks::<8>();
        for (limb, chunk) in limbs.iter_mut().rev().zip(chunks) {
            *limb = u64::from_be_bytes(*chunk);
        }
        Self { limbs }
    }

    /// As 32 bytes, the most significant first.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let (chunks, _) = bytes.as_chunks_mut::<8>();
        for (limb, chunk) in self.limbs.iter().rev().zip(chunks) {
            *chunk = limb.to_be_bytes();
        }
        bytes
    }

    /// From the digits of [`Digest::to_decimal`]; None for anything else.
    pub fn from_decimal(digits: &str) -> Option<Self> {
        let mut limbs = [0; 4];
        for digit in digits.chars() {
            let mut carry = u128::from(digit.to_digit(10)?);
            for limb in &mut limbs {
                let product = u128::from(*limb) * 10 + carry;
                (*limb, carry) = halves(product);
            }
            if carry != 0 {
                return None;
            }
        }
        (!digits.is_empty()).then_some(Self { limbs })
    }

    /// As a decimal number.
    pub fn to_decimal(self) -> String {
        const BASE: u128 = 10_u128.pow(19);
        let mut limbs = self.limbs;
        let mut groups = Vec::new();
        while limbs != [0; 4] {
            let mut rest = 0;
            for limb in limbs.iter_mut().rev() {
                let value = rest << 64 | u128::from(*limb);
                (*limb, rest) = (halves(value / BASE).0, value % BASE);
            }
            groups.push(rest);
        }
        let mut digits = groups.pop().unwrap_or_default().to_string();
        groups.iter().rev().for_each(|group| digits.push_str(&format!("{group:019}")));
        digits
    }
}

/// The lower and the upper half.
fn halves(value: u128) -> (u64, u128) {
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    let low = value as u64;
    (low, value >> 64)
}

impl Add for Digest {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        let mut carry = 0;
        for (limb, more) in self.limbs.iter_mut().zip(other.limbs) {
            (*limb, carry) = halves(u128::from(*limb) + u128::from(more) + carry);
        }
        self
    }
}

impl Sub for Digest {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        // Minus x is one more than all its bits turned.
        self + Self { limbs: other.limbs.map(|limb| !limb) } + Self { limbs: [1, 0, 0, 0] }
    }
}

impl AddAssign for Digest {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Digest {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// What is said of a collection, or of a whole space: how many records live, and the
/// sum of their digests. Also how far that moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub records: i64,
    pub digest: Digest,
}

impl Tally {
    /// With one more, which lives unless it has no document.
    pub fn add(&mut self, key: &RecordKey, document: Option<&Document>) {
        if let Some(document) = document {
            self.records += 1;
            self.digest += Digest::of(key, document);
        }
    }

    /// Without one.
    pub fn remove(&mut self, key: &RecordKey, document: Option<&Document>) {
        if let Some(document) = document {
            self.records -= 1;
            self.digest -= Digest::of(key, document);
        }
    }
}

impl SubAssign for Tally {
    fn sub_assign(&mut self, other: Self) {
        self.records -= other.records;
        self.digest -= other.digest;
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.digest += other.digest;
    }
}

/// The tally of one collection.
pub type CollectionTally = (CollectionName, Tally);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::RecordId;

    fn record(id: &str, text: &str) -> (RecordKey, Document) {
        let collection = CollectionName::parse("task").unwrap();
        let key = RecordKey { collection, id: RecordId::parse(id).unwrap() };
        (key, Document::from_json(text.as_bytes()).unwrap())
    }

    #[test]
    fn a_digest_is_what_the_manual_says() {
        let (key, document) = record("a", "{\"x\":1}");
        let inner = Sha256::digest(b"{\"x\":1}");
        let expected = Sha256::digest([b"task\0a\0".as_slice(), &inner].concat());
        assert_eq!(Digest::of(&key, &document).to_bytes(), <[u8; 32]>::from(expected));
    }

    #[test]
    fn what_is_swapped_or_renamed_has_another_sum() {
        let tally = |records: [(&str, &str); 2]| {
            let mut tally = Tally::default();
            for (id, text) in records {
                let (key, document) = record(id, text);
                tally.add(&key, Some(&document));
            }
            tally
        };
        let right = tally([("a", "{\"x\":1}"), ("b", "{\"x\":2}")]);
        assert_eq!(right, tally([("b", "{\"x\":2}"), ("a", "{\"x\":1}")]));
        for wrong in [
            [("a", "{\"x\":2}"), ("b", "{\"x\":1}")],
            [("a", "{\"x\":1}"), ("c", "{\"x\":2}")],
            [("a", "{\"x\":1}"), ("b", "{\"x\":3}")],
        ] {
            assert_ne!(right.digest, tally(wrong).digest, "{wrong:?}");
        }
    }

    #[test]
    fn decimals_have_their_bounds() {
        let most = Digest::from_bytes([0xff; 32]);
        let text = "115792089237316195423570985008687907853269984665640564039457584007913129639935";
        assert_eq!((most.to_decimal().as_str(), Digest::from_decimal(text)), (text, Some(most)));
        assert_eq!(Digest::default().to_decimal(), "0");
        let over = text.replace("935", "936");
        for wrong in [over.as_str(), "", "-1", "1.0", "x"] {
            assert_eq!(Digest::from_decimal(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn sums_can_be_taken_back_and_written_down(a: [u8; 32], b: [u8; 32]) {
            let (a, b) = (Digest::from_bytes(a), Digest::from_bytes(b));
            prop_assert_eq!(a + b - b, a);
            prop_assert_eq!(a + b, b + a);
            prop_assert_eq!(a - a, Digest::default());
            prop_assert_eq!(Digest::from_decimal(&(a + b).to_decimal()), Some(a + b));
            prop_assert_eq!(Digest::from_bytes(a.to_bytes()), a);
        }
    }
}
