//! Arithmetic on JSON numbers: exact for all 64-bit integers, as doubles where
//! one of them is a double. Nothing overflows or rounds in silence.

use std::cmp::Ordering;

use serde_json::Number;

use super::document::normalise;

/// A number, wide enough that sums of a few 64-bit integers cannot overflow.
#[derive(Clone, Copy)]
enum Wide {
    Integer(i128),
    Real(f64),
}

impl Wide {
    fn of(number: &Number) -> Self {
        let integer = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
        match integer {
            Some(integer) => Self::Integer(integer),
            // Only a double is neither of the two, and as_f64 always has one.
            None => Self::Real(number.as_f64().unwrap_or_default()),
        }
    }

    fn real(self) -> f64 {
        match self {
            Self::Integer(integer) => integer as f64,
            Self::Real(real) => real,
        }
    }

    /// None if no JSON number is that large.
    fn number(self) -> Option<Number> {
        match self {
            Self::Integer(integer) => i64::try_from(integer)
                .map(Number::from)
                .or_else(|_| u64::try_from(integer).map(Number::from))
                .ok(),
            Self::Real(real) => {
                let mut number = Number::from_f64(real)?;
                normalise(&mut number);
                Some(number)
            }
        }
    }
}

/// `a + b`; None on overflow.
pub(super) fn add(a: &Number, b: &Number) -> Option<Number> {
    add_change(a, b, &Number::from(0))
}

/// `value + (after - before)`; None on overflow.
pub(super) fn add_change(value: &Number, after: &Number, before: &Number) -> Option<Number> {
    let sum = match (Wide::of(value), Wide::of(after), Wide::of(before)) {
        (Wide::Integer(value), Wide::Integer(after), Wide::Integer(before)) => {
            Wide::Integer(value + (after - before))
        }
        (value, after, before) => Wide::Real(value.real() + (after.real() - before.real())),
    };
    sum.number()
}

/// Which number is larger, however they are written.
pub(super) fn compare(a: &Number, b: &Number) -> Ordering {
    match (Wide::of(a), Wide::of(b)) {
        (Wide::Integer(a), Wide::Integer(b)) => a.cmp(&b),
        (Wide::Real(a), Wide::Real(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
        (Wide::Integer(a), Wide::Real(b)) => compare_mixed(a, b),
        (Wide::Real(a), Wide::Integer(b)) => compare_mixed(b, a).reverse(),
    }
}

/// Converting the integer would round it, so the double is taken apart.
#[expect(clippy::cast_possible_truncation, reason = "checked to be far below the end of i128")]
fn compare_mixed(integer: i128, real: f64) -> Ordering {
    const BEYOND: f64 = 1e30;
    if real.abs() >= BEYOND {
        return if real > 0.0 { Ordering::Less } else { Ordering::Greater };
    }
    let floor = real.floor();
    integer.cmp(&(floor as i128)).then(if real > floor { Ordering::Less } else { Ordering::Equal })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn integers_stay_exact_and_overflow_is_told() {
        for (a, b, sum) in [
            ("1", "2", Some("3")),
            ("9007199254740993", "1", Some("9007199254740994")),
            ("18446744073709551614", "1", Some("18446744073709551615")),
            ("18446744073709551615", "1", None),
            ("-9223372036854775808", "-1", None),
            ("18446744073709551615", "-9223372036854775808", Some("9223372036854775807")),
            ("1", "0.5", Some("1.5")),
            ("1.5", "0.5", Some("2")),
            ("1.7976931348623157e308", "1.7976931348623157e308", None),
        ] {
            let expected = sum.map(number);
            assert_eq!(add(&number(a), &number(b)), expected, "{a} + {b}");
            assert_eq!(add(&number(b), &number(a)), expected, "{b} + {a}");
        }
        let end = number("18446744073709551615");
        assert_eq!(add_change(&end, &end, &end), Some(end), "what is between may be larger");
    }

    #[test]
    fn numbers_compare_by_value() {
        let sorted = [
            "-1e40",
            "-9223372036854775808",
            "-1.5",
            "-1",
            "0",
            "0.1",
            "9007199254740992.0",
            "9007199254740993",
            "18446744073709551615",
            "1e20",
        ];
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(compare(&number(a), &number(b)), i.cmp(&j), "{a} {b}");
            }
        }
        assert_eq!(compare(&number("2"), &number("2.0")), Ordering::Equal);
    }
}
