//! How a socket ends: flushed and shut, or at once; then three steps, so that nothing in the kernel outlives what it works
//! on: decided (`terminate`), everything back (`join`), closed (`on_closed`).

use io_uring::opcode;
use io_uring::types::{Fd, Fixed};

use super::layer::{Layer, each};
use super::operation::Operation;
use super::proxy::ProxyFailure;
use super::socket::{Peer, Stage, Step};
use super::{Descriptors, Driver, Net, on_socket};
use ringgate_core::close::CloseReason;
use ringgate_core::id::ConnectionKey;

impl Net {
    /// Closes a socket: after everything queued is sent if `flush`, else at once. Ends in `freed`. A peer that has said
    /// close_notify or sent a Close frame is answered with its own, behind what is in the kernel, and one whose WebSocket has
    /// failed is told why, in both cases; the driver bounds the time that this may take with [`Self::abort`].
    pub fn close(&mut self, key: ConnectionKey, flush: bool, driver: &mut impl Driver) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if socket.stage != Stage::Open {
            return;
        }
        let at_once = match socket.peer {
            Peer::There => !flush,
            Peer::Refused | Peer::Leaving => false,
            Peer::Gone => true,
        };
        if at_once {
            return self.terminate(key);
        }
        socket.stage = Stage::Flushing;
        if core::mem::replace(&mut socket.held, false) {
            // The peer's end of the stream is waited for, and closing with unread bytes would reset the connection.
            self.arm_receive(key);
        }
        self.flush(key, driver);
    }

    /// What the peer is told as the reason when this socket is closed, where its transport has a message for that: the code of a
    /// WebSocket's Close frame. Without it, the code is 1000.
    pub fn explain(&mut self, key: ConnectionKey, reason: CloseReason) {
        if let Some(socket) = self.sockets.get_mut(key) {
            each!(&mut socket.layers, layer => layer.explain(reason));
        }
    }

    /// Closes a socket at once, whatever is still queued.
    pub fn abort(&mut self, key: ConnectionKey) {
        self.terminate(key);
    }

    /// Tells the driver, once, that the peer is gone. A socket that is being flushed or lingers has nothing left to
    /// wait for.
    pub(super) fn end(&mut self, key: ConnectionKey, reason: CloseReason, driver: &mut impl Driver) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if socket.stage == Stage::Open && socket.layers.header().is_some() {
            return self.refuse_header(key, ProxyFailure::Ended, driver);
        }
        let before = socket.peer;
        // Behind a close_notify, and perhaps behind refused bytes, comes the end of the stream: such a peer may still read.
        if before == Peer::Gone || (before == Peer::Leaving && reason == CloseReason::ConnectionClosed) {
            return;
        }
        if before == Peer::Refused && reason == CloseReason::ConnectionClosed && socket.is_sending() {
            socket.peer = Peer::Leaving;
            return;
        }
        socket.peer = Peer::Gone;
        match socket.stage {
            Stage::Open if matches!(before, Peer::Leaving | Peer::Refused) => {}
            Stage::Open => driver.ended(key, reason),
            Stage::Flushing | Stage::Lingering => self.terminate(key),
            Stage::Joining | Stage::Closing => {}
        }
    }

    /// Everything is sent: says so to the peer, and waits for its end of the stream. Closing at once could reset the
    /// connection and destroy what the peer has not read yet.
    pub(super) fn shut(&mut self, key: ConnectionKey) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if !matches!(socket.peer, Peer::There | Peer::Refused) {
            return self.terminate(key);
        }
        socket.stage = Stage::Lingering;
        socket.step = Some(Step::Shutting);
        let entry = on_socket!(key, socket, |fd| opcode::Shutdown::new(fd, libc::SHUT_WR).build());
        self.push(entry, Operation::Shutdown, key);
    }

    /// The kernel shuts from a thread of its own, which looks the descriptor up only then: one that had been closed
    /// meanwhile could be another connection's by now.
    pub(super) fn on_shut(&mut self, key: ConnectionKey) {
        if let Some(socket) = self.sockets.get_mut(key) {
            socket.step = None;
            self.join(key);
        }
    }

    /// Step one of the end: decided. Whatever is in the kernel is called back.
    pub(super) fn terminate(&mut self, key: ConnectionKey) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if matches!(socket.stage, Stage::Joining | Stage::Closing) {
            return;
        }
        socket.stage = Stage::Joining;
        let operations = [
            (socket.receiving, Operation::Receive),
            (socket.send.is_some(), Operation::Send),
            (socket.step == Some(Step::Connecting), Operation::Connect),
        ];
        for (in_kernel, operation) in operations {
            if in_kernel {
                let entry = opcode::AsyncCancel::new(operation.on(key)).build();
                self.push(entry, Operation::Cancel, key);
            }
        }
        self.join(key);
    }

    /// Step two: everything is back, the descriptor is closed.
    pub(super) fn join(&mut self, key: ConnectionKey) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if socket.stage != Stage::Joining || socket.is_in_kernel() {
            return;
        }
        socket.stage = Stage::Closing;
        let entry = on_socket!(key, socket, |fd| opcode::Close::new(fd).build());
        self.push(entry, Operation::Close, key);
    }

    /// Step three: the slot is free.
    pub(super) fn on_closed(&mut self, key: ConnectionKey, driver: &mut impl Driver) {
        let Some(socket) = self.sockets.remove_at(key) else { return };
        // Slots of accepted direct descriptors are the kernel's to give out.
        if self.options.descriptors == Descriptors::Ordinary || self.listeners.is_empty() {
            self.free.push(key.slot);
        }
        if socket.layers.header().is_none() {
            driver.freed(key);
        }
        self.arm_accepts();
    }
}
