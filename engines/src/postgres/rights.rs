//! What an administrator who is no superuser may do, and how it gets along with that.

use tokio_postgres::Client;

use super::connect::{error, run};
use super::identifier;
use crate::EngineError;

/// What a database is set to that takes a superuser, or the right to set just that: large objects are everybody's there, whoever
/// made them, and what sessions say stays out of the server's log.
pub(super) const SETTINGS: [(&str, &str); 2] = [
    ("lo_compat_privileges", "on"),
    ("log_min_messages", "fatal"),
];

/// What the administrator may do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rights {
    /// Everything.
    pub(super) superuser: bool,
    /// Which of [`SETTINGS`].
    may_set: [bool; SETTINGS.len()],
}

impl Rights {
    /// Asks the server.
    pub(super) async fn of(client: &Client) -> Result<Self, EngineError> {
        let asked = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user";
        let superuser = is(client, asked).await?;
        let mut may_set = [superuser; SETTINGS.len()];
        // The function is younger than some servers that we run as their superuser.
        if !superuser {
            for (may, (name, _)) in may_set.iter_mut().zip(SETTINGS) {
                let asked = format!("SELECT has_parameter_privilege('{name}', 'SET')");
                *may = is(client, &asked).await?;
            }
        }
        Ok(Self { superuser, may_set })
    }

    /// What a database is to be set to, as far as the administrator may.
    pub(super) fn settings(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let all = SETTINGS.into_iter().zip(self.may_set);
        all.filter_map(|(setting, may)| may.then_some(setting))
    }

    /// Has the administrator act for a role, as a superuser does anyway, until [`Rights::leave`]. It never does for long: a
    /// server looks through all that a user is a member of.
    pub(super) async fn join(self, postgres: &Client, role: &str) -> Result<(), EngineError> {
        if self.superuser {
            return Ok(());
        }
        let statement = format!("GRANT {} TO CURRENT_USER", identifier(role));
        run(postgres, &statement).await
    }

    /// The end of [`Rights::join`].
    pub(super) async fn leave(self, postgres: &Client, role: &str) -> Result<(), EngineError> {
        if self.superuser {
            return Ok(());
        }
        let statement = format!("REVOKE {} FROM CURRENT_USER", identifier(role));
        run(postgres, &statement).await
    }
}

async fn is(client: &Client, asked: &str) -> Result<bool, EngineError> {
    let row = client
        .query_one(asked, &[])
        .await
        .map_err(|it| error(&it))?;
    Ok(row.get(0))
}
