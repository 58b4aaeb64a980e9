//! Who may connect at all: connections of the node, of one address, and per second.
//!
//! One for the whole node, shared by its shards behind a lock that is taken at accept and at close only.

use std::collections::HashMap;
use std::net::IpAddr;

use super::rate::Bucket;
use crate::id::Now;
use crate::limits::ClientLimits;

/// Counts of what is connected now.
#[derive(Debug, Default)]
pub struct Admission {
    connections: usize,
    by_address: HashMap<IpAddr, u32>,
    accepts: Bucket,
}

impl Admission {
    /// For a node that starts now.
    pub fn new(limits: &ClientLimits, now: Now) -> Self {
        Admission { accepts: Bucket::full(limits.accept_rate.max(1), now.mono_ms()), ..Admission::default() }
    }

    /// Counts a connection in, or says no.
    pub fn admit(&mut self, limits: &ClientLimits, address: IpAddr, now: Now) -> bool {
        if limits.connections_max != 0 && self.connections >= limits.connections_max {
            return false;
        }
        if !self.accepts.take(1, limits.accept_rate, limits.accept_rate.max(1), now.mono_ms()) {
            return false;
        }
        if limits.connections_per_address_max != 0 {
            let count = self.by_address.entry(address).or_default();
            if *count as usize >= limits.connections_per_address_max {
                return false;
            }
            *count += 1;
        }
        self.connections += 1;
        true
    }

    /// Counts an admitted connection out.
    pub fn release(&mut self, address: IpAddr) {
        self.connections -= 1;
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

    fn now(mono_ms: u64) -> Now {
        Now { mono_us: mono_ms * 1000, unix_ms: 0 }
    }

    /// How many of `count` connections from this address are admitted.
    fn admitted(admission: &mut Admission, limits: &ClientLimits, address: IpAddr, now: Now, count: usize) -> usize {
        (0..count).filter(|_| admission.admit(limits, address, now)).count()
    }

    #[test]
    fn a_node_at_its_limit_admits_as_many_as_were_released() {
        let limits = ClientLimits { connections_max: 3, ..ClientLimits::default() };
        let mut admission = Admission::new(&limits, now(0));
        assert_eq!(admitted(&mut admission, &limits, A, now(0), 10), 3);
        assert_eq!(admitted(&mut admission, &limits, B, now(5_000), 1), 0);
        admission.release(A);
        admission.release(A);
        assert_eq!(admitted(&mut admission, &limits, B, now(5_000), 10), 2);
    }

    #[test]
    fn an_address_at_its_limit_leaves_others_alone_and_is_forgotten_with_its_last_connection() {
        let limits = ClientLimits { connections_per_address_max: 2, ..ClientLimits::default() };
        let mut admission = Admission::new(&limits, now(0));
        assert_eq!(admitted(&mut admission, &limits, A, now(0), 10), 2);
        assert_eq!(admitted(&mut admission, &limits, B, now(0), 10), 2);
        admission.release(A);
        assert_eq!(admitted(&mut admission, &limits, A, now(0), 10), 1);
        for address in [A, A, B, B] {
            assert!(!admission.by_address.is_empty());
            admission.release(address);
        }
        assert_eq!(admission.connections, 0);
        assert!(admission.by_address.is_empty());
    }

    #[test]
    fn accepts_come_at_their_rate_after_a_burst_of_one_second() {
        let limits = ClientLimits { accept_rate: 4, ..ClientLimits::default() };
        let mut admission = Admission::new(&limits, now(0));
        assert_eq!(admitted(&mut admission, &limits, A, now(0), 10), 4);
        assert_eq!(admitted(&mut admission, &limits, A, now(249), 10), 0);
        assert_eq!(admitted(&mut admission, &limits, A, now(250), 10), 1);
        assert_eq!(admitted(&mut admission, &limits, A, now(1_000), 10), 3);
        assert_eq!(admitted(&mut admission, &limits, A, now(3_600_000), 10), 4);
    }

    #[test]
    fn without_limits_everybody_is_admitted() {
        let limits = ClientLimits::default();
        let mut admission = Admission::new(&limits, now(0));
        assert_eq!(admitted(&mut admission, &limits, A, now(0), 1_000), 1_000);
    }
}
