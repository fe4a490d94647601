//! later
use crate::config::BenchConfig;
use crate::exit::Failure;
pub(crate) async fn run(_config: BenchConfig) -> Result<(), Failure> {
    Ok(())
}
