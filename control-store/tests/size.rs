//! What an idle tenant costs in memory. A process of its own, so that nothing else grows meanwhile.

use std::fs;
use std::sync::Arc;

use control_store::directory::{TenantDatabase, TenantEntry};
use control_store::ids::{BlueprintName, ProjectId, TenantId};
use control_store::snapshot::{
    Database, DatabaseKind, DatabaseName, DatabaseStatus, NativeRole, NativeRoles, PoolMode,
    ScramKeys, Settings, Snapshot,
};
use control_store::states::{DatabaseState, TenantStatus};
use control_store::tenants::TenantInfo;
use control_store::{DatabaseId, Engine, ServerId};
use jiff::Timestamp;

const TENANTS: u64 = 40_000;
const MOST_BYTES: u64 = 2048;

fn resident_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

fn role(id: u64, kind: &str) -> Arc<NativeRole> {
    Arc::new(NativeRole {
        name: format!("tdb_{kind}{id:015x}").into(),
        password: format!("{id:043}").into(),
        scram: ScramKeys {
            salt: [1; 16],
            iterations: 4096,
            client_key: [2; 32],
            server_key: [3; 32],
        },
    })
}

/// What the API shows of it.
fn shown(snapshot: &mut Snapshot, project: &ProjectId, id: u64) {
    let tenant = format!("tenant_{id}");
    let database = TenantDatabase {
        id: DatabaseId(id),
        engine: Engine::Postgres,
        name: format!("shop__{tenant}").into(),
        blueprint: BlueprintName::new("shop"),
        version: 1,
        state: DatabaseState::Ready,
    };
    let entry = TenantEntry {
        info: TenantInfo {
            id: tenant.clone(),
            status: TenantStatus::Ready,
            created_at: Timestamp::UNIX_EPOCH,
        },
        databases: vec![database],
    };
    let key = (project.clone(), TenantId::new(tenant));
    snapshot.set_tenant(key, Some(&entry));
}

#[test]
fn an_idle_tenant_costs_at_most_two_kibibytes() {
    let project = ProjectId::new("tdb_2abf90d3");
    let blueprint = BlueprintName::new("shop");
    let mut snapshot = Snapshot::default();
    let before = resident_bytes();
    for id in 1..=TENANTS {
        let tenant = format!("tenant_{id}");
        let name: Arc<str> = format!("shop__{tenant}").into();
        let database = Database {
            id: DatabaseId(id),
            project: project.clone(),
            engine: Engine::Postgres,
            name: Arc::clone(&name),
            blueprint: blueprint.clone(),
            kind: DatabaseKind::Tenant {
                tenant: TenantId::new(tenant),
            },
            server: ServerId(1),
            status: DatabaseStatus::Ready,
            native_roles: NativeRoles {
                admin: role(id, "a"),
                write: role(id, "w"),
                read: role(id, "r"),
            },
            settings: Settings::default(),
            pool_mode: PoolMode::Transaction,
            schema_epoch: 0,
            redis: None,
        };
        snapshot
            .databases
            .insert(DatabaseId(id), Arc::new(database));
        let name = DatabaseName {
            project: project.clone(),
            engine: Engine::Postgres,
            name,
        };
        snapshot.names.insert(name, DatabaseId(id));
        shown(&mut snapshot, &project, id);
    }
    let each = (resident_bytes() - before) / TENANTS;
    assert!(each <= MOST_BYTES, "{each} bytes");
    assert!(
        each > 500,
        "{each} bytes cannot hold three roles: the measurement is broken"
    );
    assert_eq!(snapshot.databases.len() as u64, TENANTS);
}
