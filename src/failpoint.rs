//! Named places at which a test lets the program die as by kill -9. The environment
//! variable SYNCLINE_FAILPOINT names one, or `name=3` for the third time that it is
//! reached, or `first=2>second` for the second place after the first was reached twice.
//! With a `!` at its end what runs there panics, and the program goes on.
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

/// The places on the way to the last one, and whether that is a panic only.
#[derive(Default)]
struct Way {
    places: Vec<Failpoint>,
    panics: bool,
}

/// Dies if this is the place.
pub(crate) fn reach(name: &str) {
    static WAY: OnceLock<Way> = OnceLock::new();
    static GONE: AtomicUsize = AtomicUsize::new(0);
    if !cfg!(debug_assertions) {
        return;
    }
    let way = WAY.get_or_init(|| parse(&std::env::var("SYNCLINE_FAILPOINT").unwrap_or_default()));
    let gone = GONE.load(Ordering::Relaxed);
    if way.places.get(gone).is_some_and(|next| next.is_reached(name)) {
        GONE.store(gone + 1, Ordering::Relaxed);
        if gone + 1 == way.places.len() {
            end(name, way.panics);
        }
    }
}

#[expect(clippy::panic, reason = "a test asks for it")]
fn end(name: &str, panics: bool) {
    if panics {
        panic!("the failpoint {name}");
    }
    std::process::abort();
}

/// The way; none if one of its places makes no sense.
fn parse(text: &str) -> Way {
    let (text, panics) = text.strip_suffix('!').map_or((text, false), |text| (text, true));
    let place = |text: &str| {
        let (name, times) = text.split_once('=').unwrap_or((text, "1"));
        Some(Failpoint { name: name.to_owned(), left: AtomicU64::new(times.parse().ok()?) })
    };
    let places = text.split('>').map(place).collect::<Option<_>>();
    places.map(|places| Way { places, panics }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_a_name_and_perhaps_a_number() {
        let parsed = |text| -> Vec<(String, u64)> {
            parse(text).places.into_iter().map(|it| (it.name, it.left.into_inner())).collect()
        };
        assert_eq!(parsed("a.b"), [("a.b".into(), 1)]);
        assert_eq!(parsed("a.b=3"), [("a.b".into(), 3)]);
        assert_eq!(parsed("a=2>b"), [("a".into(), 2), ("b".into(), 1)]);
        assert_eq!(parsed("a.b=x>b"), []);
        assert_eq!(parsed("a>b=2!"), [("a".into(), 1), ("b".into(), 2)]);
        assert_eq!(["a!", "a"].map(|text| parse(text).panics), [true, false]);
    }

    #[test]
    fn only_the_right_time_counts() {
        let place = Failpoint { name: "a".into(), left: AtomicU64::new(2) };
        let reached = ["a", "b", "a", "a"].map(|name| place.is_reached(name));
        assert_eq!(reached, [false, false, true, false]);
    }
}
