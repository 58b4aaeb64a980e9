//! The shard's sockets, on a ring of its own: bytes in, bytes out, and nothing decided.
//!
//! Both directions: the gateway accepts with it, the load tester and tests connect with it. The caller is a
//! [`Driver`]: it is told what happened and asked for what to send. One receive is armed per socket, for good, into
//! the shard's ring of provided buffers (a socket that is not trusted yet is received from one buffer at a time); at most one send is in the kernel per socket, with everything that was
//! queued when it was made.
//!
//! Invariants: a completion is acted on only if its slot still has its generation; a slot is freed only after
//! every operation on it has come back; memory that the kernel knows is freed only after that.
//!
//! | file | what |
//! |---|---|
//! | `listen`, `accept` | listeners, and connections that come |
//! | `introduce`, `proxy`, `network` | connections that a proxy introduces, and which proxies may |
//! | `connect` | connections that are made |
//! | `driver`, `options` | what the caller is told, and how much there is of everything |
//! | `layer`, `tls`, `ws`, `portion` | what a connection speaks between the socket and its frames |
//! | `handshake` | steps of a layer's handshake, and how a layer ends or fails |
//! | `receive`, `buffers` | bytes that come, and where the kernel puts them |
//! | `send`, `gather`, `sends` | bytes that leave: when, what goes together, and what is in the kernel |
//! | `operation` | what a completion is about |
//! | `quiet` | ends that the kernel does not announce |
//! | `starved` | receives that found no buffer |
//! | `teardown` | how a socket ends |
//! | `ring`, `bell` | the ring itself, and what wakes who sleeps in it |
//! | `probe` | whether this kernel can do all that |

mod accept;
mod bell;
mod buffers;
mod connect;
pub mod dial;
mod driver;
mod gather;
mod handshake;
mod introduce;
pub mod json;
pub mod kernel;
mod layer;
mod listen;
pub mod network;
mod operation;
mod options;
mod portion;
mod probe;
pub mod proxy;
mod quiet;
mod receive;
mod ring;
mod send;
mod sends;
mod socket;
mod starved;
mod teardown;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod ws;

use std::collections::VecDeque;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::types::Fd;
use io_uring::{cqueue, opcode, squeue};
use ringgate_core::id::ConnectionKey;
use ringgate_core::limits::{BUSY_AFTER_MS, BUSY_SPREAD_MS};
use ringgate_core::metrics::ShardMetrics;
use ringgate_core::prefetch::TOGETHER;
use ringgate_core::slots::Slots;
use ringgate_core::transport::Transport;
use rustls::ServerConfig;
use socket2::SockAddr;

pub use bell::Bell;
pub use connect::Target;
pub use driver::Driver;
pub use listen::{BACKLOG, Front, bind, is_taken, shrink_buffers};
pub use options::{Descriptors, NetOptions, raise_descriptor_limit};
pub use probe::{Outcome, Probe, probe};
pub use ring::RingError;

use crate::layer::Framing;
use crate::ws::{Refusal, Rules};
use buffers::Buffers;
use listen::{Accept, Listener};
use operation::Operation;
use quiet::QuietList;
use ring::Ring;
use sends::Sends;
use socket::Socket;
use starved::Starved;

/// See the module.
pub struct Net {
    // The ring is dropped, and with it everything that the kernel still does, before the memory it works on.
    ring: Ring,
    buffers: Buffers,
    /// Receives take several buffers at once.
    bundles: bool,
    sends: Sends,
    accepts: Vec<Accept>,
    connects: Vec<Option<Box<SockAddr>>>,
    sockets: Slots<Socket>,
    free: Vec<u32>,
    options: NetOptions,
    listeners: Vec<Listener>,
    server_tls: Option<Arc<ServerConfig>>,
    starved: Starved,
    quiet: QuietList,
    /// Where peeks put what they see; nobody reads it.
    peeked: Box<u8>,
    /// Sockets with handshake bytes to look at: a few per turn.
    handshakes: VecDeque<ConnectionKey>,
    /// Sockets whose header of the PROXY protocol is still to come, and until when.
    headers: VecDeque<(Instant, ConnectionKey)>,
    accepts_armed: usize,
    /// Refused connections whose descriptors are being closed.
    discarding: usize,
    accepting: bool,
    /// A listener has no accept armed, because no slot is free for one.
    exhausted: bool,
    /// What refused connections are told, in turn.
    farewells: Vec<Vec<u8>>,
    next_farewell: usize,
    /// As `farewells`, for connections that begin with a request of HTTP.
    websocket_farewells: Vec<Vec<u8>>,
    /// Accepted sockets are not trusted at first.
    stepwise: bool,
    /// What ends [`Self::wait`], if anything does besides completions.
    bell: Option<Arc<Bell>>,
    /// Accepts failed for want of descriptors or memory: try again then.
    accept_again: Option<Instant>,
    completions: Vec<cqueue::Entry>,
    /// Of layers that seal what is gathered.
    scratch: Vec<u8>,
    metrics: Arc<ShardMetrics>,
}

/// Completions looked at in one turn.
const COMPLETIONS_PER_TURN: usize = 1024;
/// TLS handshake steps per turn; a full handshake costs about 135 us.
const HANDSHAKES_PER_TURN: usize = 8;
/// Sockets that have fallen quiet, looked at in one turn.
const PEEKS_PER_TURN: usize = 256;
/// Listed sockets passed in one turn: most have been heard again.
const QUIET_PER_TURN: usize = 4096;
/// Pause after an accept that found no descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Builds an entry for the descriptor wherever it lives.
macro_rules! on_socket {
    ($key:expr, $socket:expr, |$fd:ident| $build:expr) => {
        if $socket.fd < 0 {
            let $fd = Fixed($key.slot);
            $build
        } else {
            let $fd = Fd($socket.fd);
            $build
        }
    };
}
use on_socket;

impl Net {
    /// A ring without sockets, for the calling thread alone, which sleeps on `bell`; a thread's rings share one.
    pub fn new(options: NetOptions, metrics: Arc<ShardMetrics>, bell: &Bell) -> Result<Self, RingError> {
        let ring = Ring::new(options.submission_entries, options.completion_entries, bell)?;
        if options.descriptors == Descriptors::Direct {
            ring.register_slots(options.slots + options.spare_slots)?;
        }
        let buffers = Buffers::register(&ring.submitter(), options.recv_buffers, options.recv_buffer_bytes)?;
        Ok(Net {
            bundles: ring.receives_bundles(),
            ring,
            buffers,
            sends: Sends::default(),
            accepts: Vec::new(),
            connects: Vec::new(),
            sockets: Slots::default(),
            free: (0..options.slots).rev().collect(),
            options,
            listeners: Vec::new(),
            server_tls: None,
            starved: Starved::default(),
            quiet: QuietList::new(),
            peeked: Box::default(),
            handshakes: VecDeque::new(),
            headers: VecDeque::new(),
            accepts_armed: 0,
            discarding: 0,
            accepting: true,
            exhausted: false,
            farewells: Vec::new(),
            next_farewell: 0,
            websocket_farewells: Vec::new(),
            stepwise: false,
            bell: None,
            accept_again: None,
            completions: Vec::with_capacity(COMPLETIONS_PER_TURN),
            scratch: Vec::new(),
            metrics,
        })
    }

    /// Accepts on a listener from the next [`Self::poll`] on. TLS listeners need [`Self::set_server_tls`] first.
    pub fn listen(&mut self, socket: TcpListener, transport: Transport) {
        self.add_listener(Listener { socket, transport, framing: Framing::Bare, proxies: Vec::new() });
    }

    /// As [`Self::listen`] or [`Self::listen_websocket`], as the front says. Where it is open to WebSocket, [`Driver::opened`] is told of the transport below it,
    /// and [`Driver::recognised`] of the transport that it is.
    pub fn listen_as(&mut self, socket: TcpListener, front: &Front, rules: &Rules) {
        let websocket = front.is_open_to_websocket || front.transport.is_websocket();
        let framing = match websocket.then(|| self.websocket_rules(rules.clone())) {
            None => Framing::Bare,
            Some(rules) if front.is_open_to_websocket => Framing::Either(rules),
            Some(rules) => Framing::WebSocket(rules),
        };
        self.add_listener(Listener { socket, transport: front.transport, framing, proxies: front.proxies.clone() });
    }

    /// As [`Self::listen`], for WebSocket connections over the transport, which [`Driver::opened`] is told of as `ws` or `wss`. Frames travel in
    /// binary messages or as JSON in texts, as the client asks ([`Subprotocol`](crate::ws::Subprotocol)).
    pub fn listen_websocket(&mut self, socket: TcpListener, transport: Transport, rules: Rules) {
        let framing = Framing::WebSocket(self.websocket_rules(rules));
        self.add_listener(Listener { socket, transport: transport.with_websocket(), framing, proxies: Vec::new() });
    }

    fn websocket_rules(&mut self, rules: Rules) -> Arc<Rules> {
        if self.websocket_farewells.is_empty() {
            let seconds = BUSY_AFTER_MS.div_ceil(1000)..=(BUSY_AFTER_MS + BUSY_SPREAD_MS).div_ceil(1000);
            self.websocket_farewells = seconds.map(|seconds| Refusal::Unavailable(seconds).answer()).collect();
        }
        Arc::new(rules)
    }

    fn add_listener(&mut self, listener: Listener) {
        let index = self.listeners.len();
        self.listeners.push(listener);
        self.accepts.extend((0..self.accepts_per_listener()).map(|_| Accept::new(index)));
    }

    /// What plain connections that the driver does not take are told in turn before they are closed. To be set before the
    /// first listener is: the kernel reads from these.
    pub fn set_farewells(&mut self, frames: Vec<Vec<u8>>) {
        self.farewells = frames;
    }

    /// Has sockets that are accepted from now on received from one buffer at a time, and the driver asked before each: what one
    /// sends is bounded exactly, at the price of one submission for each receive. Until [`Self::trust`].
    pub fn receive_stepwise(&mut self) {
        self.stepwise = true;
    }

    /// From the next receive on, one stays armed for good on this socket and takes as many buffers as have come.
    pub fn trust(&mut self, key: ConnectionKey) {
        if let Some(socket) = self.sockets.get_mut(key) {
            socket.stepwise = false;
        }
    }

    fn accepts_per_listener(&self) -> usize {
        self.options.accepts_in_flight.max(1)
    }

    /// The certificate and settings of connections accepted from now on.
    pub fn set_server_tls(&mut self, config: Arc<ServerConfig>) {
        self.server_tls = Some(config);
    }

    /// Accepts nothing any more; what the kernel accepts in this moment is closed.
    pub fn stop_accepting(&mut self) {
        self.accepting = false;
        for index in 0..self.accepts.len() {
            if self.accepts.get(index).is_some_and(|accept| accept.armed) {
                let data = Operation::Accept.on(ConnectionKey { slot: index as u32, generation: 0 });
                let entry = opcode::AsyncCancel::new(data).build().user_data(Operation::Cancel.alone());
                self.ring.push(&entry, &self.metrics);
            }
        }
        self.drop_headers();
        self.listeners.clear();
    }

    /// What a peer has said within an unfinished TLS handshake, and nobody has looked at yet: one that closes right behind it
    /// may have said why. Empty without TLS.
    pub fn held_back(&self, key: ConnectionKey) -> &[u8] {
        self.sockets.get(key).map_or(&[], |socket| socket.layers.kept())
    }

    /// Sockets that are not freed yet.
    pub fn sockets(&self) -> usize {
        self.sockets.len()
    }

    /// Whether there is something for [`Self::poll`], as far as can be told without entering the kernel.
    pub fn has_work(&mut self) -> bool {
        !self.handshakes.is_empty() || !self.starved.is_empty() || self.ring.has_completions()
    }

    /// Submits everything and says whether the thread may sleep on its bell.
    pub fn prepare_sleep(&mut self) -> bool {
        if !self.handshakes.is_empty() || !self.starved.is_empty() {
            return false;
        }
        self.ring.fall_asleep(&self.metrics)
    }

    /// To be called after every sleep that [`Self::prepare_sleep`] allowed: what happened meanwhile is ready for
    /// [`Self::poll`].
    pub fn wake_up(&mut self) {
        self.ring.ring_the_bell(false);
        self.ring.enter_if_needed(&self.metrics);
    }

    /// Has [`Self::wait`] end when the bell is rung, too: for a thread that sleeps on this ring and no other.
    pub fn listen_to(&mut self, bell: Arc<Bell>) {
        self.bell = Some(bell);
        self.arm_bell();
    }

    fn arm_bell(&mut self) {
        let Some(bell) = &self.bell else { return };
        // Nobody reads the counter: every ring of the bell is an event of its own.
        let poll = opcode::PollAdd::new(Fd(bell.as_fd().as_raw_fd()), libc::POLLIN as u32).multi(true);
        self.ring.push(&poll.build().user_data(Operation::Bell.alone()), &self.metrics);
    }

    /// Submits everything and waits for completions, at most this long, unless there is something to do already.
    pub fn wait(&mut self, timeout: Duration) {
        if self.has_work() {
            self.submit();
        } else {
            self.ring.enter_and_wait(timeout, &self.metrics);
        }
    }

    /// Lets go of memory that is only kept for the next busy moment.
    pub fn release_spares(&mut self) {
        self.sends.release_spares();
        self.scratch = Vec::new();
        self.handshakes.shrink_to_fit();
        self.headers.shrink_to_fit();
        self.starved.release_spares();
        self.quiet.release_spares();
    }

    /// Submits everything without waiting.
    pub fn submit(&mut self) {
        self.ring.enter_if_needed(&self.metrics);
    }

    /// Handles what has happened, a bounded portion of it. True when something had.
    pub fn poll(&mut self, driver: &mut impl Driver) -> bool {
        while let Some(key) = self.quiet.next_fresh() {
            if let Some(socket) = self.sockets.get_mut(key) {
                self.quiet.settle(key, &mut socket.quiet);
            }
        }
        let mut completions = core::mem::take(&mut self.completions);
        self.ring.completions(&mut completions, &self.metrics);
        let mut busy = !completions.is_empty();
        for some in completions.chunks(TOGETHER) {
            for completion in some {
                let Some((operation, key)) = Operation::parse(completion.user_data()) else { continue };
                if matches!(operation, Operation::Receive | Operation::Send) {
                    self.sockets.prefetch(key.slot);
                }
                if operation == Operation::Receive {
                    driver.expect(key);
                }
            }
            for completion in some {
                self.on_completion(completion, driver);
            }
        }
        completions.clear();
        self.completions = completions;
        self.starved.begin_turn(self.options.recv_buffers);
        while let Some(key) = self.starved.next() {
            self.arm_receive(key);
        }
        let (mut passed, mut peeks) = (0, 0);
        while passed < QUIET_PER_TURN
            && peeks < PEEKS_PER_TURN
            && let Some(key) = self.quiet.next()
        {
            passed += 1;
            peeks += usize::from(self.peek(key));
        }
        for _ in 0..HANDSHAKES_PER_TURN {
            let Some(key) = self.handshakes.pop_front() else { break };
            busy = true;
            self.step_handshake(key, driver);
        }
        self.expire_headers(driver);
        if self.accept_again.is_some_and(|at| Instant::now() >= at) {
            self.accept_again = None;
            self.arm_accepts();
        } else if self.accepts_armed == 0 {
            self.arm_accepts();
        }
        self.metrics.ring_slots_used.set(self.sockets.len() as u64);
        busy
    }

    /// When accepting goes on after it ran out of descriptors.
    pub fn accept_again_at(&self) -> Option<Instant> {
        self.accept_again
    }

    fn push(&mut self, entry: squeue::Entry, operation: Operation, key: ConnectionKey) {
        self.ring.push(&entry.user_data(operation.on(key)), &self.metrics);
    }

    fn on_completion(&mut self, completion: &cqueue::Entry, driver: &mut impl Driver) {
        let Some((operation, key)) = Operation::parse(completion.user_data()) else { return };
        match operation {
            Operation::Accept => self.on_accepted(key.slot as usize, completion.result(), driver),
            Operation::Receive => self.on_received(key, completion, driver),
            Operation::Send => self.on_sent(key, completion.result(), driver),
            Operation::Connect => self.on_connected(key, completion.result(), driver),
            Operation::Shutdown => self.on_shut(key),
            Operation::Close => self.on_closed(key, driver),
            Operation::Peek => self.on_peeked(key, completion.result(), driver),
            // That it ended the wait is all it is for.
            Operation::Bell if cqueue::more(completion.flags()) => {}
            Operation::Bell => self.arm_bell(),
            Operation::Discard => self.on_discarded(),
            // What a cancel ends has a completion of its own; a refused connection is closed whether it could be sent something or
            // not.
            Operation::Cancel | Operation::Farewell => {}
        }
    }
}
