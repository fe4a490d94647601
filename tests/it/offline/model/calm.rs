//! One phone, and nobody else who writes: what is shown changes by an edit, once and at once,
//! and by nothing else, whatever becomes of the network, the servers and the program.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use parking_lot::Mutex;
use syncline::client::{Query, Space};
use tokio::task::JoinSet;

use super::phone::shown;
use super::world::{COLLECTIONS, World};

type Key = (String, String);
/// The documents of each record, one after the other; None = there is none.
type Told = BTreeMap<Key, Vec<Option<String>>>;

/// What was shown, edit by edit, and what was told of it.
pub struct Calm {
    shown: BTreeMap<Key, String>,
    wanted: Told,
    told: Arc<Mutex<Told>>,
    listening: JoinSet<()>,
}

impl Calm {
    pub async fn begin(world: &World) -> Self {
        let mut calm = Self {
            shown: all(&world.phones[0].space).await,
            wanted: Told::new(),
            told: Arc::default(),
            listening: JoinSet::new(),
        };
        for (key, text) in &calm.shown {
            calm.wanted.insert(key.clone(), vec![Some(text.clone())]);
        }
        calm.listen(world);
        calm
    }

    /// Follows what is shown, until the client is closed.
    pub fn listen(&mut self, world: &World) {
        for (collection, ..) in COLLECTIONS {
            let changes = world.phones[0].space.watch(&Query::all(collection));
            let told = Arc::clone(&self.told);
            self.listening.spawn(async move {
                let mut changes = Box::pin(changes);
                while let Some(Ok(changes)) = changes.next().await {
                    let mut told = told.lock();
                    let mut note = |id: &str, text: Option<String>| {
                        let key = (collection.to_owned(), id.to_owned());
                        let texts = told.entry(key).or_default();
                        if texts.last() != Some(&text) {
                            texts.push(text);
                        }
                    };
                    changes.changed.iter().for_each(|it| note(&it.id, Some(it.json().to_owned())));
                    changes.removed.iter().for_each(|id| note(id, None));
                }
            });
        }
    }

    /// Nothing was edited.
    pub async fn same(&self, world: &World, after: &str) {
        let shown = all(&world.phones[0].space).await;
        assert_eq!(shown, self.shown, "after {after}");
    }

    /// Something was: that alone is shown otherwise.
    pub async fn edited(&mut self, world: &World) {
        let shown = all(&world.phones[0].space).await;
        let edited = world.ledger.made.last();
        let edited = edited.map(|it| (it.collection.clone(), it.record.clone()));
        for key in shown.keys().chain(self.shown.keys()) {
            let (before, now) = (self.shown.get(key), shown.get(key));
            assert!(before == now || edited.as_ref() == Some(key), "{key:?}: {before:?}, {now:?}");
        }
        if let Some(key) = edited {
            let now = shown.get(&key).cloned();
            let texts = self.wanted.entry(key).or_default();
            if texts.last() != Some(&now) {
                texts.push(now);
            }
        }
        self.shown = shown;
    }

    /// What was told is what was shown, in that order; what was shown for a moment may be left
    /// out, and nothing else was told.
    pub async fn end(mut self, world: &World) {
        self.same(world, "all").await;
        world.phones[0].client.close().await;
        while self.listening.join_next().await.is_some() {}
        let told = std::mem::take(&mut *self.told.lock());
        for (key, texts) in &told {
            let mut wanted = self.wanted.get(key).into_iter().flatten();
            for text in texts {
                let found = wanted.any(|it| it == text);
                assert!(found, "{key:?} was told as {texts:?}, shown as {:?}", self.wanted[key]);
            }
        }
        for (key, wanted) in &self.wanted {
            let last = told.get(key).and_then(|texts| texts.last()).cloned().flatten();
            assert_eq!(Some(&last), wanted.last(), "{key:?}");
        }
    }
}

async fn all(space: &Space) -> BTreeMap<Key, String> {
    let mut all = BTreeMap::new();
    for (collection, ..) in COLLECTIONS {
        let found = shown(space, collection).await;
        all.extend(found.into_iter().map(|(id, text)| ((collection.to_owned(), id), text)));
    }
    all
}
