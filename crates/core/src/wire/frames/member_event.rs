//! Joined and Left: a member came into a room or left it. The two kinds have the same fields.

use crate::wire::encoder::Encoder;
use crate::wire::header::Kind;
use crate::wire::schema;

impl Encoder {
    /// Joined or Left.
    pub fn member_event(&mut self, out: &mut Vec<u8>, joined: bool, room: &str, user: &str, device: &str) {
        let room = Some(self.builder.create_string(room));
        let user = Some(self.builder.create_string(user));
        let device = Some(self.builder.create_string(device));
        if joined {
            let table = schema::Joined::create(&mut self.builder, &schema::JoinedArgs { room, user, device });
            self.finish(out, Kind::Joined, table);
        } else {
            let table = schema::Left::create(&mut self.builder, &schema::LeftArgs { room, user, device });
            self.finish(out, Kind::Left, table);
        }
    }
}
