//! Listeners: sockets whose options every accepted socket inherits, and the accepts that are in flight on them.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockRef, Socket, TcpKeepalive, Type};

use crate::layer::Framing;
use crate::network::Network;
use ringgate_core::transport::Transport;

/// Connections that wait for accept; the kernel cuts it to net.core.somaxconn.
pub const BACKLOG: i32 = 4096;
/// Unacknowledged data keeps a dead peer this long at most.
const USER_TIMEOUT: Duration = Duration::from_secs(60);

/// Binds one listener of several on the same port, each for a shard (SO_REUSEPORT). Accepted sockets inherit
/// TCP_NODELAY, keepalive and TCP_USER_TIMEOUT. `[::]` takes IPv4 too unless `ipv6_only`, whatever the host's default is.
pub fn bind(address: SocketAddr, ipv6_only: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(ipv6_only)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(USER_TIMEOUT).with_interval(Duration::from_secs(15)))?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Whether somebody listens on this address already; SO_REUSEPORT alone would let us join them.
pub fn is_taken(address: SocketAddr, ipv6_only: bool) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(ipv6_only)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

/// A socket that is about to connect, from a given source address if any. Its port is chosen at connect, so that
/// one source address serves as many connections as there are ports for each destination.
pub(super) fn outgoing(from: Option<IpAddr>, to: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(from) = from {
        bind_address_no_port(&socket)?;
        socket.bind(&SockAddr::from(SocketAddr::new(from, 0)))?;
    }
    Ok(socket)
}

#[allow(unsafe_code, reason = "socket2 has no name for this option")]
fn bind_address_no_port(socket: &Socket) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, the pointer and length are those of a live c_int.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One accept in flight, with the memory that the kernel writes the peer's address to.
pub(super) struct Accept {
    pub(super) listener: usize,
    pub(super) address: Box<(SockAddrStorage, libc::socklen_t)>,
    pub(super) armed: bool,
}

impl Accept {
    pub(super) fn new(listener: usize) -> Self {
        let storage = SockAddrStorage::zeroed();
        let length = storage.size_of();
        Accept { listener, address: Box::new((storage, length)), armed: false }
    }

    /// The address that the kernel wrote; that of an IPv4 client as such, also where it came through `[::]`.
    #[allow(unsafe_code, reason = "memory written by the kernel")]
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        let (storage, length) = &*self.address;
        let mut copy = SockAddrStorage::zeroed();
        // SAFETY: both are valid, apart, and plain bytes of the same type. The storage was zeroed by us or filled by
        // accept, which also wrote the length: values for which a SockAddr may be made.
        unsafe {
            std::ptr::copy_nonoverlapping(&raw const *storage, &raw mut copy, 1);
            SockAddr::new(copy, *length)
        }
        .as_socket()
        .map(|peer| SocketAddr::new(peer.ip().to_canonical(), peer.port()))
    }
}

/// A listener of this shard.
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    /// What its connections are over; where they may become WebSockets, what is below that.
    pub(super) transport: Transport,
    pub(super) framing: Framing,
    /// Where its connections come from, each with a header of the PROXY protocol; empty where they come from clients.
    pub(super) proxies: Vec<Network>,
}

/// What the connections of a listener begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Front {
    /// What they are over.
    pub transport: Transport,
    /// Over TCP or TLS: a connection whose first bytes are `GET ` is a WebSocket. Any other is not.
    pub is_open_to_websocket: bool,
    /// Connections come from these networks only, and begin with a header of the PROXY protocol, before TLS. Empty: there is no header.
    pub proxies: Vec<Network>,
}

impl Front {
    /// Of connections that are over this transport.
    pub fn new(transport: Transport) -> Self {
        Front { transport, is_open_to_websocket: false, proxies: Vec::new() }
    }

    /// The transports that its connections may be over.
    pub fn transports(&self) -> impl Iterator<Item = Transport> + use<> {
        let other = self.is_open_to_websocket.then(|| self.transport.with_websocket());
        std::iter::once(self.transport).chain(other)
    }
}

/// Options that are set on a connected socket in tests and the load tester: how much the kernel may buffer.
pub fn shrink_buffers(socket: &std::net::TcpStream, bytes: usize) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_recv_buffer_size(bytes)?;
    socket.set_send_buffer_size(bytes)
}
