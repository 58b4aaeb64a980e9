//! Verifies a body as one FlatBuffer, within bounds that depend on who sent it.

use flatbuffers::{Follow, Verifiable, VerifierOptions};

use super::header::{TABLE_BYTES_MIN, WireError};

/// Tables that one frame of a client may hold; the bound that keeps bombs cheap.
pub(super) const TABLES_MAX: usize = 64;

/// Of a client. Work is bounded by the body's length, see `crates/sim/tests/vectors/bombs.rs`: with the defaults of the
/// flatbuffers crate a frame of 1.2 KB burns 55 ms.
pub(super) fn of_client<'a, T: Follow<'a, Inner = T> + Verifiable + 'a>(
    body: &'a [u8],
    tables_max: usize,
) -> Result<T, WireError> {
    if body.len() < TABLE_BYTES_MIN {
        return Err(WireError::BodyLength);
    }
    root(body, tables_max, 2 * body.len() + 1024)
}

/// What docs/protocol.md asks every client to allow for strings that are shared.
const SHARED_BYTES_MAX: usize = 16 << 20;

/// Of a gateway. It may list many members or messages, and shares the strings that they have in common, which count once
/// for each reference: it is trusted further than a client, but not without end.
pub(super) fn of_gateway<'a, T: Follow<'a, Inner = T> + Verifiable + 'a>(body: &'a [u8]) -> Result<T, WireError> {
    root(body, 4096, SHARED_BYTES_MAX + 2 * body.len())
}

fn root<'a, T: Follow<'a, Inner = T> + Verifiable + 'a>(
    body: &'a [u8],
    max_tables: usize,
    max_apparent_size: usize,
) -> Result<T, WireError> {
    let options =
        VerifierOptions { max_depth: 8, max_tables, max_apparent_size, ignore_missing_null_terminator: false };
    flatbuffers::root_with_opts::<T>(&options, body).map_err(|_| WireError::Malformed)
}
