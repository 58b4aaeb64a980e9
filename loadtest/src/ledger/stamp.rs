//! What every payload says about itself, and the hash that shows whether any byte of it has changed.

use twox_hash::XxHash3_64;

/// Bytes of the stamp at the front of every payload: hash, run, recipient, sender, sequence, time.
pub(crate) const STAMP_BYTES: usize = 32;
/// The hash is over everything behind it.
const HASH_BYTES: usize = 8;

/// What a payload says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Which run; others' messages are ignored.
    pub(crate) run: u32,
    /// Whom it was sent to.
    pub(crate) to: Recipient,
    /// Its sender, and the stream.
    pub(crate) sender: Sender,
    /// 1, 2, 3, ... per sender and stream.
    pub(crate) sequence: u32,
    /// When it was to be sent, and when it was.
    pub(crate) when: When,
}

/// A sending client and one of its streams: each counts its messages on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub(crate) struct Sender(u32);

impl Sender {
    /// Stream `stream` of a client, whose number takes 24 bits at most.
    pub(crate) fn new(client: u32, stream: u8) -> Sender {
        Sender(client | u32::from(stream) << 24)
    }

    pub(crate) fn client(self) -> u32 {
        self.0 & 0xff_ffff
    }

    pub(crate) fn stream(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// As it stands in payloads and message ids.
    pub(crate) fn to_bits(self) -> u32 {
        self.0
    }

    pub(crate) fn from_bits(bits: u32) -> Sender {
        Sender(bits)
    }
}

/// Whom a message was sent to: a client by its number, or a room by the hash of its name with the top bit set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recipient(u32);

impl Recipient {
    const ROOM: u32 = 1 << 31;

    pub(crate) fn client(number: u32) -> Recipient {
        Recipient(number)
    }

    pub(crate) fn room(name: &str) -> Recipient {
        Recipient(XxHash3_64::oneshot(name.as_bytes()) as u32 | Recipient::ROOM)
    }
}

/// A planned time and how late it was kept, in 64 bits: 40 of microseconds since the run's zero, 24 of lag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct When(pub(crate) u64);

impl When {
    pub(crate) fn new(planned_ns: u64, sent_ns: u64) -> When {
        let lag_us = sent_ns.saturating_sub(planned_ns) / 1000;
        When((planned_ns / 1000) << 24 | lag_us.min(0xff_ffff))
    }

    /// Microseconds since the run's zero.
    pub(crate) fn planned_us(self) -> u64 {
        self.0 >> 24
    }

    /// Microseconds since the run's zero.
    pub(crate) fn sent_us(self) -> u64 {
        self.planned_us() + (self.0 & 0xff_ffff)
    }
}

impl Stamp {
    /// A payload of `bytes`, at least [`STAMP_BYTES`]. What follows the stamp is random, so that it cannot be compressed,
    /// and the same in every run with the same stamp.
    pub(crate) fn payload(self, bytes: usize) -> Vec<u8> {
        let mut payload = vec![0; bytes.max(STAMP_BYTES)];
        let words = [self.run, self.to.0, self.sender.0, self.sequence];
        for (place, word) in payload[HASH_BYTES..].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        payload[24..STAMP_BYTES].copy_from_slice(&self.when.0.to_le_bytes());
        let seed = u64::from(self.sender.0) << 32 | u64::from(self.sequence);
        fastrand::Rng::with_seed(seed ^ u64::from(self.run)).fill(&mut payload[STAMP_BYTES..]);
        let hash = XxHash3_64::oneshot(&payload[HASH_BYTES..]);
        payload[..HASH_BYTES].copy_from_slice(&hash.to_le_bytes());
        payload
    }

    /// Reads a payload; none if it is no stamped one, or a byte of it has changed, or it was cut.
    pub(crate) fn parse(payload: &[u8]) -> Option<Stamp> {
        let (hash, rest) = payload.split_first_chunk::<HASH_BYTES>()?;
        let word = |at: usize| Some(u32::from_le_bytes(rest.get(at..at + 4)?.try_into().ok()?));
        let when = u64::from_le_bytes(rest.get(16..24)?.try_into().ok()?);
        if u64::from_le_bytes(*hash) != XxHash3_64::oneshot(rest) {
            return None;
        }
        Some(Stamp {
            run: word(0)?,
            to: Recipient(word(4)?),
            sender: Sender(word(8)?),
            sequence: word(12)?,
            when: When(when),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(sequence: u32) -> Stamp {
        Stamp {
            run: 1,
            to: Recipient::client(9),
            sender: Sender::new(2, 7),
            sequence,
            when: When::new(5_000_000, 7_001_000),
        }
    }

    #[test]
    fn payloads_survive() {
        for bytes in [0, 32, 33, 100, 70_000] {
            let payload = stamp(7).payload(bytes);
            assert_eq!(payload.len(), bytes.max(STAMP_BYTES));
            assert_eq!(Stamp::parse(&payload), Some(stamp(7)));
        }
        assert_eq!((stamp(7).when.planned_us(), stamp(7).when.sent_us()), (5_000, 7_001));
        assert_eq!((stamp(7).sender.client(), stamp(7).sender.stream()), (2, 7));
    }

    #[test]
    fn any_bit_changed_or_any_byte_cut_or_added_is_seen() {
        let payload = stamp(7).payload(70);
        for bit in 0..payload.len() * 8 {
            let mut changed = payload.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Stamp::parse(&changed), None, "bit {bit}");
        }
        for length in 0..payload.len() {
            assert_eq!(Stamp::parse(&payload[..length]), None, "{length} bytes");
        }
        assert_eq!(Stamp::parse(&[payload.as_slice(), b"x"].concat()), None);
    }

    #[test]
    fn what_follows_the_stamp_differs_from_message_to_message_and_not_from_run_to_run() {
        let rest = |sequence: u32| stamp(sequence).payload(200)[STAMP_BYTES..].to_vec();
        assert_eq!(rest(1), rest(1));
        assert_ne!(rest(1), rest(2));
    }

    #[test]
    fn rooms_and_clients_are_different_recipients() {
        assert_ne!(Recipient::room("chat:load-1"), Recipient::room("chat:load-2"));
        assert_ne!(Recipient::room("chat:load-1"), Recipient::client(1));
    }
}
