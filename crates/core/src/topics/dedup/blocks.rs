//! A queue in blocks of a fixed size: growing copies nothing and leaves what is there where it is.
//!
//! A `VecDeque` of a million entries is copied as a whole when it doubles, which stopped the shard for as long, and the
//! fresh memory for it was 5 % of a saturated gateway's time.

use std::collections::VecDeque;

/// Entries of a block.
const BLOCK: usize = 1024;

/// See the module. Invariant: every block but the last is full, and `taken` entries of the first one have left.
#[derive(Debug)]
pub(super) struct Blocks<T> {
    blocks: VecDeque<Vec<T>>,
    taken: usize,
    len: usize,
    /// The block that was emptied last, for the next one.
    spare: Vec<T>,
}

impl<T> Default for Blocks<T> {
    fn default() -> Self {
        Blocks { blocks: VecDeque::new(), taken: 0, len: 0, spare: Vec::new() }
    }
}

impl<T> Blocks<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The `nth` entry, counted from the oldest.
    pub(super) fn get(&self, nth: usize) -> Option<&T> {
        let at = self.taken.checked_add(nth)?;
        self.blocks.get(at / BLOCK)?.get(at % BLOCK)
    }

    pub(super) fn front(&self) -> Option<&T> {
        self.get(0)
    }

    pub(super) fn push_back(&mut self, entry: T) {
        match self.blocks.back_mut().filter(|block| block.len() < BLOCK) {
            Some(block) => block.push(entry),
            None => {
                let mut block = core::mem::take(&mut self.spare);
                block.reserve_exact(BLOCK);
                block.push(entry);
                self.blocks.push_back(block);
            }
        }
        self.len += 1;
    }

    /// Forgets the oldest entry; false when there is none.
    pub(super) fn drop_front(&mut self) -> bool {
        if self.len == 0 {
            return false;
        }
        self.len -= 1;
        self.taken += 1;
        if self.taken == BLOCK
            && let Some(mut block) = self.blocks.pop_front()
        {
            self.taken = 0;
            block.clear();
            self.spare = block;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_cross_blocks_then_they_are_still_a_queue() {
        let mut blocks = Blocks::default();
        let mut queue = VecDeque::new();
        let mut next = 0;
        // In: three blocks. Then out and in by turns, out of step with the blocks; then out to the last.
        for (inward, outward) in [(3 * BLOCK, 0), (700, BLOCK + 1), (BLOCK, BLOCK), (1, 0), (0, 4 * BLOCK), (5, 2)] {
            for _ in 0..inward {
                blocks.push_back(next);
                queue.push_back(next);
                next += 1;
            }
            for _ in 0..outward {
                assert_eq!(blocks.front(), queue.front());
                assert_eq!(blocks.drop_front(), queue.pop_front().is_some());
            }
            assert_eq!(blocks.len(), queue.len());
            assert!((0..=queue.len()).all(|nth| blocks.get(nth) == queue.get(nth)));
        }
        assert!(blocks.blocks.len() <= 2);
    }
}
