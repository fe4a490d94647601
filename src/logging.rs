//! Where logs go and how they look: stderr, for people on a terminal, as JSON for machines. Owns
//! the global subscriber; must not know who logs. Stdout belongs to what commands print.

use std::io;
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people: one line each, coloured on a terminal.
    Pretty,
    /// For machines: one JSON object each.
    Json,
}

/// Parses a filter such as `info` or `syncline=debug,tower=warn`; `init` needs one that parses.
pub fn parse_filter(filter: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(filter)
}

/// Starts logging. The first call counts; tests may call it as often as they like.
pub fn init(filter: &str, format: LogFormat) -> Result<(), ParseError> {
    let terminal = io::stderr().is_terminal();
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(parse_filter(filter)?).with_writer(io::stderr);
    let json = match format {
        LogFormat::Auto => !terminal,
        LogFormat::Pretty => false,
        LogFormat::Json => true,
    };
    let started = if json {
        subscriber.json().flatten_event(true).with_current_span(false).try_init()
    } else {
        subscriber.with_ansi(terminal).with_target(false).try_init()
    };
    // An error says that somebody was first, which is fine.
    started.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_may_be_called_twice_and_refuses_a_bad_filter() {
        assert!(init("off", LogFormat::Json).is_ok());
        assert!(init("error", LogFormat::Auto).is_ok());
        assert!(init("syncline=loud", LogFormat::Auto).is_err());
        for good in ["info", "off", "debug,h2=warn", "[task{name=hub}]=trace"] {
            assert!(parse_filter(good).is_ok(), "{good}");
        }
    }
}
