//! Unsubscribe, leaving a room, and its answer Unsubscribed.

use crate::wire::encoder::Encoder;
use crate::wire::fields::{OutOfBounds, Parsed, ROOM, name};
use crate::wire::header::Kind;
use crate::wire::{schema, verify};

/// The fields of Unsubscribe.
#[derive(Clone, Copy, Debug)]
pub struct Unsubscribe<'a> {
    /// Echoed in the answer.
    pub request: u32,
    /// Checked name.
    pub room: &'a str,
}

impl<'a> Unsubscribe<'a> {
    #[inline]
    pub(in crate::wire) fn parse(body: &'a [u8]) -> Parsed<Self> {
        let table: schema::Unsubscribe<'a> = verify::of_client(body, verify::TABLES_MAX)?;
        let request = table.request();
        Ok(match name(table.room()) {
            None => Err(OutOfBounds { request, problem: ROOM }),
            Some(room) => Ok(Unsubscribe { request, room }),
        })
    }
}

impl Encoder {
    /// Unsubscribe (clients).
    pub fn unsubscribe(&mut self, out: &mut Vec<u8>, request: u32, room: &str) {
        let room = Some(self.builder.create_string(room));
        let table = schema::Unsubscribe::create(&mut self.builder, &schema::UnsubscribeArgs { request, room });
        self.finish(out, Kind::Unsubscribe, table);
    }

    /// Unsubscribed. `code` is 0 when the client asked for it, else why the gateway took the session out of the room.
    pub fn unsubscribed(&mut self, out: &mut Vec<u8>, request: u32, room: &str, code: u16) {
        let room = Some(self.builder.create_string(room));
        let table = schema::Unsubscribed::create(&mut self.builder, &schema::UnsubscribedArgs { request, room, code });
        self.finish(out, Kind::Unsubscribed, table);
    }
}
