//! The values that labels take. All are known beforehand, so the number of series is bounded.

use control_store::{Engine, Fault};

/// A closed set of label values.
pub trait Label: Copy + 'static {
    /// All of them, in the order of [`Label::index`].
    const ALL: &'static [Self];

    /// The place in [`Label::ALL`].
    fn index(self) -> usize;

    /// As it stands in the label.
    fn name(self) -> &'static str;
}

impl Label for Engine {
    const ALL: &'static [Self] = &Engine::ALL;

    fn index(self) -> usize {
        self as usize
    }

    fn name(self) -> &'static str {
        self.lower_name()
    }
}

macro_rules! labels {
    ($(#[$doc:meta])* $label:ident { $($(#[$value_doc:meta])* $value:ident = $name:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $label {
            $($(#[$value_doc])* $value,)+
        }

        impl Label for $label {
            const ALL: &'static [Self] = &[$(Self::$value,)+];

            fn index(self) -> usize {
                self as usize
            }

            fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $name,)+
                }
            }
        }
    };
}

labels!(
    /// Why a statement or a connection failed.
    ErrorClass {
        /// The database server refused the statement.
        Statement = "statement",
        /// A login, a role or a rule of the product forbids it.
        Denied = "denied",
        /// A limit of the database's settings, or of this proxy.
        Limit = "limit",
        /// The statement was cancelled after its time.
        Timeout = "timeout",
        /// No backend connection became free, or the gate stayed shut.
        Wait = "wait",
        /// The server could not be reached, or the connection broke.
        Backend = "backend",
        /// The client broke the protocol, or asked for what is not supported.
        Protocol = "protocol",
        /// The connection was ended by an administrator, or the proxy is stopping.
        Shutdown = "shutdown",
        /// A defect of ours.
        Internal = "internal",
    }
);

impl From<&Fault> for ErrorClass {
    fn from(fault: &Fault) -> Self {
        match fault {
            Fault::AuthFailed
            | Fault::UnknownDatabase
            | Fault::PermissionDenied
            | Fault::TlsRequired
            | Fault::DdlRefused
            | Fault::Suspended
            | Fault::AddressBanned => Self::Denied,
            Fault::ConnectionLimit { .. } | Fault::RowLimit { .. } | Fault::ProxyFull => {
                Self::Limit
            }
            Fault::QueryTimeout { .. } => Self::Timeout,
            Fault::Cancelled => Self::Statement,
            Fault::PoolTimeout { .. } | Fault::HoldTimeout => Self::Wait,
            Fault::NotReady | Fault::BackendUnavailable | Fault::BackendLost => Self::Backend,
            Fault::ProtocolViolation { .. } | Fault::Unsupported { .. } => Self::Protocol,
            Fault::Terminated { .. } | Fault::Draining => Self::Shutdown,
            Fault::Bug => Self::Internal,
        }
    }
}

labels!(
    /// Why a session keeps its backend between transactions.
    PinReason {
        /// The database asks for session pooling.
        SessionPooling = "session_pooling",
        /// `MULTI`, or a watched key.
        Transaction = "transaction",
        /// `LISTEN`, or a Redis or MongoDB subscription.
        Listen = "listen",
        /// A temporary table, view or sequence.
        TemporaryObject = "temporary_object",
        /// An advisory or user-level lock held by the session.
        SessionLock = "session_lock",
        /// A cursor that outlives its transaction.
        Cursor = "cursor",
        /// A setting or user variable that cannot be replayed.
        SessionState = "session_state",
        /// SQL-level `PREPARE` or a loaded library.
        Prepared = "prepared",
        /// Anything else that cannot be carried.
        Other = "other",
    }
);

labels!(
    /// The two ends of a proxied connection.
    Side {
        /// The application.
        Client = "client",
        /// The database server.
        Backend = "backend",
    }
);

labels!(
    /// How a TLS handshake ended.
    Handshake {
        /// TLS 1.2, all of it.
        Tls12Full = "1.2",
        /// TLS 1.2, from a session that was known.
        Tls12Resumed = "1.2 resumed",
        /// TLS 1.3, all of it.
        Tls13Full = "1.3",
        /// TLS 1.3, from a ticket.
        Tls13Resumed = "1.3 resumed",
        /// It failed.
        Failed = "failed",
    }
);
