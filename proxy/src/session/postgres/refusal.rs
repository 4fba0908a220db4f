//! An error of ours, ready to be sent.

use control_store::Fault;
use protocol_postgres::backend::{ErrorResponse, Severity, write};

use crate::faces::postgres::{self as face, Login, Stage};
use crate::metrics::ErrorClass;

/// An `ErrorResponse`, encoded, with what the log and the metrics need of it.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) message: Vec<u8>,
    pub(super) code: &'static str,
    pub(super) class: ErrorClass,
    /// The connection ends with it.
    pub(super) fatal: bool,
}

impl Refusal {
    pub(super) fn of(fault: &Fault, stage: Stage, login: Login<'_>) -> Self {
        let error = face::translate(fault, stage, login);
        let severity = match error.severity {
            face::Severity::Error => Severity::Error,
            face::Severity::Fatal => Severity::Fatal,
        };
        Self {
            message: encode(severity, error.code, &error.message),
            code: error.code,
            class: ErrorClass::from(fault),
            fatal: severity == Severity::Fatal,
        }
    }

    /// PostgreSQL's own error for a name that is taken.
    pub(super) fn duplicate_statement(name: &[u8]) -> Self {
        let name = String::from_utf8_lossy(name);
        let text = format!("prepared statement \"{name}\" already exists");
        Self {
            message: encode(Severity::Error, "42P05", &text),
            code: "42P05",
            class: ErrorClass::Statement,
            fatal: false,
        }
    }

    /// PostgreSQL's own error for a statement that is not there.
    pub(super) fn no_statement(name: &[u8]) -> Self {
        let text = if name.is_empty() {
            "unnamed prepared statement does not exist".to_owned()
        } else {
            let name = String::from_utf8_lossy(name);
            format!("prepared statement \"{name}\" does not exist")
        };
        Self {
            message: encode(Severity::Error, "26000", &text),
            code: "26000",
            class: ErrorClass::Statement,
            fatal: false,
        }
    }
}

pub(super) fn encode(severity: Severity, code: &str, message: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + message.len());
    let error = ErrorResponse {
        severity,
        code,
        message,
        detail: None,
        hint: None,
    };
    write::error_response(&mut out, &error);
    out
}
