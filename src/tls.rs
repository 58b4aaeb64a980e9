//! TLS on a connection: rustls' unbuffered state machine and nothing that an idle connection does not need.
//!
//! Records are decrypted where the kernel put them; only an incomplete record is kept, and only encrypted bytes that
//! wait for the socket are queued. Both directions: the gateway accepts, clients connect.

use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, UnbufferedConnectionCommon, UnbufferedStatus, WriteTraffic,
};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;

/// A record, its header, and the largest expansion that TLS allows.
const RECORD_BYTES_MAX: usize = 5 + 16 * 1024 + 2048;
/// What encryption adds to a record at most.
const RECORD_OVERHEAD_BYTES: usize = 64;
/// Plaintext bytes of one record.
const PLAINTEXT_BYTES_MAX: usize = 16 * 1024;
/// Handshake flights are collected up to this; a peer that needs more is refused.
const INCOMING_BYTES_MAX: usize = 4 * RECORD_BYTES_MAX;

/// The peer broke the protocol, or its certificate was refused. The text is for logs.
#[derive(Debug)]
pub struct TlsError(pub rustls::Error);

/// What a peer's bytes have led to, beside plaintext.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The handshake has just ended.
    pub established: bool,
    /// The peer has said that it sends no more.
    pub closed: bool,
}

/// See the module.
pub struct Tls {
    side: Side,
    /// Encrypted bytes that are not a whole record yet.
    incoming: Vec<u8>,
    /// Handshake bytes and alerts for the peer.
    outgoing: Vec<u8>,
    established: bool,
    said_goodbye: bool,
}

enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

impl Tls {
    /// For an accepted connection.
    pub fn accept(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        let connection = UnbufferedServerConnection::new(config).map_err(TlsError)?;
        Ok(Tls::new(Side::Server(connection)))
    }

    /// For a connection that was made; its first bytes are in [`Self::take_outgoing`] at once.
    pub fn connect(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, TlsError> {
        let connection = UnbufferedClientConnection::new(config, name).map_err(TlsError)?;
        let mut tls = Tls::new(Side::Client(connection));
        tls.receive(&mut [], |_| {})?;
        Ok(tls)
    }

    fn new(side: Side) -> Self {
        Tls { side, incoming: Vec::new(), outgoing: Vec::new(), established: false, said_goodbye: false }
    }

    /// Whether the handshake is over.
    pub fn is_established(&self) -> bool {
        self.established
    }

    /// Keeps bytes for a later [`Self::receive`]; handshakes are queued that way, since each costs more than a
    /// hundred messages. False when the peer has sent more than a handshake may need.
    pub fn hold_back(&mut self, bytes: &[u8]) -> bool {
        self.incoming.extend_from_slice(bytes);
        self.incoming.len() <= INCOMING_BYTES_MAX
    }

    /// Takes bytes of the peer in and hands plaintext out, in order.
    pub fn receive(&mut self, bytes: &mut [u8], plaintext: impl FnMut(&[u8])) -> Result<Progress, TlsError> {
        let before = self.established;
        let closed = if self.incoming.is_empty() {
            let (used, closed) = self.process(bytes, plaintext)?;
            if let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
                self.incoming.extend_from_slice(rest);
            }
            closed
        } else {
            let mut incoming = core::mem::take(&mut self.incoming);
            incoming.extend_from_slice(bytes);
            let (used, closed) = self.process(&mut incoming, plaintext)?;
            incoming.drain(..used);
            if !incoming.is_empty() {
                self.incoming = incoming;
            }
            closed
        };
        Ok(Progress { established: self.established && !before, closed })
    }

    fn process(&mut self, bytes: &mut [u8], plaintext: impl FnMut(&[u8])) -> Result<(usize, bool), TlsError> {
        let Tls { side, outgoing, established, .. } = self;
        match side {
            Side::Server(connection) => {
                process(connection, UnbufferedServerConnection::process_tls, bytes, outgoing, established, plaintext)
            }
            Side::Client(connection) => {
                process(connection, UnbufferedClientConnection::process_tls, bytes, outgoing, established, plaintext)
            }
        }
    }

    /// Handshake bytes and alerts that wait for the socket; they go before anything encrypted later.
    pub fn take_outgoing(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.outgoing)
    }

    /// Whether [`Self::take_outgoing`] has something.
    pub fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Encrypts and appends to `out`. Fails before the handshake is over.
    pub fn encrypt(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), TlsError> {
        for record in plaintext.chunks(PLAINTEXT_BYTES_MAX) {
            self.write(out, record.len(), |traffic, room| traffic_encrypt(traffic, record, room))?;
        }
        Ok(())
    }

    /// Appends the alert that says that nothing follows, once. Nothing happens before the handshake is over.
    pub fn close_notify(&mut self, out: &mut Vec<u8>) {
        if self.established && !core::mem::replace(&mut self.said_goodbye, true) {
            // A peer that cannot be told finds out by the end of the stream.
            let _ = self.write(out, 2, |traffic, room| match traffic {
                Traffic::Server(mut traffic) => traffic.queue_close_notify(room),
                Traffic::Client(mut traffic) => traffic.queue_close_notify(room),
            });
        }
    }

    fn write(
        &mut self,
        out: &mut Vec<u8>,
        plaintext_bytes: usize,
        encrypt: impl Fn(Traffic<'_>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> Result<(), TlsError> {
        let Tls { side, .. } = self;
        let start = out.len();
        out.resize(start + plaintext_bytes + RECORD_OVERHEAD_BYTES, 0);
        let room = out.get_mut(start..).unwrap_or_default();
        let written = match side {
            Side::Server(connection) => match connection.process_tls_records(&mut []).state {
                Ok(ConnectionState::WriteTraffic(traffic)) => encrypt(Traffic::Server(traffic), room),
                state => return not_writable(out, start, state.err()),
            },
            Side::Client(connection) => match connection.process_tls_records(&mut []).state {
                Ok(ConnectionState::WriteTraffic(traffic)) => encrypt(Traffic::Client(traffic), room),
                state => return not_writable(out, start, state.err()),
            },
        };
        match written {
            Ok(written) => {
                out.truncate(start + written);
                Ok(())
            }
            Err(EncryptError::InsufficientSize(_)) => {
                not_writable(out, start, Some(rustls::Error::General("a record grew beyond its bound".into())))
            }
            Err(EncryptError::EncryptExhausted) => not_writable(out, start, Some(rustls::Error::EncryptError)),
        }
    }
}

fn not_writable(out: &mut Vec<u8>, start: usize, error: Option<rustls::Error>) -> Result<(), TlsError> {
    out.truncate(start);
    Err(TlsError(error.unwrap_or(rustls::Error::HandshakeNotComplete)))
}

enum Traffic<'a> {
    Server(WriteTraffic<'a, ServerConnectionData>),
    Client(WriteTraffic<'a, ClientConnectionData>),
}

fn traffic_encrypt(traffic: Traffic<'_>, record: &[u8], room: &mut [u8]) -> Result<usize, EncryptError> {
    match traffic {
        Traffic::Server(mut traffic) => traffic.encrypt(record, room),
        Traffic::Client(mut traffic) => traffic.encrypt(record, room),
    }
}

/// rustls gives the two sides the same method by two inherent implementations; this names it once.
trait ProcessTls {
    type Data;
    fn process_tls<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl ProcessTls for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    fn process_tls<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(bytes)
    }
}

impl ProcessTls for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    fn process_tls<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(bytes)
    }
}

/// Runs the state machine over `bytes`; returns how many are used up, and whether the peer has closed.
fn process<C>(
    connection: &mut C,
    step: impl for<'c, 'i> Fn(&'c mut C, &'i mut [u8]) -> UnbufferedStatus<'c, 'i, C::Data>,
    bytes: &mut [u8],
    outgoing: &mut Vec<u8>,
    established: &mut bool,
    mut plaintext: impl FnMut(&[u8]),
) -> Result<(usize, bool), TlsError>
where
    C: ProcessTls + std::ops::DerefMut<Target = UnbufferedConnectionCommon<C::Data>>,
{
    let mut used = 0;
    let mut closed = false;
    loop {
        let rest = bytes.get_mut(used..).unwrap_or_default();
        let UnbufferedStatus { mut discard, state } = step(connection, rest);
        let mut done = false;
        match state.map_err(TlsError) {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    let record = record.map_err(TlsError)?;
                    discard += record.discard;
                    plaintext(record.payload);
                }
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                let start = outgoing.len();
                let wanted = match data.encode(&mut []) {
                    Err(EncodeError::InsufficientSize(size)) => size.required_size,
                    _ => 0,
                };
                outgoing.resize(start + wanted, 0);
                let written = data.encode(outgoing.get_mut(start..).unwrap_or_default()).unwrap_or(0);
                outgoing.truncate(start + written);
            }
            // Everything encoded is queued in order before whatever is encrypted next.
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::WriteTraffic(_)) => {
                *established = true;
                done = true;
            }
            Ok(ConnectionState::PeerClosed) => closed = true,
            Ok(_) => done = true,
            Err(error) => {
                // rustls may have an alert for the peer; it is the next thing to encode.
                if let Ok(ConnectionState::EncodeTlsData(mut data)) = step(connection, &mut []).state {
                    let start = outgoing.len();
                    outgoing.resize(start + 256, 0);
                    let written = data.encode(outgoing.get_mut(start..).unwrap_or_default()).unwrap_or(0);
                    outgoing.truncate(start + written);
                }
                return Err(error);
            }
        }
        used += discard;
        if done || closed {
            return Ok((used, closed));
        }
    }
}
