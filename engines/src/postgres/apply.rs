//! Deployments: what a tenant's ledger lacks, change by change.

use std::time::Duration;

use aws_lc_rs::rand;
use control_store::snapshot::NativeRoles;
use tokio::time::sleep;
use tokio_postgres::Client;

use super::connect::{as_role, code, error, run, superuser};
use super::{identifier, literal, owner_of, scram};
use crate::{ApplyOptions, Change, EngineError, ServerAccess};

const LOCK_NOT_AVAILABLE: &str = "55P03";
const DEADLOCK: &str = "40P01";
/// `CREATE INDEX CONCURRENTLY` and its kin.
const ACTIVE_TRANSACTION: &str = "25001";

/// Makes those changes that the ledger lacks.
pub(super) async fn apply(
    server: &ServerAccess,
    database: &str,
    roles: &NativeRoles,
    changes: &[Change],
    options: &ApplyOptions,
) -> Result<Vec<i64>, EngineError> {
    let admin = superuser(server, database).await?;
    let ledger = ledger(&admin).await?;
    let missing: Vec<&Change> = changes
        .iter()
        .filter(|it| !ledger.contains(&it.id))
        .collect();
    if missing.is_empty() {
        return Ok(ledger);
    }
    let owner = log_in_owner(&admin, server, database, roles).await?;
    let mut outcome = Ok(());
    for change in missing {
        outcome = patiently(&owner, change, options).await;
        if outcome.is_err() {
            break;
        }
    }
    drop(owner);
    let shut = format!(
        "ALTER ROLE {} NOLOGIN PASSWORD NULL",
        identifier(&owner_of(roles))
    );
    run(&admin, &shut).await?;
    outcome?;
    self::ledger(&admin).await
}

async fn ledger(admin: &Client) -> Result<Vec<i64>, EngineError> {
    let rows = admin
        .query("SELECT change FROM _tenantsdb.ledger ORDER BY change", &[])
        .await
        .map_err(|it| error(&it))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Statements come from a workspace's users. They run in a session that never was more than the owner: a session that had
/// become the owner could become the superuser again.
async fn log_in_owner(
    admin: &Client,
    server: &ServerAccess,
    database: &str,
    roles: &NativeRoles,
) -> Result<Client, EngineError> {
    let role = scram::generate_role(&owner_of(roles)).map_err(|_| EngineError::Random)?;
    let open = format!(
        "ALTER ROLE {} LOGIN PASSWORD {}",
        identifier(&role.name),
        literal(&scram::verifier(&role.scram))
    );
    run(admin, &open).await?;
    as_role(server, database, &role.name, &role.password).await
}

/// Tries a change until it gets its locks, so that a busy tenant is kept waiting for short moments only.
async fn patiently(
    owner: &Client,
    change: &Change,
    options: &ApplyOptions,
) -> Result<(), EngineError> {
    let mut pause = options.backoff;
    for attempt in 1..=options.attempts.max(1) {
        let failed = match once(owner, change, options).await {
            Ok(()) => return Ok(()),
            Err(failed) => failed,
        };
        // The transaction may be open; outside of one this is a warning only.
        run(owner, "ROLLBACK").await?;
        if !matches!(code(&failed), Some(LOCK_NOT_AVAILABLE | DEADLOCK)) {
            return Err(of_change(failed, change.id));
        }
        if attempt < options.attempts {
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(options.backoff * 32);
        }
    }
    Err(EngineError::Busy {
        change: change.id,
        attempts: options.attempts,
    })
}

async fn once(owner: &Client, change: &Change, options: &ApplyOptions) -> Result<(), EngineError> {
    let settings = format!(
        "SELECT set_config('search_path', {}, false), set_config('lock_timeout', '{}ms', false)",
        literal(&change.search_path),
        options.lock_timeout.as_millis()
    );
    run(owner, &format!("RESET ALL; {settings}")).await?;
    let note = format!(
        "INSERT INTO _tenantsdb.ledger (change) VALUES ({})",
        change.id
    );
    run(owner, "BEGIN").await?;
    match run(owner, &change.statement).await {
        Ok(()) => {
            run(owner, &note).await?;
            run(owner, "COMMIT").await
        }
        Err(refused) if code(&refused) == Some(ACTIVE_TRANSACTION) => {
            run(owner, "ROLLBACK").await?;
            run(owner, &change.statement).await?;
            run(owner, &note).await
        }
        Err(refused) => Err(refused),
    }
}

fn of_change(failed: EngineError, id: i64) -> EngineError {
    match failed {
        EngineError::Statement { code, message, .. } => EngineError::Statement {
            change: Some(id),
            code,
            message,
        },
        other => other,
    }
}

/// Between half and all of it, so that deployments do not meet again and again.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness it is the whole pause.
    if rand::fill(&mut byte).is_err() {
        return pause;
    }
    pause / 2 + pause / 2 * u32::from(byte[0]) / 255
}
