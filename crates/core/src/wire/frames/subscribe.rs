//! Subscribe, joining a room, and its answer Subscribed.

use super::RoomCursor;
use crate::id::{Position, Recover};
use crate::wire::encoder::Encoder;
use crate::wire::fields::{OutOfBounds, Parsed, RECOVER, ROOM, name, recover};
use crate::wire::header::Kind;
use crate::wire::{schema, verify};

/// The fields of Subscribe.
#[derive(Clone, Copy, Debug)]
pub struct Subscribe<'a> {
    /// Echoed in the answer.
    pub request: u32,
    /// Checked name.
    pub room: &'a str,
    /// Bring everything after this.
    pub since: Option<Position>,
    /// What to bring when the log does not reach back to `since`.
    pub recover: Recover,
}

/// What [`Encoder::subscribed`] needs.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields are those of the schema")]
pub struct Subscribed<'a> {
    pub request: u32,
    pub room: &'a str,
    pub recovered: bool,
    pub position: Position,
    pub start: Position,
}

impl<'a> Subscribe<'a> {
    #[inline]
    pub(in crate::wire) fn parse(body: &'a [u8]) -> Parsed<Self> {
        let table: schema::Subscribe<'a> = verify::of_client(body, verify::TABLES_MAX)?;
        let request = table.request();
        Ok(match (name(table.room()), recover(table.recover())) {
            (None, _) => Err(OutOfBounds { request, problem: ROOM }),
            (_, None) => Err(OutOfBounds { request, problem: RECOVER }),
            (Some(room), Some(recover)) => {
                Ok(Subscribe { request, room, since: table.since().map(Position::from), recover })
            }
        })
    }
}

impl Encoder {
    /// Subscribe (clients).
    pub fn subscribe(&mut self, out: &mut Vec<u8>, request: u32, cursor: RoomCursor<'_>) {
        let room = Some(self.builder.create_string(cursor.room));
        let (since, recover) = (cursor.since.map(schema::Position::from), cursor.recover.into());
        let table = schema::Subscribe::create(
            &mut self.builder,
            &schema::SubscribeArgs { request, room, since: since.as_ref(), recover },
        );
        self.finish(out, Kind::Subscribe, table);
    }

    /// Subscribed.
    pub fn subscribed(&mut self, out: &mut Vec<u8>, fields: &Subscribed<'_>) {
        let Subscribed { request, recovered, .. } = *fields;
        let room = Some(self.builder.create_string(fields.room));
        let (position, start) = (fields.position.into(), fields.start.into());
        let table = schema::Subscribed::create(
            &mut self.builder,
            &schema::SubscribedArgs { request, room, recovered, position: Some(&position), start: Some(&start) },
        );
        self.finish(out, Kind::Subscribed, table);
    }
}
