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

    #[test]
    fn limits_by_node_address_and_rate() {
        let limits = ClientLimits {
            connections_max: 3,
            connections_per_address_max: 2,
            accept_rate: 4,
            ..ClientLimits::default()
        };
        let now = |mono_ms: u64| Now { mono_us: mono_ms * 1000, unix_ms: 0 };
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let mut admission = Admission::new(&limits, now(0));
        assert!(admission.admit(&limits, a, now(0)));
        assert!(admission.admit(&limits, a, now(0)));
        assert!(!admission.admit(&limits, a, now(0)), "third of one address");
        assert!(admission.admit(&limits, b, now(0)));
        assert!(!admission.admit(&limits, b, now(0)), "fourth of the node");
        admission.release(b);
        assert!(!admission.admit(&limits, b, now(0)), "the accept rate is used up");
        assert!(admission.admit(&limits, b, now(250)));
        admission.release(a);
        admission.release(a);
        admission.release(b);
        assert_eq!(admission.connections, 0);
        assert!(admission.by_address.is_empty(), "addresses are forgotten");
    }
}
