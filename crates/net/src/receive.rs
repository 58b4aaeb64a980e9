//! Bytes that come: receives that stay armed, what they bring, and looks at sockets that have fallen quiet.

use io_uring::types::{Fd, Fixed};
use io_uring::{cqueue, opcode, squeue};
use ringgate_core::close::CloseReason;
use ringgate_core::id::ConnectionKey;

use super::buffers::{self, Bundle};
use super::layer::{Layer, LayerError, Progress, REQUEST, each};
use super::operation::Operation;
use super::quiet::Quiet;
use super::socket::Peer;
use super::{Driver, Net, on_socket};

impl Net {
    /// Whether any byte has come on this socket, of a TLS handshake or otherwise.
    pub fn has_heard(&self, key: ConnectionKey) -> bool {
        self.sockets.get(key).is_some_and(|socket| socket.quiet != Quiet::New)
    }

    /// Stops receiving on a socket, or goes on. What has come by then is still handed out; after that the peer finds
    /// its window full.
    pub fn hold(&mut self, key: ConnectionKey, hold: bool) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        socket.held = hold;
        if !hold {
            self.arm_receive(key);
        } else if socket.receiving {
            let entry = opcode::AsyncCancel::new(Operation::Receive.on(key)).build();
            self.push(entry, Operation::Cancel, key);
        }
    }

    pub(super) fn arm_receive(&mut self, key: ConnectionKey) {
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
        self.push(entry, Operation::Receive, key);
    }

    pub(super) fn on_received(&mut self, key: ConnectionKey, completion: &cqueue::Entry, driver: &mut impl Driver) {
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
    pub(super) fn peek(&mut self, key: ConnectionKey) -> bool {
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
        self.push(entry, Operation::Peek, key);
        true
    }

    pub(super) fn on_peeked(&mut self, key: ConnectionKey, result: i32, driver: &mut impl Driver) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        self.quiet.peeked(key, &mut socket.quiet);
        let end = match -result {
            0 => Some(CloseReason::ConnectionClosed),
            libc::EAGAIN | libc::EINTR => None,
            // Something is there: the armed receive brings it.
            error => (error > 0).then_some(CloseReason::ConnectionReset),
        };
        if let Some(reason) = end.filter(|_| matches!(socket.peer, Peer::There | Peer::Refused)) {
            self.metrics.ring_missed_ends.increment();
            self.end(key, reason, driver);
        }
        self.join(key);
    }

    #[inline]
    fn take_bytes(&mut self, key: ConnectionKey, buffer: u16, length: usize, driver: &mut impl Driver) {
        let Some(socket) = self.sockets.get(key).filter(|socket| socket.is_heard()) else { return };
        if socket.layers.is_plain() {
            return driver.received(key, self.buffers.bytes_mut(buffer, length));
        }
        self.take_layered(key, buffer, length, driver);
    }

    /// Has so many bytes kept beside those that wait for a handshake step.
    #[cold]
    fn make_room(&mut self, key: ConnectionKey, length: usize, driver: &mut impl Driver) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if each!(&mut socket.layers, layer => layer.has_room(length)) {
            return;
        }
        // Perhaps the handshake is over with what waits, and the rest lies behind it. This step is made out of its turn, at most
        // once for so many bytes; the place in the queue stays.
        self.step_handshake(key, driver);
        if let Some(socket) = self.sockets.get_mut(key) {
            socket.handshaking = true;
        }
    }

    /// As [`Self::take_bytes`], where there is more between the socket and its frames. Apart from it, so that a plain socket's bytes
    /// cost what they would without layers.
    #[inline(never)]
    fn take_layered(&mut self, key: ConnectionKey, buffer: u16, length: usize, driver: &mut impl Driver) {
        if self.sockets.get(key).is_some_and(|socket| socket.handshaking) {
            self.make_room(key, length, driver);
        }
        let Some(socket) = self.sockets.get_mut(key).filter(|socket| socket.is_heard()) else { return };
        if socket.layers.header().is_some() {
            if let Some(rest @ 1..) = self.take_header(key, buffer, length, driver) {
                self.take_bytes(key, buffer, rest, driver);
            }
            return;
        }
        if socket.layers.may_become_websocket() {
            return self.take_first(key, buffer, length, driver);
        }
        let bytes = self.buffers.bytes_mut(buffer, length);
        let (taken, has_answer) = each!(&mut socket.layers, layer => {
            let taken = layer.take_in(bytes, |portion| driver.received(key, &portion));
            (taken, layer.has_answer())
        });
        self.took(key, taken, has_answer, driver);
    }

    /// As [`Self::take_layered`], where it is to be recognised what the socket speaks.
    #[cold]
    fn take_first(&mut self, key: ConnectionKey, buffer: u16, length: usize, driver: &mut impl Driver) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let bytes = self.buffers.bytes_mut(buffer, length);
        if !socket.layers.transport().has_tls() {
            // What lies in the buffer is the content itself, and is heard where it lies.
            let Some((transport, before)) = socket.layers.recognise(bytes) else { return };
            driver.recognised(key, transport);
            self.take_request(key, before, driver);
            return self.take_bytes(key, buffer, length, driver);
        }
        let mut content = Vec::new();
        let (taken, has_answer) = each!(&mut socket.layers, layer => {
            let taken = layer.take_in(bytes, |portion| content.extend_from_slice(&portion));
            (taken, layer.has_answer())
        });
        if !content.is_empty() {
            self.hear_content(key, &mut content, driver);
        }
        self.took(key, taken, has_answer, driver);
    }

    /// Hears content that was copied out of what carried it.
    pub(super) fn hear_content(&mut self, key: ConnectionKey, content: &mut [u8], driver: &mut impl Driver) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if !socket.layers.may_become_websocket() {
            return driver.received(key, content);
        }
        let Some((transport, before)) = socket.layers.recognise(content) else { return };
        driver.recognised(key, transport);
        self.take_request(key, before, driver);
        self.take_content(key, content, driver);
    }

    /// Hears so many bytes of [`REQUEST`] that had come before it could be told what they begin.
    fn take_request(&mut self, key: ConnectionKey, before: usize, driver: &mut impl Driver) {
        if let Some(content @ [_, ..]) = REQUEST.clone().get_mut(..before) {
            self.take_content(key, content, driver);
        }
    }

    fn take_content(&mut self, key: ConnectionKey, content: &mut [u8], driver: &mut impl Driver) {
        let Some(socket) = self.sockets.get_mut(key).filter(|socket| socket.is_heard()) else { return };
        let (taken, has_answer) = each!(&mut socket.layers, layer => {
            let taken = layer.take_content(content, |portion| driver.received(key, &portion));
            (taken, layer.has_answer())
        });
        self.took(key, taken, has_answer, driver);
    }

    /// What follows from bytes that a layer has taken in.
    fn took(
        &mut self,
        key: ConnectionKey,
        taken: Result<Progress, Box<LayerError>>,
        has_answer: bool,
        driver: &mut impl Driver,
    ) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        match taken {
            Ok(progress) => {
                if progress.waits && !socket.handshaking {
                    socket.handshaking = true;
                    self.handshakes.push_back(key);
                }
                if let Some(accepted) = progress.upgraded {
                    driver.upgraded(key, &accepted);
                }
                if progress.overhead_bytes > 0 {
                    driver.carried(key, progress.overhead_bytes);
                }
                if progress.ended {
                    self.answer_close(key, driver);
                } else if has_answer {
                    self.flush(key, driver);
                }
            }
            Err(error) => self.refuse(key, error, driver),
        }
    }
}
