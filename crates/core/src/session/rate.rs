//! Token buckets: how fast one connection may talk.

/// A bucket that fills at a steady rate. Eight bytes, no clock of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    /// What may be spent now.
    level: u32,
    /// Up to when it was filled, monotonic ms, modulo 2^32.
    filled_ms: u32,
}

/// By how much callers' clocks may differ.
const SKEW_MS_MAX: u32 = 60_000;

impl Bucket {
    /// A full bucket.
    pub fn full(burst: u32, now_ms: u64) -> Self {
        Bucket { level: burst, filled_ms: now_ms as u32 }
    }

    /// Takes `amount` out if the bucket holds it. `rate` per second, up to `burst`; a rate of 0 means no limit.
    #[inline]
    pub fn take(&mut self, amount: u32, rate: u32, burst: u32, now_ms: u64) -> bool {
        if rate == 0 {
            return true;
        }
        let elapsed_ms = match (now_ms as u32).wrapping_sub(self.filled_ms) {
            // Threads share a bucket, and one of them began its turn before the other.
            behind if behind > u32::MAX - SKEW_MS_MAX => 0,
            elapsed => elapsed,
        };
        let earned = u64::from(elapsed_ms) * u64::from(rate) / 1000;
        let level = u64::from(self.level) + earned;
        if earned == 0 {
            // Nothing was earned since the bucket was filled, as nearly always within one turn: no division is needed.
            self.level = self.level.min(burst);
        } else if level >= u64::from(burst) {
            self.level = burst;
            self.filled_ms = self.filled_ms.wrapping_add(elapsed_ms);
        } else {
            // Time that has not earned a whole unit yet still counts next time.
            self.level = level as u32;
            self.filled_ms = self.filled_ms.wrapping_add((earned * 1000).div_ceil(u64::from(rate)) as u32);
        }
        match self.level.checked_sub(amount) {
            Some(rest) => {
                self.level = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_then_rate() {
        let mut bucket = Bucket::full(5, 0);
        for _ in 0..5 {
            assert!(bucket.take(1, 10, 5, 0));
        }
        assert!(!bucket.take(1, 10, 5, 0));
        assert!(!bucket.take(1, 10, 5, 99));
        assert!(bucket.take(1, 10, 5, 100));
        assert!(!bucket.take(1, 10, 5, 100));
        // An hour of silence fills it to the burst, no further.
        for _ in 0..5 {
            assert!(bucket.take(1, 10, 5, 3_600_000));
        }
        assert!(!bucket.take(1, 10, 5, 3_600_000));
    }

    #[test]
    fn clock_of_a_caller_is_behind_then_it_gains_nothing() {
        let mut bucket = Bucket::full(1, 10_000);
        assert!(bucket.take(1, 1, 1, 10_000));
        assert!(!bucket.take(1, 1, 1, 9_999));
        assert!(!bucket.take(1, 1, 1, 10_999));
        assert!(bucket.take(1, 1, 1, 11_000));
    }

    #[test]
    fn rate_is_zero_then_there_is_no_limit() {
        assert!(Bucket::default().take(u32::MAX, 0, 0, 0));
    }
}
