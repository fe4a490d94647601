//! How long what is kept, as flags, and how often the server looks for what is old.

use std::time::Duration;

use clap::Args;

use super::values::duration;
use crate::domain::Retention;

/// How long what is kept, where no policy says otherwise.
#[derive(Clone, Debug, Args)]
pub struct RetentionConfig {
    /// How long a change is kept once a later one of its record has replaced it. A client that
    /// was away for longer loads the state anew; what it has written meanwhile stays good.
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = duration)]
    pub log_retention: Duration,
    /// How long it is known that a record was deleted, at least as long as a client may resume.
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = duration)]
    pub tombstone_retention: Duration,
    /// How much longer the log is kept for a device that acknowledges what it has stored, and has
    /// fallen behind.
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = duration)]
    pub device_wait: Duration,
}

impl RetentionConfig {
    /// As the service takes it.
    pub fn spans(&self) -> Retention {
        let Self { log_retention: log, tombstone_retention: tombstones, device_wait } = *self;
        Retention { log, tombstones, device_wait }
    }
}

/// Parses the time between two rounds of something.
pub(super) fn pause(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        pause if (Duration::from_millis(10)..=Duration::from_hours(24)).contains(&pause) => {
            Ok(pause)
        }
        _ => Err("must be 10ms to 24h".to_owned()),
    }
}
