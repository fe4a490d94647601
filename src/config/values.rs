//! The values that settings have beyond the usual ones: durations, sizes, policies, origins and
//! secrets.
//! Must not know which setting they belong to.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use http::{HeaderValue, Uri};

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

/// Origins of web pages, as browsers send them; `*` alone stands for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(pub Vec<HeaderValue>);

/// Parses `https://app.example.com,http://localhost:5173`, or `*`, or nothing.
pub(super) fn origins(text: &str) -> Result<Origins, String> {
    match text.trim() {
        "" => Ok(Origins::default()),
        "*" => Ok(Origins(vec![HeaderValue::from_static("*")])),
        listed => listed.split(',').map(|item| origin(item.trim())).collect::<Result<_, _>>(),
    }
}

impl FromIterator<HeaderValue> for Origins {
    fn from_iter<I: IntoIterator<Item = HeaderValue>>(origins: I) -> Self {
        Self(origins.into_iter().collect())
    }
}

/// Browsers compare letter by letter, so what they would not send is a mistake.
fn origin(text: &str) -> Result<HeaderValue, String> {
    let refused = |reason: &str| Err(format!("the origin `{text}` {reason}"));
    match text {
        "" => return refused("is empty, look for a comma too many"),
        "*" => return refused("stands for all, so it goes alone"),
        "null" => return refused("can be that of any site's page"),
        _ => {}
    }
    let Some(sent) = as_sent(text) else {
        return refused(
            "needs http:// or https:// and a host, and a port only if it is not the usual one",
        );
    };
    match HeaderValue::from_str(text) {
        Ok(value) if sent == text => Ok(value),
        _ => refused(&format!("is sent by browsers as `{sent}`")),
    }
}

/// The origin of such a page, as browsers send it.
fn as_sent(text: &str) -> Option<String> {
    let uri: Uri = text.parse().ok()?;
    let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"))?;
    let host = uri.host()?.to_ascii_lowercase();
    let named = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let numbered = |c: char| c.is_ascii_hexdigit() || ":.".contains(c);
    let good = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.chars().all(numbered),
        None => host.chars().all(named),
    };
    if !good || host.is_empty() {
        return None;
    }
    let usual = if scheme == "http" { 80 } else { 443 };
    match uri.port_u16().filter(|port| *port != usual) {
        Some(port) => Some(format!("{scheme}://{host}:{port}")),
        None => Some(format!("{scheme}://{host}")),
    }
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
    fn origins_are_what_browsers_send() {
        let listed = |text: &str| origins(text).map(|Origins(listed)| listed);
        assert_eq!(listed(""), Ok(vec![]));
        assert_eq!(listed("*"), Ok(vec![HeaderValue::from_static("*")]));
        let two = "https://app.example.com,http://localhost:5173";
        for text in [two.to_owned(), two.replace(',', ", ")] {
            assert_eq!(listed(&text).unwrap(), two.split(',').collect::<Vec<_>>(), "{text}");
        }
        for good in ["http://[::1]:5173", "https://127.0.0.1", "http://a_b-c", "https://a.b:80"] {
            assert_eq!(listed(good).unwrap(), [good]);
        }
    }

    #[test]
    fn origins_that_no_browser_sends_are_refused() {
        for (text, expected) in [
            ("https://a.b/", "the origin `https://a.b/` is sent by browsers as `https://a.b`"),
            ("https://a.b/x", "is sent by browsers as `https://a.b`"),
            ("https://a.b?x", "is sent by browsers as `https://a.b`"),
            ("https://me@a.b", "is sent by browsers as `https://a.b`"),
            ("https://App.Example.com", "is sent by browsers as `https://app.example.com`"),
            ("HTTPS://a.b", "is sent by browsers as `https://a.b`"),
            ("https://a.b:443", "is sent by browsers as `https://a.b`"),
            ("http://a.b:080", "is sent by browsers as `http://a.b`"),
            ("https://a.b,", "the origin `` is empty"),
            ("https://a.b,*", "stands for all, so it goes alone"),
            ("null", "can be that of any site's page"),
            ("a.b", "needs http:// or https://"),
            ("localhost:5173", "needs http:// or https://"),
            ("ftp://a.b", "needs http:// or https://"),
            ("https://", "needs http:// or https://"),
            ("https://:80", "needs http:// or https://"),
            ("https://*.example.com", "needs http:// or https://"),
            ("https://ä.example", "needs http:// or https://"),
            ("https://a.b:70000", ""),
            ("https://a.b https://c.d", ""),
        ] {
            let error = origins(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let secret = Secret::from("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert_eq!(secret.expose(), "hunter2");
    }
}
