//! Token buckets: how fast one connection may talk.

/// A bucket that fills at a steady rate. Twelve bytes, no clock of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    /// What may be spent now, in thousandths.
    level_milli: u64,
    /// When it was last filled, monotonic ms, modulo 2^32.
    filled_ms: u32,
}

impl Bucket {
    /// A full bucket.
    pub fn full(burst: u32, now_ms: u64) -> Self {
        Bucket { level_milli: u64::from(burst) * 1000, filled_ms: now_ms as u32 }
    }

    /// Takes `amount` out if the bucket holds it. `rate` per second, up to `burst`; a rate of 0 means no limit.
    #[inline]
    pub fn take(&mut self, amount: u32, rate: u32, burst: u32, now_ms: u64) -> bool {
        if rate == 0 {
            return true;
        }
        let elapsed_ms = (now_ms as u32).wrapping_sub(self.filled_ms);
        self.filled_ms = now_ms as u32;
        let ceiling = u64::from(burst) * 1000;
        self.level_milli = (self.level_milli + u64::from(elapsed_ms) * u64::from(rate)).min(ceiling);
        match self.level_milli.checked_sub(u64::from(amount) * 1000) {
            Some(rest) => {
                self.level_milli = rest;
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
    fn zero_means_no_limit() {
        assert!(Bucket::default().take(u32::MAX, 0, 0, 0));
    }
}
