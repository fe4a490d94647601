//! Versions of records: hybrid logical clocks that order writes and name them.

use std::fmt;
use std::sync::Arc;

use super::DeviceId;

/// Which write a record's state comes from: `{timestamp}-{device}-{sequence}`.
/// Ordered by time, then by device and sequence, so that all replicas and
/// devices order two writes alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Microseconds since 1970.
    pub micros: i64,
    pub device: Option<DeviceId>,
    /// 0 if the write was not part of a queue.
    pub sequence: i64,
}

impl Version {
    /// The version that its text says; None if it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        // Devices may have dashes in their names.
        let (micros, rest) = text.split_once('-')?;
        let (device, sequence) = rest.rsplit_once('-')?;
        let device = match device {
            "" => None,
            device => Some(DeviceId::parse(device).ok()?),
        };
        Some(Self { micros: micros.parse().ok()?, device, sequence: sequence.parse().ok()? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.device.as_ref().map_or("", DeviceId::as_str);
        write!(f, "{}-{device}-{}", self.micros, self.sequence)
    }
}

/// The versions that a version was made from, as texts; names have no spaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parents(Option<Arc<str>>);

impl Parents {
    /// These versions.
    pub fn of<'a>(versions: impl IntoIterator<Item = &'a Version>) -> Self {
        let texts: Vec<_> = versions.into_iter().map(ToString::to_string).collect();
        Self::from_stored(&texts.join(" "))
    }

    /// From what [`Parents::as_str`] gave earlier.
    pub fn from_stored(text: &str) -> Self {
        Self((!text.is_empty()).then(|| text.into()))
    }

    /// All of them, with spaces between; empty if there are none.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.as_str().split(' ').filter(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_written_alike() {
        for text in ["1763600000000000-phone-7", "0--0", "12-a-b-c-3", "5---1"] {
            assert_eq!(Version::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "1", "1-a", "x-a-1", "1-a-x"] {
            assert!(Version::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn time_orders_before_device_and_sequence() {
        let mut sorted = ["2-a-1", "1-b-9", "1--5", "1-b-10"].map(|it| Version::parse(it).unwrap());
        sorted.sort();
        assert_eq!(sorted.map(|it| it.to_string()), ["1--5", "1-b-9", "1-b-10", "2-a-1"]);
    }
}
