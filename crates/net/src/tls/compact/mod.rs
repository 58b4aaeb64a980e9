//! TLS 1.3 after the handshake, in a quarter of a kilobyte: records, alerts and key updates of a server.
//!
//! rustls makes the handshake; then its state is given up for the two traffic secrets, their keys and two sequence
//! numbers (RFC 8446, 4.6.3, 5 and 6). It does not handshake, resume, or speak any other version: [`super::Tls`] decides
//! who gets here.
//!
//! Invariants: a record that was refused is the last one that is looked at; sequence numbers never go back; with one
//! key at most [`RECORDS_PER_KEY_MAX`] records are sealed. No byte from outside panics.

mod capture;
#[cfg(test)]
mod tests;
pub mod traffic;

pub(super) use capture::{ApplicationSecrets, Capture, take_captured};

use traffic::{
    ALERT, APPLICATION_DATA, CONTENT_BYTES_MAX, Context, HANDSHAKE, HEADER_BYTES, TrafficKeys, record_bytes,
};

// What every idle connection costs here; a size that allocators keep whole blocks of.
const _: () = assert!(size_of::<Compact>() <= 256);

/// Records sealed with one key. AES-GCM's bound is 2^24.5 of full length (RFC 8446, 5.5); this is well before it.
pub const RECORDS_PER_KEY_MAX: u64 = 1 << 23;
/// Records in a row that carry no application data: empty ones, key updates, warnings. rustls allows as many key updates.
const QUIET_RECORDS_MAX: u8 = 32;

/// Handshake message: type, three bytes of length, whether an update is requested.
const KEY_UPDATE: u8 = 24;
const KEY_UPDATE_HEADER: [u8; 4] = [KEY_UPDATE, 0, 0, 1];
const UPDATE_NOT_REQUESTED: u8 = 0;
const UPDATE_REQUESTED: u8 = 1;

const FATAL: u8 = 2;
const WARNING: u8 = 1;
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;

/// Why a peer's records end its connection; all but the last three are answered with an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// A record does not decrypt: it was changed, repeated, left out, or sealed with other keys.
    BadRecordMac,
    /// A record is longer than TLS allows.
    RecordOverflow,
    /// A record of this type that is not protected.
    Unprotected(u8),
    /// A record that holds padding alone.
    NoContentType,
    /// A protected record of this content type, which has no place here; or an empty one of a type that may not be empty.
    UnexpectedContent(u8),
    /// A handshake message of this type, which a client may not send after the handshake.
    UnexpectedHandshake(u8),
    /// Another record between the parts of a handshake message, or more content behind a KeyUpdate.
    Interleaved,
    /// An alert or a KeyUpdate of a length that neither has.
    WrongLength,
    /// A KeyUpdate with a value that is not defined.
    IllegalKeyUpdate(u8),
    /// Too many records in a row without application data.
    TooManyQuietRecords,
    /// The peer has given up, with this alert.
    PeerAlert(u8),
    /// Nothing goes any more after one of the others.
    Failed,
    /// The cipher refused what it never refuses.
    Internal,
}

impl RecordError {
    /// The description of the alert that the peer is sent (RFC 8446, 6.2); none where it is past listening.
    pub fn alert(self) -> Option<u8> {
        match self {
            RecordError::UnexpectedContent(_)
            | RecordError::UnexpectedHandshake(_)
            | RecordError::Unprotected(_)
            | RecordError::NoContentType
            | RecordError::Interleaved
            | RecordError::TooManyQuietRecords => Some(10),
            RecordError::BadRecordMac => Some(20),
            RecordError::RecordOverflow => Some(22),
            RecordError::IllegalKeyUpdate(_) => Some(47),
            RecordError::WrongLength => Some(50),
            RecordError::PeerAlert(_) | RecordError::Failed | RecordError::Internal => None,
        }
    }
}

impl std::fmt::Display for RecordError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RecordError::BadRecordMac => f.write_str("a record does not decrypt"),
            RecordError::RecordOverflow => f.write_str("a record is too long"),
            RecordError::Unprotected(kind) => write!(f, "a record of type {kind} is not protected"),
            RecordError::NoContentType => f.write_str("a record holds only padding"),
            RecordError::UnexpectedContent(kind) => write!(f, "content of type {kind} is not expected"),
            RecordError::UnexpectedHandshake(kind) => write!(f, "a handshake message of type {kind} is not expected"),
            RecordError::Interleaved => f.write_str("a handshake message does not end with its record"),
            RecordError::WrongLength => f.write_str("an alert or a key update has a wrong length"),
            RecordError::IllegalKeyUpdate(value) => write!(f, "a key update says {value}"),
            RecordError::TooManyQuietRecords => f.write_str("too many records in a row carry no data"),
            RecordError::PeerAlert(description) => write!(f, "the peer sent alert {description}"),
            RecordError::Failed => f.write_str("the connection has failed before"),
            RecordError::Internal => f.write_str("the cipher failed"),
        }
    }
}

impl std::error::Error for RecordError {}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// The peer has said close_notify; whatever it sends now is ignored.
    PeerClosed,
    /// A record was refused.
    Failed,
}

/// See the module.
pub struct Compact {
    read: TrafficKeys,
    write: TrafficKeys,
    /// A record that is not whole yet.
    incoming: Vec<u8>,
    /// What the handshake has left to send.
    outgoing: Box<[u8]>,
    /// How much of a KeyUpdate's header has come, in a record that ended within the message.
    key_update_bytes: u8,
    quiet_records: u8,
    stage: Stage,
    /// The alert that the peer has to be told.
    alert: Option<u8>,
    /// The peer has requested a KeyUpdate. However many it requests, one answers them all.
    answer_key_update: bool,
    said_goodbye: bool,
}

impl Compact {
    /// With keys for what the client writes and for what it reads. `outgoing` goes first, as it is.
    pub fn new(read: TrafficKeys, write: TrafficKeys, outgoing: Vec<u8>) -> Self {
        Compact {
            read,
            write,
            incoming: Vec::new(),
            outgoing: outgoing.into_boxed_slice(),
            key_update_bytes: 0,
            quiet_records: 0,
            stage: Stage::Open,
            alert: None,
            answer_key_update: false,
            said_goodbye: false,
        }
    }

    /// Takes records in and hands out what is in them, in order, decrypted where it lies and the caller's to change. True when the peer has closed.
    /// After an error its alert waits in [`Self::take_outgoing`], and nothing else is done any more.
    pub fn receive(&mut self, bytes: &mut [u8], plaintext: impl FnMut(&mut [u8])) -> Result<bool, RecordError> {
        if self.stage == Stage::Failed {
            return Err(RecordError::Failed);
        }
        let result = self.take_records(bytes, plaintext);
        if let Err(error) = result {
            self.stage = Stage::Failed;
            self.alert = error.alert();
            self.answer_key_update = false;
            self.incoming = Vec::new();
            return Err(error);
        }
        Ok(self.stage == Stage::PeerClosed)
    }

    fn take_records(&mut self, mut bytes: &mut [u8], mut plaintext: impl FnMut(&mut [u8])) -> Result<(), RecordError> {
        let mut context = None;
        while !bytes.is_empty() && self.stage == Stage::Open {
            if !self.incoming.is_empty() {
                let wanted = record_bytes(&self.incoming)?.unwrap_or(HEADER_BYTES);
                let missing = wanted.saturating_sub(self.incoming.len()).min(bytes.len());
                let (more, rest) = bytes.split_at_mut_checked(missing).unwrap_or_default();
                self.incoming.extend_from_slice(more);
                bytes = rest;
                if record_bytes(&self.incoming)? == Some(self.incoming.len()) {
                    let mut record = core::mem::take(&mut self.incoming);
                    self.take_record(&mut record, &mut context, &mut plaintext)?;
                }
                continue;
            }
            match record_bytes(bytes)? {
                Some(whole) if whole <= bytes.len() => {
                    let (record, rest) = bytes.split_at_mut_checked(whole).unwrap_or_default();
                    bytes = rest;
                    self.take_record(record, &mut context, &mut plaintext)?;
                }
                _ => {
                    self.incoming.extend_from_slice(bytes);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn take_record(
        &mut self,
        record: &mut [u8],
        context: &mut Option<Context>,
        plaintext: &mut impl FnMut(&mut [u8]),
    ) -> Result<(), RecordError> {
        let cipher = match context {
            Some(cipher) => cipher,
            None => context.insert(self.read.context()?),
        };
        let (content_type, content) = self.read.open(cipher, record)?;
        if self.key_update_bytes > 0 && content_type != HANDSHAKE {
            return Err(RecordError::Interleaved);
        }
        if content_type == APPLICATION_DATA && !content.is_empty() {
            self.quiet_records = 0;
            plaintext(content);
            return Ok(());
        }
        self.quiet_records += 1;
        if self.quiet_records > QUIET_RECORDS_MAX {
            return Err(RecordError::TooManyQuietRecords);
        }
        match content_type {
            APPLICATION_DATA => Ok(()),
            HANDSHAKE => {
                if self.take_handshake(content)? {
                    self.read.update()?;
                    *context = None;
                }
                Ok(())
            }
            ALERT => self.take_alert(content),
            other => Err(RecordError::UnexpectedContent(other)),
        }
    }

    /// A KeyUpdate is all that a client may say; the first byte that cannot be one ends it. True when it is complete.
    fn take_handshake(&mut self, content: &[u8]) -> Result<bool, RecordError> {
        if content.is_empty() {
            return Err(RecordError::UnexpectedContent(HANDSHAKE));
        }
        for (index, byte) in content.iter().enumerate() {
            match (KEY_UPDATE_HEADER.get(usize::from(self.key_update_bytes)), *byte) {
                (Some(expected), byte) if *expected == byte => self.key_update_bytes += 1,
                (Some(_), byte) if self.key_update_bytes == 0 => return Err(RecordError::UnexpectedHandshake(byte)),
                (Some(_), _) => return Err(RecordError::WrongLength),
                // The keys change here, and nothing sealed with the old ones may follow in this record.
                (None, UPDATE_NOT_REQUESTED | UPDATE_REQUESTED) if index + 1 < content.len() => {
                    return Err(RecordError::Interleaved);
                }
                (None, request @ (UPDATE_NOT_REQUESTED | UPDATE_REQUESTED)) => {
                    self.key_update_bytes = 0;
                    self.answer_key_update |= request == UPDATE_REQUESTED;
                    return Ok(true);
                }
                (None, other) => return Err(RecordError::IllegalKeyUpdate(other)),
            }
        }
        Ok(false)
    }

    /// In TLS 1.3 the description alone says what an alert means, whatever its level.
    fn take_alert(&mut self, content: &[u8]) -> Result<(), RecordError> {
        match *content {
            [] => Err(RecordError::UnexpectedContent(ALERT)),
            [_, CLOSE_NOTIFY] => {
                self.stage = Stage::PeerClosed;
                Ok(())
            }
            // It announces a close_notify.
            [_, USER_CANCELED] => Ok(()),
            [_, description] => Err(RecordError::PeerAlert(description)),
            _ => Err(RecordError::WrongLength),
        }
    }

    /// A record that is not whole yet.
    pub(super) fn incoming(&self) -> &Vec<u8> {
        &self.incoming
    }

    /// What the handshake has left to send.
    pub(super) fn outgoing(&self) -> &[u8] {
        &self.outgoing
    }

    /// Whether [`Self::take_outgoing`] has something.
    pub fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty() || self.alert.is_some() || self.answer_key_update
    }

    /// What is to be sent before anything that is encrypted later: the rest of the handshake, an alert, the answer to a
    /// KeyUpdate.
    pub fn take_outgoing(&mut self) -> Vec<u8> {
        let mut out = core::mem::take(&mut self.outgoing).into_vec();
        if let Some(description) = self.alert.take() {
            // A peer that cannot be told finds out by the end of the stream.
            let _ = self.seal_alone(&[FATAL, description], ALERT, &mut out);
        }
        if core::mem::take(&mut self.answer_key_update) && self.update_write(&mut out).is_err() {
            self.stage = Stage::Failed;
        }
        out
    }

    /// Seals `plaintext`, in as many records as it needs, and appends them to `out`. What [`Self::take_outgoing`] has
    /// goes first.
    pub fn encrypt(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), RecordError> {
        out.append(&mut self.take_outgoing());
        if self.stage == Stage::Failed {
            return Err(RecordError::Failed);
        }
        let mut context = None;
        for content in plaintext.chunks(CONTENT_BYTES_MAX) {
            if self.write.sequence() >= RECORDS_PER_KEY_MAX {
                self.update_write(out)?;
                context = None;
            }
            let cipher = match &mut context {
                Some(cipher) => cipher,
                None => context.insert(self.write.context()?),
            };
            self.write.seal(cipher, content, &[APPLICATION_DATA], out)?;
        }
        Ok(())
    }

    /// Appends the alert that says that nothing follows, once. Nothing happens after an error.
    pub fn close_notify(&mut self, out: &mut Vec<u8>) {
        if self.stage != Stage::Failed && !core::mem::replace(&mut self.said_goodbye, true) {
            // As above.
            let _ = self.seal_alone(&[WARNING, CLOSE_NOTIFY], ALERT, out);
        }
    }

    /// Says that new keys follow, and changes to them.
    fn update_write(&mut self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let [kind, high, middle, low] = KEY_UPDATE_HEADER;
        self.seal_alone(&[kind, high, middle, low, UPDATE_NOT_REQUESTED], HANDSHAKE, out)?;
        self.write.update()
    }

    fn seal_alone(&mut self, content: &[u8], content_type: u8, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let context = self.write.context()?;
        self.write.seal(&context, content, &[content_type], out)
    }
}
