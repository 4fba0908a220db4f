//! Making and removing databases and their roles.

use control_store::snapshot::{NativeRole, NativeRoles};
use tokio_postgres::Client;

use super::connect::{administrator, code, error, run};
use super::harden::{self, PLATFORM_ROLE};
use super::preparation::template;
use super::rights::Rights;
use super::{apply, identifier, literal, owner_of, scram, track};
use crate::{DatabaseSpec, DatabaseUse, EngineError, ServerAccess};

const DEPENDENT_OBJECTS: &str = "2BP01";
const DUPLICATE_OBJECT: &str = "42710";
const UNIQUE_VIOLATION: &str = "23505";

/// Takes what a server shows everybody, once for all of its databases. Databases are made from templates that nobody
/// can enter; so only the platform enters those that come with a server. On a server that we have not made they are not ours
/// to close: [`super::check`] looks.
async fn prepare_server(
    server: &ServerAccess,
    postgres: &Client,
    rights: Rights,
) -> Result<(), EngineError> {
    if server.login.is_some() {
        return make_platform_role(postgres, rights).await;
    }
    let prepared = postgres
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)
                AND NOT EXISTS (SELECT FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
                    WHERE d.datname IN ('postgres', 'template1') AND a.grantee = 0)",
            &[&PLATFORM_ROLE],
        )
        .await
        .map_err(|it| error(&it))?;
    if prepared.get(0) {
        return Ok(());
    }
    // Several databases may be the first at the same time.
    run(postgres, "SELECT pg_advisory_lock(1)").await?;
    make_role(postgres, PLATFORM_ROLE, "NOLOGIN", rights).await?;
    run(
        postgres,
        "REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC",
    )
    .await?;
    run(postgres, "SELECT pg_advisory_unlock(1)").await
}

/// Makes the platform's role, unless it is there: then it may be a superuser's.
async fn make_platform_role(postgres: &Client, rights: Rights) -> Result<(), EngineError> {
    let there = "SELECT pg_has_role(oid, 'USAGE') FROM pg_roles WHERE rolname = $1";
    let member = postgres
        .query_opt(there, &[&PLATFORM_ROLE])
        .await
        .map_err(|it| error(&it))?;
    if member.is_none() {
        make_role(postgres, PLATFORM_ROLE, "NOLOGIN", rights).await?;
    }
    if member.is_some_and(|row| row.get(0)) {
        return Ok(());
    }
    rights.join(postgres, PLATFORM_ROLE).await
}

/// Makes the roles and the database, or what is missing of them.
pub(super) async fn create(
    server: &ServerAccess,
    spec: &DatabaseSpec<'_>,
) -> Result<(), EngineError> {
    let postgres = administrator(server, "postgres").await?;
    let rights = Rights::of(&postgres).await?;
    let place = place(&postgres, spec.name, spec.roles).await?;
    if place == Place::Foreign {
        return Err(EngineError::NotOurs(spec.name.to_owned()));
    }
    prepare_server(server, &postgres, rights).await?;
    for role in logins(spec.roles) {
        make_login(&postgres, role, rights).await?;
    }
    if spec.usage == DatabaseUse::Tenant {
        make_role(&postgres, &owner_of(spec.roles), "NOLOGIN", rights).await?;
    }
    take_memberships(&postgres, spec.roles).await?;
    if place == Place::Free {
        make_database(&postgres, spec, rights).await?;
    }
    run(&postgres, &database_grants(spec, rights)).await?;
    let inside = administrator(server, spec.name).await?;
    let maker = maker(spec);
    rights.join(&postgres, &maker).await?;
    let filled = run(&inside, &inside_statements(spec, rights)).await;
    rights.leave(&postgres, &maker).await.and(filled)
}

/// Makes an empty database, which nobody can enter yet.
async fn make_database(
    postgres: &Client,
    spec: &DatabaseSpec<'_>,
    rights: Rights,
) -> Result<(), EngineError> {
    let prepared = template(spec.usage);
    let template = match rights.superuser {
        true => None,
        false => postgres
            .query_opt("SELECT FROM pg_database WHERE datname = $1", &[&prepared])
            .await
            .map_err(|it| error(&it))?,
    };
    let statement = format!(
        "CREATE DATABASE {} TEMPLATE {} ENCODING 'UTF8' ALLOW_CONNECTIONS false",
        identifier(spec.name),
        template.map_or("template0", |_| prepared),
    );
    run(postgres, &statement).await
}

/// Whose a name on a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// There is no database of that name.
    Free,
    /// The database of these roles.
    Ours,
    /// Somebody else's.
    Foreign,
}

/// A database is ours where one of its roles may do something with it, or while nobody may enter it yet.
async fn place(postgres: &Client, name: &str, roles: &NativeRoles) -> Result<Place, EngineError> {
    let found = postgres
        .query_opt(
            "SELECT (NOT d.datallowconn AND d.datdba = current_user::regrole) OR EXISTS (
                 SELECT FROM aclexplode(d.datacl) a JOIN pg_roles r ON r.oid = a.grantee WHERE r.rolname = $2)
             FROM pg_database d WHERE d.datname = $1",
            &[&name, &&*roles.admin.name],
        )
        .await
        .map_err(|it| error(&it))?;
    Ok(match found.map(|row| row.get(0)) {
        None => Place::Free,
        Some(true) => Place::Ours,
        Some(false) => Place::Foreign,
    })
}

fn inside_statements(spec: &DatabaseSpec<'_>, rights: Rights) -> String {
    let mut text = harden::platform();
    text.push_str(&if rights.superuser {
        harden::catalog(&writers(spec))
    } else {
        harden::large_objects(&writers(spec))
    });
    match spec.usage {
        DatabaseUse::Tenant => {
            let owner = owner_of(spec.roles);
            text.push_str(&apply::setup(&owner));
            text.push_str(&harden::tenant_guard(&owner));
        }
        DatabaseUse::TenantWorkspace => {
            text.push_str(&track::setup());
            text.push_str(&harden::workspace_guard());
        }
        DatabaseUse::ControlWorkspace => text.push_str(&harden::workspace_guard()),
    }
    text.push_str(&schema_grants(spec));
    text
}

/// Takes back what statements of a deployment may have handed out: membership in the owner, and the right to create. The
/// roles get back their passwords and lose settings of their own.
pub(super) async fn reassert(
    postgres: &Client,
    inside: &Client,
    spec: &DatabaseSpec<'_>,
    rights: Rights,
) -> Result<(), EngineError> {
    for role in logins(spec.roles) {
        make_login(postgres, role, rights).await?;
    }
    take_memberships(postgres, spec.roles).await?;
    let owner = literal(&maker(spec));
    let strays = format!(
        "DO $$
         DECLARE name text; grantee text;
         BEGIN
             FOR name, grantee IN
                 SELECT n.oid::regnamespace, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
                 FROM pg_namespace n, aclexplode(n.nspacl) a
                 WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', '_tenantsdb')
                     AND a.privilege_type = 'CREATE' AND a.grantee <> {owner}::regrole AND a.grantee <> n.nspowner
             LOOP EXECUTE 'REVOKE CREATE ON SCHEMA ' || name || ' FROM ' || grantee || ' CASCADE'; END LOOP;
         END $$;"
    );
    run(inside, &(strays + &schema_grants(spec))).await
}

/// Nobody is a member of our roles, but for an administrator who made them and is no superuser; nor are they of any other.
async fn take_memberships(postgres: &Client, roles: &NativeRoles) -> Result<(), EngineError> {
    let owner = owner_of(roles);
    let mut names: Vec<&str> = logins(roles).map(|role| &*role.name).to_vec();
    names.push(&owner);
    let found = postgres
        .query(
            "SELECT roleid::regrole::text, member::regrole::text FROM pg_auth_members
             WHERE (roleid IN (SELECT oid FROM pg_roles WHERE rolname = ANY ($1))
                 OR member IN (SELECT oid FROM pg_roles WHERE rolname = ANY ($1))) AND member <> current_user::regrole",
            &[&names],
        )
        .await
        .map_err(|it| error(&it))?;
    for row in found {
        let (role, member): (String, String) = (row.get(0), row.get(1));
        run(postgres, &format!("REVOKE {role} FROM {member}")).await?;
    }
    Ok(())
}

/// Removes the database and its roles.
pub(super) async fn remove(
    server: &ServerAccess,
    name: &str,
    roles: &NativeRoles,
) -> Result<(), EngineError> {
    let postgres = administrator(server, "postgres").await?;
    if place(&postgres, name, roles).await? == Place::Ours {
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(name));
        run(&postgres, &statement).await?;
    }
    let owner = owner_of(roles);
    let names = logins(roles).map(|role| &*role.name);
    for role in names.into_iter().chain([owner.as_str()]) {
        drop_role(server, &postgres, role).await?;
    }
    Ok(())
}

/// Drops a role. Anybody may grant something of their own to any role, whose name is all it takes: such grants in other
/// databases go first.
async fn drop_role(
    server: &ServerAccess,
    postgres: &Client,
    role: &str,
) -> Result<(), EngineError> {
    let statement = format!("DROP ROLE IF EXISTS {}", identifier(role));
    let refused = match run(postgres, &statement).await {
        Ok(()) => return Ok(()),
        Err(refused) => refused,
    };
    if code(&refused) != Some(DEPENDENT_OBJECTS) {
        return Err(refused);
    }
    let databases = postgres
        .query(
            "SELECT DISTINCT d.datname FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid
             WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = $1::text::regrole",
            &[&identifier(role)],
        )
        .await
        .map_err(|it| error(&it))?;
    for row in databases {
        drop_grants(server, postgres, row.get(0), role).await?;
    }
    run(postgres, &statement).await
}

/// Takes back what a role was given in somebody's database. That takes as much as to have given it, which all may have done who
/// may enter.
async fn drop_grants(
    server: &ServerAccess,
    postgres: &Client,
    database: &str,
    role: &str,
) -> Result<(), EngineError> {
    let rights = Rights::of(postgres).await?;
    let givers = postgres
        .query(
            "SELECT DISTINCT r.rolname::text FROM pg_database d, aclexplode(d.datacl) a JOIN pg_roles r ON r.oid = a.grantee
             WHERE d.datname = $1 AND a.grantee <> d.datdba",
            &[&database],
        )
        .await
        .map_err(|it| error(&it))?;
    let mut members: Vec<&str> = givers.iter().map(|row| row.get(0)).collect();
    members.push(role);
    for member in &members {
        rights.join(postgres, member).await?;
    }
    let inside = administrator(server, database).await?;
    let dropped = run(&inside, &format!("DROP OWNED BY {}", identifier(role))).await;
    for member in members {
        rights.leave(postgres, member).await?;
    }
    dropped
}

/// Lets nobody in, and ends the sessions that are open; or lets them in again. Rows stay as they are.
pub(super) async fn set_open(
    server: &ServerAccess,
    name: &str,
    open: bool,
) -> Result<(), EngineError> {
    let postgres = administrator(server, "postgres").await?;
    let statement = format!(
        "ALTER DATABASE {} ALLOW_CONNECTIONS {open}",
        identifier(name)
    );
    run(&postgres, &statement).await?;
    if open {
        return Ok(());
    }
    postgres
        .execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid
             WHERE datname = $1 AND (NOT r.rolsuper OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user))",
            &[&name],
        )
        .await
        .map_err(|it| error(&it))?;
    Ok(())
}

/// Bytes on disk.
pub(super) async fn size(server: &ServerAccess, name: &str) -> Result<u64, EngineError> {
    let postgres = administrator(server, "postgres").await?;
    let row = postgres
        .query_one("SELECT pg_database_size($1::text::name)", &[&name])
        .await
        .map_err(|it| error(&it))?;
    let bytes: i64 = row.get(0);
    Ok(bytes.unsigned_abs())
}

fn logins(roles: &NativeRoles) -> [&NativeRole; 3] {
    [&roles.admin, &roles.write, &roles.read]
}

async fn make_login(
    postgres: &Client,
    role: &NativeRole,
    rights: Rights,
) -> Result<(), EngineError> {
    let verifier = scram::verifier(&role.scram);
    let options = format!("LOGIN PASSWORD {}", literal(&verifier));
    make_role(postgres, &role.name, &options, rights).await
}

/// Makes a role, or makes it again what it was: a role may change its own password and settings.
async fn make_role(
    postgres: &Client,
    name: &str,
    options: &str,
    rights: Rights,
) -> Result<(), EngineError> {
    let role = identifier(name);
    // What none but a superuser may name, none but a superuser can have given to the role.
    let more = match rights.superuser {
        true => "NOSUPERUSER NOREPLICATION NOBYPASSRLS",
        false => "",
    };
    let attributes = format!("NOCREATEDB NOCREATEROLE NOINHERIT {more} {options}");
    // Asked first, since a server may log what it refuses, and this holds what the password is checked by.
    let there = postgres
        .query_opt("SELECT FROM pg_roles WHERE rolname = $1", &[&name])
        .await
        .map_err(|it| error(&it))?;
    if there.is_none() {
        match run(postgres, &format!("CREATE ROLE {role} {attributes}")).await {
            Err(refused) if matches!(code(&refused), Some(DUPLICATE_OBJECT | UNIQUE_VIOLATION)) => {
            }
            outcome => return outcome,
        }
    }
    let again = format!("ALTER ROLE {role} {attributes}; ALTER ROLE {role} RESET ALL");
    run(postgres, &again).await?;
    let databases = postgres
        .query(
            "SELECT d.datname FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
             WHERE s.setrole = $1::text::regrole",
            &[&role],
        )
        .await
        .map_err(|it| error(&it))?;
    for row in databases {
        let database = identifier(row.get(0));
        let reset = format!("ALTER ROLE {role} IN DATABASE {database} RESET ALL");
        run(postgres, &reset).await?;
    }
    Ok(())
}

/// The role that makes and owns what is in the database.
pub(super) fn maker(spec: &DatabaseSpec<'_>) -> String {
    match spec.usage {
        DatabaseUse::Tenant => owner_of(spec.roles),
        DatabaseUse::TenantWorkspace | DatabaseUse::ControlWorkspace => {
            spec.roles.admin.name.to_string()
        }
    }
}

/// The roles that may write, as identifiers.
fn writers(spec: &DatabaseSpec<'_>) -> String {
    let mut names = vec![maker(spec), spec.roles.write.name.to_string()];
    if spec.usage == DatabaseUse::Tenant {
        names.push(spec.roles.admin.name.to_string());
    }
    let names: Vec<_> = names.iter().map(|name| identifier(name)).collect();
    names.join(", ")
}

/// Who may enter. Nobody owns the database: its owner could rename or drop it. Large objects have no default privileges,
/// so in their place who may call what writes them decides. What sessions say (`RAISE LOG`) does not fill the server's log.
fn database_grants(spec: &DatabaseSpec<'_>, rights: Rights) -> String {
    let name = identifier(spec.name);
    let all = logins(spec.roles)
        .map(|role| identifier(&role.name))
        .join(", ");
    let maker = identifier(&maker(spec));
    let settings = rights
        .settings()
        .fold(String::new(), |text, (setting, value)| {
            text + &format!("ALTER DATABASE {name} SET {setting} = {value};")
        });
    format!(
        "REVOKE ALL ON DATABASE {name} FROM PUBLIC;
         GRANT CONNECT, TEMPORARY ON DATABASE {name} TO {all};
         GRANT CONNECT, TEMPORARY, CREATE ON DATABASE {name} TO {maker};
         {settings}
         ALTER DATABASE {name} ALLOW_CONNECTIONS true;"
    )
}

/// Who may do what with objects, present and future.
fn schema_grants(spec: &DatabaseSpec<'_>) -> String {
    let [admin, write, read] = logins(spec.roles).map(|role| identifier(&role.name));
    let owner = identifier(&maker(spec));
    let writers = match spec.usage {
        DatabaseUse::Tenant => format!("{admin}, {write}"),
        DatabaseUse::TenantWorkspace | DatabaseUse::ControlWorkspace => write.clone(),
    };
    let everybody = format!("{admin}, {write}, {read}");
    let defaults = format!("ALTER DEFAULT PRIVILEGES FOR ROLE {owner}");
    format!(
        "DO $$
         BEGIN
             -- The database's own users may have dropped or renamed it.
             IF to_regnamespace('public') IS NOT NULL THEN
                 ALTER SCHEMA public OWNER TO {owner};
                 REVOKE ALL ON SCHEMA public FROM PUBLIC;
                 GRANT USAGE ON SCHEMA public TO {everybody};
             END IF;
         END $$;
         {defaults} GRANT USAGE ON SCHEMAS TO {everybody};
         {defaults} GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLES TO {writers};
         {defaults} GRANT SELECT ON TABLES TO {read};
         {defaults} GRANT USAGE, SELECT, UPDATE ON SEQUENCES TO {writers};
         {defaults} GRANT SELECT ON SEQUENCES TO {read};
         {defaults} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
         {defaults} GRANT EXECUTE ON FUNCTIONS TO {everybody};"
    )
}
