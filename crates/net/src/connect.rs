//! Connecting, the other direction of `accept`: a slot, a socket in it, and what became of the attempt.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::sync::Arc;

use io_uring::opcode;
use io_uring::types::{Fd, Fixed};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use socket2::SockAddr;

use super::layer::Layers;
use super::operation::Operation;
use super::socket::{Socket, Stage, Step};
use super::{Descriptors, Driver, Net, listen, on_socket};
use ringgate_core::id::ConnectionKey;

/// What a connection is made with; see [`Net::connect`].
#[derive(Clone)]
pub struct Target {
    /// Where to.
    pub address: SocketAddr,
    /// TLS, if any.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Net {
    /// Begins a connection, from a given source address if any. It ends in `opened`, or in `freed` alone.
    pub fn connect(&mut self, from: Option<IpAddr>, target: &Target) -> io::Result<ConnectionKey> {
        let socket = listen::outgoing(from, target.address)?;
        let Some(slot) = self.free.last().copied() else {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "the table of connections is full"));
        };
        let layers = Layers::connect(target.tls.as_ref()).map_err(io::Error::other)?;
        let fd = match self.options.descriptors {
            Descriptors::Direct => {
                self.ring.install(slot, socket.as_raw_fd())?;
                -1
            }
            Descriptors::Ordinary => socket.into_raw_fd(),
        };
        self.free.pop();
        let key = self.sockets.next_key(slot);
        let mut socket = Socket::new(fd, layers);
        socket.step = Some(Step::Connecting);
        if self.connects.len() <= slot as usize {
            self.connects.resize_with(slot as usize + 1, || None);
        }
        let address = Box::new(SockAddr::from(target.address));
        let (pointer, length) = (address.as_ptr().cast::<libc::sockaddr>(), address.len());
        if let Some(place) = self.connects.get_mut(slot as usize) {
            *place = Some(address);
        }
        let entry = on_socket!(key, socket, |fd| opcode::Connect::new(fd, pointer, length).build());
        self.sockets.insert_at(key, socket);
        self.push(entry, Operation::Connect, key);
        Ok(key)
    }

    pub(super) fn on_connected(&mut self, key: ConnectionKey, result: i32, driver: &mut impl Driver) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        socket.step = None;
        let address = self.connects.get_mut(key.slot as usize).and_then(Option::take);
        let transport = socket.layers.transport();
        let peer = address.and_then(|address| address.as_socket());
        let open = socket.stage == Stage::Open;
        match peer {
            Some(peer) if result == 0 && open && driver.opened(key, peer, transport, false) => {
                self.arm_receive(key);
                self.flush(key, driver);
            }
            Some(peer) if result < 0 && open => {
                driver.refused(key, peer, -result);
                self.terminate(key);
            }
            _ => {
                self.terminate(key);
                // One that was terminated while it was being made has waited for this.
                self.join(key);
            }
        }
    }
}
