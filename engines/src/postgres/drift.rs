//! What a tenant's schema should be: the same changes, made anew in a database that is thrown away.

use control_store::snapshot::NativeRoles;

use super::connect::{administrator, error, run};
use super::dump::SchemaSource;
use super::rights::Rights;
use super::{apply, create, identifier, random_hex};
use crate::{
    ApplyOptions, Change, DatabaseSpec, DatabaseUse, EngineError, SchemaPair, ServerAccess,
};

/// What the name of such a database begins with. No client's can: theirs begin with a letter.
const SCRATCH: &str = "_tdb_scratch_";

/// The schema that a tenant's database has, and the one that these changes make. Nothing else may be done to the database
/// meanwhile: its owner makes the changes.
pub(super) async fn schemas(
    server: &ServerAccess,
    database: &str,
    roles: &NativeRoles,
    changes: &[Change],
    options: &ApplyOptions,
) -> Result<SchemaPair, EngineError> {
    let name = format!("{SCRATCH}{}", random_hex::<8>()?);
    let spec = DatabaseSpec {
        name: &name,
        usage: DatabaseUse::Tenant,
        roles,
        redis: None,
    };
    let made = async {
        create::create(server, &spec).await?;
        apply::apply(server, &name, roles, changes, options).await?;
        read(server, &spec).await
    };
    let expected = made.await;
    let dropped = drop_database(server, &name).await;
    let spec = DatabaseSpec {
        name: database,
        ..spec
    };
    let pair = SchemaPair {
        expected: expected?,
        found: read(server, &spec).await?,
    };
    dropped.map(|()| pair)
}

/// A database's schema as statements. To read a table's takes as much as to read the table.
async fn read(server: &ServerAccess, spec: &DatabaseSpec<'_>) -> Result<Vec<String>, EngineError> {
    let postgres = administrator(server, "postgres").await?;
    let rights = Rights::of(&postgres).await?;
    let owner = create::maker(spec);
    rights.join(&postgres, &owner).await?;
    let statements = SchemaSource::managed(server, spec.name).statements().await;
    let left = rights.leave(&postgres, &owner).await;
    left.and(statements)
}

async fn drop_database(server: &ServerAccess, name: &str) -> Result<(), EngineError> {
    let postgres = administrator(server, "postgres").await?;
    let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(name));
    run(&postgres, &statement).await
}

/// Removes what a crash has left.
pub(super) async fn clear(server: &ServerAccess) -> Result<(), EngineError> {
    let postgres = administrator(server, "postgres").await?;
    let left = postgres
        .query(
            "SELECT datname FROM pg_database WHERE starts_with(datname, $1) AND datdba = current_user::regrole",
            &[&SCRATCH],
        )
        .await
        .map_err(|it| error(&it))?;
    for row in left {
        drop_database(server, row.get(0)).await?;
    }
    Ok(())
}
