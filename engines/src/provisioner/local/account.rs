//! The operating system's account that local servers run as.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::provisioner::ProvisionError;

/// Accounts that may run servers when we are root, best first.
const CANDIDATES: [&str; 3] = ["postgres", "tenantsdb", "nobody"];

/// Who runs the servers: ourselves, or somebody without privileges when we are root.
#[derive(Clone, Debug)]
pub(super) struct Account {
    /// Its name.
    pub(super) name: String,
    /// The account that this process runs as; it may log in as the servers' superuser.
    pub(super) own_name: String,
    /// Its user id.
    pub(super) uid: u32,
    /// Its group id.
    pub(super) gid: u32,
    /// Whether children have to change to it.
    switch: bool,
}

impl Account {
    /// Picks the account for servers that this process starts.
    pub(super) fn choose() -> Result<Self, ProvisionError> {
        let proc_self = Path::new("/proc/self");
        let own = std::fs::metadata(proc_self).map_err(ProvisionError::io("read", proc_self))?;
        let passwd = Path::new("/etc/passwd");
        let text = std::fs::read_to_string(passwd).map_err(ProvisionError::io("read", passwd))?;
        Self::choose_from(&text, own.uid(), own.gid()).ok_or(ProvisionError::NoAccount)
    }

    fn choose_from(passwd: &str, own_uid: u32, own_gid: u32) -> Option<Self> {
        let entries: Vec<_> = passwd.lines().filter_map(entry).collect();
        let own_name = entries.iter().find(|(_, uid, _)| *uid == own_uid);
        let own_name =
            own_name.map_or_else(|| own_uid.to_string(), |(name, ..)| (*name).to_owned());
        if own_uid != 0 {
            return Some(Self {
                name: own_name.clone(),
                own_name,
                uid: own_uid,
                gid: own_gid,
                switch: false,
            });
        }
        let by_name = |wanted: &&str| {
            entries
                .iter()
                .find(|(name, uid, _)| name == wanted && *uid != 0)
        };
        let (name, uid, gid) = CANDIDATES.iter().find_map(by_name)?;
        Some(Self {
            name: (*name).to_owned(),
            own_name,
            uid: *uid,
            gid: *gid,
            switch: true,
        })
    }

    /// Makes a child run as this account. The standard library then drops supplementary groups too.
    pub(super) fn apply(&self, command: &mut Command) {
        if self.switch {
            command.uid(self.uid).gid(self.gid);
        }
    }

    /// Hands a file or folder to this account.
    pub(super) fn own(&self, path: &Path) -> Result<(), ProvisionError> {
        if !self.switch {
            return Ok(());
        }
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .map_err(ProvisionError::io("change the owner of", path))
    }

    /// The first folder on the way to `path` that this account cannot enter.
    pub(super) fn blocked_at(&self, path: &Path) -> Option<PathBuf> {
        let mut ancestors: Vec<_> = path.ancestors().collect();
        ancestors.reverse();
        ancestors
            .into_iter()
            .find(|folder| !self.may_enter(folder))
            .map(Path::to_owned)
    }

    fn may_enter(&self, folder: &Path) -> bool {
        let Ok(metadata) = std::fs::metadata(folder) else {
            return false;
        };
        let search_bit = match () {
            () if metadata.uid() == self.uid => 0o100,
            () if metadata.gid() == self.gid => 0o010,
            () => 0o001,
        };
        metadata.mode() & search_bit != 0
    }
}

/// Name, user id and group id of one line of `/etc/passwd`.
fn entry(line: &str) -> Option<(&str, u32, u32)> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some((name, uid, gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/:/bin/false\n\
        broken line\npostgres:x:101:104:,,,:/var/lib/postgresql:/bin/bash\nann:x:1000:1000::/home/ann:/bin/sh\n";

    fn check(passwd: &str, own_uid: u32, expected: Option<(&str, &str, u32, bool)>) {
        let account = Account::choose_from(passwd, own_uid, own_uid);
        let found = account
            .as_ref()
            .map(|it| (it.name.as_str(), it.own_name.as_str(), it.uid, it.switch));
        assert_eq!(found, expected);
    }

    #[test]
    fn root_never_runs_servers() {
        check(PASSWD, 0, Some(("postgres", "root", 101, true)));
        check(
            &PASSWD.replace("postgres:", "other:"),
            0,
            Some(("nobody", "root", 65534, true)),
        );
        check(
            "root:x:0:0:root:/root:/bin/bash\npostgres:x:0:0::/:/bin/sh",
            0,
            None,
        );
    }

    #[test]
    fn others_run_servers_themselves() {
        check(PASSWD, 1000, Some(("ann", "ann", 1000, false)));
        check(PASSWD, 77, Some(("77", "77", 77, false)));
    }
}
