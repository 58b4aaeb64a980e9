//! Accepting: as many accepts in flight as there are slots, the Busy frame sent to refused connections, a pause after
//! an accept that failed.

use std::os::fd::AsRawFd;
use std::time::Instant;

use io_uring::types::{DestinationSlot, Fd, Fixed};
use io_uring::{opcode, squeue};

use super::layer::{Framing, Header, Layers};
use super::operation::Operation;
use super::proxy::ProxyFailure;
use super::socket::Socket;
use super::{ACCEPT_PAUSE, Descriptors, Driver, Net};
use ringgate_core::id::ConnectionKey;
use ringgate_core::metrics::Refusal;

/// Whether an accept failed for a reason that says nothing about the next one: a call that ended early, or what has become
/// of a connection before it was accepted (accept(2)). After any other, such as a full table or a policy that forbids it,
/// the next one would fail as well, and at once.
fn is_of_one_connection(error: i32) -> bool {
    matches!(
        error,
        libc::EINTR
            | libc::EAGAIN
            | libc::ECANCELED
            | libc::ECONNABORTED
            | libc::ECONNRESET
            | libc::EPROTO
            | libc::ENOPROTOOPT
            | libc::ENETDOWN
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
            | libc::ENONET
            | libc::ETIMEDOUT
    )
}

impl Net {
    /// Arms as many accepts as the table has slots for, spare ones included: a connection accepted without a slot would be lost.
    /// Listeners take turns, so that a small table serves each of them.
    pub(super) fn arm_accepts(&mut self) {
        if !self.accepting || self.accept_again.is_some() {
            return;
        }
        self.arm_while_slots_last();
        // Spare slots are taken for a moment only, by connections that are being refused.
        if self.options.spare_slots > 0 {
            return;
        }
        // An idle listener's accepts hold slots, too: the table may be full for a busy one before all slots are sockets.
        let is_armed = |listener| self.accepts.iter().any(|accept| accept.listener == listener && accept.armed);
        let exhausted = !(0..self.listeners.len()).all(is_armed);
        if exhausted && !self.exhausted {
            self.metrics.accept_exhausted.increment();
        }
        self.exhausted = exhausted;
    }

    fn arm_while_slots_last(&mut self) {
        let (each, listeners) = (self.accepts_per_listener(), self.listeners.len());
        let slots = self.options.slots as usize + self.options.spare_slots as usize;
        for index in (0..each).flat_map(|turn| (0..listeners).map(move |listener| listener * each + turn)) {
            if self.sockets.len() + self.accepts_armed + self.discarding >= slots {
                return;
            }
            let Some(accept) = self.accepts.get_mut(index).filter(|accept| !accept.armed) else { continue };
            let Some(listener) = self.listeners.get(accept.listener) else { continue };
            accept.armed = true;
            let fd = Fd(listener.socket.as_raw_fd());
            let (storage, length) = &mut *accept.address;
            *length = storage.size_of();
            let pointer = (&raw mut *storage).cast::<libc::sockaddr>();
            let mut entry = opcode::Accept::new(fd, pointer, length).flags(libc::SOCK_CLOEXEC);
            if self.options.descriptors == Descriptors::Direct {
                entry = entry.file_index(Some(DestinationSlot::auto_target())).flags(0);
            }
            self.accepts_armed += 1;
            self.push(entry.build(), Operation::Accept, ConnectionKey { slot: index as u32, generation: 0 });
        }
    }

    pub(super) fn on_accepted(&mut self, index: usize, result: i32, driver: &mut impl Driver) {
        let Some(accept) = self.accepts.get_mut(index) else { return };
        accept.armed = false;
        self.accepts_armed -= 1;
        let (peer, index) = (accept.peer(), accept.listener);
        if result < 0 {
            if !is_of_one_connection(-result) {
                self.metrics.accept_exhausted.increment();
                self.accept_again = Some(Instant::now() + ACCEPT_PAUSE);
            }
            return self.arm_accepts();
        }
        let (Some(peer), Some(listener)) = (peer, self.listeners.get(index)) else { return self.discard(result) };
        if !listener.proxies.is_empty() && !listener.proxies.iter().any(|network| network.contains(peer.ip())) {
            self.metrics.connections_refused[Refusal::Proxy].increment();
            driver.proxy_refused(peer, ProxyFailure::Untrusted);
            self.discard(result);
            return self.arm_accepts();
        }
        let is_introduced = !listener.proxies.is_empty();
        let transport = listener.transport;
        let is_websocket = matches!(listener.framing, Framing::WebSocket(_));
        let is_open_to_websocket = matches!(listener.framing, Framing::Either(_));
        if self.sockets.len() >= self.options.slots as usize {
            self.metrics.connections_refused[Refusal::Full].increment();
            if !transport.has_tls() {
                self.say_farewell(result, is_websocket);
            }
            self.discard(result);
            return self.arm_accepts();
        }
        let layers = match is_introduced {
            true => Some(Layers::behind(Header { listener: index, proxy: peer, bytes: Vec::new() })),
            false => Layers::accept(transport, self.server_tls.as_ref(), &listener.framing),
        };
        let (slot, fd) = match self.options.descriptors {
            Descriptors::Direct => (result as u32, -1),
            Descriptors::Ordinary => match self.free.pop() {
                Some(slot) => (slot, result),
                None => return self.discard(result),
            },
        };
        let key = self.sockets.next_key(slot);
        let Some(layers) = layers else { return self.turn_away(slot, result) };
        let mut socket = Socket::new(fd, layers);
        socket.stepwise = self.stepwise;
        if !is_introduced && !driver.opened(key, peer, transport, is_open_to_websocket) {
            if !transport.has_tls() {
                self.say_farewell(result, is_websocket);
            }
            return self.turn_away(slot, result);
        }
        self.sockets.insert_at(key, socket);
        if is_introduced {
            self.await_header(key);
        }
        self.arm_receive(key);
        self.arm_accepts();
    }

    /// What the next refused connection is told.
    pub(super) fn next_farewell(&mut self, is_websocket: bool) -> Option<&Vec<u8>> {
        let farewells = if is_websocket { &self.websocket_farewells } else { &self.farewells };
        self.next_farewell = (self.next_farewell + 1) % farewells.len().max(1);
        farewells.get(self.next_farewell)
    }

    /// Sends the next farewell on an accepted descriptor whose close is pushed next: nobody waits for either.
    fn say_farewell(&mut self, descriptor: i32, is_websocket: bool) {
        let Some(farewell) = self.next_farewell(is_websocket) else { return };
        let (pointer, length) = (farewell.as_ptr(), farewell.len() as u32);
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        let entry = match self.options.descriptors {
            Descriptors::Direct => opcode::Send::new(Fixed(descriptor as u32), pointer, length).flags(flags).build(),
            Descriptors::Ordinary => opcode::Send::new(Fd(descriptor), pointer, length).flags(flags).build(),
        };
        // Hard: the close follows whether the send succeeds or not.
        let entry = entry.flags(squeue::Flags::IO_HARDLINK).user_data(Operation::Farewell.alone());
        self.ring.push(&entry, &self.metrics);
    }

    /// Closes an accepted descriptor that never became a socket of ours.
    fn turn_away(&mut self, slot: u32, result: i32) {
        if self.options.descriptors == Descriptors::Ordinary {
            self.free.push(slot);
        }
        self.discard(result);
        self.arm_accepts();
    }

    fn discard(&mut self, descriptor: i32) {
        let entry = match self.options.descriptors {
            Descriptors::Direct => opcode::Close::new(Fixed(descriptor as u32)).build(),
            Descriptors::Ordinary => opcode::Close::new(Fd(descriptor)).build(),
        };
        self.ring.push(&entry.user_data(Operation::Discard.alone()), &self.metrics);
        self.discarding += 1;
    }

    /// Its slot is free again.
    pub(super) fn on_discarded(&mut self) {
        self.discarding -= 1;
        self.arm_accepts();
    }
}
