//! What a run is made of, and which of its clients are whose: dealt out in turn to processes, and in each to rings.

use std::ops::Range;
use std::time::Duration;

use ringgate_core::transport::Transport;
use ringgate_net::dial::Url;

/// What clients of the load tester connect over; numbers of connections are listed in this order.
pub(crate) const TRANSPORTS: [Transport; 2] = [Transport::Plain, Transport::Tls];

/// What a run is made of, without secrets; every process of the run has it.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Assignment {
    /// Where plain clients go; somewhere else if there are none.
    #[serde(with = "UrlParts")]
    pub(crate) plain: Url,
    /// Where TLS clients go; somewhere else if there are none.
    #[serde(with = "UrlParts")]
    pub(crate) tls: Url,
    /// Most connections that will ever be wanted: plain, TLS. TLS clients are numbered after the plain ones.
    pub(crate) connections: [usize; 2],
    /// Clients of each population, in the order of their names; empty where there is only one population.
    pub(crate) populations: Vec<Range<u32>>,
    /// Between two Pings of a client.
    pub(crate) ping_interval: Duration,
    /// How long what was accepted may take to arrive once nothing is sent any more; a Pong, whenever.
    pub(crate) settle: Duration,
    /// Connects begun per second, all processes and threads together; none for as fast as it goes.
    pub(crate) ramp_rate: Option<f64>,
    /// Connects begun at once under that rate.
    pub(crate) ramp_burst: u32,
    /// Clients that lose their connection come back, as the protocol asks.
    pub(crate) reconnect: bool,
    /// Every TLS handshake is a full one.
    pub(crate) no_resumption: bool,
    /// How long a client may take from the beginning of its connect until it is signed in.
    pub(crate) connect_timeout: Duration,
    /// Clients are written to by the name of their user, so that each needs one of its own.
    pub(crate) addressed: bool,
}

/// How a [`Url`] is sent.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(remote = "Url")]
struct UrlParts {
    host: String,
    port: u16,
    others: Vec<(String, u16)>,
    tls: bool,
}

/// Which of the processes that drive a run. The clients are dealt out to them in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Part {
    /// From 0.
    pub(crate) worker: usize,
    /// How many there are.
    pub(crate) of: usize,
}

impl Part {
    /// The only one.
    pub(crate) const ALONE: Part = Part { worker: 0, of: 1 };

    /// How many of so many clients are this part's.
    pub(crate) fn share(self, clients: usize) -> usize {
        deal(clients, self.of, self.worker)
    }
}

/// How many of so many things go to this one of several who take turns.
fn deal(things: usize, takers: usize, taker: usize) -> usize {
    (things + takers - 1 - taker) / takers
}

/// A process's part of an [`Assignment`].
pub(crate) struct Plan {
    /// What the whole run is made of.
    pub(crate) assignment: Assignment,
    /// Which part of it is driven here.
    pub(crate) part: Part,
    /// Rings of clients.
    pub(crate) rings: usize,
    /// Driver threads: one for each core that this process may use, if there are rings enough.
    pub(crate) threads: usize,
    /// Slots of each.
    pub(crate) slots_per_ring: u32,
}

impl Assignment {
    /// Where its clients go, as URLs.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let used = [(&self.plain, self.connections[0]), (&self.tls, self.connections[1])];
        let used = used.into_iter().filter(|(_, connections)| *connections > 0);
        let written = |host: &str, port: u16| match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        used.map(|(Url { host, port, others, tls }, _)| {
            let scheme = if *tls { "tls" } else { "tcp" };
            let others = others.iter().map(|(host, port)| written(host, *port));
            let hosts: Vec<_> = std::iter::once(written(host, *port)).chain(others).collect();
            format!("{scheme}://{}", hosts.join(","))
        })
        .collect()
    }

    /// Number of the population that a client belongs to.
    pub(crate) fn population(&self, client: u32) -> u8 {
        self.populations.iter().position(|clients| clients.contains(&client)).unwrap_or(0) as u8
    }

    /// A part of it.
    pub(crate) fn plan(self, part: Part) -> Plan {
        let own = self.connections.iter().map(|count| part.share(*count)).sum();
        let rings = crate::rings_for(own);
        let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
        Plan { assignment: self, part, rings, threads: rings.min(cores), slots_per_ring: crate::slots_for(own, rings) }
    }
}

impl Plan {
    /// How many of the wanted connections of one transport are this ring's.
    pub(crate) fn share(&self, wanted: usize, ring: usize) -> usize {
        deal(self.part.share(wanted), self.rings, ring)
    }

    /// Number of a ring's client.
    pub(crate) fn number(&self, transport: Transport, ring: usize, index: usize) -> u32 {
        let number = ((index * self.rings + ring) * self.part.of + self.part.worker) as u32;
        if transport == Transport::Tls { self.plain_max() + number } else { number }
    }

    /// Transport, ring and index of a client; none if it is another process's.
    pub(crate) fn place(&self, number: u32) -> Option<(Transport, usize, usize)> {
        let (transport, number) = match number.checked_sub(self.plain_max()) {
            Some(number) => (Transport::Tls, number as usize),
            None => (Transport::Plain, number as usize),
        };
        let own = number / self.part.of;
        (number % self.part.of == self.part.worker).then_some((transport, own % self.rings, own / self.rings))
    }

    /// When the ramp plans connect number `index` of a ring, in microseconds since the ramp began; none without a rate.
    pub(crate) fn ramp_us(&self, ring: usize, index: u64) -> Option<u64> {
        let rate = self.assignment.ramp_rate?;
        // Processes, and the rings of each, take turns within the rate.
        let own = index * self.rings as u64 + ring as u64;
        let turn = own * self.part.of as u64 + self.part.worker as u64;
        let burst = u64::from(self.assignment.ramp_burst);
        Some(((turn / burst * burst) as f64 * 1e6 / rate) as u64)
    }

    fn plain_max(&self) -> u32 {
        self.assignment.connections[0] as u32
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn plan(connections: [usize; 2], part: Part) -> Plan {
        let url = |text: &str| text.parse::<Url>().unwrap();
        let assignment = Assignment {
            plain: url("tcp://127.0.0.1:1"),
            tls: url("tls://127.0.0.1:2"),
            connections,
            populations: vec![0..5, 9..12, 5..9],
            ping_interval: Duration::from_secs(1),
            settle: Duration::from_secs(1),
            ramp_rate: Some(1000.0),
            ramp_burst: 1,
            reconnect: false,
            no_resumption: false,
            connect_timeout: Duration::from_secs(10),
            addressed: false,
        };
        assignment.plan(part)
    }

    #[test]
    fn addresses_are_those_that_clients_go_to() {
        let Plan { assignment, .. } = plan([3, 1], Part::ALONE);
        assert_eq!(assignment.addresses(), ["tcp://127.0.0.1:1", "tls://127.0.0.1:2"]);
        let tls = "tls://[::1]:2".parse::<Url>().unwrap();
        assert_eq!(Assignment { connections: [0, 2], tls, ..assignment }.addresses(), ["tls://[::1]:2"]);
    }

    #[test]
    fn clients_know_their_population() {
        let plan = plan([9, 3], Part::ALONE);
        let of = |client| plan.assignment.population(client);
        assert_eq!([of(0), of(4), of(5), of(8), of(9), of(11)], [0, 0, 2, 2, 1, 1]);
        assert_eq!(Assignment { populations: Vec::new(), ..plan.assignment }.population(7), 0);
    }

    #[test]
    fn every_client_has_exactly_one_place() {
        for (connections, of) in [([1, 0], 1), ([7, 5], 1), ([7, 5], 3), ([1, 1], 4), ([40_001, 30_000], 2)] {
            let plans: Vec<_> = (0..of).map(|worker| plan(connections, Part { worker, of })).collect();
            let mut numbers = Vec::new();
            let mut turns = Vec::new();
            for plan in &plans {
                let mut slots = vec![0; plan.rings];
                for transport in TRANSPORTS {
                    for (ring, slots) in slots.iter_mut().enumerate() {
                        let share = plan.share(connections[transport as usize], ring);
                        *slots += share;
                        for index in 0..share {
                            let number = plan.number(transport, ring, index);
                            assert_eq!(plan.place(number), Some((transport, ring, index)));
                            numbers.push(number);
                        }
                    }
                }
                assert!(slots.iter().all(|slots| *slots <= plan.slots_per_ring as usize));
                turns.extend((0..plan.rings).map(|ring| plan.ramp_us(ring, 0).unwrap()));
            }
            numbers.sort_unstable();
            assert_eq!(numbers, (0..(connections[0] + connections[1]) as u32).collect::<Vec<_>>());
            for number in [0, numbers.len() as u32 - 1] {
                assert_eq!(plans.iter().filter(|plan| plan.place(number).is_some()).count(), 1);
            }
            turns.sort_unstable();
            let in_turn: Vec<_> = (0..turns.len() as u64).map(|turn| turn * 1000).collect();
            assert_eq!(turns, in_turn, "no two rings connect at the same turn of the ramp");
        }
    }
}
