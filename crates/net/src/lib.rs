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
//! | `connect` | connections that are made |
//! | `driver`, `options` | what the caller is told, and how much there is of everything |
//! | `handshake` | TLS of a socket: how it begins, ends and fails |
//! | `buffers`, `gather`, `send` | where bytes are received; what leaves in one send |
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
pub mod kernel;
mod listen;
mod options;
mod probe;
mod quiet;
mod ring;
mod send;
mod socket;
mod starved;
mod teardown;
#[cfg(test)]
mod tests;
pub mod tls;

use std::collections::VecDeque;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::types::{Fd, Fixed};
use io_uring::{cqueue, opcode, squeue};
use rustls::ServerConfig;
use socket2::SockAddr;

pub use bell::Bell;
pub use connect::Target;
pub use driver::Driver;
pub use listen::BACKLOG;
pub use listen::{bind, is_taken, shrink_buffers};
pub use options::{Descriptors, NetOptions, raise_descriptor_limit};
pub use probe::{Outcome, Probe, probe};
pub use ring::RingError;

use crate::tls::Tls;
use buffers::{Buffers, Bundle};
use gather::{gather_plain, gather_tls};
use listen::{Accept, Listener};
use quiet::QuietList;
use ring::Ring;
use ringgate_core::close::CloseReason;
use ringgate_core::id::ConnectionKey;
use ringgate_core::metrics::ShardMetrics;
use ringgate_core::prefetch::TOGETHER;
use ringgate_core::slots::Slots;
use ringgate_core::transport::Transport;
use send::{Owner, Send, SendKey, Sends};
use socket::{Peer, Socket, Stage, Step};
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
    accepts_armed: usize,
    accepting: bool,
    /// A listener has no accept armed, because no slot is free for one.
    exhausted: bool,
    /// What refused connections are told, in turn.
    farewells: Vec<Vec<u8>>,
    next_farewell: usize,
    /// Accepted sockets are not trusted at first.
    stepwise: bool,
    /// What ends [`Self::wait`], if anything does besides completions.
    bell: Option<Arc<Bell>>,
    /// Accepts failed for want of descriptors or memory: try again then.
    accept_again: Option<Instant>,
    completions: Vec<cqueue::Entry>,
    plaintext: Vec<u8>,
    metrics: Arc<ShardMetrics>,
}

const ACCEPT: u64 = 1;
const RECV: u64 = 2;
const SEND: u64 = 3;
const SHUTDOWN: u64 = 4;
const CLOSE: u64 = 5;
const CONNECT: u64 = 6;
const CANCEL: u64 = 7;
const DISCARD: u64 = 8;
const BELL: u64 = 9;
const PEEK: u64 = 10;

/// Completions looked at in one turn.
const COMPLETIONS_PER_TURN: usize = 1024;
/// TLS handshake steps per turn; a full handshake costs about 135 us.
const HANDSHAKES_PER_TURN: usize = 8;
/// Sockets that have fallen quiet, looked at in one turn.
const PEEKS_PER_TURN: usize = 256;
/// Listed sockets passed in one turn: most have been heard again.
const QUIET_PER_TURN: usize = 4096;
/// Bytes of one send. Small frames are copied together up to this; a frame above `COPY_BYTES_MAX` travels alone, uncopied.
const SEND_BYTES_MAX: usize = 64 * 1024;
const COPY_BYTES_MAX: usize = 8 * 1024;
/// Pause after an accept that found no descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

fn user_data(operation: u64, key: ConnectionKey) -> u64 {
    (operation << 56) | (u64::from(key.generation) << 32) | u64::from(key.slot)
}

fn parse_user_data(data: u64) -> (u64, ConnectionKey) {
    let key = ConnectionKey { slot: data as u32, generation: (data >> 32) as u32 & ringgate_core::id::GENERATION_MASK };
    (data >> 56, key)
}

/// Whether a send of the socket is in the kernel: then another follows it.
fn follows(socket: &Socket, sends: &mut Sends) -> bool {
    match socket.send.and_then(|index| sends.get_mut(index)) {
        Some(send) => {
            send.more = true;
            true
        }
        None => false,
    }
}

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
            ring.register_slots(options.slots)?;
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
            accepts_armed: 0,
            accepting: true,
            exhausted: false,
            farewells: Vec::new(),
            next_farewell: 0,
            stepwise: false,
            bell: None,
            accept_again: None,
            completions: Vec::with_capacity(COMPLETIONS_PER_TURN),
            plaintext: Vec::new(),
            metrics,
        })
    }

    /// Accepts on a listener from the next [`Self::poll`] on. TLS listeners need [`Self::set_server_tls`] first.
    pub fn listen(&mut self, socket: TcpListener, transport: Transport) {
        let index = self.listeners.len();
        self.listeners.push(Listener { socket, transport });
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
                let data = user_data(ACCEPT, ConnectionKey { slot: index as u32, generation: 0 });
                let entry = opcode::AsyncCancel::new(data).build().user_data(CANCEL << 56);
                self.ring.push(&entry, &self.metrics);
            }
        }
        self.listeners.clear();
    }

    /// What a peer has said within an unfinished TLS handshake, and nobody has looked at yet: one that closes right behind it
    /// may have said why. Empty without TLS.
    pub fn held_back(&self, key: ConnectionKey) -> &[u8] {
        self.sockets.get(key).and_then(|socket| socket.tls.as_deref()).map_or(&[], Tls::held_back)
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
        self.ring.push(&poll.build().user_data(BELL << 56), &self.metrics);
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
        self.plaintext = Vec::new();
        self.handshakes.shrink_to_fit();
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
                let (operation, key) = parse_user_data(completion.user_data());
                if matches!(operation, RECV | SEND) {
                    self.sockets.prefetch(key.slot);
                }
                if operation == RECV {
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

    /// Sends what the driver has for this socket, unless a send is in the kernel already: then it follows that one.
    pub fn flush(&mut self, key: ConnectionKey, driver: &mut impl Driver) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if socket.step == Some(Step::Connecting) || !socket.is_sending() || follows(socket, &mut self.sends) {
            return;
        }
        let gathered = match socket.tls.as_deref_mut() {
            None => gather_plain(key, &mut self.sends, driver),
            Some(tls) => match gather_tls(tls, key, socket.stage, &mut self.sends, &mut self.plaintext, driver) {
                Ok(gathered) => gathered,
                Err(error) => return self.fail_tls(key, &error, driver),
            },
        };
        match gathered {
            Some(send) => {
                let index = self.sends.insert(send);
                self.submit_send(key, index);
            }
            None if socket.stage == Stage::Flushing => self.shut(key),
            None => {}
        }
    }

    /// Whether any byte has come on this socket, of a TLS handshake or otherwise.
    pub fn has_heard(&self, key: ConnectionKey) -> bool {
        self.sockets.get(key).is_some_and(|socket| socket.quiet != quiet::Quiet::New)
    }

    /// Stops receiving on a socket, or goes on. What has come by then is still handed out; after that the peer finds
    /// its window full.
    pub fn hold(&mut self, key: ConnectionKey, hold: bool) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        socket.held = hold;
        if !hold {
            self.arm_receive(key);
        } else if socket.receiving {
            let entry = opcode::AsyncCancel::new(user_data(RECV, key)).build();
            self.push(entry, CANCEL, key);
        }
    }

    fn push(&mut self, entry: squeue::Entry, operation: u64, key: ConnectionKey) {
        self.ring.push(&entry.user_data(user_data(operation, key)), &self.metrics);
    }

    fn submit_send(&mut self, key: ConnectionKey, index: SendKey) {
        let (Some(socket), Some(send)) = (self.sockets.get_mut(key), self.sends.get_mut(index)) else { return };
        socket.send = Some(index);
        socket.quiet.answered();
        let rest = send.rest();
        // In portions, so that the driver hears of progress: a peer that takes half a megabyte in a minute does read.
        let (pointer, length) = (rest.as_ptr(), rest.len().min(SEND_BYTES_MAX) as u32);
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let entry = on_socket!(key, socket, |fd| opcode::Send::new(fd, pointer, length).flags(flags).build());
        self.push(entry, SEND, key);
    }

    fn arm_receive(&mut self, key: ConnectionKey) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if socket.receiving || socket.held || socket.is_over() {
            return;
        }
        socket.receiving = true;
        let buffer_bytes = self.options.recv_buffer_bytes as u32;
        let entry = on_socket!(key, socket, |fd| if socket.stepwise {
            let receive = opcode::Recv::new(fd, std::ptr::null_mut(), buffer_bytes).buf_group(buffers::GROUP);
            receive.build().flags(squeue::Flags::BUFFER_SELECT)
        } else if self.bundles {
            opcode::RecvMultiBundle::new(fd, buffers::GROUP).build()
        } else {
            opcode::RecvMulti::new(fd, buffers::GROUP).build()
        });
        self.push(entry, RECV, key);
    }

    fn on_completion(&mut self, completion: &cqueue::Entry, driver: &mut impl Driver) {
        let (operation, key) = parse_user_data(completion.user_data());
        match operation {
            ACCEPT => self.on_accepted(key.slot as usize, completion.result(), driver),
            RECV => self.on_received(key, completion, driver),
            SEND => self.on_sent(key, completion.result(), driver),
            CONNECT => self.on_connected(key, completion.result(), driver),
            SHUTDOWN => self.on_shut(key),
            CLOSE => self.on_closed(key, driver),
            PEEK => self.on_peeked(key, completion.result(), driver),
            // That it ended the wait is all it is for.
            BELL if !cqueue::more(completion.flags()) => self.arm_bell(),
            // CANCEL and DISCARD are followed by completions of what they end.
            _ => {}
        }
    }

    fn on_received(&mut self, key: ConnectionKey, completion: &cqueue::Entry, driver: &mut impl Driver) {
        let result = completion.result();
        let more = cqueue::more(completion.flags());
        if let Some(socket) = self.sockets.get_mut(key) {
            if !more {
                socket.receiving = false;
            }
            if result > 0 {
                self.quiet.heard(key, &mut socket.quiet);
            }
        }
        // Also for a socket that is gone: buffers are the kernel's to lend and ours to return.
        let mut bundle = Bundle::of(completion);
        while let Some((buffer, length)) = bundle.next(&self.buffers) {
            if length > 0 {
                self.take_bytes(key, buffer, length, driver);
            }
            self.buffers.give_back(buffer);
        }
        match -result {
            _ if self.sockets.get(key).is_none() => {}
            0 => self.end(key, CloseReason::ConnectionClosed, driver),
            libc::ENOBUFS => {
                self.metrics.ring_no_buffers.increment();
                self.starved.push(key);
            }
            libc::EINTR | libc::EAGAIN => self.arm_receive(key),
            libc::ECANCELED if self.sockets.get(key).is_some_and(|socket| !socket.is_over()) => {
                // Held, and perhaps released again since.
                self.arm_receive(key);
            }
            error if error > 0 => self.end(key, CloseReason::ConnectionReset, driver),
            _ if !more => {
                let stepwise = self.sockets.get(key).is_some_and(|socket| socket.stepwise);
                if !stepwise {
                    self.metrics.ring_rearms.increment();
                }
                if !stepwise || driver.takes_more(key) {
                    self.arm_receive(key);
                }
            }
            _ => {}
        }
        self.join(key);
    }

    /// Looks whether a socket that has fallen quiet has ended; see `quiet`. False when it has no need to.
    fn peek(&mut self, key: ConnectionKey) -> bool {
        let Some(socket) = self.sockets.get_mut(key) else { return false };
        if !self.quiet.must_peek(key, &mut socket.quiet) {
            return false;
        }
        if socket.is_over() {
            self.quiet.peeked(key, &mut socket.quiet);
            return false;
        }
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        let pointer: *mut u8 = &mut *self.peeked;
        let entry = on_socket!(key, socket, |fd| opcode::Recv::new(fd, pointer, 1).flags(flags).build());
        self.push(entry, PEEK, key);
        true
    }

    fn on_peeked(&mut self, key: ConnectionKey, result: i32, driver: &mut impl Driver) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        self.quiet.peeked(key, &mut socket.quiet);
        let end = match -result {
            0 => Some(CloseReason::ConnectionClosed),
            libc::EAGAIN | libc::EINTR => None,
            // Something is there: the armed receive brings it.
            error => (error > 0).then_some(CloseReason::ConnectionReset),
        };
        if let Some(reason) = end.filter(|_| socket.peer == Peer::There) {
            self.metrics.ring_missed_ends.increment();
            self.end(key, reason, driver);
        }
        self.join(key);
    }

    fn take_bytes(&mut self, key: ConnectionKey, buffer: u16, length: usize, driver: &mut impl Driver) {
        let crowded =
            |socket: &Socket| socket.handshaking && socket.tls.as_deref().is_some_and(|tls| !tls.may_hold_back(length));
        if self.sockets.get(key).is_some_and(crowded) {
            // Perhaps the handshake is over with what waits, and the rest lies behind it. This step is made out of its turn, at
            // most once for so many bytes; the place in the queue stays.
            self.step_handshake(key, driver);
            if let Some(socket) = self.sockets.get_mut(key) {
                socket.handshaking = true;
            }
        }
        let is_heard = |socket: &&mut Socket| socket.stage == Stage::Open && socket.peer != Peer::Leaving;
        let Some(socket) = self.sockets.get_mut(key).filter(is_heard) else { return };
        let bytes = self.buffers.bytes_mut(buffer, length);
        let Some(tls) = socket.tls.as_deref_mut() else { return driver.received(key, bytes) };
        if !tls.is_established() {
            if let Err(error) = tls.hold_back(bytes) {
                return self.fail_tls(key, &error, driver);
            }
            if !socket.handshaking {
                socket.handshaking = true;
                self.handshakes.push_back(key);
            }
            return;
        }
        match tls.receive(bytes, |plaintext| driver.received(key, plaintext)) {
            Ok(progress) => {
                let flush = tls.has_outgoing();
                if progress.overhead_bytes > 0 {
                    driver.carried(key, progress.overhead_bytes);
                }
                if progress.closed {
                    self.answer_close(key, driver);
                } else if flush {
                    self.flush(key, driver);
                }
            }
            Err(error) => self.refuse_tls(key, &error, driver),
        }
    }

    fn on_sent(&mut self, key: ConnectionKey, result: i32, driver: &mut impl Driver) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let Some(index) = socket.send else { return };
        let Some(send) = self.sends.get_mut(index) else { return };
        if result > 0 {
            send.sent += result as usize;
            if !send.rest().is_empty() && socket.is_sending() {
                driver.progressed(key);
                return self.submit_send(key, index);
            }
        }
        if matches!(-result, libc::EINTR | libc::EAGAIN) && socket.is_sending() {
            return self.submit_send(key, index);
        }
        socket.send = None;
        let (is_sending, is_flushing) = (socket.is_sending(), socket.stage == Stage::Flushing);
        let Some(Send { owner, more, .. }) = self.sends.remove(index) else { return };
        match owner {
            Owner::Copied(buffer) => self.sends.give_back(buffer),
            Owner::Control(control) => driver.recycle(key, control),
            Owner::Shared(_) => {}
        }
        match -result {
            error @ 1.. if !matches!(error, libc::EINTR | libc::EAGAIN | libc::ECANCELED) => {
                let reason = match error {
                    libc::EPIPE | libc::ECONNRESET => CloseReason::ConnectionReset,
                    _ => CloseReason::WriteError,
                };
                self.end(key, reason, driver);
                self.join(key);
            }
            _ if !is_sending => self.join(key),
            _ if more || is_flushing => self.flush(key, driver),
            // The driver has not got anything: to ask costs memory that is in no cache.
            _ => {}
        }
    }
}
