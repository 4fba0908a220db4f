//! Faults as PostgreSQL errors.
//!
//! SQLSTATEs are those of PostgreSQL 15, appendix A, chosen so that drivers and their retry logic act as they would on a server.

use control_store::Fault;

/// When a client is told, which decides whether its connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Before the first `ReadyForQuery`: every fault ends the connection.
    Login,
    /// After it: a fault of one statement leaves the connection as it is.
    Session,
}

/// Whether the connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It does.
    Error,
    /// We close it after this error.
    Fatal,
}

impl Severity {
    /// As in the `S` and `V` fields.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }
}

/// What the client said of itself in its `StartupMessage`, which the server's sentences repeat.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    /// `user`.
    pub user: &'a str,
    /// `database`.
    pub database: &'a str,
}

/// What an `ErrorResponse` needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresError {
    /// Whether the connection goes on.
    pub severity: Severity,
    /// SQLSTATE, five characters.
    pub code: &'static str,
    /// The sentence.
    pub message: String,
}

/// Translates a fault.
pub fn translate(fault: &Fault, stage: Stage, login: Login<'_>) -> PostgresError {
    let severity = match stage {
        Stage::Login => Severity::Fatal,
        Stage::Session => session_severity(fault),
    };
    PostgresError {
        severity,
        code: sqlstate(fault),
        message: message(fault, login),
    }
}

/// A database that does not exist and one that the caller may not know of get the same sentence.
fn message(fault: &Fault, login: Login<'_>) -> String {
    match fault {
        Fault::AuthFailed => format!("password authentication failed for user \"{}\"", login.user),
        Fault::UnknownDatabase => format!("database \"{}\" does not exist", login.database),
        other => other.to_string(),
    }
}

const fn sqlstate(fault: &Fault) -> &'static str {
    match fault {
        Fault::AuthFailed => "28P01",
        Fault::TlsRequired => "28000",
        Fault::UnknownDatabase => "3D000",
        Fault::PermissionDenied | Fault::DdlRefused => "42501",
        Fault::ConnectionLimit { .. } | Fault::ProxyFull | Fault::PoolTimeout { .. } => "53300",
        Fault::AddressBanned => "53400",
        Fault::RowLimit { .. } => "54000",
        Fault::QueryTimeout { .. } | Fault::Cancelled => "57014",
        Fault::Terminated { .. } | Fault::Draining => "57P01",
        Fault::Suspended | Fault::NotReady | Fault::HoldTimeout | Fault::BackendUnavailable => {
            "57P03"
        }
        Fault::BackendLost => "08006",
        Fault::ProtocolViolation { .. } => "08P01",
        Fault::Unsupported { .. } => "0A000",
        Fault::Bug => "XX000",
    }
}

/// Fatal is what leaves the connection in a state that nobody could describe to the client.
const fn session_severity(fault: &Fault) -> Severity {
    match fault {
        Fault::BackendLost
        | Fault::ProtocolViolation { .. }
        | Fault::Terminated { .. }
        | Fault::Draining
        | Fault::Bug
        | Fault::AuthFailed
        | Fault::TlsRequired
        | Fault::AddressBanned
        | Fault::ProxyFull
        | Fault::ConnectionLimit { .. }
        | Fault::UnknownDatabase => Severity::Fatal,
        Fault::PermissionDenied
        | Fault::DdlRefused
        | Fault::Suspended
        | Fault::NotReady
        | Fault::PoolTimeout { .. }
        | Fault::HoldTimeout
        | Fault::BackendUnavailable
        | Fault::QueryTimeout { .. }
        | Fault::Cancelled
        | Fault::RowLimit { .. }
        | Fault::Unsupported { .. } => Severity::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGIN: Login<'_> = Login {
        user: "tdb_2abf90d3",
        database: "shop__acme",
    };

    #[track_caller]
    fn check(fault: &Fault, severity: Severity, code: &str, message: &str) {
        let error = translate(fault, Stage::Session, LOGIN);
        assert_eq!(
            (error.severity, error.code, error.message.as_str()),
            (severity, code, message)
        );
        let at_login = translate(fault, Stage::Login, LOGIN);
        assert_eq!(
            at_login.severity,
            Severity::Fatal,
            "a login either succeeds or ends"
        );
        assert_eq!(
            (at_login.code, at_login.message),
            (error.code, error.message)
        );
    }

    #[test]
    fn logins_fail_with_the_servers_own_sentences() {
        check(
            &Fault::AuthFailed,
            Severity::Fatal,
            "28P01",
            "password authentication failed for user \"tdb_2abf90d3\"",
        );
        check(
            &Fault::UnknownDatabase,
            Severity::Fatal,
            "3D000",
            "database \"shop__acme\" does not exist",
        );
    }

    #[test]
    fn refused_ddl_has_the_references_sentence_and_leaves_the_connection() {
        let sentence = "DDL not allowed on tenant databases. Deploy schema through blueprints.";
        check(&Fault::DdlRefused, Severity::Error, "42501", sentence);
    }

    #[test]
    fn limits_have_the_codes_of_the_contract() {
        let timeout = Fault::QueryTimeout { limit_ms: 30_000 };
        let text = "canceling statement due to statement timeout (query_timeout_ms is 30000)";
        check(&timeout, Severity::Error, "57014", text);
        let rows = Fault::RowLimit { limit: 10_000 };
        check(
            &rows,
            Severity::Error,
            "54000",
            "statement returned more than 10000 rows (max_rows_per_query)",
        );
        let connections = Fault::ConnectionLimit { limit: 100 };
        let text = "too many connections for this database (max_connections is 100)";
        check(&connections, Severity::Fatal, "53300", text);
    }

    #[test]
    fn a_suspended_tenant_is_told_how_to_come_back() {
        let text = "tenant is suspended: resume it with POST /tenants/{id}/resume";
        check(&Fault::Suspended, Severity::Error, "57P03", text);
    }

    #[test]
    fn a_stopping_proxy_ends_the_connection_as_a_stopping_server_does() {
        check(
            &Fault::Draining,
            Severity::Fatal,
            "57P01",
            "terminating connection due to administrator command",
        );
    }
}
