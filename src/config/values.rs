//! The values that settings have beyond the usual ones: durations, sizes, policies and secrets.
//! Must not know which setting they belong to.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::domain::{CollectionName, Policy};

/// Text that must not be shown: `Debug` redacts it, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one who needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Policies by collection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policies(pub Vec<(CollectionName, Policy)>);

/// Parses `{"task": {"strategy": "merge"}}`.
pub(super) fn policies(text: &str) -> Result<Policies, String> {
    let by_name: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|error| format!("no object of policies: {error}"))?;
    let policy = |(name, value): (String, serde_json::Value)| {
        let collection = CollectionName::parse(&name);
        let collection = collection.map_err(|rule| format!("the collection {name:?} {rule}"))?;
        let policy: Policy =
            serde_json::from_value(value).map_err(|error| format!("policies.{name}: {error}"))?;
        match policy.violations().first() {
            Some(wrong) => Err(format!("policies.{name}.{}: {}", wrong.field, wrong.description)),
            None => Ok((collection, policy)),
        }
    };
    by_name.into_iter().map(policy).collect::<Result<_, _>>().map(Policies)
}

/// Parses `500ms`, `10s`, `5m`, `24h`, `7d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => 0,
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(millis)) {
        Some(total) if millis > 0 => Ok(Duration::from_millis(total)),
        _ => Err("expected a whole number with a unit: 500ms, 10s, 5m, 24h or 7d".to_owned()),
    }
}

/// Parses `67108864`, `512KiB`, `64MiB`, `1GiB`.
pub(super) fn size_bytes(text: &str) -> Result<usize, String> {
    let (number, unit) = split_unit(text);
    let factor = match unit {
        "" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let number = number.parse::<usize>().ok();
    number
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor))
        .ok_or_else(|| "expected bytes: 67108864, 512KiB, 64MiB or 1GiB".to_owned())
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        let good = [
            ("500ms", 500),
            ("0s", 0),
            ("10s", 10_000),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
        ];
        for (text, millis) in good {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        let bad = ["", "10", "s", "-1s", "+1s", "1.5s", "10 s", "10S", "1h30m", "1y", "９s"];
        for text in bad.into_iter().chain(["18446744073709551615h", "99999999999999999999ms"]) {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_bytes_or_binary_units() {
        let good = [("0", 0), ("67108864", 64 << 20), ("512KiB", 512 << 10), ("1GiB", 1 << 30)];
        for (text, bytes) in good {
            assert_eq!(size_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "64MB", "64mib", "-1", "1.5MiB", "64 MiB", "99999999999999GiB"] {
            assert!(size_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let secret = Secret::from("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert_eq!(secret.expose(), "hunter2");
    }
}
