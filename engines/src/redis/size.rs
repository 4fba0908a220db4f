//! How much memory a database takes.

use ::redis::aio::MultiplexedConnection;
use ::redis::{cmd, pipe};

use super::connect::{admin, ask, ask_all};
use super::databases::place;
use crate::{DatabaseSpec, EngineError, ServerAccess};

/// Keys that are looked at. A server does nothing else meanwhile.
const SAMPLES: usize = 100;
/// Elements of a collection that are looked at.
const ELEMENTS: usize = 5;

/// The memory of its keys with their values, as `MEMORY USAGE` tells it: exact up to 100 keys but for large collections, of which
/// a few elements stand for all; beyond that, 100 keys at random stand for all.
pub(super) async fn estimate(
    server: &ServerAccess,
    database: &DatabaseSpec<'_>,
) -> Result<u64, EngineError> {
    let mut admin = admin(server, place(database)?.number).await?;
    let count: u64 = ask(&mut admin, &cmd("DBSIZE")).await?;
    let all = count <= SAMPLES as u64;
    let keys = if all {
        every_key(&mut admin).await?
    } else {
        some_keys(&mut admin).await?
    };
    if keys.is_empty() {
        return Ok(0);
    }
    let mut sizes = pipe();
    for key in &keys {
        sizes.cmd("MEMORY").arg("USAGE").arg(key);
        sizes.arg("SAMPLES").arg(ELEMENTS);
    }
    // One that has expired meanwhile has no size.
    let sizes: Vec<Option<u64>> = ask_all(&mut admin, &sizes).await?;
    let found = sizes.iter().flatten().count() as u64;
    let sum: u64 = sizes.iter().flatten().sum();
    match found {
        0 => Ok(0),
        _ if all => Ok(sum),
        _ => Ok(sum / found * count),
    }
}

async fn every_key(admin: &mut MultiplexedConnection) -> Result<Vec<Vec<u8>>, EngineError> {
    let mut keys = Vec::new();
    let mut cursor = 0_u64;
    loop {
        let mut scan = cmd("SCAN");
        scan.arg(cursor).arg("COUNT").arg(SAMPLES);
        let (next, mut page): (u64, Vec<Vec<u8>>) = ask(admin, &scan).await?;
        keys.append(&mut page);
        // Keys may have been added meanwhile.
        if next == 0 || keys.len() > 2 * SAMPLES {
            // A key may come twice.
            keys.sort_unstable();
            keys.dedup();
            return Ok(keys);
        }
        cursor = next;
    }
}

async fn some_keys(admin: &mut MultiplexedConnection) -> Result<Vec<Vec<u8>>, EngineError> {
    let mut random = pipe();
    for _ in 0..SAMPLES {
        random.cmd("RANDOMKEY");
    }
    let keys: Vec<Option<Vec<u8>>> = ask_all(admin, &random).await?;
    Ok(keys.into_iter().flatten().collect())
}
