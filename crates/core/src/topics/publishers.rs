//! How many bytes of a shard's logs each publisher's messages take, so that one of them cannot fill what all share.
//!
//! A publisher is a keyed 64-bit hash of its user id: two users with one hash would share a bound, nothing else.
//! Invariant: no publisher is in the table with 0 bytes.

use hashbrown::HashTable;

/// See the module.
#[derive(Debug, Default)]
pub struct Publishers {
    shares: HashTable<Share>,
}

#[derive(Clone, Copy, Debug)]
struct Share {
    publisher: u64,
    bytes: usize,
}

impl Publishers {
    /// Bytes of this publisher's messages.
    pub fn held(&self, publisher: u64) -> usize {
        self.shares.find(publisher, |share| share.publisher == publisher).map_or(0, |share| share.bytes)
    }

    /// A message of the publisher is kept.
    pub fn add(&mut self, publisher: u64, bytes: usize) {
        self.shares
            .entry(publisher, |share| share.publisher == publisher, |share| share.publisher)
            .and_modify(|share| share.bytes += bytes)
            .or_insert(Share { publisher, bytes });
    }

    /// One that was added is no longer kept.
    pub fn subtract(&mut self, publisher: u64, bytes: usize) {
        let Ok(mut entry) = self.shares.find_entry(publisher, |share| share.publisher == publisher) else {
            debug_assert!(false, "a publisher who holds nothing");
            return;
        };
        let share = entry.get_mut();
        debug_assert!(share.bytes >= bytes, "more than was added");
        share.bytes = share.bytes.saturating_sub(bytes);
        if share.bytes == 0 {
            entry.remove();
        }
    }

    /// Publishers whose messages are kept.
    pub fn len(&self) -> usize {
        self.shares.len()
    }

    /// Whether no publisher's message is kept.
    pub fn is_empty(&self) -> bool {
        self.shares.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publisher_has_no_messages_then_it_is_forgotten() {
        let mut publishers = Publishers::default();
        for publisher in 0..1000u64 {
            publishers.add(publisher << 50, 10);
            publishers.add(publisher << 50, 5);
        }
        assert_eq!((publishers.held(7 << 50), publishers.held(1)), (15, 0));
        for publisher in 0..1000u64 {
            publishers.subtract(publisher << 50, 5);
        }
        assert_eq!((publishers.len(), publishers.held(7 << 50)), (1000, 10));
        for publisher in 0..1000u64 {
            publishers.subtract(publisher << 50, 10);
        }
        assert!(publishers.is_empty());
    }
}
