//! Named places at which a test lets the program die as by kill -9. The environment
//! variable SYNCLINE_FAILPOINT names one, or `name=3` for the third time that it is
//! reached, or `first=2>second` for the second place after the first was reached twice.
//! Programs that were built without debug assertions do not look.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A place, and the times that are left until it counts.
struct Failpoint {
    name: String,
    left: AtomicU64,
}

impl Failpoint {
    /// Whether it was reached as often as it had to be, this time included.
    fn is_reached(&self, name: &str) -> bool {
        self.name == name && self.left.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

/// Dies if this is the place.
pub(crate) fn reach(name: &str) {
    static WAY: OnceLock<Vec<Failpoint>> = OnceLock::new();
    static GONE: AtomicUsize = AtomicUsize::new(0);
    if !cfg!(debug_assertions) {
        return;
    }
    let way = WAY.get_or_init(|| parse(&std::env::var("SYNCLINE_FAILPOINT").unwrap_or_default()));
    let gone = GONE.load(Ordering::Relaxed);
    if way.get(gone).is_some_and(|next| next.is_reached(name)) {
        if gone + 1 == way.len() {
            std::process::abort();
        }
        GONE.store(gone + 1, Ordering::Relaxed);
    }
}

/// The places on the way; none if one of them makes no sense.
fn parse(text: &str) -> Vec<Failpoint> {
    let place = |text: &str| {
        let (name, times) = text.split_once('=').unwrap_or((text, "1"));
        Some(Failpoint { name: name.to_owned(), left: AtomicU64::new(times.parse().ok()?) })
    };
    text.split('>').map(place).collect::<Option<_>>().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_a_name_and_perhaps_a_number() {
        let parsed = |text| -> Vec<(String, u64)> {
            parse(text).into_iter().map(|it| (it.name, it.left.into_inner())).collect()
        };
        assert_eq!(parsed("a.b"), [("a.b".into(), 1)]);
        assert_eq!(parsed("a.b=3"), [("a.b".into(), 3)]);
        assert_eq!(parsed("a=2>b"), [("a".into(), 2), ("b".into(), 1)]);
        assert_eq!(parsed("a.b=x>b"), []);
    }

    #[test]
    fn only_the_right_time_counts() {
        let place = Failpoint { name: "a".into(), left: AtomicU64::new(2) };
        let reached = ["a", "b", "a", "a"].map(|name| place.is_reached(name));
        assert_eq!(reached, [false, false, true, false]);
    }
}
