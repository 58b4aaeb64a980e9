//! Goodbye: the gateway closes the connection, and says why.

use crate::close::CloseReason;
use crate::wire::encoder::Encoder;
use crate::wire::header::Kind;
use crate::wire::schema;

impl Encoder {
    /// Goodbye. `after_ms`: how long the client should wait before it connects again.
    pub fn goodbye(&mut self, out: &mut Vec<u8>, reason: CloseReason, text: &str, after_ms: u32) {
        let text = Some(self.builder.create_string(text));
        let table = schema::Goodbye::create(
            &mut self.builder,
            &schema::GoodbyeArgs { code: reason.code(), reason: text, reconnect: reason.may_reconnect(), after_ms },
        );
        self.finish(out, Kind::Goodbye, table);
    }
}
