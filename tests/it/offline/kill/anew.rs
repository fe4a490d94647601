//! Deaths while a file takes in that its server is not the one that it knew: the queue stays, and
//! takes effect once in what there is now.

use futures_util::future::join_all;
use syncline::rpc::proto::EraseUserRequest;

use super::moments;
use super::program::{Line, Program};
use super::script::Script;
use crate::offline::device::sql;
use crate::support::{House, TestServer, put};

/// A program whose queue waits, and where it is to die next.
struct Case {
    program: Program,
    script: Script,
    place: String,
    /// Whether the queue has gone out, and nobody has lived to hear what became of it.
    sent: bool,
}

impl Case {
    /// One for each moment of such a write, each with a user of its own; of every second one the
    /// queue has gone out.
    async fn all(house: &House, place: &str, first_is_sent: bool) -> Vec<Self> {
        let places = moments(place).into_iter().enumerate();
        let cases = places.map(async |(number, place)| {
            let sent = (number % 2 == 0) == first_is_sent;
            let program = Program::new(house, &format!("user{number}")).await;
            let script = Script::new(&program).await;
            program.sync(&[before()], None).await.ended_well();
            Self { program, script, place, sent }
        });
        join_all(cases).await
    }

    /// Fills the queue.
    async fn queue(&mut self) {
        let lines = self.script.some(10);
        let run = self.program.run(&["sync", "--offline"], &lines, None).await;
        self.script.heard(&run);
        if self.sent {
            self.program.dies(&["sync"], "client.before_settle").await;
        }
    }

    /// Dies there, and goes on.
    async fn ends(&mut self) {
        self.program.dies(&["sync"], &self.place).await;
        self.script.check(&self.program).await;
    }
}

/// An edit that the server has before anything happens, so that it knows the device.
fn before() -> Line {
    let line = r#"{"op": "put", "collection": "task", "id": "before", "document": {}}"#;
    (0, line.to_owned())
}

async fn each(cases: &mut [Case], does: impl AsyncFn(&mut Case)) {
    join_all(cases.iter_mut().map(|case| does(case))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_goes_to_a_space_that_was_erased() {
    let house = House::new().await;
    let mut cases = Case::all(&house, "before_renumber", true).await;
    each(&mut cases, async |case| {
        case.queue().await;
        let erase = EraseUserRequest { user: String::new(), confirm: case.program.user.clone() };
        case.program.client.spaces.clone().erase_user(erase).await.unwrap();
        Script::seed(&case.program).await;
        case.ends().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_goes_to_a_history_that_is_another_one() {
    let house = House::new().await;
    let mut cases = Case::all(&house, "before_renumber", false).await;
    each(&mut cases, Case::queue).await;
    let House { database, server, .. } = house;
    server.stop().await;
    // As if the database had been brought back from a copy that lacks nothing.
    let query = sqlx::query("update spaces set epoch = gen_random_uuid()");
    query.execute(&mut database.connect().await).await.unwrap();
    let server = TestServer::start(&database).await;
    each(&mut cases, async |case| {
        case.program.lead_to(&server).await;
        case.ends().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_goes_to_a_server_that_has_lost_the_end() {
    let house = House::new().await;
    let mut cases = Case::all(&house, "before_distrust", false).await;
    let House { database, server, .. } = house;
    server.stop().await;
    let copy = database.copy().await;
    let server = TestServer::start(&database).await;
    each(&mut cases, async |case| {
        case.program.lead_to(&server).await;
        case.script.others(&case.program, 40).await;
        case.program.sync(&[], None).await.ended_well();
        case.queue().await;
    })
    .await;
    server.stop().await;
    let server = TestServer::start(&copy).await;
    each(&mut cases, async |case| {
        case.program.lead_to(&server).await;
        case.ends().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_cannot_go_on_begins_anew() {
    let house = House::new().await;
    let document = format!("{{\"text\":\"{}\"}}", "x".repeat(2_000));
    for batch in 0..2 {
        let all =
            (0..900).map(|n| put(&format!("b{batch}-{n}"), &format!("{batch}-{n}"), &document));
        house.alice.batch(all.collect(), false).await.unwrap();
    }
    let runs = moments("before_forget_loading").into_iter().map(async |place| {
        let program = Program::new(&house, "alice").await;
        program.dies(&["sync"], "client.after_load_page").await;
        // As of a server that gave tokens of another form.
        let stale = "UPDATE spaces SET loading = json_set(loading, '$.token', 'stale')";
        sql(&program.path("app.db"), stale).await;
        program.dies(&["sync"], &place).await;
        program.sync(&[], None).await.ended_well();
        Script::check_file(&program).await;
    });
    join_all(runs).await;
}
