//! A connection whose every byte goes through rustls' unbuffered state machine: all handshakes, and whatever follows
//! them where [`super::compact`] is not used.
//!
//! Records are decrypted where the kernel put them. What is kept is an incomplete record, whole records of a handshake
//! message that is not (rustls has to be shown them again), and encrypted bytes that wait for the socket. A record may
//! hold one byte of a message and 16 KiB of padding, so the records of a message are bounded, not the message.

use std::sync::Arc;

use ringgate_core::transport::Handshake;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedConnectionCommon, UnbufferedStatus,
    WriteTraffic,
};
use rustls::{ClientConfig, HandshakeKind, ServerConfig};
use rustls_pki_types::ServerName;

use super::compact::traffic::{HEADER_BYTES, Suite, TrafficKeys};
use super::compact::{ApplicationSecrets, Compact, take_captured};
use super::{FIRST_BYTES_MAX, Progress, TlsError};

/// A record, its header, and the largest expansion that TLS allows.
const RECORD_BYTES_MAX: usize = 5 + 16 * 1024 + 2048;
/// What encryption adds to a record at most.
const RECORD_OVERHEAD_BYTES: usize = 64;
/// Plaintext bytes of one record.
const PLAINTEXT_BYTES_MAX: usize = 16 * 1024;
/// Most bytes of a flight of the handshake, with the records around it. Four full records, as
/// rustls takes no message that is longer than 64 KiB.
pub const HANDSHAKE_BYTES_MAX: usize = 4 * RECORD_BYTES_MAX;
/// After the handshake: most bytes of one incomplete record plus the records of one incomplete handshake message. A key update has five
/// bytes and a session ticket a few hundred; a peer that cuts them into more than fits here is refused.
pub const UNFINISHED_BYTES_MAX: usize = RECORD_BYTES_MAX + 4096;

/// See the module.
pub(super) struct Ordinary {
    side: Side,
    /// Encrypted bytes that are not a whole record yet.
    incoming: Vec<u8>,
    /// Handshake bytes and alerts for the peer.
    outgoing: Vec<u8>,
    established: bool,
    said_goodbye: bool,
    /// Once the handshake is over, this is to become a [`Compact`], if its version is TLS 1.3.
    shrinks: bool,
    /// What the handshake has agreed on; kept only if this shrinks.
    secrets: Option<Box<ApplicationSecrets>>,
    /// How many bytes of `incoming` are whole records that rustls has seen already, and must be shown again: parts of a
    /// handshake message. Counted only if this shrinks.
    shown: usize,
}

/// What a connection has become at the end of its handshake.
pub(super) struct Shrunk {
    pub(super) compact: Compact,
    /// Records that came behind the handshake.
    pub(super) rest: Vec<u8>,
}

enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
    /// Given up: for a [`Compact`], or after an error.
    Gone,
}

impl Ordinary {
    pub(super) fn accept(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        let shrinks = super::is_compact(&config);
        let connection = UnbufferedServerConnection::new(config).map_err(TlsError::Rustls)?;
        Ok(Ordinary { shrinks, ..Ordinary::new(Side::Server(connection)) })
    }

    pub(super) fn connect(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, TlsError> {
        let connection = UnbufferedClientConnection::new(config, name).map_err(TlsError::Rustls)?;
        let mut tls = Ordinary::new(Side::Client(connection));
        tls.receive(&mut [], |_| {})?;
        Ok(tls)
    }

    fn new(side: Side) -> Self {
        Ordinary {
            side,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            established: false,
            said_goodbye: false,
            shrinks: false,
            secrets: None,
            shown: 0,
        }
    }

    pub(super) fn is_established(&self) -> bool {
        self.established
    }

    /// Whether [`Self::receive_and_shrink`] is to be called, rather than [`Self::receive`].
    pub(super) fn shrinks(&self) -> bool {
        self.shrinks
    }

    pub(super) fn incoming(&self) -> &Vec<u8> {
        &self.incoming
    }

    pub(super) fn outgoing(&self) -> &Vec<u8> {
        &self.outgoing
    }

    pub(super) fn may_hold_back(&self, bytes: usize) -> bool {
        self.incoming.len() + bytes <= HANDSHAKE_BYTES_MAX
    }

    pub(super) fn hold_back(&mut self, bytes: &[u8]) -> Result<(), TlsError> {
        if !self.may_hold_back(bytes.len()) {
            return Err(self.give_up(HANDSHAKE_BYTES_MAX));
        }
        append(&mut self.incoming, bytes, HANDSHAKE_BYTES_MAX);
        Ok(())
    }

    /// The peer has begun too much: nothing is kept of it.
    fn give_up(&mut self, bytes_max: usize) -> TlsError {
        self.side = Side::Gone;
        self.incoming = Vec::new();
        TlsError::Unfinished(bytes_max)
    }

    /// What may be kept for later calls, in bytes.
    fn incoming_bytes_max(&self) -> usize {
        if self.established { UNFINISHED_BYTES_MAX } else { HANDSHAKE_BYTES_MAX }
    }

    /// Keeps what was not used, if that is not too much.
    fn keep(&mut self, mut incoming: Vec<u8>, used: usize) -> Result<(), TlsError> {
        let bytes_max = self.incoming_bytes_max();
        incoming.drain(..used.min(incoming.len()));
        if incoming.len() > bytes_max {
            return Err(self.give_up(bytes_max));
        }
        if !incoming.is_empty() {
            if incoming.capacity() > bytes_max {
                incoming.shrink_to(bytes_max);
            }
            self.incoming = incoming;
        }
        Ok(())
    }

    /// As [`Self::receive`]. At the end of the handshake, what this connection becomes is returned, too. rustls is given
    /// one record at a time until then: it would read those behind the handshake itself.
    pub(super) fn receive_and_shrink(
        &mut self,
        bytes: &mut [u8],
        mut plaintext: impl FnMut(&[u8]),
    ) -> Result<(Progress, Option<Shrunk>), TlsError> {
        let mut incoming = core::mem::take(&mut self.incoming);
        append(&mut incoming, bytes, HANDSHAKE_BYTES_MAX);
        let (mut used, mut shown, mut closed) = (0, self.shown, false);
        while shown < incoming.len() && !self.established {
            let end = end_of_record(&incoming, shown);
            let all = incoming.len();
            let records = incoming.get_mut(used..end.unwrap_or(all)).unwrap_or_default();
            let (discarded, peer_closed) = self.process(records, &mut plaintext)?;
            // Taken after each step: the next one on this thread may be another connection's.
            self.secrets = take_captured().map(Box::new).or(self.secrets.take());
            (used, closed) = (used + discarded, peer_closed);
            match end {
                Some(end) => shown = end,
                None => break,
            }
        }
        self.shown = shown.saturating_sub(used);
        // Asked for now: a compact connection does not know it any more.
        let established = self.established.then(|| self.handshake());
        let progress = Progress { established, closed, ..Progress::default() };
        if self.established {
            incoming.drain(..used);
            self.shrinks = false;
            if let Some(compact) = self.shrink()? {
                return Ok((progress, Some(Shrunk { compact, rest: incoming })));
            }
            // An older version: goes on as it is.
            let rest = self.receive(&mut incoming, plaintext)?;
            return Ok((Progress { closed: closed || rest.closed, ..progress }, None));
        }
        self.keep(incoming, used)?;
        Ok((progress, None))
    }

    /// Gives rustls' state up, if the suite is one of TLS 1.3.
    fn shrink(&mut self) -> Result<Option<Compact>, TlsError> {
        let suite = match &self.side {
            Side::Server(connection) => connection.negotiated_cipher_suite().and_then(|suite| Suite::of(suite.suite())),
            Side::Client(_) | Side::Gone => None,
        };
        let (Some(suite), Some(secrets)) = (suite, self.secrets.take()) else { return Ok(None) };
        let Side::Server(connection) = core::mem::replace(&mut self.side, Side::Gone) else { return Ok(None) };
        let (extracted, _) = connection.dangerous_into_kernel_connection().map_err(TlsError::Rustls)?;
        let (read, write) = (extracted.rx, extracted.tx);
        let keys = |secret, sequence, extracted| {
            TrafficKeys::new(suite, secret, sequence).filter(|keys| keys.agree_with(extracted)).ok_or_else(|| {
                TlsError::Rustls(rustls::Error::General("the traffic secrets are of another connection".into()))
            })
        };
        let read = keys(&secrets.client, read.0, &read.1)?;
        let write = keys(&secrets.server, write.0, &write.1)?;
        Ok(Some(Compact::new(read, write, core::mem::take(&mut self.outgoing))))
    }

    pub(super) fn receive(&mut self, bytes: &mut [u8], plaintext: impl FnMut(&[u8])) -> Result<Progress, TlsError> {
        let before = self.established;
        let closed = if self.incoming.is_empty() {
            let (used, closed) = self.process(bytes, plaintext)?;
            if let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
                self.keep(rest.to_vec(), 0)?;
            }
            closed
        } else {
            let mut incoming = core::mem::take(&mut self.incoming);
            append(&mut incoming, bytes, self.incoming_bytes_max());
            let is_client = matches!(self.side, Side::Client(_)) && !self.established;
            let (used, closed) = match self.process(&mut incoming, plaintext) {
                Ok(processed) => processed,
                Err(error) if is_client => {
                    let error = explained(error, &incoming);
                    // For [`super::Tls::held_back`]: whom an error tells nothing, because the peer is gone, can still look.
                    incoming.truncate(FIRST_BYTES_MAX);
                    self.incoming = incoming;
                    return Err(error);
                }
                Err(error) => return Err(error),
            };
            self.keep(incoming, used)?;
            closed
        };
        let established = (self.established && !before).then(|| self.handshake());
        Ok(Progress { established, closed, ..Progress::default() })
    }

    /// Which kind the handshake was, once it is over.
    fn handshake(&self) -> Handshake {
        let kind = match &self.side {
            Side::Server(connection) => connection.handshake_kind(),
            Side::Client(connection) => connection.handshake_kind(),
            Side::Gone => None,
        };
        if kind == Some(HandshakeKind::Resumed) { Handshake::Resumed } else { Handshake::Full }
    }

    fn process(&mut self, bytes: &mut [u8], plaintext: impl FnMut(&[u8])) -> Result<(usize, bool), TlsError> {
        let Ordinary { side, outgoing, established, .. } = self;
        let result = match side {
            Side::Server(connection) => {
                process(connection, UnbufferedServerConnection::process_tls, bytes, outgoing, established, plaintext)
            }
            Side::Client(connection) => {
                process(connection, UnbufferedClientConnection::process_tls, bytes, outgoing, established, plaintext)
            }
            Side::Gone => Err(TlsError::Rustls(rustls::Error::HandshakeNotComplete)),
        };
        if result.is_err() {
            // It would still take plaintext, and miss bytes that nobody has any more.
            self.side = Side::Gone;
        }
        result
    }

    pub(super) fn take_outgoing(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.outgoing)
    }

    pub(super) fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    pub(super) fn encrypt(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), TlsError> {
        for record in plaintext.chunks(PLAINTEXT_BYTES_MAX) {
            self.write(out, record.len(), |traffic, room| traffic_encrypt(traffic, record, room))?;
        }
        Ok(())
    }

    pub(super) fn close_notify(&mut self, out: &mut Vec<u8>) {
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
        let start = out.len();
        out.resize(start + plaintext_bytes + RECORD_OVERHEAD_BYTES, 0);
        let room = out.get_mut(start..).unwrap_or_default();
        // rustls counts on the bytes that it was shown and has not used up: those of an unfinished handshake message.
        let incoming = self.incoming.as_mut_slice();
        let written = match &mut self.side {
            Side::Server(connection) => match connection.process_tls_records(incoming).state {
                Ok(ConnectionState::WriteTraffic(traffic)) => encrypt(Traffic::Server(traffic), room),
                state => return not_writable(out, start, state.err()),
            },
            Side::Client(connection) => match connection.process_tls_records(incoming).state {
                Ok(ConnectionState::WriteTraffic(traffic)) => encrypt(Traffic::Client(traffic), room),
                state => return not_writable(out, start, state.err()),
            },
            Side::Gone => return not_writable(out, start, None),
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

/// Appends, and makes room as a `Vec` does, but for no more than may be kept.
fn append(incoming: &mut Vec<u8>, bytes: &[u8], bytes_max: usize) {
    let wanted = incoming.len() + bytes.len();
    if wanted > incoming.capacity() {
        let room = (incoming.capacity() * 2).min(bytes_max).max(wanted);
        incoming.reserve_exact(room - incoming.len());
    }
    incoming.extend_from_slice(bytes);
}

/// Where the record that begins at `start` ends, if it is whole.
fn end_of_record(bytes: &[u8], start: usize) -> Option<usize> {
    let [.., high, low] = bytes.get(start..)?.first_chunk::<HEADER_BYTES>()?;
    let end = start + HEADER_BYTES + usize::from(u16::from_be_bytes([*high, *low]));
    (end <= bytes.len()).then_some(end)
}

fn not_writable(out: &mut Vec<u8>, start: usize, error: Option<rustls::Error>) -> Result<(), TlsError> {
    out.truncate(start);
    Err(TlsError::Rustls(error.unwrap_or(rustls::Error::HandshakeNotComplete)))
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

fn encode<Data>(mut data: EncodeTlsData<'_, Data>, outgoing: &mut Vec<u8>) {
    let start = outgoing.len();
    let wanted = match data.encode(&mut []) {
        Err(EncodeError::InsufficientSize(size)) => size.required_size,
        _ => 0,
    };
    outgoing.resize(start + wanted, 0);
    let written = data.encode(outgoing.get_mut(start..).unwrap_or_default()).unwrap_or(0);
    outgoing.truncate(start + written);
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
        match state.map_err(TlsError::Rustls) {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    let record = record.map_err(TlsError::Rustls)?;
                    discard += record.discard;
                    plaintext(record.payload);
                }
            }
            Ok(ConnectionState::EncodeTlsData(data)) => encode(data, outgoing),
            // Everything encoded is queued in order before whatever is encrypted next.
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::WriteTraffic(_)) => {
                *established = true;
                done = true;
            }
            Ok(ConnectionState::PeerClosed) => closed = true,
            Ok(_) => done = true,
            Err(error) => {
                // rustls may have an alert for the peer, behind whatever else it wanted to say. While it has something, it
                // looks at no bytes; else it must not be asked, since it would miss those of an unfinished message.
                while connection.wants_write()
                    && let Ok(ConnectionState::EncodeTlsData(data)) = step(connection, &mut []).state
                {
                    encode(data, outgoing);
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

/// An error of a client's handshake: where the server's bytes are those of no record, they say more than rustls does.
fn explained(error: TlsError, bytes: &[u8]) -> TlsError {
    // Content types of TLS (RFC 8446, 5.1), heartbeats among them.
    let is_record = bytes.first().is_some_and(|kind| (20..=24).contains(kind));
    match error {
        TlsError::Rustls(rustls::Error::InvalidMessage(_)) if !is_record => {
            TlsError::NotTls(bytes.get(..FIRST_BYTES_MAX).unwrap_or(bytes).to_vec())
        }
        error => error,
    }
}
