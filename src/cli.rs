//! The commands. Each returns how the program ends; only `main` ends it.

mod compact;
mod dev;
mod health;
mod migrate;
mod remote;
mod serve;
mod token;
mod verify;

use std::io::{self, Write};
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Command, LogConfig};
use crate::exit::{Exit, Failure};
use crate::logging;
use crate::store;

/// Runs a command to its end.
pub fn run(command: Command) -> Result<Exit, Failure> {
    let done = match command {
        Command::Health(config) => return block_on(health::run(config)),
        Command::Dev(config) => block_on(dev::run(*config)),
        Command::Serve(config) => block_on(serve::run(*config)),
        Command::Migrate(config) => block_on(migrate::run(config)),
        Command::Compact(config) => block_on(compact::run(config)),
        Command::Verify(config) => return block_on(verify::run(config)),
        Command::Token(config) => token::run(&config),
        Command::Bench(config) => block_on(crate::bench::run(config)),
        Command::Remote(config) => return block_on(remote::run(*config)),
        Command::Completions(script) => print(&script),
    };
    done.map(|()| Exit::Success)
}

fn block_on<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(command)
}

fn init_log(log: &LogConfig) -> Result<(), Failure> {
    logging::init(&log.filter, log.format).map_err(|error| Failure::new(Exit::Usage, error))
}

/// What a command prints for people and scripts. A reader that has gone, as with
/// `| head`, is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let error = anyhow::Error::new(error).context(format!("cannot listen on {address}"));
        Failure::new(Exit::Listen, error).hint("choose another address with --listen")
    })
}

/// Waits for Ctrl-C, or for a supervisor that wants us to end.
async fn asked_to_stop() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    // Cancel: a signal that comes together with another is lost; both ask for the same.
    tokio::select! {
        result = tokio::signal::ctrl_c() => result,
        _ = terminate.recv() => Ok(()),
        _ = hang_up.recv() => Ok(()),
    }
}

/// A failure of the database, with what to do about it.
pub(crate) fn database(error: store::Error) -> Failure {
    let hint = error.hint().map(str::to_owned);
    let failure = Failure::new(Exit::Database, error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
