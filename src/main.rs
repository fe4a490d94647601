//! The program `syncline`.

use std::process::ExitCode;

use syncline::{cli, config};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = match config::load(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(command) => command,
        Err(error) => return error.report().into(),
    };
    match cli::run(command) {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report().into(),
    }
}
