//! What the heap holds for something, as a bound on logs must count it: not what was asked for, but what was taken.

use bytes::Bytes;

/// Bytes of a table's entry that holds a slot's number, with the table's own bytes and its empty places.
pub(super) const TABLE_ENTRY_BYTES: usize = 16;
/// What the header of an `Arc<str>` takes beside the text.
const ARC_BYTES: usize = 2 * size_of::<usize>();
/// What `Bytes` allocates once it is cloned: pointer, capacity, count.
const SHARED_BYTES: usize = 3 * size_of::<usize>();

/// Bytes that an allocation of `bytes` takes. Allocators round up to size classes; those of mimalloc are eight bytes apart up
/// to 64, and beyond that four for each power of two.
pub(super) const fn allocated(bytes: usize) -> usize {
    let step = if bytes <= 64 { 8 } else { bytes.next_power_of_two() / 8 };
    // A power of two: no division.
    (bytes + step - 1) & !(step - 1)
}

/// Bytes that a frame takes which is kept and was sent to a client.
pub(super) const fn frame_bytes(len: usize) -> usize {
    allocated(len) + allocated(SHARED_BYTES)
}

/// Bytes that an `Arc<str>` takes.
pub(super) const fn name_bytes(len: usize) -> usize {
    allocated(ARC_BYTES + len)
}

/// [`frame_bytes`] of a frame.
pub(super) fn of_frame(frame: &Bytes) -> usize {
    frame_bytes(frame.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_allocated_then_they_are_rounded_up_to_their_class() {
        for (asked, taken) in [(0, 0), (1, 8), (24, 24), (64, 64), (65, 80), (129, 160), (196, 224), (256, 256)] {
            assert_eq!(allocated(asked), taken, "{asked}");
        }
        assert_eq!(allocated(65_000), 65_536);
    }
}
