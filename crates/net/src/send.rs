//! Bytes that leave: one send at a time is in the kernel for each socket, with everything that waited when it was made.

use io_uring::opcode;
use io_uring::types::{Fd, Fixed};
use ringgate_core::close::CloseReason;
use ringgate_core::id::ConnectionKey;

use super::gather::SEND_BYTES_MAX;
use super::layer::{Layer, each};
use super::operation::Operation;
use super::sends::{Owner, Send, SendKey, Sends};
use super::socket::{Socket, Stage, Step};
use super::{Driver, Net, on_socket};

/// Whether a send of the socket is in the kernel: then another follows it.
pub(super) fn follows(socket: &Socket, sends: &mut Sends) -> bool {
    match socket.send.and_then(|index| sends.get_mut(index)) {
        Some(send) => {
            send.more = true;
            true
        }
        None => false,
    }
}

impl Net {
    /// Sends what the driver has for this socket, unless a send is in the kernel already: then it follows that one.
    pub fn flush(&mut self, key: ConnectionKey, driver: &mut impl Driver) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if socket.step == Some(Step::Connecting) || !socket.is_sending() || follows(socket, &mut self.sends) {
            return;
        }
        let closing = socket.stage == Stage::Flushing;
        let (sends, scratch) = (&mut self.sends, &mut self.scratch);
        match each!(&mut socket.layers, layer => layer.gather(key, closing, sends, scratch, driver)) {
            Ok(Some(index)) => self.submit_send(key, index),
            Ok(None) if closing => self.shut(key),
            Ok(None) => {}
            Err(error) => self.fail(key, &error, driver),
        }
    }

    pub(super) fn submit_send(&mut self, key: ConnectionKey, index: SendKey) {
        let (Some(socket), Some(send)) = (self.sockets.get_mut(key), self.sends.get_mut(index)) else { return };
        socket.send = Some(index);
        socket.quiet.answered();
        let rest = send.rest();
        // In portions, so that the driver hears of progress: a peer that takes half a megabyte in a minute does read.
        let (pointer, length) = (rest.as_ptr(), rest.len().min(SEND_BYTES_MAX) as u32);
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let entry = on_socket!(key, socket, |fd| opcode::Send::new(fd, pointer, length).flags(flags).build());
        self.push(entry, Operation::Send, key);
    }

    pub(super) fn on_sent(&mut self, key: ConnectionKey, result: i32, driver: &mut impl Driver) {
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
