//! Where a gateway is: all addresses of its host, looked up again for as long as clients connect.
//!
//! A lookup may take seconds, so a thread of its own makes it: a connect takes a known address and asks for another lookup, at
//! most once in [`EVERY`]. Connects go to the address that worked last; one that was refused is followed by one to the next address.

use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringgate_net::dial::Url;

/// Shortest time between two lookups of a name.
const EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Lookup {
    known: Arc<Mutex<Known>>,
    /// Asks the thread for a lookup; none where the host is an address.
    ask: Option<SyncSender<()>>,
    every: Duration,
    /// The addresses are those of several gateways.
    is_spread: bool,
}

struct Known {
    /// At least one.
    addresses: Vec<SocketAddr>,
    /// Which of them worked last.
    preferred: usize,
    looked_up: Instant,
}

/// The addresses of a gateway, all or those of one kind.
fn reachable(url: &Url, is_ipv4: Option<bool>) -> Result<Vec<SocketAddr>, String> {
    let all = url.addresses()?;
    let fits = |address: &SocketAddr| is_ipv4.is_none_or(|is_ipv4| address.is_ipv4() == is_ipv4);
    let fitting: Vec<SocketAddr> = all.iter().copied().filter(fits).collect();
    if fitting.is_empty() {
        let (own, other) = if is_ipv4 == Some(true) { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
        let all: Vec<String> = all.iter().map(|address| address.ip().to_string()).collect();
        return Err(format!(
            "--source is {own}, and {} has only {other} addresses ({}): give {other} addresses to --source, or another --url",
            url.host,
            all.join(", ")
        ));
    }
    Ok(fitting)
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    // A panic elsewhere leaves it consistent: no change has several steps.
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lookup {
    /// The first lookup is made before this returns; an error says which name has no address, or none of the kind that clients
    /// can connect to: IPv4 if that is true, IPv6 if not, and any if it is not known.
    pub(crate) fn new(url: &Url, is_ipv4: Option<bool>) -> Result<Lookup, String> {
        let is_spread = !url.others.is_empty();
        let mut hosts = std::iter::once(&url.host).chain(url.others.iter().map(|(host, _)| host));
        let lookup = if hosts.all(|host| host.parse::<IpAddr>().is_ok()) {
            Lookup::of(reachable(url, is_ipv4)?, None, EVERY)
        } else {
            let url = url.clone();
            Lookup::with(move || reachable(&url, is_ipv4), EVERY)?
        };
        Ok(Lookup { is_spread, ..lookup })
    }

    /// `resolve` returns at least one address.
    fn with(
        resolve: impl Fn() -> Result<Vec<SocketAddr>, String> + Send + 'static,
        every: Duration,
    ) -> Result<Lookup, String> {
        let (ask, asked) = sync_channel(1);
        let lookup = Lookup::of(resolve()?, Some(ask), every);
        let known = lookup.known.clone();
        let thread = std::thread::Builder::new().name("lookup".to_owned());
        let looking = move || look_up(&asked, &known, resolve);
        thread.spawn(looking).map_err(|error| format!("the thread that looks names up: {error}"))?;
        Ok(lookup)
    }

    fn of(addresses: Vec<SocketAddr>, ask: Option<SyncSender<()>>, every: Duration) -> Lookup {
        Lookup {
            known: Arc::new(Mutex::new(Known { addresses, preferred: 0, looked_up: Instant::now() })),
            ask,
            every,
            is_spread: false,
        }
    }

    /// The address for the next connect of a client, `refused` of whose connects were refused in a row. Clients are dealt out among several
    /// gateways by their numbers.
    pub(crate) fn address(&self, client: usize, refused: usize) -> Option<SocketAddr> {
        let known = lock(&self.known);
        if let Some(ask) = self.ask.as_ref().filter(|_| known.looked_up.elapsed() >= self.every) {
            // Full: a lookup is asked for or under way.
            let _ = ask.try_send(());
        }
        let first = if self.is_spread { client } else { known.preferred };
        let index = (first + refused) % known.addresses.len().max(1);
        known.addresses.get(index).copied()
    }

    /// All addresses, in the order in which they are tried.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        lock(&self.known).addresses.clone()
    }

    /// A connect to this address has worked.
    pub(crate) fn worked(&self, address: SocketAddr) {
        let mut known = lock(&self.known);
        if known.addresses.get(known.preferred) != Some(&address)
            && let Some(index) = known.addresses.iter().position(|other| *other == address)
        {
            known.preferred = index;
        }
    }
}

/// Ends when the last sender is dropped.
fn look_up(asked: &Receiver<()>, known: &Mutex<Known>, resolve: impl Fn() -> Result<Vec<SocketAddr>, String>) {
    while asked.recv().is_ok() {
        let found = resolve();
        let mut known = lock(known);
        known.looked_up = Instant::now();
        // A name server that does not answer removes no known address.
        let Ok(addresses) = found else { continue };
        let worked = known.addresses.get(known.preferred).copied();
        known.preferred = addresses.iter().position(|address| Some(*address) == worked).unwrap_or(0);
        known.addresses = addresses;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, host], 7400))
    }

    #[test]
    fn address_is_refused_then_the_next_one_is_tried_and_what_works_is_kept() {
        let lookup = Lookup::with(|| Ok(vec![at(1), at(2), at(3)]), Duration::from_secs(3600)).unwrap();
        assert_eq!(lookup.addresses().len(), 3);
        let tried = |lookup: &Lookup| (0..4).map(|refused| lookup.address(0, refused).unwrap()).collect::<Vec<_>>();
        assert_eq!(tried(&lookup), [at(1), at(2), at(3), at(1)]);
        lookup.worked(at(2));
        assert_eq!(tried(&lookup), [at(2), at(3), at(1), at(2)]);
        // An address that the name does not have any more.
        lookup.worked(at(9));
        assert_eq!(lookup.address(0, 0), Some(at(2)));
    }

    #[test]
    fn name_moves_then_later_connects_go_where_it_points_now() {
        let answers = Mutex::new(vec![Err("no answer".to_owned()), Ok(vec![at(4), at(2)]), Ok(vec![at(1), at(2)])]);
        let last = Mutex::new(Ok(vec![at(5)]));
        let resolve = move || answers.lock().unwrap().pop().unwrap_or_else(|| last.lock().unwrap().clone());
        let lookup = Lookup::with(resolve, Duration::ZERO).unwrap();
        lookup.worked(at(2));
        let deadline = Instant::now() + Duration::from_secs(30);
        // Each connect asks; the second lookup moves the first address, and what worked stays preferred.
        while lookup.address(0, 1) != Some(at(4)) {
            assert!(Instant::now() < deadline, "{:?}", lookup.address(0, 1));
            std::thread::yield_now();
        }
        // The third has no answer, the fourth has moved everything.
        while lookup.address(0, 0) != Some(at(5)) {
            assert!(Instant::now() < deadline, "{:?}", lookup.address(0, 0));
            std::thread::yield_now();
        }
    }

    #[test]
    fn gateways_are_several_then_clients_are_dealt_out_and_go_on_to_the_next_one_that_does_not_refuse() {
        let url: Url = "tcp://127.0.0.1:1,127.0.0.1:2,127.0.0.1:3".parse().unwrap();
        let lookup = Lookup::new(&url, None).unwrap();
        let port = |client, refused| lookup.address(client, refused).unwrap().port();
        assert_eq!([port(0, 0), port(1, 0), port(2, 0), port(3, 0)], [1, 2, 3, 1]);
        assert_eq!([port(1, 1), port(1, 2), port(1, 3)], [3, 1, 2]);
        lookup.worked(lookup.address(2, 0).unwrap());
        assert_eq!(port(0, 0), 1, "what works for one client is not for all");
    }

    #[test]
    fn host_is_an_address_then_nothing_is_looked_up() {
        let lookup = Lookup::new(&"tcp://192.0.2.1:7400".parse().unwrap(), None).unwrap();
        assert!(lookup.ask.is_none());
        assert_eq!((lookup.address(0, 0), lookup.address(0, 7)), (Some(at(1)), Some(at(1))));
    }
}
