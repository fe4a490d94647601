//! How far an import or an export has come, in a small file beside the data, so that one that was
//! broken off can go on. Must not know what the file of the data holds.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::remote::Fault;
use crate::exit::{Exit, Failure};

/// Between attempts, twice as long each time.
const PAUSE: Duration = Duration::from_millis(250);
/// After which a server counts as gone.
const ATTEMPTS_MAX: u32 = 7;
/// As long as a server that is asked too often says to wait, at most.
const PAUSE_MAX: Duration = Duration::from_secs(20);

/// `FILE.resume` and the like.
pub(super) fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(ending);
    PathBuf::from(name)
}

/// What the file tells; None if there is none.
pub(super) fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Failure> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(anyhow!(error).context(format!("cannot read {}", path.display())).into());
        }
    };
    let parsed = serde_json::from_slice(&text);
    parsed.map(Some).map_err(|error| {
        let error = anyhow!(error).context(format!("{} is damaged", path.display()));
        Failure::new(Exit::Usage, error).hint("remove it to begin anew")
    })
}

/// Whole or not at all: who is killed meanwhile leaves what was there before.
pub(super) fn save(path: &Path, place: &impl Serialize) -> Result<(), Failure> {
    let draft = beside(path, ".new");
    let text = serde_json::to_vec(place)?;
    let written = fs::write(&draft, text).and_then(|()| fs::rename(&draft, path));
    Ok(written.with_context(|| format!("cannot write {}", path.display()))?)
}

/// It is done.
pub(super) fn remove(path: &Path) -> Result<(), Failure> {
    Ok(fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?)
}

/// How often a server was called in vain.
#[derive(Debug, Default)]
pub(super) struct Attempts(u32);

impl Attempts {
    /// It has answered.
    pub(super) fn succeeded(&mut self) {
        self.0 = 0;
    }

    /// Waits before the next attempt; gives the fault back where that would be in vain.
    pub(super) async fn wait(&mut self, fault: Fault, has_begun: bool) -> Result<(), Fault> {
        let is_limited = fault.reason == "RATE_LIMITED";
        // Room has to be made by somebody, which can take days.
        let is_hopeless = fault.reason == "QUOTA_EXCEEDED" || !fault.is_transient();
        if is_hopeless || !is_limited && (!has_begun || self.0 >= ATTEMPTS_MAX) {
            return Err(fault);
        }
        let pause =
            fault.retry_after.unwrap_or_else(|| PAUSE * 2_u32.pow(self.0.min(ATTEMPTS_MAX)));
        if !is_limited {
            self.0 += 1;
        }
        // A server that has just gone is not there again at once.
        tokio::time::sleep(pause.min(PAUSE_MAX)).await;
        Ok(())
    }
}
