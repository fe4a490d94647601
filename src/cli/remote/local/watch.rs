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
    beginnings: Beginnings,
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
        beginnings: Beginnings::default(),
        said: String::new(),
    };
    watcher.look(!config.from_start).await?;
    // Cancel: what was read has been printed.
    tokio::select! {
        stop = asked_to_stop() => Ok(stop?),
        ended = watcher.follow() => ended,
    }
}

/// Of which collections the beginning was heard.
#[derive(Debug, Default)]
struct Beginnings {
    /// It is not to be told.
    silent: HashSet<String>,
    begun: HashSet<String>,
}

/// What changes are.
#[derive(Debug, PartialEq, Eq)]
enum Beginning {
    /// The beginning, which is not to be told.
    Silent,
    /// All anew, after the beginning.
    Again,
    /// What is to be told as it is.
    Told,
}

impl Beginnings {
    fn of(&mut self, collection: &str, is_whole: bool) -> Beginning {
        let is_again = is_whole && !self.begun.insert(collection.to_owned());
        match self.silent.remove(collection) {
            true => Beginning::Silent,
            false if is_again => Beginning::Again,
            false => Beginning::Told,
        }
    }
}

impl Watcher<'_> {
    async fn follow(&mut self) -> Result<(), Failure> {
        let mut statuses = self.local.client.watch_status();
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
                    self.beginnings.silent.insert(name.clone());
                }
                let changes = self.local.space.watch(&Query::all(&name));
                let named = changes.map(move |changes| (name.clone(), changes));
                self.changes.push(named.boxed());
            }
        }
        Ok(())
    }

    fn tell(&mut self, collection: &str, changes: &Changes) -> Result<(), Failure> {
        match self.beginnings.of(collection, changes.whole) {
            Beginning::Silent => return Ok(()),
            Beginning::Again => self.begin_again(collection)?,
            Beginning::Told => {}
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

    /// What was shown of it is no beginning of what comes.
    fn begin_again(&self, collection: &str) -> Result<(), Failure> {
        if self.local.json {
            let value = json!({"type": "resync_required", "collection": collection});
            return self.local.out.say_json(&value);
        }
        note(&format!("{} begins again: forget what was shown of it before", safe(collection)));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_again_is_told_after_the_first_beginning() {
        let mut beginnings = Beginnings::default();
        beginnings.silent.insert("old".to_owned());
        let told = [("old", true), ("old", false), ("old", true), ("new", true), ("new", true)]
            .map(|(collection, is_whole)| beginnings.of(collection, is_whole));
        let (told_once, again) = (Beginning::Told, Beginning::Again);
        assert_eq!(told, [Beginning::Silent, Beginning::Told, Beginning::Again, told_once, again]);
    }
}
