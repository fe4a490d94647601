//! Thousands of clients on virtual time, each with a world of its own, made from a seed.

use std::collections::BTreeSet;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::checks::EXPECTED;
use super::world::{Happening, World, millis};
use crate::client::backoff::Random;
use crate::client::engine::{Event, Mode};

const SEEDS: u64 = 2_000;
/// How much of a run is told.
const LINES_MAX: usize = 400;
/// How long after the last fault everything may take.
const RECOVERY_SECONDS: u64 = 1_200;
fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// One world until it is done.
fn run(world: &mut World) {
    let seconds = 20 + world.random.below(100);
    world.weather.bad = world.random.below(3) > 0;
    world.plan(seconds);
    world.start();
    let deadline = millis((seconds + 50 + RECOVERY_SECONDS) * 1_000);
    let calm = millis((seconds + 50) * 1_000);
    loop {
        let next = world.happenings.first_key_value().map(|((time, _), _)| *time);
        let wake = world.engine.next_wake();
        let time = next.into_iter().chain(wake).min().expect("everything sleeps");
        if time > calm && world.is_done() {
            return world.check_entries();
        }
        assert!(time <= deadline, "not done in time: {:#?}", world.engine.state());
        world.now = time;
        if next != Some(time) {
            world.hear(Event::Tick);
            continue;
        }
        let Some((_, happening)) = world.happenings.pop_first() else { continue };
        match happening {
            Happening::Arrive { link, space, request, message } => {
                world.arrive(link, space, request, message);
            }
            Happening::Deliver { link, frame } => world.delivered(link, frame),
            Happening::Tell { run, event } if run == world.run => world.hear(event),
            Happening::Connect { run, request } if run == world.run => world.connect(request),
            Happening::Tell { .. } | Happening::Connect { .. } => {}
            Happening::Progress { link } => world.progress(link),
            Happening::Chaos(chaos) => {
                world.note(|| format!("{chaos:?}"));
                world.happen(chaos);
            }
        }
    }
}

fn world(seed: u64) -> World {
    let mut random = Random::new(seed);
    let poll = Mode::Poll { every: millis(5_000 + random.below(25_000)) };
    let mode = if random.below(4) == 0 { poll } else { Mode::Live };
    let spaces = 1 + usize::try_from(random.below(3)).unwrap();
    World::new(seed, spaces, mode, random)
}

/// How it ended. A run that fails is repeated, to tell what happened in it.
fn simulate(seed: u64) -> World {
    let mut first = world(seed);
    let result = catch_unwind(AssertUnwindSafe(|| run(&mut first)));
    let Err(panic) = result else { return first };
    let mut second = world(seed);
    second.trace = Some(Vec::new());
    drop(catch_unwind(AssertUnwindSafe(|| run(&mut second))));
    let lines = second.trace.unwrap_or_default();
    eprintln!("{}", lines[lines.len().saturating_sub(LINES_MAX)..].join("\n"));
    eprintln!("SYNCLINE_TEST_SEED={seed} repeats this");
    resume_unwind(panic);
}

#[test]
fn whatever_happens_everything_is_live_in_the_end() {
    if let Some(seed) = number("SYNCLINE_TEST_SEED") {
        simulate(seed);
        return;
    }
    let seeds = SEEDS * number("SYNCLINE_TEST_SCALE").unwrap_or(1);
    let (mut events, mut seen) = (0, BTreeSet::new());
    for seed in 0..seeds {
        let mut world = simulate(seed);
        events += world.events;
        seen.append(&mut world.seen);
    }
    assert!(events > seeds * 50, "hardly anything happened: {events} events");
    for name in EXPECTED {
        assert!(seen.contains(name), "nothing was {name}: {seen:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let traced = |seed| {
        let mut world = world(seed);
        world.trace = Some(Vec::new());
        run(&mut world);
        world.trace
    };
    for seed in 0..20 {
        assert!(traced(seed) == traced(seed), "{seed}");
    }
}
