//! Named places at which a test lets the program die as by kill -9. The environment
//! variable SYNCLINE_FAILPOINT names one, or `name=3` for the third time that it is
//! reached. Programs that were built without debug assertions do not look.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The place to die at, and the times that are left until then.
struct Failpoint {
    name: String,
    left: AtomicU64,
}

/// Dies if this is the place.
pub(crate) fn reach(name: &str) {
    static CHOSEN: OnceLock<Option<Failpoint>> = OnceLock::new();
    if !cfg!(debug_assertions) {
        return;
    }
    let chosen = CHOSEN.get_or_init(|| parse(&std::env::var("SYNCLINE_FAILPOINT").ok()?));
    if let Some(chosen) = chosen
        && chosen.name == name
        && chosen.left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        std::process::abort();
    }
}

fn parse(text: &str) -> Option<Failpoint> {
    let (name, times) = text.split_once('=').unwrap_or((text, "1"));
    Some(Failpoint { name: name.to_owned(), left: AtomicU64::new(times.parse().ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_a_name_and_perhaps_a_number() {
        let parsed = |text| parse(text).map(|it| (it.name, it.left.into_inner()));
        assert_eq!(parsed("a.b"), Some(("a.b".into(), 1)));
        assert_eq!(parsed("a.b=3"), Some(("a.b".into(), 3)));
        assert_eq!(parsed("a.b=x"), None);
    }
}
