//! How much one address and one project may ask.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use control_store::ids::ProjectId;

use crate::app::failure::Failure;

/// Seconds with a refusal that an address may have before it is banned.
const VIOLATIONS: u32 = 5;
/// How long a ban lasts.
pub(super) const BAN: Duration = Duration::from_secs(300);
/// An address that was quiet for so long starts afresh.
const FORGIVEN: Duration = Duration::from_secs(300);
/// How many addresses are remembered at most; beyond it the quiet ones are forgotten first.
const MAX_ADDRESSES: usize = 100_000;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Counters of requests.
pub(super) struct Limits {
    per_second: Option<u32>,
    addresses: Mutex<HashMap<IpAddr, Address>>,
    projects: Mutex<HashMap<ProjectId, Window>>,
}

/// Requests since a time.
struct Window {
    since: Instant,
    count: u32,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            count: 0,
        }
    }

    /// Counts one; false if that is one too many.
    fn take(&mut self, now: Instant, length: Duration, limit: u32) -> bool {
        if now.duration_since(self.since) >= length {
            *self = Self::new(now);
        }
        self.count = self.count.saturating_add(1);
        self.count <= limit
    }
}

struct Address {
    window: Window,
    /// Whether this window had a refusal already.
    violated: bool,
    violations: u32,
    banned_until: Option<Instant>,
}

/// What an address is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on.
    Pass,
    /// Too many in this second.
    Slow,
    /// Too many too often. `new`: with this very request.
    Banned { left: Duration, new: bool },
}

impl Limits {
    pub(super) fn new(per_second: Option<u32>) -> Self {
        Self {
            per_second,
            addresses: Mutex::default(),
            projects: Mutex::default(),
        }
    }

    /// A ban from before this process started, or from another face.
    pub(super) fn ban(&self, now: Instant, address: IpAddr, left: Duration) {
        let mut addresses = lock(&self.addresses);
        let entry = addresses
            .entry(bucket(address))
            .or_insert_with(|| Address::new(now));
        entry.banned_until = Some(now + left);
    }

    /// Counts a request of that address.
    pub(super) fn address(&self, now: Instant, address: IpAddr) -> Verdict {
        let Some(limit) = self.per_second else {
            return Verdict::Pass;
        };
        let mut addresses = lock(&self.addresses);
        if addresses.len() >= MAX_ADDRESSES {
            addresses.retain(|_, it| !it.is_quiet(now));
        }
        addresses
            .entry(bucket(address))
            .or_insert_with(|| Address::new(now))
            .take(now, limit)
    }

    /// Counts a request of that project.
    pub(super) fn project(
        &self,
        now: Instant,
        project: &ProjectId,
        per_minute: Option<u32>,
    ) -> Result<(), Failure> {
        let Some(limit) = per_minute else {
            return Ok(());
        };
        let mut projects = lock(&self.projects);
        let window = projects
            .entry(project.clone())
            .or_insert_with(|| Window::new(now));
        if window.take(now, MINUTE, limit) {
            return Ok(());
        }
        Err(Failure::RateLimited {
            message: format!("rate limit exceeded: max {limit} requests per minute"),
            retry_after: SECOND,
        })
    }

    pub(super) fn forget(&self, project: &ProjectId) {
        lock(&self.projects).remove(project);
    }
}

impl Address {
    fn new(now: Instant) -> Self {
        Self {
            window: Window::new(now),
            violated: false,
            violations: 0,
            banned_until: None,
        }
    }

    fn is_quiet(&self, now: Instant) -> bool {
        self.banned_until.is_none_or(|until| until <= now)
            && now.duration_since(self.window.since) >= FORGIVEN
    }

    fn take(&mut self, now: Instant, limit: u32) -> Verdict {
        if let Some(until) = self.banned_until {
            if until > now {
                return Verdict::Banned {
                    left: until - now,
                    new: false,
                };
            }
            *self = Self::new(now);
        }
        if now.duration_since(self.window.since) >= FORGIVEN {
            *self = Self::new(now);
        } else if now.duration_since(self.window.since) >= SECOND {
            self.violated = false;
        }
        if self.window.take(now, SECOND, limit) {
            return Verdict::Pass;
        }
        if !self.violated {
            self.violated = true;
            self.violations += 1;
        }
        if self.violations < VIOLATIONS {
            return Verdict::Slow;
        }
        self.banned_until = Some(now + BAN);
        Verdict::Banned {
            left: BAN,
            new: true,
        }
    }
}

/// An IPv6 customer has a /64 at least: that counts as one address.
pub(super) fn bucket(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

/// Counters stay usable after a panic elsewhere.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    #[test]
    fn five_seconds_with_a_refusal_are_a_ban_of_five_minutes() {
        let limits = Limits::new(Some(2));
        let start = Instant::now();
        for second in 0..5 {
            let now = start + SECOND * second;
            assert_eq!(limits.address(now, ME), Verdict::Pass);
            assert_eq!(limits.address(now, ME), Verdict::Pass);
            let third = limits.address(now, ME);
            if second < 4 {
                assert_eq!(third, Verdict::Slow);
                assert_eq!(
                    limits.address(now, ME),
                    Verdict::Slow,
                    "a second counts once"
                );
            } else {
                assert_eq!(
                    third,
                    Verdict::Banned {
                        left: BAN,
                        new: true
                    }
                );
            }
        }
        let banned_at = start + SECOND * 4;
        assert_eq!(
            limits.address(banned_at + SECOND, ME),
            Verdict::Banned {
                left: BAN - SECOND,
                new: false
            }
        );
        assert_eq!(
            limits.address(banned_at, "10.0.0.2".parse().unwrap()),
            Verdict::Pass
        );
        assert_eq!(limits.address(banned_at + BAN, ME), Verdict::Pass);
    }

    #[test]
    fn a_project_has_its_tiers_minute() {
        let limits = Limits::new(None);
        let now = Instant::now();
        let project = ProjectId::new("tdb_1");
        assert!(limits.project(now, &project, Some(1)).is_ok());
        let Err(Failure::RateLimited { message, .. }) = limits.project(now, &project, Some(1))
        else {
            panic!("one too many")
        };
        assert_eq!(message, "rate limit exceeded: max 1 requests per minute");
        assert!(limits.project(now + MINUTE, &project, Some(1)).is_ok());
        assert!(limits.project(now, &project, None).is_ok());
        assert_eq!(limits.address(now, ME), Verdict::Pass, "switched off");
    }

    #[test]
    fn one_network_of_version_6_is_one_address() {
        let a = bucket("2001:db8::1".parse().unwrap());
        assert_eq!(a, bucket("2001:db8::ffff:1".parse().unwrap()));
        assert_ne!(a, bucket("2001:db8:0:1::1".parse().unwrap()));
        assert_eq!(bucket("::ffff:10.0.0.1".parse().unwrap()), ME);
    }
}
