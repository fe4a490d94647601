//! Spaces that several replicas make at once, in groups that overlap.

use syncline::domain::{Space, UserId};
use syncline::store::Writer;
use tokio::task::JoinSet;

use crate::support::{Database, wait_for, waiting_since};

/// One has made X and waits for W; the other has locked Y, and needs X. Then W is
/// free, and the first one needs Y.
#[tokio::test(flavor = "multi_thread")]
async fn who_needs_new_spaces_holds_none_while_waiting_for_them() {
    let database = Database::create().await;
    let store = database.store().await;
    let user = |n| Space::private(&UserId::parse(&format!("u{n}")).unwrap());
    let mut spaces: Vec<Space> = (0..3).map(user).collect();
    spaces.sort_by_key(|space| space.id);
    let [x, w, y] = <[Space; 3]>::try_from(spaces).unwrap();
    let mut watching = database.connect().await;
    let mut other = database.connect().await;
    sqlx::query("begin").execute(&mut other).await.unwrap();
    let birth = "insert into spaces (id, name, epoch) values ($1, $2, gen_random_uuid())";
    sqlx::query(birth).bind(w.id.0).bind(w.name()).execute(&mut other).await.unwrap();

    let mut locking = JoinSet::new();
    for (needed, waits) in [(vec![x.clone(), w, y.clone()], 1), (vec![x, y.clone()], 2)] {
        let mut writer = Writer::connect(&store).await.unwrap();
        locking.spawn(async move {
            writer.lock(&needed).await.unwrap().commit().await.unwrap();
        });
        wait_for("who waits", async || {
            (waiting_since(&mut watching).await.len() == waits).then_some(())
        })
        .await;
        // After the first one has looked, and before the second one does.
        store.create_spaces(&[&y]).await.unwrap();
    }
    sqlx::query("commit").execute(&mut other).await.unwrap();
    locking.join_all().await;
}
