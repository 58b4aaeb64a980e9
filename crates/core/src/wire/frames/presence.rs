//! Presence, the question who is in a room, and its answer PresenceResult.

use crate::wire::encoder::{Encoder, SharedTexts};
use crate::wire::fields::{OutOfBounds, Parsed, ROOM, name};
use crate::wire::header::Kind;
use crate::wire::{schema, verify};

/// The fields of Presence.
#[derive(Clone, Copy, Debug)]
pub struct Presence<'a> {
    /// Echoed in the answer.
    pub request: u32,
    /// Checked name.
    pub room: &'a str,
    /// Most members to list.
    pub limit: u32,
}

impl<'a> Presence<'a> {
    #[inline]
    pub(in crate::wire) fn parse(body: &'a [u8]) -> Parsed<Self> {
        let table: schema::Presence<'a> = verify::of_client(body, verify::TABLES_MAX)?;
        let request = table.request();
        Ok(match name(table.room()) {
            None => Err(OutOfBounds { request, problem: ROOM }),
            Some(room) => Ok(Presence { request, room, limit: table.limit() }),
        })
    }
}

impl Encoder {
    /// Presence (clients).
    pub fn presence(&mut self, out: &mut Vec<u8>, request: u32, room: &str, limit: u32) {
        let room = Some(self.builder.create_string(room));
        let table = schema::Presence::create(&mut self.builder, &schema::PresenceArgs { request, room, limit });
        self.finish(out, Kind::Presence, table);
    }

    /// PresenceResult; `members` are user and device.
    pub fn presence_result<'a>(
        &mut self,
        out: &mut Vec<u8>,
        request: u32,
        room: &str,
        count: u32,
        members: impl Iterator<Item = (&'a str, &'a str)>,
    ) {
        let mut list = Vec::new();
        // Most devices have one of a few names; most users are there with one.
        let mut devices = SharedTexts::default();
        for (user, device) in members {
            let user = Some(self.builder.create_string(user));
            let device = Some(devices.or_create(&mut self.builder, device));
            list.push(schema::Member::create(&mut self.builder, &schema::MemberArgs { user, device }));
        }
        let members = Some(self.builder.create_vector(&list));
        let room = Some(self.builder.create_string(room));
        let table = schema::PresenceResult::create(
            &mut self.builder,
            &schema::PresenceResultArgs { request, room, count, members },
        );
        self.finish(out, Kind::PresenceResult, table);
    }
}
