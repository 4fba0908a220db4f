//! Finding the programs of the engines.

use std::path::{Path, PathBuf};

use crate::provisioner::ProvisionError;

/// Where Debian and its relatives keep PostgreSQL, one folder for each major version.
const DEBIAN_ROOT: &str = "/usr/lib/postgresql";

/// The programs of one PostgreSQL installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PostgresPrograms {
    folder: PathBuf,
}

impl PostgresPrograms {
    /// The newest version in Debian's place, else what is on the `PATH`.
    pub(crate) fn find() -> Result<Self, ProvisionError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Self::find_in(
            Path::new(DEBIAN_ROOT),
            &std::env::split_paths(&path).collect::<Vec<_>>(),
        )
    }

    fn find_in(root: &Path, path: &[PathBuf]) -> Result<Self, ProvisionError> {
        let mut versions = installed_versions(root);
        versions.sort_unstable();
        let newest_first = versions
            .into_iter()
            .rev()
            .map(|version| root.join(version.to_string()).join("bin"));
        newest_first
            .chain(path.iter().cloned())
            .find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
            .map(|folder| Self { folder })
            .ok_or(ProvisionError::MissingProgram {
                program: "postgres",
                package: "postgresql",
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
    fn the_newest_version_wins_then_the_path() {
        let root = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let path = vec![elsewhere.path().to_owned()];
        let error = PostgresPrograms::find_in(root.path(), &path).unwrap_err();
        assert_eq!(
            error.to_string(),
            "postgres was not found: install it with `apt-get install postgresql`, or put it on the PATH"
        );
        install(elsewhere.path());
        assert_eq!(
            PostgresPrograms::find_in(root.path(), &path)
                .unwrap()
                .folder,
            elsewhere.path()
        );
        install(&root.path().join("9/bin"));
        install(&root.path().join("15/bin"));
        std::fs::create_dir_all(root.path().join("17/bin")).unwrap();
        assert_eq!(
            PostgresPrograms::find_in(root.path(), &path)
                .unwrap()
                .folder,
            root.path().join("15/bin")
        );
    }
}
