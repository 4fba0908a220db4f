//! What the names of a database's functions begin with on a server that it shares.

use aws_lc_rs::hmac;

use crate::snapshot::{NativeRoles, RedisDatabase};

/// What the names of a database's functions and libraries begin with on its server, where all databases' are in one space; empty where
/// the server is the database's own. It is made of a secret of the database's that it keeps wherever it goes, so that nobody else can
/// take a name in it, or call what has one.
pub fn function_namespace(roles: &NativeRoles, place: &RedisDatabase) -> String {
    /// Bytes: nobody guesses so many.
    const LEN: usize = 16;
    if place.prefix.is_empty() {
        return String::new();
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, roles.admin.password.as_bytes());
    let mut message = b"redis functions of ".to_vec();
    message.extend_from_slice(&place.prefix);
    let tag = hmac::sign(&key, &message);
    let digits = tag.as_ref().iter().take(LEN);
    let digits: String = digits.map(|byte| format!("{byte:02x}")).collect();
    format!("t{digits}_")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::snapshot::{NativeRole, RedisKeySettings, ScramKeys};

    fn roles(password: &str) -> NativeRoles {
        let role = |password: &str| {
            Arc::new(NativeRole {
                name: "r".into(),
                password: password.into(),
                scram: ScramKeys::default(),
            })
        };
        NativeRoles {
            admin: role(password),
            write: role("w"),
            read: role("r"),
        }
    }

    fn place(number: u32, prefix: &str) -> RedisDatabase {
        RedisDatabase {
            number,
            prefix: prefix.as_bytes().into(),
            settings: RedisKeySettings::default(),
        }
    }

    #[test]
    fn a_namespace_is_the_databases_own_wherever_it_is() {
        let one = function_namespace(&roles("a"), &place(1, "1:"));
        assert_eq!(one.len(), 34);
        assert!(
            one.bytes()
                .all(|it| it.is_ascii_alphanumeric() || it == b'_')
        );
        assert_eq!(one, function_namespace(&roles("a"), &place(7, "1:")));
        assert_ne!(one, function_namespace(&roles("b"), &place(1, "1:")));
        assert_ne!(one, function_namespace(&roles("a"), &place(1, "2:")));
        assert_eq!(function_namespace(&roles("a"), &place(0, "")), "");
    }
}
