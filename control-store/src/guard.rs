//! Addresses that ask too much: what the API and the proxy together know of them. Bans outlive a restart.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use crate::error::StoreError;
use crate::store::Store;

/// Violations after which an address is banned.
pub const VIOLATIONS: u32 = 5;
/// How long a ban lasts.
pub const BAN: Duration = Duration::from_secs(300);
/// Violations of an address that was quiet for so long are forgotten.
const FORGIVEN: Duration = Duration::from_secs(300);
/// How many addresses are remembered; beyond it the quiet ones are forgotten.
const MAX_ADDRESSES: usize = 100_000;
const SECOND: Duration = Duration::from_secs(1);

/// What an address is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Pass,
    /// Too many requests in this second.
    Slow,
    /// Banned, for so long.
    Banned(Duration),
}

/// Counts what addresses do and bans those that overdo it. Cheap where nobody is banned; never waits for the disk.
pub struct Guard {
    /// Requests per second; `None` lets everything pass.
    per_second: Option<u32>,
    addresses: Mutex<HashMap<IpAddr, Address>>,
    /// How many of them are banned, so that the usual case costs one load.
    banned: AtomicUsize,
    writer: Option<Sender<(IpAddr, SystemTime)>>,
}

struct Address {
    /// When its second began.
    since: SystemTime,
    /// Its requests in that second.
    count: u32,
    /// Whether that second had a refusal already.
    refused: bool,
    violations: u32,
    banned_until: Option<SystemTime>,
}

impl Guard {
    /// A guard that knows the bans of earlier lives and writes down new ones.
    ///
    /// # Errors
    /// The store failed.
    pub fn open(store: &Arc<Store>, per_second: Option<u32>) -> Result<Self, StoreError> {
        let now = SystemTime::now();
        let mut guard = Self::new(per_second);
        if per_second.is_none() {
            return Ok(guard);
        }
        for (address, until) in store.bans(Timestamp::now())? {
            let address = address
                .parse()
                .map_err(|_| StoreError::Corrupt { what: "ban" })?;
            let until = u64::try_from(until.as_microsecond()).unwrap_or(0);
            let until = SystemTime::UNIX_EPOCH + Duration::from_micros(until);
            let entry = Address {
                banned_until: Some(until),
                ..Address::new(now)
            };
            lock(&guard.addresses).insert(address, entry);
            guard.banned.fetch_add(1, Ordering::Relaxed);
        }
        let (sender, bans) = channel::<(IpAddr, SystemTime)>();
        let store = Arc::clone(store);
        // Ends with the guard, which holds the other end.
        std::thread::Builder::new()
            .name("bans".into())
            .spawn(move || {
                for (address, until) in bans {
                    let written = Timestamp::try_from(until)
                        .map_err(|_| StoreError::Corrupt { what: "time" })
                        .and_then(|until| store.save_ban(&address.to_string(), until));
                    if let Err(error) = written {
                        tracing::error!(%error, "a ban could not be written down");
                    }
                }
            })
            .map_err(|_| StoreError::Corrupt { what: "thread" })?;
        guard.writer = Some(sender);
        Ok(guard)
    }

    /// A guard that forgets when it ends.
    pub fn new(per_second: Option<u32>) -> Self {
        Self {
            per_second,
            addresses: Mutex::default(),
            banned: AtomicUsize::new(0),
            writer: None,
        }
    }

    /// Counts a request.
    pub fn request(&self, now: SystemTime, address: IpAddr) -> Verdict {
        let Some(limit) = self.per_second else {
            return Verdict::Pass;
        };
        self.judge(now, address, |it| it.request(now, limit))
    }

    /// Counts a login that failed.
    pub fn failed_login(&self, now: SystemTime, address: IpAddr) -> Verdict {
        if self.per_second.is_none() {
            return Verdict::Pass;
        }
        self.judge(now, address, |it| {
            it.violations += 1;
            Verdict::Pass
        })
    }

    /// How long an address is still banned. Costs one load where nobody is.
    pub fn banned(&self, now: SystemTime, address: IpAddr) -> Option<Duration> {
        if self.banned.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let addresses = lock(&self.addresses);
        addresses.get(&bucket(address))?.ban_left(now)
    }

    fn judge(
        &self,
        now: SystemTime,
        address: IpAddr,
        act: impl FnOnce(&mut Address) -> Verdict,
    ) -> Verdict {
        let address = bucket(address);
        let mut addresses = lock(&self.addresses);
        if addresses.len() >= MAX_ADDRESSES {
            addresses.retain(|_, it| !it.is_quiet(now));
        }
        let entry = addresses
            .entry(address)
            .or_insert_with(|| Address::new(now));
        if let Some(left) = entry.ban_left(now) {
            return Verdict::Banned(left);
        }
        let was_banned = entry.banned_until.is_some();
        if was_banned || entry.is_quiet(now) {
            *entry = Address::new(now);
        }
        let verdict = act(entry);
        let over = entry.violations >= VIOLATIONS;
        entry.banned_until = over.then(|| now + BAN);
        drop(addresses);
        match (was_banned, over) {
            (false, true) => drop(self.banned.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.banned.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
        if !over {
            return verdict;
        }
        tracing::warn!(%address, "an address is banned for five minutes");
        if let Some(writer) = &self.writer {
            // The thread only ends with the guard.
            let _ = writer.send((address, now + BAN));
        }
        Verdict::Banned(BAN)
    }
}

impl Address {
    fn new(now: SystemTime) -> Self {
        Self {
            since: now,
            count: 0,
            refused: false,
            violations: 0,
            banned_until: None,
        }
    }

    fn ban_left(&self, now: SystemTime) -> Option<Duration> {
        let left = self.banned_until?.duration_since(now).ok()?;
        (!left.is_zero()).then_some(left)
    }

    /// A clock that was set back makes nobody quiet.
    fn is_quiet(&self, now: SystemTime) -> bool {
        self.ban_left(now).is_none() && self.age(now) >= FORGIVEN
    }

    fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.since).unwrap_or_default()
    }

    fn request(&mut self, now: SystemTime, limit: u32) -> Verdict {
        if self.age(now) >= SECOND || now < self.since {
            self.since = now;
            self.count = 0;
            self.refused = false;
        }
        self.count = self.count.saturating_add(1);
        if self.count <= limit {
            return Verdict::Pass;
        }
        if !self.refused {
            self.refused = true;
            self.violations += 1;
        }
        Verdict::Slow
    }
}

/// An IPv6 customer has a /64 at least: that counts as one address.
fn bucket(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;

    const ME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    #[test]
    fn five_seconds_with_a_refusal_are_a_ban_of_five_minutes() {
        let guard = Guard::new(Some(2));
        let start = SystemTime::now();
        for second in 0..VIOLATIONS {
            let now = start + SECOND * second;
            assert_eq!(guard.request(now, ME), Verdict::Pass);
            assert_eq!(guard.request(now, ME), Verdict::Pass);
            let third = guard.request(now, ME);
            if second + 1 < VIOLATIONS {
                assert_eq!(third, Verdict::Slow);
                assert_eq!(
                    guard.request(now, ME),
                    Verdict::Slow,
                    "a second counts once"
                );
                assert_eq!(guard.banned(now, ME), None);
            } else {
                assert_eq!(third, Verdict::Banned(BAN));
            }
        }
        let banned_at = start + SECOND * (VIOLATIONS - 1);
        assert_eq!(
            guard.request(banned_at + SECOND, ME),
            Verdict::Banned(BAN - SECOND)
        );
        assert_eq!(guard.banned(banned_at, ME), Some(BAN));
        assert_eq!(guard.banned(banned_at, "10.0.0.2".parse().unwrap()), None);
        assert_eq!(guard.banned(banned_at + BAN, ME), None);
        assert_eq!(guard.request(banned_at + BAN, ME), Verdict::Pass);
        assert_eq!(guard.banned.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn wrong_passwords_are_violations_until_an_address_is_quiet() {
        let guard = Guard::new(Some(100));
        let now = SystemTime::now();
        for _ in 1..VIOLATIONS {
            assert_eq!(guard.failed_login(now, ME), Verdict::Pass);
        }
        assert_eq!(
            guard.failed_login(now + FORGIVEN, ME),
            Verdict::Pass,
            "forgiven"
        );
        let off = Guard::new(None);
        for _ in 0..10 {
            assert_eq!(off.failed_login(now, ME), Verdict::Pass);
        }
        assert_eq!(off.banned(now, ME), None);
    }

    #[test]
    fn a_ban_outlives_the_process() {
        let f = Fixture::new();
        let now = SystemTime::now();
        let until = Timestamp::try_from(now + BAN).unwrap();
        f.store.save_ban(&ME.to_string(), until).unwrap();
        let Fixture { store, .. } = f.reopened();
        let guard = Guard::open(&Arc::new(store), Some(100)).unwrap();
        assert!(guard.banned(now, ME).is_some());
        assert_eq!(guard.banned(now, "10.0.0.9".parse().unwrap()), None);
    }

    #[test]
    fn one_network_of_version_6_is_one_address() {
        let a = bucket("2001:db8::1".parse().unwrap());
        assert_eq!(a, bucket("2001:db8::ffff:1".parse().unwrap()));
        assert_ne!(a, bucket("2001:db8:0:1::1".parse().unwrap()));
        assert_eq!(bucket("::ffff:10.0.0.1".parse().unwrap()), ME);
    }
}
