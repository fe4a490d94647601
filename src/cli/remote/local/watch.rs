//! `watch` of a local file: what is shown otherwise, by whatever edit, device or program, while the
//! file is synced.

use std::collections::HashSet;

use futures_util::stream::{BoxStream, SelectAll, StreamExt};
use serde_json::{Value, json};

use super::{Local, failed, records, status};
use crate::cli::asked_to_stop;
use crate::cli::remote::output::{Style, note, safe};
use crate::cli::remote::usage;
use crate::client::{Changes, Error, Query, Status};
use crate::config::WatchConfig;
use crate::exit::Failure;

/// What a collection shows otherwise.
type Told = (String, Result<Changes, Error>);

struct Watcher<'l> {
    local: &'l Local,
    /// None = whichever there are.
    wanted: Option<Vec<String>>,
    known: HashSet<String>,
    changes: SelectAll<BoxStream<'static, Told>>,
    /// Collections of which the beginning is not told.
    silent: HashSet<String>,
    /// Collections of which the beginning was told, or passed over.
    begun: HashSet<String>,
    /// What was said last of how it goes.
    said: String,
}

pub(super) async fn run(local: &Local, config: WatchConfig) -> Result<(), Failure> {
    if config.cursor.is_some() {
        return Err(usage("--cursor is for a server; a local file begins now or at the start"));
    }
    let wanted = Some(config.collections).filter(|it| !it.is_empty());
    let mut watcher = Watcher {
        local,
        wanted,
        known: HashSet::new(),
        changes: SelectAll::new(),
        silent: HashSet::new(),
        begun: HashSet::new(),
        said: String::new(),
    };
    watcher.look(!config.from_start).await?;
    // Cancel: what was read has been printed.
    tokio::select! {
        stop = asked_to_stop() => Ok(stop?),
        ended = watcher.follow() => ended,
    }
}

impl Watcher<'_> {
    async fn follow(&mut self) -> Result<(), Failure> {
        let mut statuses = Box::pin(self.local.client.watch_status());
        loop {
            // Cancel: both streams only read, and keep their place.
            tokio::select! {
                Some((collection, changes)) = self.changes.next() => {
                    let changes = changes.map_err(|error| failed("cannot watch", error))?;
                    self.tell(&collection, &changes)?;
                }
                status = statuses.next() => match status {
                    Some(Ok(status)) => {
                        self.status(&status)?;
                        self.look(false).await?;
                    }
                    Some(Err(error)) => return Err(failed("cannot watch", error)),
                    None => return Ok(()),
                },
            }
        }
    }

    /// Follows collections that are new here.
    async fn look(&mut self, silently: bool) -> Result<(), Failure> {
        let names = match &self.wanted {
            Some(names) => names.clone(),
            None => {
                let found = self.local.space.collections().await;
                let found = found.map_err(|error| failed("cannot watch", error))?;
                found.into_iter().map(|(name, _)| name).collect()
            }
        };
        for name in names {
            if self.known.insert(name.clone()) {
                if silently {
                    self.silent.insert(name.clone());
                }
                let changes = self.local.space.watch(&Query::all(&name));
                let named = changes.map(move |changes| (name.clone(), changes));
                self.changes.push(named.boxed());
            }
        }
        Ok(())
    }

    fn tell(&mut self, collection: &str, changes: &Changes) -> Result<(), Failure> {
        let is_first = !changes.whole || self.begun.insert(collection.to_owned());
        if self.silent.remove(collection) {
            return Ok(());
        }
        if !is_first {
            let value = json!({"type": "resync_required", "collection": collection});
            match self.local.json {
                true => self.local.out.say_json(&value)?,
                false => note(&format!(
                    "{} begins again: forget what was shown of it before",
                    safe(collection)
                )),
            }
        }
        for record in &changes.changed {
            let mut value = records::json(record);
            if let Some(object) = value.as_object_mut() {
                object.insert("type".into(), "change".into());
                object.insert("action".into(), "updated".into());
            }
            let pending = if record.pending { "  pending" } else { "" };
            let key = safe(&format!("{collection}/{}", record.id));
            let document = safe(record.json());
            self.say(Style::Careful, "updated", &format!("{key}  {document}{pending}"), &value)?;
        }
        for id in &changes.removed {
            let value = json!({
                "type": "change",
                "action": "deleted",
                "collection": collection,
                "id": id,
            });
            let key = safe(&format!("{collection}/{id}"));
            self.say(Style::Bad, "deleted", &key, &value)?;
        }
        Ok(())
    }

    fn say(&self, style: Style, action: &str, text: &str, value: &Value) -> Result<(), Failure> {
        match self.local.json {
            true => self.local.out.say_json(value),
            false => {
                self.local.out.say(&format!("{}  {text}", self.local.out.paint(style, action)))
            }
        }
    }

    /// How it goes, if that is another thing than before.
    fn status(&mut self, status: &Status) -> Result<(), Failure> {
        let sum = |of: fn(&crate::client::SpaceStatus) -> u64| -> u64 {
            status.spaces.iter().map(of).sum()
        };
        let (pending, parked) = (sum(|it| it.pending), sum(|it| it.parked));
        let conflicts = sum(|it| it.conflicts);
        let mut text = format!("{}  {pending} pending", status::link(status.link));
        if parked + conflicts > 0 {
            text.push_str(&format!("  {parked} parked  {conflicts} conflicts"));
        }
        if let Some(problem) = &status.problem {
            let said = format!("  {}; {}", safe(&problem.what), safe(&problem.advice));
            text.push_str(&said);
        }
        if text == self.said {
            return Ok(());
        }
        self.said = text;
        if !self.local.json {
            note(&self.said);
            return Ok(());
        }
        let mut value = status::as_json(status);
        if let Some(object) = value.as_object_mut() {
            object.insert("type".into(), "status".into());
        }
        self.local.out.say_json(&value)
    }
}
