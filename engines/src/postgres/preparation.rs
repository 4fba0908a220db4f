//! What a superuser does once on a server whose administrator, as we know it, is none.
//!
//! Event triggers and rights on the catalog's own objects take a superuser, and databases inherit both from the template that
//! they are made of. So there is a template for each use, with all that a database of that use has from the beginning.

use super::harden::{self, PLATFORM, PLATFORM_ROLE};
use super::rights::SETTINGS;
use super::{apply, identifier, literal, track};
use crate::DatabaseUse;

/// What the templates say of themselves. Another number: they have to be made anew.
pub(super) const VERSION: &str = "tenantsdb preparation 1";

/// All uses.
const USES: [DatabaseUse; 3] = [
    DatabaseUse::Tenant,
    DatabaseUse::TenantWorkspace,
    DatabaseUse::ControlWorkspace,
];

/// The name of the template for a use. No client's database can have it: their names are in two parts.
pub(super) const fn template(usage: DatabaseUse) -> &'static str {
    match usage {
        DatabaseUse::Tenant => "tenantsdb_template_tenant",
        DatabaseUse::TenantWorkspace => "tenantsdb_template_workspace",
        DatabaseUse::ControlWorkspace => "tenantsdb_template_control",
    }
}

/// The names of all templates.
pub(super) fn templates() -> Vec<&'static str> {
    USES.into_iter().map(template).collect()
}

/// The statements, for `psql`, that make `user` an administrator without a superuser's rights. They may run again.
pub fn preparation(user: &str) -> String {
    let user = identifier(user);
    let platform = literal(PLATFORM_ROLE);
    let settings = SETTINGS.map(|(name, _)| name).join(", ");
    let mut text = format!(
        "-- For psql, as a superuser, on the server. Made by `tenantsdb prepare`; may run again.\n\
         \\set ON_ERROR_STOP on\n\
         SET client_min_messages = warning;\n\
         DO $$ BEGIN\n    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {platform}) THEN\n        \
             CREATE ROLE {PLATFORM_ROLE} NOLOGIN NOINHERIT;\n    END IF;\nEND $$;\n\
         ALTER ROLE {user} CREATEDB CREATEROLE;\n\
         GRANT {PLATFORM_ROLE}, pg_signal_backend TO {user};\n\
         GRANT SET ON PARAMETER {settings} TO {user};\n\
         REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;\n\
         GRANT CONNECT, TEMPORARY ON DATABASE postgres TO {user};\n"
    );
    for usage in USES {
        text.push_str(&make_template(usage));
    }
    text
}

fn make_template(usage: DatabaseUse) -> String {
    let name = template(usage);
    format!(
        "UPDATE pg_database SET datistemplate = false WHERE datname = {quoted};\n\
         DROP DATABASE IF EXISTS {name};\n\
         CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8';\n\
         REVOKE ALL ON DATABASE {name} FROM PUBLIC;\n\
         \\connect {name}\n\
         SET client_min_messages = warning;\n\
         {inside}\n\
         COMMENT ON DATABASE {name} IS {version};\n\
         \\connect postgres\n\
         SET client_min_messages = warning;\n\
         ALTER DATABASE {name} WITH IS_TEMPLATE true ALLOW_CONNECTIONS false;\n",
        quoted = literal(name),
        inside = inside(usage),
        version = literal(VERSION),
    )
}

/// As in a database of that use, but that there is nobody yet whom it belongs to; and the platform's role, which the
/// administrator is a member of, owns what has to be finished in each.
fn inside(usage: DatabaseUse) -> String {
    let with_grant = format!("{PLATFORM_ROLE} WITH GRANT OPTION");
    let mut text = harden::platform();
    text.push_str(&harden::catalog(&with_grant));
    text.push_str(&match usage {
        DatabaseUse::Tenant => apply::setup(PLATFORM_ROLE) + &harden::tenant_guard(PLATFORM_ROLE),
        DatabaseUse::TenantWorkspace => track::setup() + &harden::workspace_guard(),
        DatabaseUse::ControlWorkspace => harden::workspace_guard(),
    });
    text + &format!(
        "DO $$
         DECLARE name text;
         BEGIN
             FOR name IN SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = '{PLATFORM}'::regnamespace
             LOOP EXECUTE 'ALTER FUNCTION ' || name || ' OWNER TO {PLATFORM_ROLE}'; END LOOP;
         END $$;
         ALTER SCHEMA {PLATFORM} OWNER TO {PLATFORM_ROLE};"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        let text = preparation("o\"brien");
        assert!(text.contains("ALTER ROLE \"o\"\"brien\" CREATEDB CREATEROLE;"));
        for name in templates() {
            assert!(text.contains(&format!("\\connect {name}\n")), "{name}");
        }
    }
}
