//! Deaths of an app that does with its file what no command does: it leaves a space, wants a part
//! of it, has edits of an older version, wishes something of another process.

use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use syncline::client::{Client, Edit, Options, Trigger};

use super::check::log;
use super::program::{Program, Run, Running};
use super::script::{Does, Script};
use super::{MOMENTS, at_moments, moments};
use crate::offline::device::SOON;
use crate::support::{House, mint, put, wait_for};

/// What the app is told: its file, its user, its server, and what it does.
const TOLD: [&str; 4] = ["KILL_APP_FILE", "KILL_APP_USER", "KILL_APP_SERVER", "KILL_APP_DOES"];

/// Not a test of its own: the app that the others kill.
#[tokio::test]
async fn the_app() {
    let told = TOLD.map(|name| std::env::var(name).ok());
    let [Some(file), Some(user), Some(server), Some(does)] = told else { return };
    let mut options = Options::new(file, &user);
    if does != "leaves" {
        options = options.server(&server).token(mint(&user));
    }
    if does == "polls" {
        options = options.poll(Duration::from_millis(200));
    }
    if does == "casts" {
        let cast = |_: &str, version, _| Edit::put(json!({"was": version})).map_err(|_| "".into());
        options = options.schema_version(2, cast);
    }
    let client = Client::open(options).await.unwrap();
    match does.as_str() {
        "leaves" => client.leave("").await.unwrap(),
        "leaves and sends" => {
            client.leave("").await.unwrap();
            wait_for("all to be sent", async || {
                let spaces = client.status().await.unwrap().spaces;
                spaces.iter().all(|it| it.pending == 0).then_some(())
            })
            .await;
            client.collect().await.unwrap();
        }
        "narrows" => drop(client.collections("", &["task"]).await.unwrap()),
        "wishes" => {
            client.sync(Trigger::Demand);
            // It dies of that.
            std::future::pending().await
        }
        "casts" => drop(client.own().await.unwrap()),
        "polls" => {
            let own = client.own().await.unwrap();
            wait_for("the conflict", async || own.conflicts().await.unwrap().pop()).await;
        }
        other => panic!("{other}"),
    }
    if ["narrows", "casts"].contains(&does.as_str()) {
        client.synced(SOON).await.unwrap();
    }
    client.close().await;
}

/// Lets the app do something with the program's file, to its end or its death.
async fn app(program: &Program, does: &str, place: Option<&str>) -> Run {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "offline::kill::app::the_app", "--nocapture"]);
    let file = program.path("app.db");
    let said = [file.to_str().unwrap(), &program.user, &program.server, does];
    command.envs(TOLD.into_iter().zip(said));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = Running::start(&mut command, &[], place).end().await;
    assert_eq!(run.died(), place.is_some(), "{does} {place:?}: {run:?}");
    assert!(run.died() || run.status.success(), "{does}: {run:?}");
    run
}

/// Leaves with edits that wait; comes back, or has them sent before.
async fn leaves(house: &House, number: usize, place: &str, sends: bool) {
    let program = Program::new(house, &format!("leaving{number}")).await;
    let mut script = Script::new(&program).await;
    let run = program.sync(&script.some(6), None).await;
    script.heard(&run);
    let run = program.run(&["sync", "--offline"], &script.some(10), None).await;
    script.heard(&run);
    app(&program, "leaves", Some(place)).await;
    if sends {
        app(&program, "leaves and sends", None).await;
        let written: Vec<_> = log(&program).await.into_iter().map(|it| it.mutation_id).collect();
        let told = script.told.iter().filter(|(number, _)| script.edits[**number] == Does::Makes);
        assert!(told.map(|(_, id)| id).all(|id| written.contains(id)), "{written:?}");
    }
    script.check(&program).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_loses_nothing_that_is_queued() {
    let house = House::new().await;
    at_moments("before_leave", async |n, place| leaves(&house, n, place, n % 2 == 0).await).await;
}

/// Dies while what was left is taken away, and comes back to what is there of it.
async fn comes_back(house: &House, number: usize, part: usize, then: &str) {
    let program = Program::new(house, &format!("back{number}")).await;
    let mut script = Script::new(&program).await;
    script.others(&program, 1_000).await;
    // First all that is there: then nothing is refused later, and no refusal keeps the space.
    program.sync(&[], None).await.ended_well();
    let run = program.sync(&script.some(16), None).await;
    script.heard(&run);
    app(&program, "leaves", Some(&format!("client.before_collect>client.{then}={part}"))).await;
    script.others(&program, 1).await;
    let run = program.sync(&script.some(3), None).await;
    script.heard(&run);
    script.check(&program).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_to_what_is_half_gone_has_all_of_it() {
    let house = House::new().await;
    // Records in two parts, entries, and the rest.
    let cases = (1..=4).map(|part| (part, MOMENTS[part % 3]));
    let runs = cases.enumerate().map(|(n, (part, then))| comes_back(&house, n, part, then));
    join_all(runs).await;
}

/// Edits of an older version are cast once.
async fn casts(house: &House, number: usize, place: &str) {
    let program = Program::new(house, &format!("older{number}")).await;
    let line = |id: usize| {
        let line = json!({"op": "put", "collection": "task", "id": id.to_string(),
            "document": {"name": "Milk"}});
        (id, line.to_string())
    };
    let lines: Vec<_> = (0..5).map(line).collect();
    let queued = program.run(&["sync", "--offline"], &lines, None).await.told();
    app(&program, "casts", Some(place)).await;
    app(&program, "casts", None).await;
    let written: Vec<_> = log(&program).await.into_iter().map(|it| it.mutation_id).collect();
    assert_eq!(written, queued.into_iter().map(|(_, id)| id).collect::<Vec<_>>());
    for id in 0..5 {
        // An edit of the command line is of no version.
        let was = program.client.document("task", &id.to_string()).await;
        assert_eq!(was, json!({"was": 0}));
    }
    Script::check_file(&program).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_of_an_older_version_are_cast_once() {
    let house = House::new().await;
    at_moments("before_upcast", async |n, place| casts(&house, n, place).await).await;
}

/// Wants a part, and what happens elsewhere moves it on.
async fn narrows(house: &House, number: usize, place: &str) {
    let program = Program::new(house, &format!("narrow{number}")).await;
    let mut script = Script::new(&program).await;
    let run = program.sync(&script.some(8), None).await;
    script.heard(&run);
    app(&program, "narrows", None).await;
    script.others(&program, 3).await;
    app(&program, "narrows", Some(place)).await;
    app(&program, "narrows", None).await;
    assert_eq!(program.values(&["ls", "other"]).await.len(), 0);
    script.check(&program).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_a_part_moves_on_with_the_whole() {
    let house = House::new().await;
    at_moments("before_advance", async |n, place| narrows(&house, n, place).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_dies_wishing_holds_up_nobody() {
    let house = House::new().await;
    let program = Program::new(&house, "wishing").await;
    let mut script = Script::new(&program).await;
    let leader = program.start(&["watch"], &[], None);
    leader.has_said("\"link\":\"online\"").await;
    for place in moments("before_pass_on") {
        app(&program, "wishes", Some(&place)).await;
        let run = program.sync(&script.some(4), None).await;
        script.heard(&run);
        run.ended_well();
    }
    leader.kill().await;
    script.check(&program).await;
}

/// Without a stream nobody tells of a conflict that others met: only the list of all has it.
#[tokio::test(flavor = "multi_thread")]
async fn conflicts_that_others_met_are_listed_once() {
    let house = House::new().await;
    let program = Program::new(&house, "conflict").await;
    program.sync(&[], None).await.ended_well();
    let line = json!({"op": "put", "collection": "task", "id": "1", "document": {"by": "it"}});
    program.run(&["sync", "--offline"], &[(0, line.to_string())], None).await.ended_well();
    program.client.mutate(put("other", "1", r#"{"by": "another"}"#)).await.unwrap();
    program.sync(&[], None).await.ended_well();
    let newer = Program::new(&house, "conflict").await;
    for place in moments("before_all_conflicts") {
        app(&newer, "polls", Some(&place)).await;
    }
    app(&newer, "polls", None).await;
    let open = newer.values(&["conflicts"]).await;
    assert_eq!(open.len(), 1, "{open:?}");
    assert_eq!(open[0]["mine"]["document"]["by"], "it");
}
