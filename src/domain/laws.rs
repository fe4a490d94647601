//! How tests of laws run: with a seed that is printed, and at a size that the
//! environment sets.

use std::hash::{BuildHasher, Hasher, RandomState};

use proptest::test_runner::{Config, RngSeed};

/// The settings of a property test. SYNCLINE_TEST_SEED runs one again,
/// SYNCLINE_TEST_SCALE makes it that many times larger.
pub(crate) fn laws() -> Config {
    let number = |name| -> Option<u64> {
        let text = std::env::var(name).ok()?;
        Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
    };
    let seed =
        number("SYNCLINE_TEST_SEED").unwrap_or_else(|| RandomState::new().build_hasher().finish());
    println!("SYNCLINE_TEST_SEED={seed}");
    let scale = u32::try_from(number("SYNCLINE_TEST_SCALE").unwrap_or(1)).unwrap();
    let config =
        Config { rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
    Config { cases: config.cases * scale, ..config }
}
