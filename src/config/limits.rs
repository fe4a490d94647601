//! How much one space may hold and one caller may do, as flags.

use clap::Args;

use crate::domain::{Quotas, Rate, Rates, Usage};

/// What a space may hold.
#[derive(Clone, Copy, Debug, Args)]
pub struct QuotaConfig {
    /// Records that live in one space; 0 = as many as it likes.
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = amount)]
    pub space_records: i64,
    /// Bytes of their documents, as canonical JSON; 0 = as many as it likes.
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = size)]
    pub space_bytes: i64,
    /// Subscriptions that follow one space, on each server; 0 = as many as there may be.
    #[arg(long, value_name = "N", default_value = "10000", value_parser = count)]
    pub space_subscriptions: usize,
}

/// How often callers may call. Each may do in one second what they have saved in the second
/// before, and no more at once than twice as much.
#[derive(Clone, Copy, Debug, Args)]
pub struct RateConfig {
    /// Calls and frames that read, for each user and second; 0 = no limit.
    #[arg(long, value_name = "N", default_value = "1000", value_parser = rate)]
    pub reads_per_second: u32,
    /// Calls and frames that write, likewise; a batch counts as one.
    #[arg(long, value_name = "N", default_value = "500", value_parser = rate)]
    pub writes_per_second: u32,
    /// Streams and subscriptions that are opened, likewise.
    #[arg(long, value_name = "N", default_value = "200", value_parser = rate)]
    pub opens_per_second: u32,
    /// Streams that one user may have open, on each server; 0 = no limit.
    #[arg(long, value_name = "N", default_value = "1000", value_parser = count)]
    pub user_streams: usize,
    /// Calls for each address and second, whoever calls and before any token is looked at; of
    /// IPv6 a /64 counts as one. Not by default: behind a proxy all calls have its address.
    #[arg(long, value_name = "N", default_value = "0", value_parser = rate)]
    pub address_calls_per_second: u32,
}

impl QuotaConfig {
    /// As the service takes it.
    pub fn quotas(&self) -> Quotas {
        let Self { space_records: records, space_bytes: bytes, space_subscriptions } = *self;
        Quotas { usage: Usage { records, bytes }, subscriptions: space_subscriptions }
    }
}

impl RateConfig {
    /// As the service takes it.
    pub fn rates(&self) -> Rates {
        Rates {
            reads: Rate::per_second(self.reads_per_second),
            writes: Rate::per_second(self.writes_per_second),
            opens: Rate::per_second(self.opens_per_second),
            user_streams: self.user_streams,
            address_calls: Rate::per_second(self.address_calls_per_second),
        }
    }

    /// No limits: for measuring the service itself.
    pub fn unlimited() -> Self {
        Self {
            reads_per_second: 0,
            writes_per_second: 0,
            opens_per_second: 0,
            user_streams: 0,
            address_calls_per_second: 0,
        }
    }
}

impl QuotaConfig {
    /// No quotas: for measuring the service itself.
    pub fn unlimited() -> Self {
        Self { space_records: 0, space_bytes: 0, space_subscriptions: 0 }
    }
}

fn amount(text: &str) -> Result<i64, String> {
    let found: i64 = text.parse().map_err(|_| "must be a number".to_owned())?;
    if (0..=1_000_000_000_000).contains(&found) {
        Ok(found)
    } else {
        Err("must be 0 to 10^12".into())
    }
}

fn size(text: &str) -> Result<i64, String> {
    let bytes = super::values::size_bytes(text)?;
    i64::try_from(bytes).map_err(|_| "is too large".to_owned())
}

fn count(text: &str) -> Result<usize, String> {
    let found: usize = text.parse().map_err(|_| "must be a number".to_owned())?;
    if found <= 1_000_000 { Ok(found) } else { Err("must be 0 to 1000000".into()) }
}

fn rate(text: &str) -> Result<u32, String> {
    let found: u32 = text.parse().map_err(|_| "must be a number".to_owned())?;
    if found <= 1_000_000 { Ok(found) } else { Err("must be 0 to 1000000".into()) }
}
