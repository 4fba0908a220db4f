//! A look-up among 100,000 tenants takes what one among 100 takes.
//!
//! `cargo bench -p benches --bench lookup`

use std::hint::black_box;
use std::sync::Arc;

use control_store::ids::{BlueprintName, ProjectId, Role, TenantId};
use control_store::snapshot::{
    Database, DatabaseKind, DatabaseName, DatabaseStatus, Key, NativeRole, NativeRoles, PoolMode,
    Scope, ScramKeys, Server, ServerAddress, Settings, Snapshot,
};
use control_store::{DatabaseId, Engine, KeyId, ServerId};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

fn name(id: u64) -> DatabaseName {
    DatabaseName {
        project: ProjectId::new("tdb_2abf90d3"),
        engine: Engine::Postgres,
        name: format!("shop__tenant_{id}").into(),
    }
}

fn snapshot(tenants: u64) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let server = Server {
        id: ServerId(1),
        engine: Engine::Postgres,
        address: ServerAddress::Unix("/nowhere".into()),
        connection_budget: 100,
        region: "eu-central".into(),
        redis_select: None,
    };
    snapshot.servers.insert(ServerId(1), Arc::new(server));
    let role = Arc::new(NativeRole {
        name: "native".into(),
        password: "".into(),
        scram: ScramKeys {
            salt: [0; 16],
            iterations: 4096,
            client_key: [0; 32],
            server_key: [0; 32],
        },
    });
    for id in 0..tenants {
        let name = name(id);
        let database = Database {
            id: DatabaseId(id),
            project: name.project.clone(),
            engine: Engine::Postgres,
            name: Arc::clone(&name.name),
            blueprint: BlueprintName::new("shop"),
            kind: DatabaseKind::Tenant {
                tenant: TenantId::new(format!("tenant_{id}")),
            },
            server: ServerId(1),
            status: DatabaseStatus::Ready,
            native_roles: NativeRoles {
                admin: Arc::clone(&role),
                write: Arc::clone(&role),
                read: Arc::clone(&role),
            },
            settings: Settings::default(),
            pool_mode: PoolMode::Transaction,
            schema_epoch: 0,
            redis: None,
        };
        snapshot
            .databases
            .insert(DatabaseId(id), Arc::new(database));
        snapshot.names.insert(name, DatabaseId(id));
    }
    snapshot
}

fn lookup(criterion: &mut Criterion) {
    let key = Key {
        id: KeyId(1),
        project: ProjectId::new("tdb_2abf90d3"),
        role: Role::Admin,
        scope: Scope::Project,
        stored_key: [0; 32],
        server_key: [0; 32],
    };
    let mut group = criterion.benchmark_group("route::find");
    for tenants in [100, 100_000] {
        let snapshot = snapshot(tenants);
        // Few names in turn: the question is what the map costs, not what the processor's cache does.
        let names: Vec<_> = (0..64).map(|it| name(it * (tenants / 64).max(1))).collect();
        let mut turn = 0;
        group.bench_with_input(
            BenchmarkId::from_parameter(tenants),
            &names,
            |bencher, names| {
                bencher.iter(|| {
                    turn = (turn + 1) % names.len();
                    proxy::route::find(&snapshot, &key, black_box(&names[turn])).is_ok()
                });
            },
        );
    }
    group.finish();
}

criterion_group!(benches, lookup);
criterion_main!(benches);
