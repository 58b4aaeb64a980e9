//! Connections that a proxy introduces with a header of the PROXY protocol (`proxy`): the driver hears of one when its header is whole, with the
//! address that stands there, so that limits and logs are about the client. Until then it has a slot, a deadline, and at most one header of memory.

use std::net::SocketAddr;
use std::time::Instant;

use ringgate_core::id::ConnectionKey;
use ringgate_core::metrics::Refusal;

use super::layer::Layers;
use super::proxy::{self, HEADER_BYTES_MAX, ProxyFailure};
use super::send::follows;
use super::sends::{Owner, Send};
use super::socket::Stage;
use super::{Driver, Net};

impl Net {
    /// A connection whose header is still to come was accepted.
    pub(super) fn await_header(&mut self, key: ConnectionKey) {
        self.headers.push_back((Instant::now() + self.options.proxy_header_timeout, key));
    }

    fn awaits_header(&self, key: ConnectionKey) -> bool {
        self.sockets.get(key).is_some_and(|socket| socket.stage == Stage::Open && socket.layers.header().is_some())
    }

    /// Closes connections whose header has not come in time. They were accepted in the order of their deadlines.
    pub(super) fn expire_headers(&mut self, driver: &mut impl Driver) {
        while let Some((due, key)) = self.headers.front().copied() {
            if !self.awaits_header(key) {
                self.headers.pop_front();
            } else if Instant::now() >= due {
                self.headers.pop_front();
                self.refuse_header(key, ProxyFailure::TimedOut, driver);
            } else {
                break;
            }
        }
    }

    /// Nothing that is accepted from now on is served, nor what nobody has been told of.
    pub(super) fn drop_headers(&mut self) {
        while let Some((_, key)) = self.headers.pop_front() {
            if self.awaits_header(key) {
                self.terminate(key);
            }
        }
    }

    /// Takes the header, or a piece of it, out of a buffer. How many bytes lie behind it then, at the beginning of the buffer; none
    /// while it is not whole, or where the connection ends.
    pub(super) fn take_header(
        &mut self,
        key: ConnectionKey,
        buffer: u16,
        length: usize,
        driver: &mut impl Driver,
    ) -> Option<usize> {
        let header = self.sockets.get_mut(key)?.layers.header_mut()?;
        let bytes = self.buffers.bytes_mut(buffer, length);
        let kept = header.bytes.len();
        let room = HEADER_BYTES_MAX.saturating_sub(kept);
        header.bytes.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        let parsed = match proxy::parse(&header.bytes) {
            Ok(parsed) => parsed?,
            Err(error) => {
                self.refuse_header(key, ProxyFailure::Header(error), driver);
                return None;
            }
        };
        let used = parsed.bytes.saturating_sub(kept).min(bytes.len());
        bytes.copy_within(used.., 0);
        let rest = bytes.len() - used;
        let (listener, peer) = (header.listener, parsed.client.unwrap_or(header.proxy));
        self.introduce(key, listener, peer, driver).then_some(rest)
    }

    /// Tells the driver of a connection whose header is whole. False if it is not taken.
    fn introduce(&mut self, key: ConnectionKey, listener: usize, peer: SocketAddr, driver: &mut impl Driver) -> bool {
        let Some(listener) = self.listeners.get(listener) else {
            self.terminate(key);
            return false;
        };
        let (transport, framing) = (listener.transport, listener.framing.clone());
        let Some(layers) = Layers::accept(transport, self.server_tls.as_ref(), &framing) else {
            self.terminate(key);
            return false;
        };
        let may_become_websocket = layers.may_become_websocket();
        if !driver.opened(key, peer, transport, may_become_websocket) {
            if !transport.has_tls() {
                self.send_farewell(key, transport.is_websocket());
            }
            self.terminate(key);
            return false;
        }
        if let Some(socket) = self.sockets.get_mut(key) {
            socket.layers = layers;
        }
        true
    }

    /// As `say_farewell`, to a socket: tried once, before the cancel that follows it.
    fn send_farewell(&mut self, key: ConnectionKey, is_websocket: bool) {
        let Some(farewell) = self.next_farewell(is_websocket).cloned() else { return };
        if self.sockets.get_mut(key).is_some_and(|socket| !follows(socket, &mut self.sends)) {
            let index = self.sends.insert(Send { owner: Owner::Copied(farewell), sent: 0, more: false });
            self.submit_send(key, index);
        }
    }

    /// A connection is closed because of what it begins with, or because it does not begin. One that has said nothing at all and
    /// goes is a look whether the port is open, as load balancers make them: not worth a word.
    pub(super) fn refuse_header(&mut self, key: ConnectionKey, failure: ProxyFailure, driver: &mut impl Driver) {
        let Some(header) = self.sockets.get(key).and_then(|socket| socket.layers.header()) else { return };
        let (proxy, is_silent) = (header.proxy, header.bytes.is_empty());
        if !(is_silent && failure == ProxyFailure::Ended) {
            self.metrics.connections_refused[Refusal::Proxy].increment();
            driver.proxy_refused(proxy, failure);
        }
        self.terminate(key);
    }
}
