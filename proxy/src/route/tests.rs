use std::path::PathBuf;
use std::sync::Arc;

use control_store::ids::Role;
use control_store::snapshot::{
    Database, DatabaseKind, DatabaseName, DatabaseStatus, Key, NativeRole, NativeRoles, PoolMode,
    Scope, ScramKeys, Server, ServerAddress, Settings, Snapshot,
};
use control_store::{
    BlueprintName, DatabaseId, Engine, Fault, KeyId, ProjectId, ServerId, TenantId,
};

use super::{DdlPolicy, Route, find, renew};

fn role(name: &str) -> Arc<NativeRole> {
    let scram = ScramKeys {
        salt: [0; 16],
        iterations: 4096,
        client_key: [0; 32],
        server_key: [0; 32],
    };
    Arc::new(NativeRole {
        name: name.into(),
        password: "".into(),
        scram,
    })
}

fn database(
    id: u64,
    project: &str,
    name: &str,
    kind: DatabaseKind,
    status: DatabaseStatus,
) -> Database {
    let native_roles = NativeRoles {
        admin: role("a"),
        write: role("w"),
        read: role("r"),
    };
    Database {
        id: DatabaseId(id),
        project: ProjectId::new(project),
        engine: Engine::Postgres,
        name: name.into(),
        blueprint: BlueprintName::new(
            name.split_once("__")
                .map_or("shop", |(blueprint, _)| blueprint),
        ),
        kind,
        server: ServerId(1),
        status,
        native_roles,
        settings: Settings::default(),
        pool_mode: PoolMode::Transaction,
        schema_epoch: 0,
        redis: None,
    }
}

fn tenant(name: &str) -> DatabaseKind {
    DatabaseKind::Tenant {
        tenant: TenantId::new(name),
    }
}

fn snapshot() -> Snapshot {
    let mut snapshot = Snapshot::default();
    let server = Server {
        id: ServerId(1),
        engine: Engine::Postgres,
        address: ServerAddress::Unix(PathBuf::from("/run/.s.PGSQL.5432")),
        connection_budget: 10,
        region: "eu-central".into(),
        redis_select: None,
    };
    snapshot.servers.insert(server.id, Arc::new(server));
    for database in [
        database(
            1,
            "tdb_a",
            "shop__acme",
            tenant("acme"),
            DatabaseStatus::Ready,
        ),
        database(
            2,
            "tdb_a",
            "shop__globex",
            tenant("globex"),
            DatabaseStatus::Suspended,
        ),
        database(
            3,
            "tdb_a",
            "shop__gone",
            tenant("gone"),
            DatabaseStatus::Deleted,
        ),
        database(
            4,
            "tdb_a",
            "shop_workspace",
            DatabaseKind::TenantWorkspace,
            DatabaseStatus::Ready,
        ),
        database(
            5,
            "tdb_b",
            "shop__acme",
            tenant("acme"),
            DatabaseStatus::Ready,
        ),
        database(
            6,
            "tdb_b",
            "crm__acme",
            tenant("acme"),
            DatabaseStatus::NotReady,
        ),
    ] {
        let name = DatabaseName {
            project: database.project.clone(),
            engine: database.engine,
            name: database.name.clone(),
        };
        snapshot.names.insert(name, database.id);
        snapshot.databases.insert(database.id, Arc::new(database));
    }
    snapshot
}

fn key(project: &str, role: Role, scope: Scope) -> Key {
    Key {
        id: KeyId(1),
        project: ProjectId::new(project),
        role,
        scope,
        stored_key: [0; 32],
        server_key: [0; 32],
    }
}

fn look_up(key: &Key, name: &str) -> Result<Route, Fault> {
    let name = DatabaseName {
        project: key.project.clone(),
        engine: Engine::Postgres,
        name: name.into(),
    };
    find(&snapshot(), key, &name)
}

#[track_caller]
fn check(key: &Key, name: &str, expected: &Result<u64, Fault>) {
    assert_eq!(
        look_up(key, name).map(|route| route.database.id.0),
        *expected
    );
}

#[test]
fn equal_names_of_two_projects_are_two_databases() {
    check(
        &key("tdb_a", Role::Admin, Scope::Project),
        "shop__acme",
        &Ok(1),
    );
    check(
        &key("tdb_b", Role::Admin, Scope::Project),
        "shop__acme",
        &Ok(5),
    );
}

/// Invariant 1: a key never gets a route to another project's database, whatever name or id it is asked with.
#[test]
fn a_key_opens_nothing_of_another_project() {
    let ours = key("tdb_a", Role::Admin, Scope::Project);
    let theirs = DatabaseName {
        project: ProjectId::new("tdb_b"),
        engine: Engine::Postgres,
        name: "shop__acme".into(),
    };
    assert_eq!(
        find(&snapshot(), &ours, &theirs).err(),
        Some(Fault::UnknownDatabase)
    );
    assert_eq!(
        renew(&snapshot(), &ours, DatabaseId(5)).err(),
        Some(Fault::UnknownDatabase)
    );
}

#[test]
fn outside_the_scope_looks_like_not_there() {
    let acme = key(
        "tdb_a",
        Role::Write,
        Scope::Tenants(vec![TenantId::new("acme")]),
    );
    check(&acme, "shop__acme", &Ok(1));
    for hidden in ["shop__globex", "shop_workspace", "shop__gone", "never_was"] {
        check(&acme, hidden, &Err(Fault::UnknownDatabase));
    }
}

#[test]
fn a_workspace_scope_opens_the_workspace_and_its_tenants() {
    let shop = key(
        "tdb_a",
        Role::Admin,
        Scope::Workspaces(vec![BlueprintName::new("shop")]),
    );
    check(&shop, "shop_workspace", &Ok(4));
    check(&shop, "shop__acme", &Ok(1));
    let other = key(
        "tdb_b",
        Role::Admin,
        Scope::Workspaces(vec![BlueprintName::new("shop")]),
    );
    check(&other, "crm__acme", &Err(Fault::UnknownDatabase));
}

#[test]
fn only_those_entitled_learn_why_a_database_cannot_be_used() {
    check(
        &key("tdb_a", Role::Read, Scope::Project),
        "shop__globex",
        &Err(Fault::Suspended),
    );
    check(
        &key("tdb_b", Role::Read, Scope::Project),
        "crm__acme",
        &Err(Fault::NotReady),
    );
    check(
        &key("tdb_a", Role::Read, Scope::Project),
        "shop__gone",
        &Err(Fault::UnknownDatabase),
    );
}

#[test]
fn the_keys_role_decides_the_native_role_and_the_kind_decides_on_ddl() {
    for (role, native) in [(Role::Admin, "a"), (Role::Write, "w"), (Role::Read, "r")] {
        let key = key("tdb_a", role, Scope::Project);
        let on_tenant = look_up(&key, "shop__acme").expect("it is ready");
        assert_eq!(
            (&*on_tenant.native_role.name, on_tenant.ddl),
            (native, DdlPolicy::Refuse)
        );
        let on_workspace = look_up(&key, "shop_workspace").expect("it is ready");
        assert_eq!(
            (&*on_workspace.native_role.name, on_workspace.ddl),
            (native, DdlPolicy::Pass)
        );
    }
}
