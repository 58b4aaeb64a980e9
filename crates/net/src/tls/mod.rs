//! TLS on a connection. Both directions: the gateway accepts, clients connect.
//!
//! rustls makes every handshake (`ordinary`). After it, a connection either stays with rustls or, where the
//! configuration says so ([`make_compact`]), gives its state up for the few bytes that records need (`compact`). Who
//! uses a [`Tls`] does not see the difference.

pub mod compact;
mod ordinary;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use ringgate_core::transport::Handshake;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;

use crate::portion::Portion;
use compact::{Capture, Compact, RecordError};
pub use ordinary::{HANDSHAKE_BYTES_MAX, UNFINISHED_BYTES_MAX};
use ordinary::{Ordinary, Shrunk};

/// The peer broke the protocol, or its certificate was refused. The text is for logs.
#[derive(Debug)]
pub enum TlsError {
    /// In the handshake, or in the ordinary mode.
    Rustls(rustls::Error),
    /// After the handshake, in the compact mode.
    Record(RecordError),
    /// What the peer began and did not end takes more than this many bytes: see [`HANDSHAKE_BYTES_MAX`] and
    /// [`UNFINISHED_BYTES_MAX`].
    Unfinished(usize),
    /// A server's first bytes are no TLS: these, at most [`FIRST_BYTES_MAX`] of them. Only clients are told.
    NotTls(Vec<u8>),
}

/// Bytes that are kept of an answer that is no TLS.
pub const FIRST_BYTES_MAX: usize = 48;

impl std::fmt::Display for TlsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TlsError::Rustls(error) => error.fmt(f),
            TlsError::Record(error) => error.fmt(f),
            TlsError::Unfinished(bytes) => write!(f, "an unfinished handshake message takes more than {bytes} bytes"),
            TlsError::NotTls(first) => write!(f, "the server answered without TLS: \"{}\"", first.escape_ascii()),
        }
    }
}

impl std::error::Error for TlsError {}

/// What a peer's bytes have led to, beside plaintext.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The handshake has just ended, and was of this kind.
    pub established: Option<Handshake>,
    /// The peer has said that it sends no more.
    pub closed: bool,
    /// Bytes of records, after the handshake, beyond the plaintext in them: headers, padding, tags, handshake messages.
    pub overhead_bytes: usize,
}

/// Connections that are accepted with this configuration become compact, if their version is TLS 1.3. A key log that
/// it has is replaced: that is how the traffic secrets get out of rustls.
pub fn make_compact(config: &mut ServerConfig) {
    config.enable_secret_extraction = true;
    config.key_log = Arc::new(Capture);
}

/// Whether [`make_compact`] was called: nothing else asks rustls for its secrets.
pub fn is_compact(config: &ServerConfig) -> bool {
    config.enable_secret_extraction
}

/// See the module.
pub struct Tls(Mode);

/// Each is behind a pointer of its own: what a connection owns shrinks with it.
enum Mode {
    Ordinary(Box<Ordinary>),
    Compact(Box<Compact>),
}

impl Tls {
    /// For an accepted connection.
    pub fn accept(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        Ok(Tls(Mode::Ordinary(Box::new(Ordinary::accept(config)?))))
    }

    /// For a connection that was made; its first bytes are in [`Self::take_outgoing`] at once.
    pub fn connect(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, TlsError> {
        Ok(Tls(Mode::Ordinary(Box::new(Ordinary::connect(config, name)?))))
    }

    /// Whether the handshake is over.
    pub fn is_established(&self) -> bool {
        match &self.0 {
            Mode::Ordinary(ordinary) => ordinary.is_established(),
            Mode::Compact(_) => true,
        }
    }

    /// Whether this is a connection of few bytes.
    pub fn is_compact(&self) -> bool {
        matches!(self.0, Mode::Compact(_))
    }

    /// Whether so many bytes would be taken by [`Self::hold_back`]; true also once the handshake is over, when it is not called.
    pub fn may_hold_back(&self, bytes: usize) -> bool {
        match &self.0 {
            Mode::Ordinary(ordinary) => ordinary.is_established() || ordinary.may_hold_back(bytes),
            Mode::Compact(_) => true,
        }
    }

    /// Keeps bytes for a later [`Self::receive`]; handshakes are queued that way, since each costs more than a
    /// hundred messages. Fails when the peer has sent more than a handshake may need, or the handshake is over.
    pub fn hold_back(&mut self, bytes: &[u8]) -> Result<(), TlsError> {
        match &mut self.0 {
            Mode::Ordinary(ordinary) => ordinary.hold_back(bytes),
            Mode::Compact(_) => Err(TlsError::Record(RecordError::Failed)),
        }
    }

    /// Takes bytes of the peer in and hands plaintext out, in order. After an error, what the peer has to be told is in
    /// [`Self::take_outgoing`].
    pub fn receive(&mut self, bytes: &mut [u8], mut plaintext: impl FnMut(&[u8])) -> Result<Progress, TlsError> {
        self.receive_portions(bytes, |portion| plaintext(&portion))
    }

    /// As [`Self::receive`]: in the compact mode, the plaintext may be changed where it lies.
    pub(crate) fn receive_portions(
        &mut self,
        bytes: &mut [u8],
        mut plaintext: impl FnMut(Portion<'_>),
    ) -> Result<Progress, TlsError> {
        let counts = self.is_established();
        let before_bytes = self.incoming_bytes() + bytes.len();
        let mut plaintext_bytes = 0;
        let progress = self.read(bytes, |part| {
            plaintext_bytes += part.len();
            plaintext(part);
        })?;
        // What is kept is counted when its record is whole.
        let read_bytes = before_bytes.saturating_sub(self.incoming_bytes());
        let overhead_bytes = if counts { read_bytes.saturating_sub(plaintext_bytes) } else { 0 };
        Ok(Progress { overhead_bytes, ..progress })
    }

    fn read(&mut self, bytes: &mut [u8], mut plaintext: impl FnMut(Portion<'_>)) -> Result<Progress, TlsError> {
        match &mut self.0 {
            Mode::Compact(compact) => {
                let closed =
                    compact.receive(bytes, |part| plaintext(Portion::InPlace(part))).map_err(TlsError::Record)?;
                Ok(Progress { closed, ..Progress::default() })
            }
            Mode::Ordinary(ordinary) if ordinary.shrinks() => {
                let (progress, shrunk) = ordinary.receive_and_shrink(bytes, |part| plaintext(Portion::Lent(part)))?;
                let Some(Shrunk { mut compact, mut rest }) = shrunk else { return Ok(progress) };
                let result = compact.receive(&mut rest, |part| plaintext(Portion::InPlace(part)));
                self.0 = Mode::Compact(Box::new(compact));
                Ok(Progress { closed: result.map_err(TlsError::Record)?, ..progress })
            }
            Mode::Ordinary(ordinary) => ordinary.receive(bytes, |part| plaintext(Portion::Lent(part))),
        }
    }

    /// Bytes of the peer that wait for the rest of their record or handshake message.
    fn incoming_bytes(&self) -> usize {
        match &self.0 {
            Mode::Ordinary(ordinary) => ordinary.incoming().len(),
            Mode::Compact(compact) => compact.incoming().len(),
        }
    }

    /// Bytes of the peer that are kept for a later [`Self::receive`]; after an error in a client's handshake, the first of those
    /// that were not understood.
    pub fn held_back(&self) -> &[u8] {
        match &self.0 {
            Mode::Ordinary(ordinary) => ordinary.incoming(),
            Mode::Compact(compact) => compact.incoming(),
        }
    }

    /// Memory for bytes that wait here, of the peer or for it, in bytes.
    pub fn buffered_bytes(&self) -> usize {
        match &self.0 {
            Mode::Ordinary(ordinary) => ordinary.incoming().capacity() + ordinary.outgoing().capacity(),
            Mode::Compact(compact) => compact.incoming().capacity() + compact.outgoing().len(),
        }
    }

    /// Bytes of the handshake, alerts and key updates that wait for the socket; they go before anything encrypted later.
    pub fn take_outgoing(&mut self) -> Vec<u8> {
        match &mut self.0 {
            Mode::Ordinary(ordinary) => ordinary.take_outgoing(),
            Mode::Compact(compact) => compact.take_outgoing(),
        }
    }

    /// Whether [`Self::take_outgoing`] has something.
    pub fn has_outgoing(&self) -> bool {
        match &self.0 {
            Mode::Ordinary(ordinary) => ordinary.has_outgoing(),
            Mode::Compact(compact) => compact.has_outgoing(),
        }
    }

    /// Encrypts and appends to `out`. Fails before the handshake is over.
    pub fn encrypt(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), TlsError> {
        match &mut self.0 {
            Mode::Ordinary(ordinary) => ordinary.encrypt(plaintext, out),
            Mode::Compact(compact) => compact.encrypt(plaintext, out).map_err(TlsError::Record),
        }
    }

    /// Appends the alert that says that nothing follows, once. Nothing happens before the handshake is over.
    pub fn close_notify(&mut self, out: &mut Vec<u8>) {
        match &mut self.0 {
            Mode::Ordinary(ordinary) => ordinary.close_notify(out),
            Mode::Compact(compact) => compact.close_notify(out),
        }
    }
}
