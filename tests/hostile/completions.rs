//! The ring with tiny queues under many sockets: completions that find their queue full are counted, and none is lost.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ringgate_core::close::CloseReason;
use ringgate_core::id::ConnectionKey;
use ringgate_core::metrics::ShardMetrics;
use ringgate_core::outbox::Chunk;
use ringgate_core::transport::Transport;
use ringgate_net::{Bell, Descriptors, Driver, Net, NetOptions, bind};

use crate::support::DEADLINE;

const CLIENTS: usize = 256;
const ROUNDS: usize = 20;

/// Sends back what comes, and closes sockets that are done.
#[derive(Default)]
struct Echo {
    queues: BTreeMap<u32, VecDeque<Vec<u8>>>,
    changed: Vec<ConnectionKey>,
    ended: Vec<ConnectionKey>,
    opened: usize,
    freed: usize,
}

impl Driver for Echo {
    fn opened(&mut self, key: ConnectionKey, _: SocketAddr, _: Transport, _: bool) -> bool {
        self.opened += 1;
        assert!(self.queues.insert(key.slot, VecDeque::new()).is_none(), "a slot was given out twice");
        true
    }

    fn secured(&mut self, _: ConnectionKey, _: ringgate_core::transport::Handshake) {}

    fn received(&mut self, key: ConnectionKey, bytes: &[u8]) {
        self.queues.get_mut(&key.slot).expect("an open socket").push_back(bytes.to_vec());
        self.changed.push(key);
    }

    fn ended(&mut self, key: ConnectionKey, _: CloseReason) {
        self.ended.push(key);
    }

    fn freed(&mut self, key: ConnectionKey) {
        self.freed += 1;
        self.queues.remove(&key.slot).expect("an open socket");
    }

    fn pull(&mut self, key: ConnectionKey) -> Option<Chunk> {
        self.queues.get_mut(&key.slot)?.pop_front().map(Chunk::Control)
    }

    fn recycle(&mut self, _: ConnectionKey, _: Vec<u8>) {}
}

/// Serves until everybody has come and gone.
fn serve(mut net: Net) -> Echo {
    let mut echo = Echo::default();
    let give_up = Instant::now() + DEADLINE * 2;
    while echo.freed < CLIENTS {
        assert!(Instant::now() < give_up, "{} opened, {} freed", echo.opened, echo.freed);
        net.poll(&mut echo);
        for key in std::mem::take(&mut echo.changed) {
            net.flush(key, &mut echo);
        }
        for key in std::mem::take(&mut echo.ended) {
            net.close(key, true, &mut echo);
        }
        net.wait(Duration::from_millis(50));
    }
    assert_eq!(net.sockets(), 0);
    echo
}

fn every_byte_comes_back(descriptors: Descriptors, recv_buffers: u16) {
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), false).unwrap();
    let address = listener.local_addr().unwrap();
    let metrics = Arc::new(ShardMetrics::default());
    let counted = metrics.clone();
    let server = thread::spawn(move || {
        let options = NetOptions {
            slots: CLIENTS as u32,
            spare_slots: 0,
            descriptors,
            recv_buffers,
            recv_buffer_bytes: 256,
            accepts_in_flight: 16,
            // The kernel keeps the completion queue at least as long as the other.
            submission_entries: 2,
            completion_entries: 4,
            ..NetOptions::default()
        };
        let mut net = Net::new(options, counted, &Bell::new().unwrap()).unwrap();
        net.listen(listener, Transport::Plain);
        serve(net)
    });
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| TcpStream::connect(address).unwrap()).collect();
    for client in &clients {
        client.set_read_timeout(Some(DEADLINE)).unwrap();
    }
    for round in 0..ROUNDS {
        let said = |client: usize| format!("client {client} in round {round}, {}", "x".repeat(client)).into_bytes();
        // All at once, so that more completes in one moment than the queue holds.
        for (index, client) in clients.iter_mut().enumerate() {
            client.write_all(&said(index)).unwrap();
        }
        for (index, client) in clients.iter_mut().enumerate() {
            let mut heard = vec![0; said(index).len()];
            client.read_exact(&mut heard).unwrap();
            assert!(heard == said(index), "client {index} in round {round}");
        }
    }
    drop(clients);
    let echo = server.join().unwrap();
    assert_eq!((echo.opened, echo.freed, echo.queues.len()), (CLIENTS, CLIENTS, 0));
    assert!(metrics.ring_cq_overflows.read() > 0, "the queue was never full");
    assert_eq!(metrics.ring_slots_used.read(), 0);
}

#[test]
fn completion_queue_is_tiny_then_every_byte_comes_back() {
    every_byte_comes_back(Descriptors::for_this_kernel(), 512);
}

#[test]
fn completion_queue_is_tiny_with_ordinary_descriptors_then_every_byte_comes_back() {
    every_byte_comes_back(Descriptors::Ordinary, 512);
}

#[test]
fn completion_queue_is_tiny_and_buffers_are_few_then_every_byte_comes_back() {
    every_byte_comes_back(Descriptors::for_this_kernel(), 4);
}
