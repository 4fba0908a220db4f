//! A look-up among 100,000 tenants takes what one among 100 takes.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use control_store::ids::{BlueprintName, ProjectId, Role, TenantId};
use control_store::snapshot::{
    Database, DatabaseKind, DatabaseName, DatabaseStatus, Key, NativeRole, NativeRoles, PoolMode,
    Scope, ScramKeys, Server, ServerAddress, Settings, Snapshot,
};
use control_store::{DatabaseId, Engine, KeyId, ServerId};

/// Numbers of tenants that are compared.
pub const TENANTS: [u64; 2] = [100, 100_000];
const BATCH: u32 = 10_000;
const BATCHES: usize = 101;

/// A snapshot, and who looks up what in it.
pub struct Lookup {
    snapshot: Snapshot,
    key: Key,
    names: Vec<DatabaseName>,
    turn: usize,
}

impl Lookup {
    /// Look-ups among that many tenants.
    #[must_use]
    pub fn among(tenants: u64) -> Self {
        Self {
            snapshot: snapshot(tenants),
            key: Key {
                id: KeyId(1),
                project: ProjectId::new("tdb_2abf90d3"),
                role: Role::Admin,
                scope: Scope::Project,
                stored_key: [0; 32],
                server_key: [0; 32],
            },
            // Few names in turn: the question is what the map costs, not what the processor's cache does.
            names: (0..64).map(|it| name(it * (tenants / 64).max(1))).collect(),
            turn: 0,
        }
    }

    /// One look-up; whether it found something.
    pub fn find(&mut self) -> bool {
        self.turn = (self.turn + 1) % self.names.len();
        let name = black_box(&self.names[self.turn]);
        proxy::route::find(&self.snapshot, &self.key, name).is_ok()
    }
}

/// What a look-up takes among each of [`TENANTS`], in nanoseconds: the median of batches that take turns.
#[must_use]
pub fn measure() -> [f64; 2] {
    let mut lookups = TENANTS.map(Lookup::among);
    let mut found = [Vec::new(), Vec::new()];
    for _ in 0..BATCHES {
        for (lookup, found) in lookups.iter_mut().zip(&mut found) {
            let start = Instant::now();
            for _ in 0..BATCH {
                black_box(lookup.find());
            }
            found.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(BATCH));
        }
    }
    found.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    })
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_up_is_there() {
        let mut lookup = Lookup::among(100);
        assert!((0..200).all(|_| lookup.find()));
    }
}
