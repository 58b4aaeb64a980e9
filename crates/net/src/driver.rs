//! What [`crate::Net`] tells its caller, and asks of it.

use std::net::SocketAddr;

use ringgate_core::close::CloseReason;
use ringgate_core::id::ConnectionKey;
use ringgate_core::outbox::Chunk;
use ringgate_core::transport::{Handshake, Transport};

use crate::proxy::ProxyFailure;
use crate::tls::TlsError;
use crate::ws::{Accepted, Failure};

/// The user of a shard's sockets.
pub trait Driver {
    /// A socket was accepted, or connected. False closes it at once, without a further call for it. Where it is open to WebSocket,
    /// [`Self::recognised`] follows.
    fn opened(
        &mut self,
        key: ConnectionKey,
        peer: SocketAddr,
        transport: Transport,
        is_open_to_websocket: bool,
    ) -> bool;
    /// The first bytes of a socket that is open to WebSocket have said what it is over. They follow.
    fn recognised(&mut self, _key: ConnectionKey, _transport: Transport) {}
    /// A connection was refused because of its header of the PROXY protocol, for the log; no other call was or will be made for it.
    fn proxy_refused(&mut self, _peer: SocketAddr, _failure: ProxyFailure) {}
    /// A connect failed, with this error number of the system. Only outgoing connections need this.
    fn refused(&mut self, _key: ConnectionKey, _address: SocketAddr, _error: i32) {}
    /// The TLS handshake is over, and was of this kind.
    fn secured(&mut self, key: ConnectionKey, handshake: Handshake);
    /// [`Self::received`] or [`Self::ended`] is about to follow, unless the socket is gone: whoever looks something up for it
    /// can have its memory brought meanwhile.
    fn expect(&mut self, _key: ConnectionKey) {}
    /// Bytes have come.
    fn received(&mut self, key: ConnectionKey, bytes: &[u8]);
    /// Whether a socket that is not trusted yet may be received from again: see [`Net::receive_stepwise`](crate::Net::receive_stepwise). Once this was
    /// false, nothing is received until [`Net::hold`](crate::Net::hold) is called with false, or [`Net::close`](crate::Net::close).
    fn takes_more(&mut self, _key: ConnectionKey) -> bool {
        true
    }
    /// The records in which bytes came took so many more: headers, padding, tags, handshake messages.
    fn carried(&mut self, _key: ConnectionKey, _overhead_bytes: usize) {}
    /// Why TLS failed, for the log; [`Self::ended`] follows.
    fn tls_failed(&mut self, _key: ConnectionKey, _error: &TlsError) {}
    /// The request for a WebSocket was accepted; what the peer sends behind it follows.
    fn upgraded(&mut self, _key: ConnectionKey, _accepted: &Accepted) {}
    /// Why a WebSocket was refused, or failed, for the log; [`Self::ended`] follows.
    fn websocket_failed(&mut self, _key: ConnectionKey, _failure: &Failure) {}
    /// The peer has closed its side, or the socket has failed; to be answered with [`Net::close`](crate::Net::close) sooner or later.
    fn ended(&mut self, key: ConnectionKey, reason: CloseReason);
    /// The socket is closed; its slot may be given out again.
    fn freed(&mut self, key: ConnectionKey);
    /// The next bytes for this socket. Once there are none, the driver can count on being asked again only after
    /// [`Net::flush`](crate::Net::flush).
    fn pull(&mut self, key: ConnectionKey) -> Option<Chunk>;
    /// A part of what `pull` gave was sent, and the rest follows.
    fn progressed(&mut self, _key: ConnectionKey) {}
    /// A control chunk that `pull` gave is sent, or copied; its memory may be used again.
    fn recycle(&mut self, key: ConnectionKey, buffer: Vec<u8>);
}
