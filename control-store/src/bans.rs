//! Addresses that are refused for a while. Bans outlive a restart.

use jiff::Timestamp;

use crate::error::StoreError;
use crate::page::list;
use crate::store::{Store, time};

impl Store {
    /// Bans an address (an IPv4 address, or the network of an IPv6 address) up to a moment; a longer ban stays.
    ///
    /// # Errors
    /// The store failed.
    pub fn save_ban(&self, address: &str, until: Timestamp) -> Result<(), StoreError> {
        self.write(|tx, _| {
            tx.prepare_cached(
                "INSERT INTO bans (address, until) VALUES (?1, ?2)
                 ON CONFLICT (address) DO UPDATE SET until = max(until, excluded.until)",
            )?
            .execute((address, until.as_microsecond()))?;
            Ok(())
        })
    }

    /// The bans that still hold, with the moment each ends. Forgets those that have ended.
    ///
    /// # Errors
    /// The store failed.
    pub fn bans(&self, now: Timestamp) -> Result<Vec<(String, Timestamp)>, StoreError> {
        self.write(|tx, _| {
            tx.execute("DELETE FROM bans WHERE until <= ?1", [now.as_microsecond()])?;
            let sql = "SELECT address, until FROM bans ORDER BY address";
            list(tx, sql, [], |row| Ok((row.get(0)?, time(row.get(1)?)?)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;

    #[test]
    fn a_ban_outlives_the_process_and_ends_by_itself() {
        let f = Fixture::new();
        let at = |us| Timestamp::from_microsecond(us).unwrap();
        f.store.save_ban("192.0.2.1", at(50)).unwrap();
        f.store.save_ban("192.0.2.1", at(40)).unwrap();
        f.store.save_ban("2001:db8::", at(60)).unwrap();
        let f = f.reopened();
        let both = [("192.0.2.1".into(), at(50)), ("2001:db8::".into(), at(60))];
        assert_eq!(f.store.bans(at(49)).unwrap(), both);
        assert_eq!(f.store.bans(at(50)).unwrap(), both[1..]);
        assert_eq!(
            f.store.bans(at(0)).unwrap(),
            both[1..],
            "ended bans are gone"
        );
        f.check();
    }
}
