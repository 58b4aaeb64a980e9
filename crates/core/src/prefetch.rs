//! Asks the processor for memory that is about to be looked at.

/// Values that are asked for before the first of them is looked at: what the processor can wait for at the same time.
pub const TOGETHER: usize = 8;

/// A cache line.
#[cfg(target_arch = "x86_64")]
const LINE_BYTES: usize = 64;

/// Has the lines of a value brought while something else is done.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "a hint to the processor: it reads nothing and never faults")]
#[inline]
pub fn prefetch<T>(value: &T) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    let first = core::ptr::from_ref(value).cast::<i8>();
    // From the beginning of a line: the last bytes may be in one more.
    let before = first.addr() % LINE_BYTES;
    for offset in (0..before + size_of::<T>()).step_by(LINE_BYTES) {
        // SAFETY: SSE is part of x86_64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(first.wrapping_sub(before).wrapping_add(offset)) };
    }
}

/// Elsewhere the processor is left to itself.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub fn prefetch<T>(_value: &T) {}
