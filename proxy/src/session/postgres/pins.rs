//! What keeps a session on its backend between transactions.

use protocol_sql::Effects;

use crate::metrics::PinReason;

/// A set of reasons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pins(u16);

/// What pins, and for which reason.
const PINNING: [(Effects, PinReason); 7] = [
    (Effects::LISTEN, PinReason::Listen),
    (Effects::TEMP, PinReason::TemporaryObject),
    (Effects::ADVISORY_LOCK, PinReason::SessionLock),
    (Effects::HOLD_CURSOR, PinReason::Cursor),
    (Effects::PREPARE, PinReason::Prepared),
    (Effects::SET_ROLE, PinReason::SessionState),
    (Effects::LOAD, PinReason::Other),
];

/// What may have ended a pin: the server is asked then.
const UNPINNING: Effects = Effects::UNLISTEN
    .union(Effects::ADVISORY_UNLOCK)
    .union(Effects::DISCARD)
    .union(Effects::DEALLOCATE)
    .union(Effects::CLOSE_CURSOR)
    .union(Effects::RESET)
    .union(Effects::SET_ROLE)
    .union(Effects::DDL);

impl Pins {
    pub(super) const NONE: Self = Self(0);

    const fn bit(reason: PinReason) -> u16 {
        1 << reason as u16
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn has(self, reason: PinReason) -> bool {
        self.0 & Self::bit(reason) != 0
    }

    /// Adds a reason; whether it is new.
    pub(super) fn add(&mut self, reason: PinReason) -> bool {
        let new = !self.has(reason);
        self.0 |= Self::bit(reason);
        new
    }

    /// The reasons that a statement with these effects gives.
    pub(super) fn reasons(effects: Effects) -> impl Iterator<Item = PinReason> {
        PINNING
            .into_iter()
            .filter(move |(pinning, _)| effects.intersects(*pinning))
            .map(|(_, reason)| reason)
    }

    /// Whether a statement with these effects may have ended one of the reasons.
    pub(super) fn may_end(self, effects: Effects) -> bool {
        !self.is_empty() && effects.intersects(UNPINNING)
    }

    /// Those that the server cannot be asked about: they stay until the session ends.
    pub(super) const fn lasting(self) -> Self {
        Self(self.0 & (Self::bit(PinReason::Other) | Self::bit(PinReason::SessionPooling)))
    }
}

/// Asks the server which reasons stand: one row for each, with the reason's letter.
pub(super) const INSPECTION: &str = "\
SELECT 'l', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_listening_channels()) \
UNION ALL SELECT 'a', '' WHERE _tenantsdb.session_locks() > 0 \
UNION ALL SELECT 't', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema() \
 AND pg_catalog.pg_my_temp_schema() <> 0) \
UNION ALL SELECT 'h', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable) \
UNION ALL SELECT 'p', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql) \
UNION ALL SELECT 'r', '' WHERE pg_catalog.current_setting('role') <> 'none' OR session_user <> current_user";

/// The reason for a letter of [`INSPECTION`].
pub(super) fn reason_of(letter: &[u8]) -> Option<PinReason> {
    Some(match letter {
        b"l" => PinReason::Listen,
        b"a" => PinReason::SessionLock,
        b"t" => PinReason::TemporaryObject,
        b"h" => PinReason::Cursor,
        b"p" => PinReason::Prepared,
        b"r" => PinReason::SessionState,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Label as _;

    #[test]
    fn every_reason_has_a_place_of_its_own() {
        for reason in PinReason::ALL {
            let mut pins = Pins::NONE;
            assert!(pins.add(*reason));
            let others = PinReason::ALL.iter().filter(|it| *it != reason);
            assert!(!others.into_iter().any(|it| pins.has(*it)), "{reason:?}");
        }
    }

    #[test]
    fn reasons_are_told_apart() {
        let mut pins = Pins::NONE;
        assert!(pins.add(PinReason::Listen));
        assert!(!pins.add(PinReason::Listen));
        assert!(pins.has(PinReason::Listen) && !pins.has(PinReason::Cursor));
        assert!(pins.may_end(Effects::UNLISTEN));
        assert!(!pins.may_end(Effects::NONE));
        assert!(!Pins::NONE.may_end(Effects::DISCARD));
        let found: Vec<_> = Pins::reasons(Effects::TEMP | Effects::HOLD_CURSOR).collect();
        assert_eq!(found, [PinReason::TemporaryObject, PinReason::Cursor]);
    }
}
