//! kill -9 of the client: the program dies at each place where its file or the server is halfway
//! between two states, or at any moment, is started again, and must have lost and doubled nothing.

mod anew;
mod app;
mod aside;
mod check;
mod program;
mod script;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use program::Program;
use script::Script;
use tokio::time::Instant;

use super::device::url;
use crate::support::proxy::{Fault, Proxy, Target};
use crate::support::{House, Random, put, scale, seed, wait_for};

/// The places at which any program may die.
const USUAL: [&str; 25] = [
    "client.before_made",
    "client.after_made",
    "client.before_begin",
    "client.after_begin",
    "client.before_write",
    "client.after_write",
    "client.before_commit",
    "client.after_commit",
    "client.after_reply",
    "client.before_follow",
    "client.before_policies",
    "client.before_load_page",
    "client.before_take",
    "client.after_take",
    "client.after_send",
    "client.before_settle",
    "client.after_settle",
    "client.before_absorb",
    "client.after_absorb",
    "client.after_load_page",
    "client.before_swap",
    "client.after_swap",
    "client.before_edit",
    "client.before_take_wishes",
    "client.before_conflicts",
];

/// What is written from these on, in a transaction of its own.
const WRITES: [&str; 9] = [
    "client.before_edit",
    "client.before_follow",
    "client.before_conflicts",
    "client.before_policies",
    "client.before_load_page",
    "client.before_swap",
    "client.before_take",
    "client.before_settle",
    "client.before_absorb",
];

/// What few programs come to: tests of their own lead them there.
const RARE: [&str; 16] = [
    "client.after_conflicts",
    "client.before_all_conflicts",
    "client.before_renumber",
    "client.before_distrust",
    "client.before_forget_loading",
    "client.before_park",
    "client.before_retry",
    "client.before_discard",
    "client.before_recalled",
    "client.before_attempts",
    "client.before_forget",
    "client.before_leave",
    "client.before_collect",
    "client.before_upcast",
    "client.before_advance",
    "client.before_pass_on",
];

/// After a place, the moments between which what is written from there on is on disk or is not.
const MOMENTS: [&str; 3] = ["after_begin", "before_commit", "after_commit"];

/// A place, and those moments.
fn moments(place: &str) -> Vec<String> {
    let place = format!("client.{place}");
    let then = MOMENTS.map(|then| format!("{place}>client.{then}"));
    [place].into_iter().chain(then).collect()
}

/// Does this for each of them, at once, with a number of its own.
async fn at_moments(place: &str, does: impl AsyncFn(usize, &str)) {
    let (moments, does) = (moments(place), &does);
    let each = async |(number, place): (usize, &String)| does(number, place).await;
    futures_util::future::join_all(moments.iter().enumerate().map(each)).await;
}

#[test]
fn the_places_are_those_of_the_sources() {
    fn collect(dir: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                collect(&entry.path(), found);
                continue;
            }
            let text = fs::read_to_string(entry.path()).unwrap();
            let places = text.split("failpoint::reach(\"").skip(1);
            found.extend(places.filter_map(|it| Some(it.split_once('"')?.0.to_owned())));
        }
    }
    let mut found = BTreeSet::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/client"), &mut found);
    let listed: BTreeSet<String> = USUAL.iter().chain(&RARE).map(|it| (*it).to_owned()).collect();
    assert_eq!(listed, found);
}

/// Dies at one place, at the first time that it is reached, then at the second and so on, and each
/// time with more edits; then lives. Tells how often it died.
async fn dies_at(house: &House, place: &str, depth: u64) -> u64 {
    let user = place.replace(['.', '_', '>'], "-");
    let program = Program::new(house, &user).await;
    let mut script = Script::new(&program).await;
    let mut deaths = 0;
    for times in 1..=depth {
        script.others(&program, 3).await;
        let place = format!("{place}={times}");
        let run = program.sync(&script.some(7), Some(&place)).await;
        deaths += u64::from(run.died());
        script.heard(&run);
        if !run.died() {
            run.ended_well();
        }
    }
    script.check(&program).await;
    deaths
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_dies_at_any_place_goes_on_from_there() {
    let began = Instant::now();
    let house = House::new().await;
    let mut places = Vec::from(USUAL.map(|place| (place.to_owned(), 1 + 2 * scale())));
    for then in MOMENTS {
        places.extend(WRITES.iter().map(|first| (format!("{first}>client.{then}"), scale())));
    }
    let mut told = Vec::new();
    while !places.is_empty() {
        // Some at once: each waits for disk and network most of the time.
        let some = places.split_off(places.len().saturating_sub(7));
        let runs = some.iter().map(|(place, depth)| dies_at(&house, place, *depth));
        let deaths = futures_util::future::join_all(runs).await;
        told.extend(some.into_iter().zip(deaths));
    }
    println!("{told:?} in {:?}", began.elapsed());
    for ((place, _), deaths) in told {
        assert!(deaths > 0, "{place} is never reached");
    }
}

/// What syncs panics, or what writes the file, in the middle of something: it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_panics_goes_on() {
    let house = House::new().await;
    let program = Program::new(&house, "panics").await;
    let mut script = Script::new(&program).await;
    let places = ["after_take", "after_send", "before_settle", "after_settle", "after_absorb"];
    let writes = ["after_begin", "before_write", "before_commit", "after_commit"];
    let writes = writes.map(|it| format!("before_settle>client.{it}"));
    for place in places.map(String::from).into_iter().chain(writes) {
        let place = format!("client.{place}!");
        script.others(&program, 3).await;
        let run = program.sync(&script.some(7), Some(&place)).await;
        script.heard(&run);
        run.ended_well();
        assert!(run.stderr.contains("the failpoint"), "{place}: {run:?}");
        assert!(run.stdout.contains("\"queued\":0"), "{place}: {run:?}");
    }
    // Edits that are not written are not told, and their calls fail.
    let place = Some("client.before_edit>client.before_commit!");
    let run = program.run(&["sync", "--offline"], &script.some(4), place).await;
    assert!(run.stderr.contains("written together with it failed"), "{run:?}");
    assert!(!run.status.success() && run.told().is_empty(), "{run:?}");
    script.check(&program).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_dies_at_any_moment_goes_on_from_there() {
    let house = House::new().await;
    let program = Program::new(&house, "random").await;
    let mut script = Script::new(&program).await;
    let mut random = Random(seed());
    program.sync(&script.some(6), None).await.ended_well();
    let began = Instant::now();
    program.sync(&script.some(6), None).await.ended_well();
    // As long as one takes here and now.
    let most = u64::try_from(began.elapsed().as_millis()).unwrap();
    let (mut deaths, rounds) = (0, 12 * scale());
    for _ in 0..rounds {
        let count = 1 + random.below(12);
        script.others(&program, random.below(20)).await;
        let after = Duration::from_millis(random.below(most));
        let run = program.killed(&script.some(count), after).await;
        deaths += u64::from(run.died());
        script.heard(&run);
    }
    println!("{deaths} of {rounds} were killed before their end, within {most} ms");
    assert!(deaths > 0, "nobody was killed");
    script.check(&program).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_load_that_is_broken_off_goes_on_from_there() {
    let house = House::new().await;
    let program = Program::new(&house, "loading").await;
    let mut script = Script::new(&program).await;
    let document = format!("{{\"text\":\"{}\"}}", "x".repeat(2_000));
    for batch in 0..3 {
        let all =
            (0..900).map(|n| put(&format!("b{batch}-{n}"), &format!("{batch}-{n}"), &document));
        program.client.batch(all.collect(), false).await.unwrap();
    }
    let places = ["after_load_page=2", "after_load_page=1", "before_swap=1", "after_swap=1"];
    for place in ["before_write=4", "after_write=9"].iter().chain(&places) {
        let run = program.sync(&script.some(3), Some(&format!("client.{place}"))).await;
        assert!(run.died(), "{place}: {run:?}");
        script.heard(&run);
    }
    script.check(&program).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_arrived_unseen_takes_effect_once() {
    let house = House::new().await;
    let proxy = Proxy::start(Target::Tcp(house.server.address())).await;
    let mut program = Program::new(&house, "cut").await;
    program.server = url(proxy.address());
    let mut script = Script::new(&program).await;
    program.sync(&script.some(2), None).await.ended_well();
    for place in [None, Some("client.before_settle")] {
        let lines = script.some(8);
        // The batch names its edits' collection.
        proxy.arm(Fault::CutAfter(script.last_mark()));
        let fired = proxy.fired();
        let run = program.sync(&lines, place).await;
        assert_eq!((proxy.fired(), run.died()), (fired + 1, place.is_some()), "{place:?} {run:?}");
        script.heard(&run);
    }
    // Killed while it waits for an answer that cannot come.
    let lines = script.some(8);
    proxy.arm(Fault::SilenceAfter(script.last_mark()));
    let fired = proxy.fired();
    let run = program.start(&["sync"], &lines, None);
    wait_for("the batch", async || (proxy.fired() > fired).then_some(())).await;
    script.heard(&run.kill().await);
    script.check(&program).await;
}

/// One program has the file and syncs it, another writes to it; the first dies.
async fn taken_over(house: &House, place: &str) {
    let program = Program::new(house, &format!("two-{}", place.replace(['_', '='], "-"))).await;
    let mut script = Script::new(&program).await;
    program.sync(&script.some(2), None).await.ended_well();
    let leader = program.start(&["watch"], &[], Some(&format!("client.{place}")));
    leader.has_said("\"link\":\"online\"").await;
    script.others(&program, 2).await;
    let second = program.sync(&script.some(9), None).await;
    let first = leader.end().await;
    assert!(first.died(), "{place}: {first:?}");
    script.heard(&second);
    second.ended_well();
    script.check(&program).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_program_on_the_file_takes_over() {
    let house = House::new().await;
    let places = ["after_take", "after_send", "before_settle", "after_settle", "before_absorb"];
    let runs = places.map(|place| taken_over(&house, place));
    futures_util::future::join_all(runs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_queued_without_a_server_waits_through_deaths() {
    let house = House::new().await;
    let program = Program::new(&house, "away").await;
    let mut script = Script::new(&program).await;
    let mut deaths = 0;
    for times in 1..=4 {
        for place in ["before_commit", "after_commit", "after_begin", "after_reply"] {
            let place = format!("client.{place}={times}");
            let run = program.run(&["sync", "--offline"], &script.some(24), Some(&place)).await;
            // How many edits one transaction takes is a matter of chance.
            assert!(run.died() || times > 1, "{place}: {run:?}");
            deaths += u64::from(run.died());
            script.heard(&run);
        }
    }
    println!("died {deaths} times");
    assert!(deaths > 4, "died at first times only");
    script.check(&program).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_known_although_nobody_lived_to_keep_it() {
    let house = House::new().await;
    let program = Program::new(&house, "conflict").await;
    let mut script = Script::new(&program).await;
    program.sync(&[], None).await.ended_well();
    for place in ["before_settle", "after_settle", "after_conflicts"] {
        let id = place.replace('_', "-");
        let edit = |by: &str| {
            let line = serde_json::json!({"op": "put", "collection": "task", "id": id,
                "document": {"by": by}});
            vec![(0, line.to_string())]
        };
        program.run(&["sync", "--offline"], &edit("the file"), None).await.ended_well();
        let other = put(place, &id, r#"{"by": "another"}"#);
        program.client.mutate(other).await.unwrap();
        let run = program.sync(&[], Some(&format!("client.{place}"))).await;
        assert!(run.died(), "{place}: {run:?}");
        program.sync(&[], None).await.ended_well();
        let open = program.values(&["conflicts", "task"]).await;
        let of_it: Vec<_> = open.iter().filter(|it| it["id"] == id.as_str()).collect();
        assert_eq!(of_it.len(), 1, "{place}: {open:?}");
        assert_eq!(of_it[0]["mine"]["document"]["by"], "the file");
    }
    script.others(&program, 1).await;
    script.check(&program).await;
}
