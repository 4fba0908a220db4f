use super::*;
use crate::ids::{BlueprintName, Role};
use crate::keys::NewKey;
use crate::secret::sha256;
use crate::states::{Mode, TenantStatus};
use crate::testing::Fixture;

/// A project with the Redis workspaces `cache` and `queue`, the tenants `acme` (of `cache`), `both` (of both) and `queue` (of
/// `cache`), and PostgreSQL beside them.
struct World {
    f: Fixture,
    project: ProjectId,
}

impl World {
    fn new() -> Self {
        let f = Fixture::new();
        let project = f.project();
        f.workspace(&project, "shop", Mode::Tenant);
        for name in ["cache", "queue"] {
            f.redis_workspace(&project, name);
        }
        for (tenant, of) in [
            ("acme", &["shop", "cache"][..]),
            ("both", &["cache", "queue"]),
            ("queue", &["cache"]),
            ("sql", &["shop"]),
        ] {
            f.tenant(&project, tenant, of);
        }
        Self { f, project }
    }

    fn key(&self, scope: Scope) -> (String, String) {
        let new = NewKey {
            name: "k".into(),
            role: Role::Write,
            scope,
        };
        let made = self.f.store.create_key(&self.project, &new).unwrap();
        (
            made.api_key.expose().to_owned(),
            made.proxy_password.expose().to_owned(),
        )
    }

    /// The name of the database that a login reaches, or why it reaches none.
    fn login(&self, user: Option<&str>, password: &str) -> Result<String, Fault> {
        let snapshot = self.f.store.snapshot().load();
        let (key, id) = redis_login(&snapshot, user, &sha256(password.as_bytes()))?;
        let database = &snapshot.databases[&id];
        assert_eq!(
            (&key.project, database.engine),
            (&self.project, Engine::Redis)
        );
        assert!(key.scope.allows(database));
        Ok(database.name.to_string())
    }

    #[track_caller]
    fn check(&self, password: &str, table: &[(Option<&str>, Result<&str, Fault>)]) {
        for (user, expected) in table {
            let found = self.login(*user, password);
            assert_eq!(found, expected.clone().map(str::to_owned), "{user:?}");
        }
    }
}

#[test]
fn a_user_names_a_tenant_or_a_workspace() {
    let world = World::new();
    let (api_key, password) = world.key(Scope::Project);
    for password in [api_key, password] {
        world.check(
            &password,
            &[
                (Some("acme"), Ok("cache__acme")),
                (Some("both"), Err(AMBIGUOUS)),
                (Some("cache__both"), Ok("cache__both")),
                (Some("queue__both"), Ok("queue__both")),
                (Some("sql"), Err(Fault::UnknownDatabase)),
                (Some("shop"), Err(Fault::UnknownDatabase)),
                (Some("shop__acme"), Err(Fault::UnknownDatabase)),
                (Some("cache"), Ok("cache_workspace")),
                (Some("cache_workspace"), Ok("cache_workspace")),
                (Some("queue"), Ok("cache__queue")),
                (Some("queue_workspace"), Ok("queue_workspace")),
                (Some("workspace"), Err(AMBIGUOUS)),
                (Some("none"), Err(Fault::UnknownDatabase)),
                (Some(""), Err(Fault::UnknownDatabase)),
                (None, Err(AMBIGUOUS)),
                (Some("default"), Err(AMBIGUOUS)),
            ],
        );
    }
}

#[test]
fn a_scope_opens_its_own_and_shows_nothing_else() {
    let world = World::new();
    let none = || Err(Fault::UnknownDatabase);
    let (_, password) = world.key(Scope::Tenants(vec![
        TenantId::new("acme"),
        TenantId::new("acme"),
    ]));
    world.check(
        &password,
        &[
            (Some("acme"), Ok("cache__acme")),
            (None, Ok("cache__acme")),
            (Some("default"), Ok("cache__acme")),
            (Some("both"), none()),
            (Some("cache__both"), none()),
            (Some("cache"), none()),
            (Some("workspace"), none()),
        ],
    );
    let (_, password) = world.key(Scope::Workspaces(vec![BlueprintName::new("queue")]));
    world.check(
        &password,
        &[
            (Some("both"), Ok("queue__both")),
            (Some("queue"), Ok("queue_workspace")),
            (Some("acme"), none()),
            (Some("workspace"), Err(AMBIGUOUS)),
            (None, Err(AMBIGUOUS)),
        ],
    );
    let (_, password) = world.key(Scope::Workspaces(vec![BlueprintName::new("shop")]));
    world.check(&password, &[(Some("acme"), none()), (None, none())]);
}

#[test]
fn connection_strings_show_the_shortest_user_that_is_enough() {
    let world = World::new();
    world
        .f
        .tenant(&world.project, "queue_workspace", &["cache"]);
    let (_, password) = world.key(Scope::Project);
    let snapshot = world.f.store.snapshot().load();
    for (database, short, expected) in [
        ("cache__acme", "acme", "acme"),
        ("cache__both", "both", "cache__both"),
        ("cache_workspace", "cache", "cache"),
        ("queue_workspace", "queue", "queue_workspace"),
        ("cache__queue", "queue", "queue"),
        (
            "cache__queue_workspace",
            "queue_workspace",
            "cache__queue_workspace",
        ),
    ] {
        let shown = redis_user(&snapshot, &world.project, database, short);
        assert_eq!(shown, expected);
        assert_eq!(world.login(Some(shown), &password).as_deref(), Ok(database));
    }
}

#[test]
fn strangers_learn_nothing() {
    let world = World::new();
    for user in [None, Some("acme"), Some("none"), Some("workspace")] {
        assert_eq!(
            world.login(user, "tdb_0000000000000000"),
            Err(Fault::AuthFailed)
        );
    }
    // Another project's key knows nothing of these names.
    let stranger = world.f.another_project();
    let made = world
        .f
        .store
        .create_key(&stranger, &NewKey::first())
        .unwrap();
    for user in [
        None,
        Some("acme"),
        Some("cache"),
        Some("workspace"),
        Some("cache__acme"),
    ] {
        let found = world.login(user, made.proxy_password.expose());
        assert_eq!(found, Err(Fault::UnknownDatabase), "{user:?}");
    }
}

#[test]
fn workspace_is_the_only_one() {
    let f = Fixture::new();
    let project = f.project();
    f.redis_workspace(&project, "cache");
    let world = World { f, project };
    let (_, password) = world.key(Scope::Project);
    world.check(
        &password,
        &[
            (Some("workspace"), Ok("cache_workspace")),
            (None, Ok("cache_workspace")),
        ],
    );
    let (_, other) = world.key(Scope::Tenants(vec![TenantId::new("acme")]));
    world.check(&other, &[(Some("workspace"), Err(Fault::UnknownDatabase))]);
    world.f.tenant(&world.project, "acme", &["cache"]);
    world.check(
        &password,
        &[
            (Some("workspace"), Ok("cache_workspace")),
            (None, Err(AMBIGUOUS)),
        ],
    );
}

#[test]
fn what_is_gone_or_in_the_trash_is_not_counted() {
    let world = World::new();
    let (_, password) = world.key(Scope::Project);
    let key = world
        .f
        .store
        .list_keys(&world.project, &crate::page::Part::ALL)
        .unwrap()
        .pop()
        .unwrap();
    let to_trash = (&[TenantStatus::Ready][..], TenantStatus::Deleted);
    let store = &world.f.store;
    store
        .set_tenant_status(&world.project, "acme", to_trash.0, to_trash.1)
        .unwrap();
    world.check(&password, &[(Some("acme"), Err(Fault::UnknownDatabase))]);
    world.f.check();
    store
        .set_tenant_status(
            &world.project,
            "acme",
            &[TenantStatus::Deleted],
            TenantStatus::Ready,
        )
        .unwrap();
    world.check(&password, &[(Some("acme"), Ok("cache__acme"))]);
    world.f.check();
    store.delete_key(&world.project, key.id).unwrap();
    world.check(&password, &[(Some("acme"), Err(Fault::AuthFailed))]);
    world.f.check();
}
