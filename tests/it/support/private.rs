//! A PostgreSQL of one test's own, to be killed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use syncline::postgres::{Options, PrivatePostgres};
use tempfile::TempDir;

/// Blocking work beside the runtime.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Open to the user that the server runs as when the tests run as root.
pub fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

pub async fn postgres(dir: &Path, settings: &[(&str, &str)]) -> PrivatePostgres {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let settings = settings.iter().map(owned).collect();
    let options = Options { settings, initdb_no_sync: true, ..Options::new(dir) };
    blocking(move || PrivatePostgres::start(options).unwrap()).await
}
