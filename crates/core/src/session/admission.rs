//! Which connections are admitted: by how many the node has, how many their address has, and how many come per second.
//!
//! One for the whole node, shared by its shards behind a lock that is taken at accept and at close only.

use std::collections::HashMap;
use std::net::IpAddr;

use super::rate::Bucket;
use crate::id::Now;
use crate::limits::ClientLimits;
use crate::metrics::Refusal;

/// Counts of what is connected now.
#[derive(Debug, Default)]
pub struct Admission {
    connections: usize,
    /// By what [`subscriber_of`] makes of an address.
    by_address: HashMap<IpAddr, u32>,
    accepts: Bucket,
    /// Bits of an IPv6 address that count.
    ipv6_prefix: u8,
}

/// What counts as one address. With IPv6 a subscriber has a whole network, usually a /64, and may connect from any of its
/// addresses. An IPv4 address that was mapped into IPv6 counts as the IPv4 address.
fn subscriber_of(address: IpAddr, ipv6_prefix: u8) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(ipv6_prefix.min(128))).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
        address @ IpAddr::V4(_) => address,
    }
}

impl Admission {
    /// For a node that starts now.
    pub fn new(limits: &ClientLimits, now: Now) -> Self {
        Admission {
            accepts: Bucket::full(limits.accept_rate.max(1), now.mono_ms()),
            ipv6_prefix: limits.address_prefix_ipv6,
            ..Admission::default()
        }
    }

    /// Counts a connection in, or says why not. The rate is asked last: a connection that is refused for another reason does not
    /// use it up. Without an address, as for a proxy that connects for others, that limit does not apply until [`Self::admit_client`].
    pub fn admit(
        &mut self,
        limits: &ClientLimits,
        address: impl Into<Option<IpAddr>>,
        now: Now,
    ) -> Result<(), Refusal> {
        if limits.connections_max != 0 && self.connections >= limits.connections_max {
            return Err(Refusal::Node);
        }
        let address = address.into();
        if address.is_some_and(|address| self.is_at_limit(limits, address)) {
            return Err(Refusal::Address);
        }
        if !self.accepts.take(1, limits.accept_rate, limits.accept_rate.max(1), now.mono_ms()) {
            return Err(Refusal::Rate);
        }
        if let Some(address) = address {
            self.count(limits, address);
        }
        self.connections += 1;
        Ok(())
    }

    /// Counts a connection that was admitted without an address for this one, or says why not; it stays admitted without one.
    pub fn admit_client(&mut self, limits: &ClientLimits, address: IpAddr) -> Result<(), Refusal> {
        if self.is_at_limit(limits, address) {
            return Err(Refusal::Address);
        }
        self.count(limits, address);
        Ok(())
    }

    fn is_at_limit(&self, limits: &ClientLimits, address: IpAddr) -> bool {
        let address = subscriber_of(address, self.ipv6_prefix);
        let others = self.by_address.get(&address).map_or(0, |count| *count as usize);
        limits.connections_per_address_max != 0 && others >= limits.connections_per_address_max
    }

    fn count(&mut self, limits: &ClientLimits, address: IpAddr) {
        if limits.connections_per_address_max != 0 {
            *self.by_address.entry(subscriber_of(address, self.ipv6_prefix)).or_default() += 1;
        }
    }

    /// Counts an admitted connection out, with the address that it was counted for.
    pub fn release(&mut self, address: impl Into<Option<IpAddr>>) {
        self.connections -= 1;
        let Some(address) = address.into() else { return };
        let address = subscriber_of(address, self.ipv6_prefix);
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
        (0..count).filter(|_| admission.admit(limits, address, now).is_ok()).count()
    }

    #[test]
    fn node_is_at_its_limit_then_it_admits_as_many_as_were_released() {
        let limits = ClientLimits { connections_max: 3, ..ClientLimits::default() };
        let mut admission = Admission::new(&limits, now(0));
        assert_eq!(admitted(&mut admission, &limits, A, now(0), 10), 3);
        assert_eq!(admission.admit(&limits, A, now(0)), Err(Refusal::Node));
        assert_eq!(admitted(&mut admission, &limits, B, now(5_000), 1), 0);
        admission.release(A);
        admission.release(A);
        assert_eq!(admitted(&mut admission, &limits, B, now(5_000), 10), 2);
    }

    #[test]
    fn address_is_at_its_limit_then_others_are_admitted_and_it_is_forgotten_with_its_last_connection() {
        let limits = ClientLimits { connections_per_address_max: 2, ..ClientLimits::default() };
        let mut admission = Admission::new(&limits, now(0));
        assert_eq!(admitted(&mut admission, &limits, A, now(0), 10), 2);
        assert_eq!(admission.admit(&limits, A, now(0)), Err(Refusal::Address));
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
    fn accept_rate_is_set_then_a_burst_of_one_second_is_admitted_and_the_rest_at_the_rate() {
        let limits = ClientLimits { accept_rate: 4, ..ClientLimits::default() };
        let mut admission = Admission::new(&limits, now(0));
        assert_eq!(admitted(&mut admission, &limits, A, now(0), 10), 4);
        assert_eq!(admitted(&mut admission, &limits, A, now(249), 10), 0);
        assert_eq!(admitted(&mut admission, &limits, A, now(250), 10), 1);
        assert_eq!(admitted(&mut admission, &limits, A, now(1_000), 10), 3);
        assert_eq!(admitted(&mut admission, &limits, A, now(3_600_000), 10), 4);
    }

    #[test]
    fn an_address_at_its_limit_then_the_rate_is_left_to_others() {
        let limits = ClientLimits { connections_per_address_max: 1, accept_rate: 4, ..ClientLimits::default() };
        let mut admission = Admission::new(&limits, now(0));
        assert_eq!(admitted(&mut admission, &limits, A, now(0), 100), 1);
        let others = (10..20).map(|number| IpAddr::from([127, 0, 0, number]));
        assert_eq!(others.filter(|address| admission.admit(&limits, *address, now(0)).is_ok()).count(), 3);
    }

    #[test]
    fn proxy_is_admitted_then_its_clients_are_counted_and_it_is_not() {
        let limits = ClientLimits { connections_per_address_max: 1, ..ClientLimits::default() };
        let mut admission = Admission::new(&limits, now(0));
        assert_eq!((admission.admit(&limits, None, now(0)), admission.admit(&limits, None, now(0))), (Ok(()), Ok(())));
        assert_eq!(admission.admit_client(&limits, A), Ok(()));
        assert_eq!(admission.admit_client(&limits, A), Err(Refusal::Address));
        admission.release(None);
        assert_eq!(admission.admit(&limits, A, now(0)), Err(Refusal::Address));
        admission.release(A);
        assert_eq!((admission.connections, admission.by_address.len()), (0, 0));
    }

    #[test]
    fn ipv6_addresses_of_one_network_then_they_count_as_one() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        for (prefix, second, same) in [
            (64, "2001:db8:0:1:ffff::2", true),
            (64, "2001:db8:0:2::1", false),
            (128, "2001:db8:0:1::2", false),
            (127, "2001:db8:0:1::", true),
            (48, "2001:db8:0:2::1", true),
            (1, "3fff::1", true),
            (1, "8000::1", false),
        ] {
            let limits =
                ClientLimits { connections_per_address_max: 1, address_prefix_ipv6: prefix, ..ClientLimits::default() };
            let mut admission = Admission::new(&limits, now(0));
            assert!(admission.admit(&limits, address("2001:db8:0:1::1"), now(0)).is_ok());
            assert_eq!(admission.admit(&limits, address(second), now(0)).is_ok(), !same, "{second} within /{prefix}");
            if same {
                // Given back by whichever address has it.
                admission.release(address("2001:db8:0:1::1"));
                assert!(admission.admit(&limits, address(second), now(0)).is_ok() && admission.by_address.len() == 1);
            }
        }
    }

    #[test]
    fn ipv4_mapped_into_ipv6_then_each_address_counts_for_itself() {
        let limits = ClientLimits { connections_per_address_max: 1, ..ClientLimits::default() };
        let mut admission = Admission::new(&limits, now(0));
        let mapped = |number: u8| IpAddr::V6(std::net::Ipv4Addr::new(192, 0, 2, number).to_ipv6_mapped());
        assert!(admission.admit(&limits, mapped(1), now(0)).is_ok());
        assert!(admission.admit(&limits, mapped(2), now(0)).is_ok());
        assert!(admission.admit(&limits, IpAddr::from([192, 0, 2, 1]), now(0)).is_err(), "it is one address");
    }

    #[test]
    fn no_limit_is_set_then_every_connection_is_admitted() {
        let limits = ClientLimits::default();
        let mut admission = Admission::new(&limits, now(0));
        assert_eq!(admitted(&mut admission, &limits, A, now(0), 1_000), 1_000);
    }
}
