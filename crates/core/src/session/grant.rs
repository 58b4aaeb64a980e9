//! What a verified token says: the user, when it ends, and what the session may do with which rooms.
//!
//! Tokens are verified outside the core (`auth`); the core receives a [`Grant`] or an [`AuthError`].

use std::sync::Arc;

use crate::close::AuthError;

/// The content of a verified token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// `sub`: the user id, 1 to 128 bytes, no control characters, not starting with `@`.
    pub user: String,
    /// `exp` in Unix seconds; 0 when the token does not end.
    pub expires_at: u64,
    /// The `rooms` claim, shared between sessions whose claim is equal; none for "what namespaces allow".
    pub rooms: Option<Arc<RoomGrants>>,
    /// The `device` claim, if any: the device in Connect must then be this one.
    pub device: Option<String>,
}

/// Room patterns by verb. A pattern is a room name in which `*` stands for any run of characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RoomGrants {
    /// Rooms that may be subscribed to.
    pub subscribe: Vec<String>,
    /// Rooms that may be published to.
    pub publish: Vec<String>,
    /// Rooms whose presence may be asked for.
    pub presence: Vec<String>,
    /// Rooms whose history may be asked for.
    pub history: Vec<String>,
}

/// What a session wants to do with a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Join and receive.
    Subscribe,
    /// Send.
    Publish,
    /// Ask for the members.
    Presence,
    /// Ask for earlier messages.
    History,
}

/// Verifies tokens for a shard. Implemented by `auth`, and by fakes in the simulation.
pub trait Authenticator: Send + Sync {
    /// Checks signature and claims against the time given in Unix seconds.
    fn verify(&self, token: &str, unix_seconds: u64) -> Result<Grant, AuthError>;
    /// What one verification costs, in units of an HS256 one (about 2 us): how many fit into a loop turn.
    fn cost(&self, token: &str) -> u32;
}

impl RoomGrants {
    /// Whether a pattern for this verb matches the topic. Inboxes are matched by patterns that begin with `@` only: `*` is
    /// every room.
    pub fn allows(&self, verb: Verb, room: &str) -> bool {
        let patterns = match verb {
            Verb::Subscribe => &self.subscribe,
            Verb::Publish => &self.publish,
            Verb::Presence => &self.presence,
            Verb::History => &self.history,
        };
        let of_its_kind = |pattern: &&String| pattern.starts_with('@') == room.starts_with('@');
        patterns.iter().filter(of_its_kind).any(|pattern| pattern_matches(pattern, room))
    }
}

/// Glob match where `*` stands for any run of characters. Linear in `pattern.len() * name.len()` at worst.
pub fn pattern_matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(first) = parts.next() else { return name.is_empty() };
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_meets_name_then_it_matches_as_the_table_says() {
        for (pattern, name, wanted) in [
            ("chat:general", "chat:general", true),
            ("chat:general", "chat:general2", false),
            ("chat:*", "chat:", true),
            ("chat:*", "chat:a:b", true),
            ("chat:*", "news:a", false),
            ("*", "", true),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "a1c2b", false),
            ("a*a", "a", false),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(pattern_matches(pattern, name), wanted, "{pattern} against {name}");
        }
    }

    #[test]
    fn verb_is_not_granted_then_it_is_not_allowed() {
        let grants = RoomGrants { subscribe: vec!["chat:*".into()], ..RoomGrants::default() };
        assert!(grants.allows(Verb::Subscribe, "chat:a"));
        assert!(!grants.allows(Verb::Publish, "chat:a"));
    }

    #[test]
    fn pattern_is_for_rooms_then_it_grants_no_inbox() {
        let publish = |pattern: &str| RoomGrants { publish: vec![pattern.into()], ..RoomGrants::default() };
        assert!(publish("*").allows(Verb::Publish, "chat:a"));
        assert!(!publish("*").allows(Verb::Publish, "@bob"));
        assert!(publish("@*").allows(Verb::Publish, "@bob"));
        assert!(!publish("@*").allows(Verb::Publish, "chat:a"));
    }
}
