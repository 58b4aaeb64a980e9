//! Error: the gateway refuses a request of any kind.

use crate::close::ErrorCode;
use crate::wire::encoder::Encoder;
use crate::wire::header::Kind;
use crate::wire::schema;

/// What [`Encoder::error`] needs. Whether the error is temporary follows from its code.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields are those of the schema")]
pub struct Error<'a> {
    pub request: u32,
    pub code: ErrorCode,
    pub message: &'a str,
    pub retry_after_ms: u32,
    pub room: Option<&'a str>,
}

impl Encoder {
    /// Error.
    pub fn error(&mut self, out: &mut Vec<u8>, fields: &Error<'_>) {
        let Error { request, code, message, retry_after_ms, room } = *fields;
        let message = Some(self.builder.create_string(message));
        let room = room.map(|room| self.builder.create_string(room));
        let (code, temporary) = (code.code(), code.is_temporary());
        let table = schema::Error::create(
            &mut self.builder,
            &schema::ErrorArgs { request, code, message, temporary, retry_after_ms, room },
        );
        self.finish(out, Kind::Error, table);
    }
}
