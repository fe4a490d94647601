//! The folders of a private server: who owns them, where the socket is, and `initdb`.
//!
//! Deletes nothing outside `data`, and inside it only what an interrupted `initdb` left, which the
//! marker file tells. PostgreSQL refuses to run as root, so as root we hand the folders to an
//! unprivileged user first.

use std::{
    ffi::OsString,
    fs,
    hash::{BuildHasher, RandomState},
    io::ErrorKind,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::unistd::{User, geteuid};

use super::{
    Error, Options,
    binaries::{self, Binaries},
    error::IoContext,
    leftovers, process,
};

/// Room of `sockaddr_un` without the final zero byte.
const SOCKET_PATH_BYTES_MAX: usize = if cfg!(target_os = "linux") { 107 } else { 103 };
const SOCKET_NAME: &str = ".s.PGSQL.5432";

/// Everything a server is started from. Does not change while it runs.
#[derive(Debug)]
pub(super) struct Cluster {
    pub binaries: Binaries,
    pub data: PathBuf,
    pub log: PathBuf,
    pub socket: SocketDir,
    /// Whom to run as; nothing when we are unprivileged ourselves.
    pub user: Option<User>,
    pub settings: Vec<(String, String)>,
}

impl Cluster {
    /// Brings `root` to where a server can be started. The caller holds the lock on it.
    pub(super) fn prepare(root: &Path, options: Options) -> Result<Self, Error> {
        let (data, marker) = (root.join("data"), root.join("initdb.running"));
        make_private(&data)?;
        let found = data_version(&data)?;
        let prefer = found.as_deref().and_then(binaries::leading_number);
        let cluster = Self {
            binaries: binaries::find(prefer)?,
            log: root.join("server.log"),
            socket: SocketDir::make(root)?,
            user: unprivileged_user()?,
            settings: options.settings,
            data,
        };
        cluster.hand_over()?;
        leftovers::clear(&cluster.data, &cluster.socket.path)?;

        let interrupted = marker.exists();
        match found {
            Some(version) if !interrupted => {
                if prefer != Some(cluster.binaries.major) {
                    let (dir, server) = (cluster.data, cluster.binaries.version);
                    return Err(Error::OtherVersion { dir, data: version, server });
                }
            }
            None if !interrupted && !is_empty(&cluster.data)? => {
                return Err(Error::ForeignFiles { dir: cluster.data });
            }
            _ => {
                fs::write(&marker, "").at(&marker)?;
                empty(&cluster.data)?;
                process::initdb(&cluster, options.initdb_no_sync)?;
                fs::remove_file(&marker).at(&marker)?;
            }
        }
        Ok(cluster)
    }

    /// Gives data and socket to the user the server runs as, and makes sure it can get there.
    fn hand_over(&self) -> Result<(), Error> {
        let Some(user) = &self.user else { return Ok(()) };
        for dir in [&self.data, &self.socket.path] {
            if fs::metadata(dir).at(dir)?.uid() != user.uid.as_raw() {
                chown_all(dir, user)?;
            }
        }
        for dir in [&self.data, &self.socket.path, &self.binaries.dir] {
            reachable(dir, user)?;
        }
        Ok(())
    }
}

/// Where the socket is. A folder outside of the root is removed when this is dropped.
#[derive(Debug)]
pub(super) struct SocketDir {
    pub path: PathBuf,
    pub temporary: bool,
}

impl SocketDir {
    fn make(root: &Path) -> Result<Self, Error> {
        let path = root.join("socket");
        if fits(&path) {
            make_private(&path)?;
            return Ok(Self { path, temporary: false });
        }
        // Not to be guessed, and made by us alone: others may write to the temporary folder.
        let name = format!("syncline-{:016x}", RandomState::new().hash_one(std::process::id()));
        let bases = [std::env::temp_dir(), PathBuf::from("/tmp")];
        let Some(path) = bases.iter().map(|base| base.join(&name)).find(|path| fits(path)) else {
            return Err(Error::SocketPath { dir: path });
        };
        fs::DirBuilder::new().mode(0o700).create(&path).at(&path)?;
        Ok(Self { path, temporary: true })
    }
}

impl Drop for SocketDir {
    fn drop(&mut self) {
        if self.temporary {
            // Left behind at worst, which harms nobody.
            fs::remove_dir_all(&self.path).ok();
        }
    }
}

/// A comma would make it a list of folders, to the server and to libpq.
fn fits(socket_dir: &Path) -> bool {
    let path = socket_dir.join(SOCKET_NAME);
    let bytes = path.as_os_str().as_bytes();
    bytes.len() <= SOCKET_PATH_BYTES_MAX && !bytes.contains(&b',')
}

fn make_private(dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).at(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).at(dir)
}

/// What the data was made by; nothing when there is none.
fn data_version(data: &Path) -> Result<Option<String>, Error> {
    let path = data.join("PG_VERSION");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { path, source }),
    }
}

fn is_empty(dir: &Path) -> Result<bool, Error> {
    Ok(fs::read_dir(dir).at(dir)?.next().is_none())
}

fn empty(dir: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(dir).at(dir)? {
        let entry = entry.at(dir)?;
        let path = entry.path();
        let is_dir = entry.file_type().at(&path)?.is_dir();
        if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.at(&path)?;
    }
    Ok(())
}

fn unprivileged_user() -> Result<Option<User>, Error> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let user = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten());
    user.map(Some).ok_or(Error::NoUser)
}

/// The folder itself comes last: its owner says that everything inside is done.
fn chown_all(path: &Path, user: &User) -> Result<(), Error> {
    if fs::symlink_metadata(path).at(path)?.is_dir() {
        for entry in fs::read_dir(path).at(path)? {
            chown_all(&entry.at(path)?.path(), user)?;
        }
    }
    // Following a link could give away somebody else's file.
    lchown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).at(path)
}

/// Asks as `user`, which also covers access lists that mode bits do not show.
fn reachable(dir: &Path, user: &User) -> Result<(), Error> {
    const SCRIPT: &str = r#"for dir; do cd "$dir" || { printf %s "$dir"; exit 1; }; done"#;
    let mut ancestors: Vec<&Path> = dir.ancestors().collect();
    ancestors.reverse();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", SCRIPT, "sh"]).args(ancestors).current_dir("/").env_clear();
    shell.stdin(Stdio::null());
    process::run_as(&mut shell, user);
    let output = shell.output().at(dir)?;
    if output.status.success() {
        return Ok(());
    }
    let folder = PathBuf::from(OsString::from_vec(output.stdout));
    Err(Error::Unreachable { folder, user: user.name.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_moves_to_a_private_temporary_folder_when_its_path_does_not_do() {
        let temp = tempfile::tempdir().unwrap();
        let near = SocketDir::make(temp.path()).unwrap();
        assert_eq!((near.path.clone(), near.temporary), (temp.path().join("socket"), false));

        let long = temp.path().join("x".repeat(SOCKET_PATH_BYTES_MAX));
        let [one, two] = [(); 2].map(|()| SocketDir::make(&long).unwrap());
        assert!(one.temporary && one.path != two.path && fits(&one.path));
        assert_eq!(fs::metadata(&one.path).unwrap().mode() & 0o777, 0o700);
        let path = one.path.clone();
        drop(one);
        assert!(!path.exists());
    }

    #[test]
    fn longest_socket_path_is_the_kernels() {
        let room = SOCKET_PATH_BYTES_MAX - SOCKET_NAME.len() - 1;
        assert!(fits(Path::new(&format!("/{}", "x".repeat(room - 1)))));
        assert!(!fits(Path::new(&format!("/{}", "x".repeat(room)))));
        assert!(!fits(Path::new("/a,b")));
    }
}
