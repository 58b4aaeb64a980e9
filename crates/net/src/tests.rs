//! A ring of its own and real sockets, with a driver that only counts.

use std::io::Write;
use std::net::TcpStream;

use std::net::SocketAddr;

use ringgate_core::close::CloseReason;

use super::*;
use ringgate_core::outbox::Chunk;
use ringgate_core::transport::Handshake;

/// As long as a test may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Counting {
    opened: Option<ConnectionKey>,
    received: usize,
    /// Nothing more is taken in from so many bytes on.
    bytes_max: usize,
}

impl Driver for Counting {
    fn opened(&mut self, key: ConnectionKey, _: SocketAddr, _: Transport, _: bool) -> bool {
        self.opened = Some(key);
        true
    }
    fn secured(&mut self, _: ConnectionKey, _: Handshake) {}
    fn received(&mut self, _: ConnectionKey, bytes: &[u8]) {
        self.received += bytes.len();
    }
    fn takes_more(&mut self, _: ConnectionKey) -> bool {
        self.received < self.bytes_max
    }
    fn ended(&mut self, _: ConnectionKey, _: CloseReason) {}
    fn freed(&mut self, _: ConnectionKey) {}
    fn pull(&mut self, _: ConnectionKey) -> Option<Chunk> {
        None
    }
    fn recycle(&mut self, _: ConnectionKey, _: Vec<u8>) {}
}

fn net(descriptors: Descriptors) -> (Net, Arc<ShardMetrics>, TcpListener) {
    let metrics = Arc::new(ShardMetrics::default());
    let options =
        NetOptions { slots: 16, descriptors, recv_buffers: 64, accepts_in_flight: 1, ..NetOptions::default() };
    let net = Net::new(options, metrics.clone(), &Bell::new().unwrap()).unwrap();
    (net, metrics, TcpListener::bind("127.0.0.1:0").unwrap())
}

fn turn_until(net: &mut Net, driver: &mut Counting, what: &str, done: impl Fn(&Counting) -> bool) {
    let began = Instant::now();
    while !done(driver) {
        assert!(began.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        net.poll(driver);
        net.wait(Duration::from_millis(10));
    }
}

#[test]
fn untrusted_client_sends_much_at_once_then_one_buffer_beyond_the_bound_is_taken() {
    const BYTES_MAX: usize = 36_864;
    const SENT: usize = 120_000;
    for descriptors in [Descriptors::Direct, Descriptors::Ordinary] {
        let (mut net, _, listener) = net(descriptors);
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        net.receive_stepwise();
        net.listen(listener, Transport::Plain);
        // In the socket before the first receive, as far as it takes them.
        let sending = std::thread::spawn(move || {
            client.write_all(&[7; SENT]).unwrap();
            client
        });
        let mut driver = Counting { bytes_max: BYTES_MAX, ..Counting::default() };
        turn_until(&mut net, &mut driver, "the bound", |driver| driver.received >= BYTES_MAX);
        let buffer_bytes = NetOptions::default().recv_buffer_bytes;
        // Nothing is armed: further turns bring nothing.
        for _ in 0..8 {
            net.poll(&mut driver);
            net.wait(Duration::from_millis(5));
        }
        assert!(driver.received < BYTES_MAX + buffer_bytes, "{}", driver.received);
        // Trusted and released, all of it comes, by receives that stay armed.
        let key = driver.opened.unwrap();
        driver.bytes_max = 0;
        net.trust(key);
        net.hold(key, true);
        net.hold(key, false);
        turn_until(&mut net, &mut driver, "the rest", |driver| driver.received == SENT);
        drop(sending.join().unwrap());
    }
}

#[test]
fn accept_fails_for_an_unexpected_reason_then_it_is_counted_and_tried_again_after_a_pause() {
    let (mut net, metrics, listener) = net(Descriptors::for_this_kernel());
    // accept(2) on a socket that does not listen any more fails with EINVAL.
    socket2::SockRef::from(&listener).shutdown(std::net::Shutdown::Both).unwrap();
    net.listen(listener, Transport::Plain);
    let mut driver = Counting::default();
    let (began, mut turns) = (Instant::now(), 0);
    while metrics.accept_exhausted.read() < 3 {
        assert!(began.elapsed() < DEADLINE, "{} were counted", metrics.accept_exhausted.read());
        net.poll(&mut driver);
        net.wait(Duration::from_millis(10));
        turns += 1;
    }
    assert!(began.elapsed() >= 2 * ACCEPT_PAUSE, "two pauses, {turns} turns");
    assert!(metrics.ring_submissions.read() <= 8, "one accept for each pause: {}", metrics.ring_submissions.read());
}
