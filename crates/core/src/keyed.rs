//! Hashes that nobody outside can arrange: clients choose names and ids, and must not choose where they lie.
//!
//! foldhash multiplies by constants that anybody can read; with one key for the state alone there are ids and names that
//! hash to the same whatever that key is. Here the constants are made from the key, too.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use foldhash::SharedSeed;
pub use foldhash::fast::SeedableRandomState as Keyed;

/// A state that depends on `seed` alone: whoever has the same seed agrees on every hash.
pub fn keyed(seed: u64) -> Keyed {
    // States borrow their constants for good; a process has one seed, and tests a few hundred.
    static CONSTANTS: LazyLock<Mutex<HashMap<u64, &'static SharedSeed>>> = LazyLock::new(Mutex::default);
    let mut known = CONSTANTS.lock().unwrap_or_else(PoisonError::into_inner);
    // From 0 and from !0 foldhash makes constants that are all alike, under which whole tables of names hash to one value.
    let source = if matches!(seed, 0 | u64::MAX) { 1 } else { !seed };
    let constants = known.entry(seed).or_insert_with(|| Box::leak(Box::new(SharedSeed::from_u64(source))));
    Keyed::with_seed(seed, constants)
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn seed_is_any_then_names_hash_apart() {
        for seed in [0, 1, 7, u64::MAX - 1, u64::MAX] {
            let hash = |index: u64| keyed(seed).hash_one((format!("user{}", index % 8), format!("@user{}", index / 8)));
            let hashes: std::collections::HashSet<u64> = (0..64).map(hash).collect();
            assert_eq!(hashes.len(), 64, "seed {seed}");
        }
    }

    /// What zeroes the state of a hasher whose constants are public.
    const ARBITRARY6: u64 = 0xc0ac_29b7_c97c_50dd;

    #[test]
    fn constants_are_public_then_a_keyed_hash_still_depends_on_the_key() {
        let hash = |name: u64| keyed(7).hash_one((name, ARBITRARY6, 1u64));
        assert_ne!(hash(1), hash(2));
        assert_eq!(hash(1), keyed(7).hash_one((1u64, ARBITRARY6, 1u64)));
        assert_ne!(hash(1), keyed(8).hash_one((1u64, ARBITRARY6, 1u64)));
        let public = foldhash::fast::FixedState::with_seed(7);
        assert_eq!(public.hash_one((1u64, ARBITRARY6, 1u64)), public.hash_one((2u64, ARBITRARY6, 1u64)), "the reason");
    }
}
