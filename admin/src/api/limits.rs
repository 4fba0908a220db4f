//! How much one project may ask, and how often one address may guess a password.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use control_store::ids::ProjectId;

use crate::app::failure::Failure;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// Wrong passwords for one email address from one network address, within [`GUESSES_WINDOW`].
const GUESSES: u32 = 10;
const GUESSES_WINDOW: Duration = Duration::from_secs(300);
/// How many windows are kept; beyond it those that are over are forgotten.
const MAX_WINDOWS: usize = 100_000;

/// Counters of requests.
#[derive(Default)]
pub(super) struct Limits {
    projects: Windows<ProjectId>,
    guesses: Windows<(IpAddr, String)>,
}

/// Things counted since a time, each by its key.
struct Windows<K>(Mutex<HashMap<K, Window>>);

impl<K> Default for Windows<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

struct Window {
    since: Instant,
    count: u32,
}

impl<K: Eq + Hash> Windows<K> {
    /// Looks at a counter, which begins anew when its window is over.
    fn with<T>(
        &self,
        now: Instant,
        key: K,
        length: Duration,
        look: impl FnOnce(&mut u32) -> T,
    ) -> T {
        // Counters stay usable after a panic elsewhere.
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= MAX_WINDOWS {
            windows.retain(|_, it| now.duration_since(it.since) < length);
        }
        let fresh = Window {
            since: now,
            count: 0,
        };
        let window = windows.entry(key).or_insert(fresh);
        if now.duration_since(window.since) >= length {
            window.since = now;
            window.count = 0;
        }
        look(&mut window.count)
    }

    fn forget(&self, key: &K) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }
}

impl Limits {
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
        let count = self.projects.with(now, project.clone(), MINUTE, |count| {
            *count = count.saturating_add(1);
            *count
        });
        if count <= limit {
            return Ok(());
        }
        Err(Failure::RateLimited {
            message: format!("rate limit exceeded: max {limit} requests per minute"),
            retry_after: SECOND,
        })
    }

    pub(super) fn forget(&self, project: &ProjectId) {
        self.projects.forget(project);
    }

    /// Refuses whoever has guessed too often. Accounts that do not exist count like those that do.
    pub(super) fn may_guess(
        &self,
        now: Instant,
        address: IpAddr,
        email: &str,
    ) -> Result<(), Failure> {
        let key = (address, email.trim().to_lowercase());
        let count = self.guesses.with(now, key, GUESSES_WINDOW, |count| *count);
        if count < GUESSES {
            return Ok(());
        }
        Err(Failure::RateLimited {
            message: "too many wrong passwords: try again in a few minutes".into(),
            retry_after: GUESSES_WINDOW,
        })
    }

    /// Counts a wrong password.
    pub(super) fn guessed_wrong(&self, now: Instant, address: IpAddr, email: &str) {
        let key = (address, email.trim().to_lowercase());
        self.guesses
            .with(now, key, GUESSES_WINDOW, |count| *count += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_has_its_tiers_minute() {
        let limits = Limits::default();
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
    }

    #[test]
    fn guessing_ends_for_that_address_and_email_alone() {
        let limits = Limits::default();
        let now = Instant::now();
        let (me, you): (IpAddr, IpAddr) =
            ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        for _ in 0..GUESSES {
            assert!(limits.may_guess(now, me, "a@b.c").is_ok());
            limits.guessed_wrong(now, me, "A@B.C ");
        }
        assert!(limits.may_guess(now, me, "a@b.c").is_err());
        assert!(limits.may_guess(now, me, "d@b.c").is_ok());
        assert!(limits.may_guess(now, you, "a@b.c").is_ok());
        assert!(limits.may_guess(now + GUESSES_WINDOW, me, "a@b.c").is_ok());
    }
}
