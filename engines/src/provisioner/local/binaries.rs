//! Finding the programs of the engines.

use std::path::{Path, PathBuf};

use crate::provisioner::ProvisionError;

/// Where Debian and its relatives keep PostgreSQL, one folder for each major version.
const DEBIAN_ROOT: &str = "/usr/lib/postgresql";

/// What an installation must have.
struct Needed {
    programs: &'static [&'static str],
    /// The one that is named where it is missing.
    name: &'static str,
    /// Debian's package.
    package: &'static str,
}

const SERVER: Needed = Needed {
    programs: &["initdb", "postgres"],
    name: "postgres",
    package: "postgresql",
};
const CLIENTS: Needed = Needed {
    programs: &["pg_dump"],
    name: "pg_dump",
    package: "postgresql-client",
};

/// The programs of one PostgreSQL installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PostgresPrograms {
    folder: PathBuf,
}

impl PostgresPrograms {
    /// The newest version in Debian's place, else what is on the `PATH`.
    pub(crate) fn find() -> Result<Self, ProvisionError> {
        Self::find_with(&SERVER)
    }

    /// As [`Self::find`], of what a host has that runs no servers.
    pub(crate) fn find_clients() -> Result<Self, ProvisionError> {
        Self::find_with(&CLIENTS)
    }

    fn find_with(needed: &Needed) -> Result<Self, ProvisionError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Self::find_in(
            Path::new(DEBIAN_ROOT),
            &std::env::split_paths(&path).collect::<Vec<_>>(),
            needed,
        )
    }

    fn find_in(root: &Path, path: &[PathBuf], needed: &Needed) -> Result<Self, ProvisionError> {
        let mut versions = installed_versions(root);
        versions.sort_unstable();
        let newest_first = versions
            .into_iter()
            .rev()
            .map(|version| root.join(version.to_string()).join("bin"));
        newest_first
            .chain(path.iter().cloned())
            .find(|folder| needed.programs.iter().all(|it| folder.join(it).is_file()))
            .map(|folder| Self { folder })
            .ok_or(ProvisionError::MissingProgram {
                program: needed.name,
                package: needed.package,
            })
    }

    /// Of a data folder's own version, since another version cannot read it.
    pub(super) fn for_version(version: &str) -> Option<Self> {
        let folder = Path::new(DEBIAN_ROOT).join(version).join("bin");
        folder.join("postgres").is_file().then_some(Self { folder })
    }

    pub(super) fn initdb(&self) -> PathBuf {
        self.folder.join("initdb")
    }

    pub(crate) fn pg_dump(&self) -> PathBuf {
        self.folder.join("pg_dump")
    }

    pub(super) fn postgres(&self) -> PathBuf {
        self.folder.join("postgres")
    }
}

/// Redis, or Valkey that came of it.
const REDIS_NAMES: [&str; 2] = ["redis-server", "valkey-server"];

/// The program of a Redis or Valkey server, from the `PATH`.
pub(super) fn redis_server() -> Result<PathBuf, ProvisionError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    redis_server_in(&std::env::split_paths(&path).collect::<Vec<_>>())
}

fn redis_server_in(path: &[PathBuf]) -> Result<PathBuf, ProvisionError> {
    REDIS_NAMES
        .iter()
        .flat_map(|name| path.iter().map(move |folder| folder.join(name)))
        .find(|program| program.is_file())
        .ok_or(ProvisionError::MissingProgram {
            program: REDIS_NAMES[0],
            package: REDIS_NAMES[0],
        })
}

/// The major version in what `--version` prints: `Redis server v=7.0.15 sha=…`.
pub(super) fn redis_version(printed: &str) -> Option<(u32, &str)> {
    let version = printed
        .split_whitespace()
        .find_map(|word| word.strip_prefix("v="))?;
    let major = version.split('.').next()?.parse().ok()?;
    Some((major, version))
}

fn installed_versions(root: &Path) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir(root) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        for program in ["initdb", "postgres"] {
            std::fs::write(folder.join(program), "").unwrap();
        }
    }

    #[test]
    fn redis_comes_before_valkey() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let path = folders.each_ref().map(|it| it.path().to_owned());
        let error = redis_server_in(&path).unwrap_err();
        assert_eq!(
            error.to_string(),
            "redis-server was not found: install it with `apt-get install redis-server`, or put it on the PATH"
        );
        let valkey = path[0].join("valkey-server");
        std::fs::write(&valkey, "").unwrap();
        assert_eq!(redis_server_in(&path).unwrap(), valkey);
        let redis = path[1].join("redis-server");
        std::fs::write(&redis, "").unwrap();
        assert_eq!(redis_server_in(&path).unwrap(), redis);
    }

    #[test]
    fn versions_are_read() {
        for (printed, expected) in [
            (
                "Redis server v=7.0.15 sha=0:0 malloc=jemalloc bits=64",
                Some((7, "7.0.15")),
            ),
            ("Valkey server v=8.1.0 sha=0:0", Some((8, "8.1.0"))),
            ("something else", None),
        ] {
            assert_eq!(redis_version(printed), expected, "{printed}");
        }
    }

    #[test]
    fn the_newest_version_wins_then_the_path() {
        let root = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let path = vec![elsewhere.path().to_owned()];
        let error = PostgresPrograms::find_in(root.path(), &path, &SERVER).unwrap_err();
        assert_eq!(
            error.to_string(),
            "postgres was not found: install it with `apt-get install postgresql`, or put it on the PATH"
        );
        install(elsewhere.path());
        assert_eq!(
            PostgresPrograms::find_in(root.path(), &path, &SERVER)
                .unwrap()
                .folder,
            elsewhere.path()
        );
        install(&root.path().join("9/bin"));
        install(&root.path().join("15/bin"));
        // Clients alone.
        std::fs::create_dir_all(root.path().join("17/bin")).unwrap();
        std::fs::write(root.path().join("17/bin/pg_dump"), "").unwrap();
        let clients = PostgresPrograms::find_in(root.path(), &path, &CLIENTS);
        assert_eq!(clients.unwrap().folder, root.path().join("17/bin"));
        assert_eq!(
            PostgresPrograms::find_in(root.path(), &path, &SERVER)
                .unwrap()
                .folder,
            root.path().join("15/bin")
        );
    }
}
