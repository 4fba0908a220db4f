//! The folders of one local server.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;

use super::account::Account;
use crate::provisioner::ProvisionError;

/// Bytes of a socket's path that `sun_path` has room for, without its final zero.
const MAX_SOCKET_PATH: usize = 107;
/// The folders of one local server.
#[derive(Clone, Debug)]
pub(super) struct Home {
    /// Holds all of them but perhaps `run`.
    pub(super) root: PathBuf,
    /// The server's own data.
    pub(super) data: PathBuf,
    /// The server's logs.
    pub(super) log: PathBuf,
    /// Where its socket is.
    pub(super) run: PathBuf,
    /// The file name of the socket.
    pub(super) socket_name: &'static str,
    /// A short name that no other server on this machine has.
    pub(super) label: String,
}

impl Home {
    /// Creates what is missing of the folders of the server `name`. `servers` is absolute and has no links in it.
    pub(super) fn prepare(
        servers: &Path,
        name: &str,
        socket_name: &'static str,
        account: &Account,
    ) -> Result<Self, ProvisionError> {
        let root = servers.join(name);
        if let Some(path) = account.blocked_at(servers) {
            return Err(ProvisionError::Unreachable {
                path,
                account: account.name.clone(),
            });
        }
        let label = format!("{name}-{}", short_hash(&root));
        let run = run_folder(&root, socket_name, &label, account.uid);
        let home = Self {
            data: root.join("data"),
            log: root.join("log"),
            run,
            root,
            socket_name,
            label,
        };
        for folder in [&home.root, &home.log, &home.run] {
            private_folder(folder, account)?;
        }
        Ok(home)
    }

    /// The full path of the socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.run.join(self.socket_name)
    }

    /// The file that takes what the server prints before it opens its own log.
    pub(super) fn startup_log(&self) -> PathBuf {
        self.log.join("startup.log")
    }
}

/// Creates a folder that the account that runs servers may pass through.
pub(super) fn passable_folder(path: &Path) -> Result<(), ProvisionError> {
    fs::create_dir_all(path).map_err(ProvisionError::io("create", path))?;
    let mode = fs::metadata(path)
        .map_err(ProvisionError::io("read", path))?
        .mode();
    if mode & 0o001 == 0 {
        fs::set_permissions(path, Permissions::from_mode(mode | 0o011))
            .map_err(ProvisionError::io("open", path))?;
    }
    Ok(())
}

/// Creates a folder for one account alone, or takes one that it owns. Never one that another user made in a shared
/// place, nor a link.
pub(super) fn private_folder(path: &Path, account: &Account) -> Result<(), ProvisionError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => account.own(path),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            check_ours(path, account)
        }
        Err(error) => Err(ProvisionError::io("create", path)(error)),
    }
}

fn check_ours(path: &Path, account: &Account) -> Result<(), ProvisionError> {
    let metadata = fs::symlink_metadata(path).map_err(ProvisionError::io("read", path))?;
    // A crash between the folder's creation and its hand-over leaves it to root.
    if metadata.is_dir() && metadata.uid() == 0 && account.uid != 0 {
        return account.own(path);
    }
    if !metadata.is_dir() || metadata.uid() != account.uid {
        return Err(ProvisionError::ForeignFolder {
            path: path.to_owned(),
        });
    }
    fs::set_permissions(path, Permissions::from_mode(0o700))
        .map_err(ProvisionError::io("close", path))
}

fn run_folder(root: &Path, socket_name: &str, label: &str, uid: u32) -> PathBuf {
    let usual = root.join("run");
    if usual.as_os_str().len() + 1 + socket_name.len() <= MAX_SOCKET_PATH {
        return usual;
    }
    Path::new("/tmp").join(format!("tenantsdb-{uid}-{label}"))
}

fn short_hash(path: &Path) -> String {
    let hash = digest::digest(&digest::SHA256, path.as_os_str().as_encoded_bytes());
    hash.as_ref()
        .iter()
        .take(5)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOCKET_NAME: &str = "socket";

    #[test]
    fn a_long_path_moves_the_socket_only() {
        let servers = tempfile::tempdir().unwrap();
        let short = run_folder(servers.path(), SOCKET_NAME, "pg-1-abc", 7);
        assert_eq!(short, servers.path().join("run"));
        let long = servers.path().join("x".repeat(100));
        assert_eq!(
            run_folder(&long, SOCKET_NAME, "pg-1-abc", 7),
            Path::new("/tmp/tenantsdb-7-pg-1-abc")
        );
        let exact = MAX_SOCKET_PATH - SOCKET_NAME.len() - "/run/".len();
        let exact = PathBuf::from(format!("/{}", "y".repeat(exact - 1)));
        assert_eq!(
            run_folder(&exact, SOCKET_NAME, "l", 7)
                .join(SOCKET_NAME)
                .as_os_str()
                .len(),
            MAX_SOCKET_PATH
        );
    }

    #[test]
    fn a_link_is_never_taken_for_a_folder() {
        let servers = tempfile::tempdir().unwrap();
        let link = servers.path().join("run");
        std::os::unix::fs::symlink("/tmp", &link).unwrap();
        let account = Account::choose().unwrap();
        assert!(matches!(
            private_folder(&link, &account),
            Err(ProvisionError::ForeignFolder { .. })
        ));
    }
}
