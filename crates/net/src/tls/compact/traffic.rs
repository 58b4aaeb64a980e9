//! The keys of one direction of a connection (RFC 8446, 5.2, 5.3 and 7): records are sealed and opened with them.
//!
//! The keys lie here as bytes. A cipher's context is many times as large and is set up in a fraction of the time that a
//! record takes, so it lives only as long as a portion of records: see [`TrafficKeys::context`].

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{self, KeyType};
use rustls::{CipherSuite, ConnectionTrafficSecrets};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::RecordError;

/// Content types of RFC 8446, B.1.
pub const ALERT: u8 = 21;
/// See [`ALERT`].
pub const HANDSHAKE: u8 = 22;
/// See [`ALERT`].
pub const APPLICATION_DATA: u8 = 23;

/// Bytes of a record's header.
pub const HEADER_BYTES: usize = 5;
/// Most bytes of content in a record.
pub const CONTENT_BYTES_MAX: usize = 1 << 14;
/// Most bytes of a record after its header.
pub const CIPHERTEXT_BYTES_MAX: usize = CONTENT_BYTES_MAX + 256;
/// All three suites have tags and nonces of one size.
const TAG_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
/// Of SHA-384.
const SECRET_BYTES_MAX: usize = 48;
/// Of AES-256 and ChaCha20.
const KEY_BYTES_MAX: usize = 32;

/// The cipher suites of TLS 1.3 that rustls negotiates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// TLS_AES_128_GCM_SHA256
    Aes128GcmSha256,
    /// TLS_AES_256_GCM_SHA384
    Aes256GcmSha384,
    /// TLS_CHACHA20_POLY1305_SHA256
    Chacha20Poly1305Sha256,
}

impl Suite {
    /// All of them.
    pub const ALL: [Suite; 3] = [Suite::Aes128GcmSha256, Suite::Aes256GcmSha384, Suite::Chacha20Poly1305Sha256];

    /// The suite that was negotiated; none for those of TLS 1.2.
    pub fn of(suite: CipherSuite) -> Option<Suite> {
        match suite {
            CipherSuite::TLS13_AES_128_GCM_SHA256 => Some(Suite::Aes128GcmSha256),
            CipherSuite::TLS13_AES_256_GCM_SHA384 => Some(Suite::Aes256GcmSha384),
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => Some(Suite::Chacha20Poly1305Sha256),
            _ => None,
        }
    }

    fn aead(self) -> &'static aead::Algorithm {
        match self {
            Suite::Aes128GcmSha256 => &aead::AES_128_GCM,
            Suite::Aes256GcmSha384 => &aead::AES_256_GCM,
            Suite::Chacha20Poly1305Sha256 => &aead::CHACHA20_POLY1305,
        }
    }

    fn hkdf(self) -> hkdf::Algorithm {
        match self {
            Suite::Aes256GcmSha384 => hkdf::HKDF_SHA384,
            Suite::Aes128GcmSha256 | Suite::Chacha20Poly1305Sha256 => hkdf::HKDF_SHA256,
        }
    }

    /// Bytes of a traffic secret.
    pub fn secret_bytes(self) -> usize {
        self.hkdf().len()
    }
}

/// An `application_traffic_secret` as it was derived by the handshake.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret {
    bytes: [u8; SECRET_BYTES_MAX],
    length: u8,
}

impl Secret {
    /// None if no hash has so long an output.
    pub fn new(secret: &[u8]) -> Option<Secret> {
        let mut kept = Secret { bytes: [0; SECRET_BYTES_MAX], length: secret.len() as u8 };
        kept.bytes.get_mut(..secret.len())?.copy_from_slice(secret);
        Some(kept)
    }
}

/// See the module.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct TrafficKeys {
    sequence: u64,
    secret: [u8; SECRET_BYTES_MAX],
    key: [u8; KEY_BYTES_MAX],
    iv: [u8; NONCE_BYTES],
    #[zeroize(skip)]
    suite: Suite,
}

/// A cipher, ready to work with the keys that it was made from; see [`TrafficKeys::context`].
pub struct Context(LessSafeKey);

impl TrafficKeys {
    /// From the secret and the number of records that were sealed with its keys already. None if the secret is not as
    /// long as the suite's hash.
    pub fn new(suite: Suite, secret: &Secret, sequence: u64) -> Option<TrafficKeys> {
        if usize::from(secret.length) != suite.secret_bytes() {
            return None;
        }
        let mut keys =
            TrafficKeys { sequence, secret: secret.bytes, key: [0; KEY_BYTES_MAX], iv: [0; NONCE_BYTES], suite };
        keys.derive().ok()?;
        Some(keys)
    }

    /// Whether rustls has derived the same keys.
    pub(in crate::tls) fn agree_with(&self, secrets: &ConnectionTrafficSecrets) -> bool {
        let (suite, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Suite::Aes128GcmSha256, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Suite::Aes256GcmSha384, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (Suite::Chacha20Poly1305Sha256, key, iv),
            _ => return false,
        };
        suite == self.suite && key.as_ref() == self.key_bytes() && iv.as_ref() == self.iv
    }

    /// Records sealed, or opened, with these keys.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    #[cfg(test)]
    pub(super) fn set_sequence(&mut self, sequence: u64) {
        self.sequence = sequence;
    }

    pub(super) fn key_bytes(&self) -> &[u8] {
        self.key.get(..self.suite.aead().key_len()).unwrap_or_default()
    }

    /// The keys after a KeyUpdate. Contexts that were made before are of no use any more.
    pub fn update(&mut self) -> Result<(), RecordError> {
        let mut next = Zeroizing::new([0; SECRET_BYTES_MAX]);
        self.expand_label(b"traffic upd", next.get_mut(..self.suite.secret_bytes()).unwrap_or_default())?;
        self.secret = *next;
        self.sequence = 0;
        self.derive()
    }

    fn derive(&mut self) -> Result<(), RecordError> {
        let mut key = Zeroizing::new([0; KEY_BYTES_MAX]);
        self.expand_label(b"key", key.get_mut(..self.suite.aead().key_len()).unwrap_or_default())?;
        self.key = *key;
        let mut iv = [0; NONCE_BYTES];
        self.expand_label(b"iv", &mut iv)?;
        self.iv = iv;
        Ok(())
    }

    /// HKDF-Expand-Label(secret, label, "", length of `out`).
    fn expand_label(&self, label: &[u8], out: &mut [u8]) -> Result<(), RecordError> {
        struct Length(usize);
        impl KeyType for Length {
            fn len(&self) -> usize {
                self.0
            }
        }
        const PREFIX: &[u8] = b"tls13 ";
        let secret = self.secret.get(..self.suite.secret_bytes()).unwrap_or_default();
        let lengths = [0, out.len() as u8, (PREFIX.len() + label.len()) as u8];
        let info: [&[u8]; 4] = [&lengths, PREFIX, label, &[0]];
        let expanded = hkdf::Prk::new_less_safe(self.suite.hkdf(), secret);
        let filled = expanded.expand(&info, Length(out.len())).and_then(|okm| okm.fill(out));
        filled.map_err(|_| RecordError::Internal)
    }

    /// A cipher for these keys. It takes about 650 bytes of memory and is set up in 65 to 180 ns: to be kept for a
    /// portion of records and not for longer.
    pub fn context(&self) -> Result<Context, RecordError> {
        let key = UnboundKey::new(self.suite.aead(), self.key_bytes()).map_err(|_| RecordError::Internal)?;
        Ok(Context(LessSafeKey::new(key)))
    }

    /// The nonce of the next record. Sequence numbers do not wrap.
    pub(super) fn next_nonce(&mut self) -> Result<Nonce, RecordError> {
        let mut nonce = self.iv;
        for (byte, sequence) in nonce.iter_mut().skip(NONCE_BYTES - 8).zip(self.sequence.to_be_bytes()) {
            *byte ^= sequence;
        }
        self.sequence = self.sequence.checked_add(1).ok_or(RecordError::Internal)?;
        Ok(Nonce::assume_unique_for_key(nonce))
    }

    /// Appends one record to `out`. `trailer` is the content's type, followed by as much zero padding as is wanted;
    /// together they are at most `CONTENT_BYTES_MAX + 1` bytes.
    pub fn seal(
        &mut self,
        context: &Context,
        content: &[u8],
        trailer: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), RecordError> {
        let length = content.len() + trailer.len() + TAG_BYTES;
        debug_assert!(length <= CONTENT_BYTES_MAX + 1 + TAG_BYTES);
        let nonce = self.next_nonce()?;
        let header = [APPLICATION_DATA, 3, 3, (length >> 8) as u8, length as u8];
        let start = out.len();
        out.reserve(HEADER_BYTES + length);
        out.extend_from_slice(&header);
        out.resize(start + HEADER_BYTES + length, 0);
        let body = out.get_mut(start + HEADER_BYTES..).unwrap_or_default();
        let (ciphertext, rest) = body.split_at_mut_checked(content.len()).ok_or(RecordError::Internal)?;
        let sealed = context.0.seal_out_of_place_scatter(nonce, Aad::from(header), content, ciphertext, trailer, rest);
        sealed.map_err(|_| {
            out.truncate(start);
            RecordError::Internal
        })
    }

    /// Opens one whole record where it lies: the content's type, and the content.
    pub fn open<'a>(&mut self, context: &Context, record: &'a mut [u8]) -> Result<(u8, &'a mut [u8]), RecordError> {
        let (header, body) = record.split_first_chunk_mut::<HEADER_BYTES>().ok_or(RecordError::BadRecordMac)?;
        let nonce = self.next_nonce()?;
        let opened = context.0.open_in_place(nonce, Aad::from(*header), body);
        let inner = opened.map_err(|_| RecordError::BadRecordMac)?;
        if inner.len() > CONTENT_BYTES_MAX + 1 {
            return Err(RecordError::RecordOverflow);
        }
        let last = inner.iter().rposition(|byte| *byte != 0).ok_or(RecordError::NoContentType)?;
        let (content, trailer) = inner.split_at_mut_checked(last).ok_or(RecordError::NoContentType)?;
        let content_type = *trailer.first().ok_or(RecordError::NoContentType)?;
        Ok((content_type, content))
    }
}

/// The length of the record that begins here, its header included; none while that has not come.
pub fn record_bytes(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    let &[content_type, _, _, high, low, ..] = bytes else { return Ok(None) };
    // Nothing else comes behind a handshake; what does is not protected.
    if content_type != APPLICATION_DATA {
        return Err(RecordError::Unprotected(content_type));
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > CIPHERTEXT_BYTES_MAX {
        return Err(RecordError::RecordOverflow);
    }
    Ok(Some(HEADER_BYTES + length))
}
