//! Faults as Redis errors.
//!
//! The first word is the code that clients look at; it is Redis's own where Redis has one for the matter.

use control_store::Fault;

/// Whether the connection goes on after the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It does.
    Error,
    /// We close it.
    Fatal,
}

/// An error without its `-` and line end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisError {
    /// Whether the connection goes on.
    pub severity: Severity,
    /// `CODE sentence`.
    pub text: String,
}

impl RedisError {
    /// The first word.
    pub fn code(&self) -> &str {
        self.text.split(' ').next().unwrap_or("ERR")
    }
}

/// Translates a fault.
pub fn translate(fault: &Fault) -> RedisError {
    RedisError {
        severity: severity(fault),
        text: text(fault),
    }
}

/// A database that does not exist, one that the caller may not know of and a wrong password get the same sentence.
fn text(fault: &Fault) -> String {
    match fault {
        Fault::AuthFailed | Fault::UnknownDatabase => {
            "WRONGPASS invalid username-password pair or user is disabled.".into()
        }
        Fault::TlsRequired => "ERR TLS is required: connect with rediss://".into(),
        Fault::PermissionDenied => {
            "NOPERM this API key's role has no permissions to run this command".into()
        }
        Fault::ConnectionLimit { .. } | Fault::ProxyFull => {
            "ERR max number of clients reached".into()
        }
        Fault::DdlRefused => format!("NOPERM {fault}"),
        // Drivers know these two words, and try again.
        Fault::NotReady => format!("LOADING {fault}"),
        Fault::HoldTimeout => format!("TRYAGAIN {fault}"),
        Fault::QueryTimeout { limit_ms } => {
            format!("ERR script was stopped after {limit_ms} ms")
        }
        Fault::ProtocolViolation { what } => format!("ERR Protocol error: {what}"),
        Fault::Unsupported { what } => format!("NOPERM {what}"),
        Fault::Suspended
        | Fault::AddressBanned
        | Fault::PoolTimeout { .. }
        | Fault::BackendUnavailable
        | Fault::BackendLost
        | Fault::Cancelled
        | Fault::RowLimit { .. }
        | Fault::Terminated { .. }
        | Fault::Draining
        | Fault::Bug => format!("ERR {fault}"),
    }
}

/// Fatal is what leaves the connection in a state that nobody could describe to the client, or leaves nothing to ask.
const fn severity(fault: &Fault) -> Severity {
    match fault {
        Fault::ProtocolViolation { .. }
        | Fault::Terminated { .. }
        | Fault::Draining
        | Fault::Bug
        | Fault::TlsRequired
        | Fault::AddressBanned
        | Fault::ProxyFull
        | Fault::ConnectionLimit { .. } => Severity::Fatal,
        Fault::AuthFailed
        | Fault::UnknownDatabase
        | Fault::BackendLost
        | Fault::PermissionDenied
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

    #[track_caller]
    fn check(fault: &Fault, severity: Severity, text: &str) {
        let error = translate(fault);
        assert_eq!((error.severity, error.text.as_str()), (severity, text));
        assert!(
            !error.text.contains(['\r', '\n']),
            "an error is one line on the wire"
        );
    }

    #[test]
    fn logins_fail_without_a_hint_of_what_exists() {
        let text = "WRONGPASS invalid username-password pair or user is disabled.";
        check(&Fault::AuthFailed, Severity::Error, text);
        check(&Fault::UnknownDatabase, Severity::Error, text);
    }

    #[test]
    fn limits_have_the_sentences_of_the_contract() {
        let text = "ERR max number of clients reached";
        let limit = Fault::ConnectionLimit { limit: 100 };
        check(&limit, Severity::Fatal, text);
        assert_eq!(translate(&limit).code(), "ERR");
    }

    #[test]
    fn a_move_that_takes_too_long_asks_to_try_again() {
        let text =
            "TRYAGAIN database is moving to another server and did not become available in time";
        check(&Fault::HoldTimeout, Severity::Error, text);
    }
}
