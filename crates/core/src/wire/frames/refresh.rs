//! Refresh, a newer token for the session, and its answer Refreshed.

use crate::wire::encoder::Encoder;
use crate::wire::fields::{OutOfBounds, Parsed, TOKEN, token};
use crate::wire::header::Kind;
use crate::wire::{schema, verify};

/// The fields of Refresh.
#[derive(Clone, Copy, Debug)]
pub struct Refresh<'a> {
    /// Echoed in the answer.
    pub request: u32,
    /// Not verified yet; 1 to 8192 bytes.
    pub token: &'a str,
}

impl<'a> Refresh<'a> {
    #[inline]
    pub(in crate::wire) fn parse(body: &'a [u8]) -> Parsed<Self> {
        let table: schema::Refresh<'a> = verify::of_client(body, verify::TABLES_MAX)?;
        let request = table.request();
        Ok(match token(table.token()) {
            None => Err(OutOfBounds { request, problem: TOKEN }),
            Some(token) => Ok(Refresh { request, token }),
        })
    }
}

impl Encoder {
    /// Refresh (clients).
    pub fn refresh(&mut self, out: &mut Vec<u8>, request: u32, token: &str) {
        let token = Some(self.builder.create_string(token));
        let table = schema::Refresh::create(&mut self.builder, &schema::RefreshArgs { request, token });
        self.finish(out, Kind::Refresh, table);
    }

    /// Refreshed. `expires_at` is in seconds since 1970-01-01 UTC.
    pub fn refreshed(&mut self, out: &mut Vec<u8>, request: u32, expires_at: u64, expires_in_ms: u64) {
        let table =
            schema::Refreshed::create(&mut self.builder, &schema::RefreshedArgs { request, expires_at, expires_in_ms });
        self.finish(out, Kind::Refreshed, table);
    }
}
