//! Deployments: what a tenant's ledger lacks, change by change.

use std::time::Duration;

use aws_lc_rs::rand;
use control_store::snapshot::NativeRoles;
use tokio::time::sleep;
use tokio_postgres::Client;

use super::connect::{administrator, as_role, code, error, run};
use super::harden::{PLATFORM, PLATFORM_ROLE};
use super::rights::Rights;
use super::{create, identifier, literal, owner_of, random_hex, scram};
use crate::{
    ApplyOptions, ApplyStep, Change, DatabaseSpec, DatabaseUse, EngineError, ServerAccess,
};

const LOCK_NOT_AVAILABLE: &str = "55P03";
const DEADLOCK: &str = "40P01";
/// `CREATE INDEX CONCURRENTLY` and its kin.
const ACTIVE_TRANSACTION: &str = "25001";
/// A block or procedure that commits.
const INVALID_TRANSACTION_TERMINATION: &str = "2D000";
const UNDEFINED_OBJECT: &str = "42704";
/// Such as a partition whose detaching has begun.
const NOT_IN_PREREQUISITE_STATE: &str = "55000";
/// What runs outside of a transaction waits for the tenant's transactions, not the tenant for it: it may wait longer.
const LONGER: u32 = 60;

/// The ledger of a tenant's database. A deployment's statements run as `owner`, who can neither read nor write it: the line
/// of a change is written by a function that wants the ticket, which only we know. The line is part of the transaction of
/// the change.
pub(super) fn setup(owner: &str) -> String {
    let owner = identifier(owner);
    format!(
        "CREATE TABLE IF NOT EXISTS {PLATFORM}.ledger (
             change bigint PRIMARY KEY,
             finished boolean NOT NULL,
             indexes oid[],
             noted_at timestamptz NOT NULL DEFAULT now());
         CREATE TABLE IF NOT EXISTS {PLATFORM}.ticket (ticket text NOT NULL);
         ALTER TABLE {PLATFORM}.ledger OWNER TO {PLATFORM_ROLE};
         ALTER TABLE {PLATFORM}.ticket OWNER TO {PLATFORM_ROLE};
         CREATE OR REPLACE FUNCTION {PLATFORM}.note_change(known text, id bigint) RETURNS void
             LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
         BEGIN
             IF NOT EXISTS (SELECT FROM {PLATFORM}.ticket t WHERE t.ticket = known) THEN
                 RAISE insufficient_privilege USING MESSAGE = 'permission denied for the ledger';
             END IF;
             INSERT INTO {PLATFORM}.ledger (change, finished) VALUES (id, true);
         END $$;
         ALTER FUNCTION {PLATFORM}.note_change(text, bigint) OWNER TO {PLATFORM_ROLE};
         REVOKE ALL ON FUNCTION {PLATFORM}.note_change(text, bigint) FROM PUBLIC;
         GRANT EXECUTE ON FUNCTION {PLATFORM}.note_change(text, bigint) TO {owner};"
    )
}

/// Makes those changes that the ledger lacks.
pub(super) async fn apply(
    server: &ServerAccess,
    database: &str,
    roles: &NativeRoles,
    changes: &[Change],
    options: &ApplyOptions,
) -> Result<Vec<i64>, EngineError> {
    let postgres = administrator(server, "postgres").await?;
    // One at a time. The lock is where no tenant can take it, and ends with this connection.
    postgres
        .execute(
            "SELECT pg_advisory_lock(hashtextextended($1, 0))",
            &[&database],
        )
        .await
        .map_err(|it| error(&it))?;
    let admin = administrator(server, database).await?;
    let ledger = ledger(&admin).await?;
    let missing: Vec<&Change> = changes
        .iter()
        .filter(|it| !ledger.contains(&it.id))
        .collect();
    if missing.is_empty() {
        return Ok(ledger);
    }
    let rights = Rights::of(&postgres).await?;
    // Taken back at the end, with what statements have handed out.
    rights.join(&postgres, &owner_of(roles)).await?;
    let ticket = random_hex::<16>()?;
    run(
        &admin,
        &format!(
            "DELETE FROM {PLATFORM}.ticket; INSERT INTO {PLATFORM}.ticket VALUES ({})",
            literal(&ticket)
        ),
    )
    .await?;
    let deployment = Deployment {
        owner: log_in_owner(&admin, server, database, roles).await?,
        admin,
        ticket,
        options,
    };
    let mut outcome = Ok(());
    let of = missing.len();
    for (number, change) in (1..).zip(missing) {
        outcome = deployment.patiently(change, number, of).await;
        if outcome.is_err() {
            break;
        }
    }
    let Deployment { owner, admin, .. } = deployment;
    drop(owner);
    let shut = format!(
        "DELETE FROM {PLATFORM}.ticket; ALTER ROLE {} NOLOGIN PASSWORD NULL",
        identifier(&owner_of(roles))
    );
    run(&admin, &shut).await?;
    let spec = DatabaseSpec {
        name: database,
        usage: DatabaseUse::Tenant,
        roles,
        redis: None,
    };
    create::reassert(&postgres, &admin, &spec, rights).await?;
    rights.leave(&postgres, &owner_of(roles)).await?;
    outcome?;
    self::ledger(&admin).await
}

async fn ledger(admin: &Client) -> Result<Vec<i64>, EngineError> {
    let rows = admin
        .query(
            "SELECT change FROM _tenantsdb.ledger WHERE finished ORDER BY change",
            &[],
        )
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

/// One deployment to one tenant, under way.
struct Deployment<'a> {
    /// Runs the changes.
    owner: Client,
    /// Keeps the ledger.
    admin: Client,
    ticket: String,
    options: &'a ApplyOptions,
}

impl Deployment<'_> {
    /// Tries a change until it gets its locks, so that a busy tenant is kept waiting for short moments only.
    async fn patiently(
        &self,
        change: &Change,
        number: usize,
        of: usize,
    ) -> Result<(), EngineError> {
        let mut pause = self.options.backoff;
        let attempts = self.options.attempts.max(1);
        for attempt in 1..=attempts {
            self.options.steps.tell(ApplyStep {
                change: change.id,
                number,
                of,
                attempt,
            });
            let failed = match self.once(change).await {
                Ok(()) => return Ok(()),
                Err(failed) => failed,
            };
            // The transaction may be open; outside of one this is a warning only.
            run(&self.owner, "ROLLBACK").await?;
            if !is_busy(&failed) {
                return Err(of_change(failed, change.id));
            }
            if attempt < attempts {
                sleep(jittered(pause)).await;
                pause = (pause * 2).min(self.options.backoff * 32);
            }
        }
        Err(EngineError::Busy {
            change: change.id,
            attempts,
        })
    }

    async fn once(&self, change: &Change) -> Result<(), EngineError> {
        self.prepare(change, self.options.lock_timeout).await?;
        run(&self.owner, "BEGIN").await?;
        match run(&self.owner, &change.statement).await {
            Ok(()) => {
                self.owner
                    .execute(
                        "SELECT _tenantsdb.note_change($1, $2)",
                        &[&self.ticket, &change.id],
                    )
                    .await
                    .map_err(|it| error(&it))?;
                run(&self.owner, "COMMIT").await
            }
            Err(refused)
                if matches!(
                    code(&refused),
                    Some(ACTIVE_TRANSACTION | INVALID_TRANSACTION_TERMINATION)
                ) =>
            {
                run(&self.owner, "ROLLBACK").await?;
                self.outside(change).await
            }
            Err(refused) => Err(refused),
        }
    }

    /// Nothing of the change before stays in the session. Bodies of functions have been checked in the workspace.
    async fn prepare(&self, change: &Change, lock_timeout: Duration) -> Result<(), EngineError> {
        run(&self.owner, "DISCARD ALL").await?;
        let settings = format!(
            "SELECT pg_catalog.set_config('search_path', {}, false),
                 pg_catalog.set_config('lock_timeout', '{}ms', false),
                 pg_catalog.set_config('check_function_bodies', 'off', false)",
            literal(&change.search_path),
            lock_timeout.as_millis()
        );
        run(&self.owner, &settings).await
    }

    /// Makes a change that cannot be part of a transaction. The ledger knows that it has begun and which indexes there were,
    /// so that after a crash it can be told what became of it.
    async fn outside(&self, change: &Change) -> Result<(), EngineError> {
        let begun = self.begun(change.id).await?;
        let before = match &begun {
            Some(before) => before.clone(),
            None => self.begin(change.id).await?,
        };
        if begun.is_some() && self.has_new_index(&before).await? {
            return self.finish(change.id).await;
        }
        self.drop_invalid(&before).await?;
        self.prepare(change, self.options.lock_timeout * LONGER)
            .await?;
        let outcome = match run(&self.owner, &change.statement).await {
            Err(refused) if begun.is_some() => self.resume(change, refused).await,
            outcome => outcome,
        };
        match outcome {
            Ok(()) => self.finish(change.id).await,
            Err(refused) => {
                self.drop_invalid(&before).await?;
                if !is_busy(&refused) {
                    self.forget(change.id).await?;
                }
                Err(refused)
            }
        }
    }

    /// A change that was begun before now fails: its first half may be why.
    async fn resume(&self, change: &Change, refused: EngineError) -> Result<(), EngineError> {
        let text = change.statement.to_ascii_lowercase();
        let Some(at) = text.rfind("concurrently") else {
            return Err(refused);
        };
        match code(&refused) {
            Some(UNDEFINED_OBJECT) if text.starts_with("drop index") => Ok(()),
            Some(NOT_IN_PREREQUISITE_STATE) if text.contains("detach partition") => {
                let (head, tail) = change.statement.split_at(at);
                let tail = tail.get("concurrently".len()..).unwrap_or_default();
                run(&self.owner, &format!("{head}FINALIZE{tail}")).await
            }
            _ => Err(refused),
        }
    }

    async fn begun(&self, change: i64) -> Result<Option<Vec<u32>>, EngineError> {
        let row = self
            .admin
            .query_opt(
                "SELECT coalesce(indexes, '{}') FROM _tenantsdb.ledger WHERE change = $1 AND NOT finished",
                &[&change],
            )
            .await
            .map_err(|it| error(&it))?;
        Ok(row.map(|row| row.get(0)))
    }

    async fn begin(&self, change: i64) -> Result<Vec<u32>, EngineError> {
        let row = self
            .admin
            .query_one(
                "INSERT INTO _tenantsdb.ledger (change, finished, indexes)
                 VALUES ($1, false, ARRAY(SELECT indexrelid FROM pg_index)) RETURNING indexes",
                &[&change],
            )
            .await
            .map_err(|it| error(&it))?;
        Ok(row.get(0))
    }

    async fn finish(&self, change: i64) -> Result<(), EngineError> {
        let statement = format!(
            "UPDATE {PLATFORM}.ledger SET finished = true, indexes = NULL WHERE change = {change}"
        );
        run(&self.admin, &statement).await
    }

    async fn forget(&self, change: i64) -> Result<(), EngineError> {
        let statement =
            format!("DELETE FROM {PLATFORM}.ledger WHERE change = {change} AND NOT finished");
        run(&self.admin, &statement).await
    }

    async fn has_new_index(&self, before: &[u32]) -> Result<bool, EngineError> {
        let row = self
            .admin
            .query_one(
                "SELECT EXISTS (SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                     WHERE i.indisvalid AND c.relnamespace <> 'pg_toast'::regnamespace AND c.relpersistence <> 't'
                         AND i.indexrelid <> ALL ($1))",
                &[&before],
            )
            .await
            .map_err(|it| error(&it))?;
        Ok(row.get(0))
    }

    /// A concurrent build that failed leaves an index that is kept up and never used.
    async fn drop_invalid(&self, before: &[u32]) -> Result<(), EngineError> {
        let rows = self
            .admin
            .query(
                "SELECT format('DROP INDEX %I.%I', n.nspname, c.relname)
                 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE NOT i.indisvalid AND c.relkind = 'i' AND i.indexrelid <> ALL ($1)",
                &[&before],
            )
            .await
            .map_err(|it| error(&it))?;
        for row in rows {
            let limit = self.options.lock_timeout.as_millis();
            let drop: String = row.get(0);
            let statement = format!("SET lock_timeout = '{limit}ms'; {drop}; RESET lock_timeout");
            run(&self.admin, &statement).await?;
        }
        Ok(())
    }
}

fn is_busy(failed: &EngineError) -> bool {
    matches!(code(failed), Some(LOCK_NOT_AVAILABLE | DEADLOCK))
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
