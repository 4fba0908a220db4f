//! Durations, counted in log-linear buckets: two to each power of two, from 4 µs to 69 s.

use std::time::Duration;

use super::cell::Counter;

/// The first bucket ends at 2^12 ns.
const MIN_EXPONENT: u32 = 12;
/// The last bounded bucket ends at 2^36 ns.
const MAX_EXPONENT: u32 = 36;
/// Buckets with an upper bound.
pub const BOUNDED: usize = 1 + 2 * (MAX_EXPONENT - MIN_EXPONENT) as usize;
/// All buckets: the last has no bound.
pub const BUCKETS: usize = BOUNDED + 1;

/// Counts durations. One writer, any number of readers.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    sum_ns: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| Counter::default()),
            sum_ns: Counter::default(),
        }
    }
}

impl Histogram {
    /// Counts one duration. The sum wraps after 584 years of waiting.
    pub fn record(&self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(ns)].increment();
        self.sum_ns.add(ns);
    }

    /// Adds what was counted so far to `totals`.
    pub fn add_to(&self, totals: &mut Totals) {
        for (total, bucket) in totals.buckets.iter_mut().zip(&self.buckets) {
            *total += bucket.get();
        }
        totals.sum_ns = totals.sum_ns.wrapping_add(self.sum_ns.get());
    }
}

/// What several histograms counted together.
#[derive(Clone, Debug)]
pub struct Totals {
    /// Per bucket, not cumulated.
    pub buckets: [u64; BUCKETS],
    /// Nanoseconds.
    pub sum_ns: u64,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            buckets: [0; BUCKETS],
            sum_ns: 0,
        }
    }
}

/// The bucket for a duration. Upper bounds are inclusive, as Prometheus' `le` is: hence the `- 1`.
fn bucket_of(ns: u64) -> usize {
    let below = ns.saturating_sub(1);
    if below < 1 << MIN_EXPONENT {
        return 0;
    }
    let exponent = below.ilog2();
    if exponent >= MAX_EXPONENT {
        return BOUNDED;
    }
    let upper_half = (below >> (exponent - 1)) & 1 == 1;
    1 + 2 * (exponent - MIN_EXPONENT) as usize + usize::from(upper_half)
}

/// Where a bounded bucket ends, in nanoseconds.
pub fn upper_bound_ns(bucket: usize) -> u64 {
    let Some(step) = bucket.checked_sub(1) else {
        return 1 << MIN_EXPONENT;
    };
    let half = 1_u64 << (MIN_EXPONENT as usize - 1 + step / 2);
    half * if step % 2 == 0 { 3 } else { 4 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_is_the_last_value_of_its_bucket() {
        for bucket in 0..BOUNDED {
            let bound = upper_bound_ns(bucket);
            assert_eq!(bucket_of(bound), bucket, "at {bound}");
            assert_eq!(bucket_of(bound + 1), bucket + 1, "above {bound}");
        }
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(u64::MAX), BOUNDED);
    }

    #[test]
    fn bounds_grow_by_at_most_one_half() {
        for bucket in 1..BOUNDED {
            let (low, high) = (upper_bound_ns(bucket - 1), upper_bound_ns(bucket));
            assert!(low < high && high * 2 <= low * 3, "{low} to {high}");
        }
        assert_eq!(upper_bound_ns(BOUNDED - 1), 1 << MAX_EXPONENT);
    }

    #[test]
    fn totals_hold_every_record() {
        let histogram = Histogram::default();
        for ms in [0_u64, 1, 1, 70_000] {
            histogram.record(Duration::from_millis(ms));
        }
        let mut totals = Totals::default();
        histogram.add_to(&mut totals);
        histogram.add_to(&mut totals);
        assert_eq!(totals.buckets.iter().sum::<u64>(), 8);
        assert_eq!(totals.buckets[BOUNDED], 2);
        assert_eq!(totals.sum_ns, 2 * 70_002_000_000);
    }
}
