//! UTF-8 that comes in pieces (RFC 6455, 5.6 and 8.1): a character may begin in one and end in the next.
//!
//! What validates a run of bytes is a parameter, so that the shell can bring a faster validator than `std`, and the core needs no
//! further crate.

/// What a validator found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// All of it is UTF-8.
    Valid,
    /// All of it but its last 1 to 3 bytes, which begin a character.
    Incomplete(usize),
    /// It is not UTF-8, whatever follows.
    Invalid,
}

impl Validity {
    /// Of `length` bytes, of which `valid_up_to` were valid, from the fields of an error as those of [`core::str::Utf8Error`].
    pub fn of_error(length: usize, valid_up_to: usize, error_len: Option<usize>) -> Validity {
        match error_len {
            Some(_) => Validity::Invalid,
            None => Validity::Incomplete(length.saturating_sub(valid_up_to)),
        }
    }
}

/// A validator of UTF-8.
pub trait Validate {
    /// What these bytes are, if a character begins with the first one.
    fn validate(bytes: &[u8]) -> Validity;
}

/// The validator of `std`.
#[derive(Clone, Copy, Debug)]
pub struct Std;

impl Validate for Std {
    fn validate(bytes: &[u8]) -> Validity {
        match core::str::from_utf8(bytes) {
            Ok(_) => Validity::Valid,
            Err(error) => Validity::of_error(bytes.len(), error.valid_up_to(), error.error_len()),
        }
    }
}

/// Bytes of the longest character.
const CHARACTER_BYTES_MAX: usize = 4;

/// A text under way: the first bytes of a character that has not ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Text {
    begun: [u8; CHARACTER_BYTES_MAX - 1],
    length: u8,
}

impl Text {
    /// Takes the next bytes of the text; false as soon as it cannot be UTF-8 any more.
    pub(super) fn take<V: Validate>(&mut self, mut bytes: &[u8]) -> bool {
        while self.length > 0 {
            let Some((byte, rest)) = bytes.split_first() else { return true };
            bytes = rest;
            let mut character = [0; CHARACTER_BYTES_MAX];
            let length = usize::from(self.length);
            for (place, byte) in character.iter_mut().zip(self.begun.iter().take(length).chain([byte])) {
                *place = *byte;
            }
            match Std::validate(character.get(..=length).unwrap_or_default()) {
                Validity::Valid => self.length = 0,
                Validity::Incomplete(_) => self.begin(character.get(..=length).unwrap_or_default()),
                Validity::Invalid => return false,
            }
        }
        match V::validate(bytes) {
            Validity::Valid => true,
            Validity::Incomplete(tail) => {
                let tail = bytes.get(bytes.len().saturating_sub(tail)..).unwrap_or_default();
                self.begin(tail);
                true
            }
            Validity::Invalid => false,
        }
    }

    fn begin(&mut self, bytes: &[u8]) {
        for (place, byte) in self.begun.iter_mut().zip(bytes) {
            *place = *byte;
        }
        self.length = bytes.len().min(self.begun.len()) as u8;
    }

    /// Whether the text may end here.
    pub(super) fn is_whole(&self) -> bool {
        self.length == 0
    }
}
