//! How long a turn waits for company.
//!
//! To sleep and be woken costs more than all else that a turn does. Where much happens, a turn that waits a little
//! for several completions does the work of several turns, as a network card waits before it interrupts. That pays
//! only where the processor is busy, and must not cost where it is not: so a turn waits the longer the busier the thread
//! is, for no more than the present rate promises to bring in that time, for no more than a part of the clients that ask
//! at all (they might all wait for each other otherwise), and where what was expected did not come, not again for a
//! while.
//!
//! Where much is streamed, a turn waits for as long as it may: each connection then has more to give at once.

use std::time::{Duration, Instant};

/// Share of the time, in per cent, that a thread works, from which on a turn may wait as long as is allowed; it is
/// proportionally less below.
const BUSY: u32 = 40;
/// Waiting for fewer costs more, for the kernel's timer, than the turns that it saves.
const FEWEST: usize = 4;
/// Waiting for more saves little more.
const MOST: usize = 16;
/// Of so many clients that ask, one may be waited for.
const CLIENTS_EACH: usize = 4;
/// Bytes a second from which on bytes are waited for, and not events.
const STREAMING: u64 = 100 << 20;
/// More completions than such a turn is told of.
const ALL: usize = 1 << 10;
/// How long is measured before it counts: long enough for every client of a busy server to ask once.
const WINDOW: Duration = Duration::from_millis(2);
/// Turns without waiting after a disappointment; twice as many after each further one.
const REST: u32 = 8;
const LONGEST_REST: u32 = 4096;

/// How many completions to wait for, and how long if they do not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Company {
    pub(super) count: usize,
    pub(super) within: Duration,
}

pub(super) struct Coalescing {
    /// The longest that a completion waits for others.
    allowed: Duration,
    /// Completions a second, of late.
    rate: u32,
    /// Share of the time that the thread worked, in per cent, of late.
    busy: u32,
    /// Clients that sent something in the last window.
    clients: usize,
    /// Numbers the window under way.
    window: u32,
    began: Instant,
    /// Processor time that the thread had used by then.
    worked: Duration,
    /// Completions in it.
    told: u32,
    /// Clients that sent something in it.
    asking: usize,
    /// Bytes received in it.
    received: u64,
    /// Much was received in the last one.
    streaming: bool,
    /// Turns to come that do not wait for company.
    resting: u32,
    next_rest: u32,
}

impl Coalescing {
    pub(super) fn new(allowed: Duration, now: Instant) -> Self {
        Self {
            allowed,
            rate: 0,
            busy: 0,
            clients: 0,
            window: 1,
            began: now,
            worked: Duration::ZERO,
            told: 0,
            asking: 0,
            received: 0,
            streaming: false,
            resting: 0,
            next_rest: REST,
        }
    }

    /// A client has sent something; `seen` is the window in which it last did.
    pub(super) fn asked(&mut self, seen: &mut u32) {
        if *seen != self.window {
            *seen = self.window;
            self.asking += 1;
        }
    }

    /// Bytes have come.
    pub(super) fn received(&mut self, bytes: u64) {
        self.received = self.received.saturating_add(bytes);
    }

    /// What a turn should wait for, if for more than the next thing.
    pub(super) fn company(&self) -> Option<Company> {
        if self.streaming && !self.allowed.is_zero() {
            return Some(Company {
                count: ALL,
                within: self.allowed,
            });
        }
        if self.resting > 0 {
            return None;
        }
        let within = self.allowed * self.busy.min(BUSY) / BUSY;
        let promised = u128::from(self.rate) * within.as_micros() / 1_000_000;
        let promised = usize::try_from(promised).unwrap_or(usize::MAX);
        let count = promised.min(self.clients / CLIENTS_EACH).min(MOST);
        (count >= FEWEST).then_some(Company { count, within })
    }

    /// A turn has brought `told` completions, and had waited for `company`. `worked` tells the processor time that the
    /// thread has used.
    pub(super) fn turned(
        &mut self,
        now: Instant,
        worked: impl FnOnce() -> Duration,
        told: usize,
        company: Option<Company>,
    ) {
        self.told = self
            .told
            .saturating_add(u32::try_from(told).unwrap_or(u32::MAX));
        let elapsed = now.saturating_duration_since(self.began);
        if elapsed >= WINDOW {
            let a_second = |count| u128::from(count) * 1_000_000 / elapsed.as_micros();
            let rate = a_second(u64::from(self.told));
            let worked = worked();
            let used = worked.saturating_sub(std::mem::replace(&mut self.worked, worked));
            let busy = u32::try_from(used.as_micros() * 100 / elapsed.as_micros()).unwrap_or(100);
            self.streaming = a_second(std::mem::take(&mut self.received)) >= STREAMING.into();
            let rate = u32::try_from(rate).unwrap_or(u32::MAX);
            // What was before a pause says nothing.
            let paused = elapsed >= 10 * WINDOW;
            let blend = |old: u32, new| if paused { new } else { old.midpoint(new) };
            self.rate = blend(self.rate, rate);
            self.busy = blend(self.busy, busy);
            self.clients = std::mem::take(&mut self.asking);
            self.window = self.window.wrapping_add(1);
            self.began = now;
            self.told = 0;
        }
        match company {
            None => self.resting = self.resting.saturating_sub(1),
            Some(company) if company.count == ALL => {}
            Some(company) if told >= company.count / 2 => self.next_rest = REST,
            Some(_) => {
                self.resting = self.next_rest;
                self.next_rest = (self.next_rest * 2).min(LONGEST_REST);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::reactor::ListenerId;
    use crate::reactor::token::Token;
    use crate::reactor::uring::ring::{Lengths, Ring};

    const ALLOWED: Duration = Duration::from_micros(200);
    const TURN: Duration = Duration::from_micros(100);

    /// A turn of a thread that works half of the time.
    fn turn(coalescing: &mut Coalescing, now: Instant, told: usize, company: Option<Company>) {
        let half = coalescing.worked + now.saturating_duration_since(coalescing.began) / 2;
        coalescing.turned(now, || half, told, company);
    }

    /// After half a second of turns of 100 µs that bring `each` completions, with that many clients asking.
    fn after(each: usize, clients: usize) -> (Coalescing, Instant) {
        let mut now = Instant::now();
        let mut coalescing = Coalescing::new(ALLOWED, now);
        let mut seen = vec![0; clients];
        for _ in 0..5_000 {
            now += TURN;
            seen.iter_mut().for_each(|seen| coalescing.asked(seen));
            turn(&mut coalescing, now, each, None);
        }
        (coalescing, now)
    }

    #[test]
    fn nothing_waits_at_a_low_rate() {
        for each in [0, 1, 2] {
            assert_eq!(after(each, 1_000).0.company(), None, "{each}0000 a second");
        }
    }

    #[test]
    fn at_a_high_rate_a_turn_waits_for_what_the_rate_promises() {
        let company = after(5, 1_000).0.company().expect("company");
        assert_eq!((company.count, company.within), (9, ALLOWED));
        let company = after(50, 1_000).0.company().expect("company");
        assert_eq!((company.count, company.within), (MOST, ALLOWED));
    }

    #[test]
    fn a_thread_that_has_time_waits_less_or_not_at_all() {
        let (mut coalescing, mut now) = after(6, 1_000);
        let mut seen = vec![0; 1_000];
        let mut within = Vec::new();
        for percent in [30, 10] {
            for _ in 0..500 {
                now += TURN;
                seen.iter_mut().for_each(|seen| coalescing.asked(seen));
                let elapsed = now.saturating_duration_since(coalescing.began);
                let worked = coalescing.worked + elapsed * percent / 100;
                coalescing.turned(now, || worked, 6, None);
            }
            within.push(coalescing.company().map(|company| company.within));
        }
        let [Some(less), None] = within[..] else {
            panic!("{within:?}");
        };
        assert!(less < ALLOWED);
    }

    #[test]
    fn few_clients_do_not_wait_for_each_other() {
        for clients in [0, 1, 8, FEWEST * CLIENTS_EACH - 1] {
            assert_eq!(after(10, clients).0.company(), None, "{clients} clients");
        }
        let company = after(10, 32).0.company();
        assert_eq!(company.map(|company| company.count), Some(8));
    }

    #[test]
    fn a_disappointment_ends_the_waiting_for_a_while_and_each_further_one_for_longer() {
        let (mut coalescing, now) = after(10, 100);
        let mut rests = Vec::new();
        for _ in 0..12 {
            let company = coalescing.company();
            assert!(company.is_some());
            turn(&mut coalescing, now, 1, company);
            let mut rest = 0;
            while coalescing.company().is_none() {
                turn(&mut coalescing, now, 1, None);
                rest += 1;
            }
            rests.push(rest);
        }
        assert_eq!(rests[..4], [8, 16, 32, 64]);
        assert_eq!(rests[9..], [LONGEST_REST; 3]);
        // One that is not in vain makes up for it.
        for told in [12, 1] {
            let company = coalescing.company();
            turn(&mut coalescing, now, told, company);
        }
        assert_eq!(coalescing.resting, REST);
    }

    #[test]
    fn streams_are_given_time_whatever_their_number() {
        let mut now = Instant::now();
        let mut coalescing = Coalescing::new(ALLOWED, now);
        let mut streams = |bytes| {
            for _ in 0..100 {
                now += TURN;
                coalescing.received(bytes);
                let company = coalescing.company();
                turn(&mut coalescing, now, 1, company);
            }
            coalescing.company().map(|company| company.within)
        };
        assert_eq!(streams(8 << 10), None, "80 MB a second");
        assert_eq!(streams(16 << 10), Some(ALLOWED));
        assert_eq!(streams(1 << 10), None);
    }

    #[test]
    fn after_a_pause_nothing_waits() {
        let (mut coalescing, now) = after(50, 1_000);
        assert!(coalescing.company().is_some());
        turn(&mut coalescing, now + Duration::from_millis(50), 50, None);
        assert_eq!(coalescing.company(), None);
    }

    #[test]
    fn the_kernel_waits_for_company_and_in_the_end_for_one() {
        if let Err(why) = crate::reactor::available() {
            return eprintln!("not tested: {why}");
        }
        let mut ring = Ring::new(Lengths::new(8, 16)).expect("io_uring works");
        let token = Token::listener(0, ListenerId(0));
        let pairs = [(); 4].map(|()| UnixStream::pair().expect("a pair"));
        for (here, _) in &pairs {
            ring.poll(here.as_fd(), libc::POLLIN, false, token);
        }
        let patience = Some(Duration::from_secs(60));
        let company = |within| {
            Some(Company {
                count: 3,
                within: Duration::from_millis(within),
            })
        };
        let write = |to: &UnixStream| {
            let mut to = to;
            to.write_all(b"x").expect("writes");
        };
        let [(_, first), rest @ ..] = &pairs;
        write(first);
        let alone = ring.enter(patience, company(1)).expect("enters");
        assert_eq!(alone.len(), 1);
        ring.recycle(alone);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for (_, there) in rest {
                    std::thread::sleep(Duration::from_millis(5));
                    write(there);
                }
            });
            let together = ring.enter(patience, company(60_000)).expect("enters");
            assert_eq!(together.len(), 3);
        });
    }
}
