//! What a case gets: ways to reach the gateway by one transport from an address of its own, and how connections end.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use ringgate_net::dial::{Stream, Trust, client_tls};
use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::ServerName;

use super::remote::Remote;
use crate::sealing::Sealing;
use crate::support::{Client, DEADLINE, Login};

/// By what the gateway is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Plain,
    Tls,
    Compact,
}

/// See the module.
pub(super) struct Scene<'a> {
    pub(super) remote: &'a Remote,
    pub(super) by: By,
    /// The address that the case connects from.
    pub(super) from: Ipv4Addr,
    /// A user of its own.
    pub(super) user: String,
}

impl Scene<'_> {
    /// The listener of the transport.
    pub(super) fn address(&self) -> SocketAddr {
        if self.by == By::Plain { self.remote.plain } else { self.remote.tls }
    }

    /// A connected socket, with nothing on it.
    pub(super) fn socket(&self) -> TcpStream {
        connect(self.from.into(), self.address())
    }

    /// A connection on which nothing was said yet, with TLS behind its handshake.
    pub(super) fn client(&self) -> Client {
        self.try_client().unwrap()
    }

    pub(super) fn try_client(&self) -> Result<Client, String> {
        let tls = (self.by != By::Plain).then(|| (client_tls(Trust::Anybody).unwrap(), localhost()));
        Stream::over(self.socket(), tls).map(Client::over)
    }

    /// The case's user, signed in with this device.
    pub(super) fn sign_in(&self, device: &str) -> Client {
        self.sign_in_as(&Login::user(&self.user).device(device))
    }

    pub(super) fn sign_in_as(&self, login: &Login) -> Client {
        let mut client = self.client();
        client.sign_in(login);
        client
    }

    /// The inbox of the case's user.
    pub(super) fn inbox(&self) -> String {
        format!("@{}", self.user)
    }

    /// A room of the case's own.
    pub(super) fn room(&self, namespace: &str) -> String {
        format!("{namespace}:{}", self.user)
    }

    /// A TLS client whose records the case may see before they leave; nothing was said yet.
    pub(super) fn secured(&self, config: &Arc<ClientConfig>) -> Secured {
        Secured { tls: ClientConnection::new(config.clone(), localhost()).unwrap(), socket: self.socket() }
    }

    /// A TLS client behind its handshake whose records the case seals.
    pub(super) fn sealing(&self) -> Sealing {
        Sealing::over(self.socket(), Trust::Anybody)
    }
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

/// A socket from this address, on any port.
pub(super) fn connect(from: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let socket = TcpStream::from(socket);
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.set_write_timeout(Some(DEADLINE)).unwrap();
    socket
}

/// See [`Scene::secured`].
pub(super) struct Secured {
    pub(super) tls: ClientConnection,
    pub(super) socket: TcpStream,
}

impl Secured {
    /// What waits to be sent: the next flight of the handshake, or the records of this plaintext.
    pub(super) fn records(&mut self, plaintext: &[u8]) -> Vec<u8> {
        self.tls.writer().write_all(plaintext).unwrap();
        let mut records = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut records).unwrap();
        }
        records
    }

    pub(super) fn shake_hands(&mut self) {
        while self.tls.is_handshaking() {
            self.tls.complete_io(&mut self.socket).unwrap();
        }
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket).unwrap();
        }
    }
}

/// How a client goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    HalfClose,
    Reset,
    Close,
}

impl End {
    pub(super) const ALL: [End; 3] = [End::HalfClose, End::Reset, End::Close];

    /// Ends the connection; half-closed, what still comes is read to its end if `read` says so.
    pub(super) fn of(self, socket: &TcpStream, read: bool) {
        match self {
            End::HalfClose => {
                let _ = socket.shutdown(Shutdown::Write);
                if read {
                    ends(socket);
                }
            }
            // Takes effect when the last descriptor is closed; without a shutdown, which would say FIN first.
            End::Reset => socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO)).unwrap(),
            End::Close => drop(socket.shutdown(Shutdown::Both)),
        }
    }

    /// As [`Self::of`], for a client.
    pub(super) fn of_client(self, client: Client, read: bool) {
        match self {
            End::Reset => client.reset(),
            _ => self.of(client.socket(), read),
        }
    }
}

/// Reads to the end of the stream, or to a reset; returns what came.
pub(super) fn ends(mut socket: &TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    if let Err(error) = socket.read_to_end(&mut said) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the gateway does not end the connection");
    }
    said
}
