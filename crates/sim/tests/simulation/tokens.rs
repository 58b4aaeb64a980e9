//! Tokens of the simulated world: what each says, and what it allows by the words of docs/protocol.md.

use std::sync::Arc;

use ringgate_core::close::AuthError;
use ringgate_core::session::{Grant, RoomGrants};
use ringgate_sim::Random;

/// What a session may do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Subscribe,
    Publish,
    Presence,
    History,
}

/// The `rooms` claim of a token. Patterns are whole names, or a beginning and `*`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rights(Option<RoomGrants>);

impl Rights {
    fn random(random: &mut Random, users: usize) -> Rights {
        if random.one_in(3) {
            return Rights::default();
        }
        let list = |random: &mut Random| match random.below(5) {
            0 => vec!["guarded:*".to_owned()],
            1 => vec!["guarded:four".to_owned()],
            2 => vec!["guarded:f*".to_owned(), "guarded:five".to_owned()],
            3 => vec!["guarded:five".to_owned()],
            _ => Vec::new(),
        };
        let mut grants = RoomGrants {
            subscribe: list(random),
            publish: list(random),
            presence: list(random),
            history: list(random),
        };
        match random.below(3) {
            0 => grants.publish.push("@*".to_owned()),
            1 => grants.publish.push(format!("@user{}", random.below(users))),
            _ => {}
        }
        Rights(Some(grants))
    }

    /// Whether the token allows it by itself, whatever the namespace says.
    pub(crate) fn allow(&self, verb: Verb, topic: &str) -> bool {
        let Some(grants) = &self.0 else { return false };
        let patterns = match verb {
            Verb::Subscribe => &grants.subscribe,
            Verb::Publish => &grants.publish,
            Verb::Presence => &grants.presence,
            Verb::History => &grants.history,
        };
        patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => topic.starts_with(beginning),
            None => pattern == topic,
        })
    }
}

/// What becomes of a token when it is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Good,
    Expired,
    Invalid,
    OtherUser,
    OtherDevice,
}

/// A token. Clients send `text`, the world looks it up again.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) text: String,
    user: String,
    device: String,
    pub(crate) rights: Rights,
    /// Unix seconds; 0 for never.
    pub(crate) expires_at: u64,
    pub(crate) verdict: Verdict,
}

/// All tokens that were ever made.
pub(crate) struct Tokens {
    made: Vec<Token>,
    /// How many users there are: `user0`, `user1` and so on.
    users: usize,
}

impl Tokens {
    pub(crate) fn new(users: usize) -> Tokens {
        Tokens { made: Vec::new(), users }
    }

    /// A token that is good for Connect; some of them end within 20 s unless `lasting`.
    pub(crate) fn good(&mut self, random: &mut Random, user: &str, device: &str, unix_ms: u64, lasting: bool) -> Token {
        let ends = !lasting && random.one_in(8);
        let expires_at = if ends { unix_ms / 1000 + 3 + random.below(18) as u64 } else { 0 };
        let rights = Rights::random(random, self.users);
        self.make(Verdict::Good, user, device, rights, expires_at)
    }

    /// A token for Refresh, often one that is to be refused.
    pub(crate) fn for_refresh(&mut self, random: &mut Random, user: &str, device: &str, unix_ms: u64) -> Token {
        let token = self.good(random, user, device, unix_ms, false);
        let verdict = match random.below(10) {
            0 => Verdict::Expired,
            1 => Verdict::Invalid,
            2 => Verdict::OtherUser,
            3 => Verdict::OtherDevice,
            _ => return token,
        };
        self.make(verdict, user, device, token.rights, token.expires_at)
    }

    fn make(&mut self, verdict: Verdict, user: &str, device: &str, rights: Rights, expires_at: u64) -> Token {
        let text = self.made.len().to_string();
        let token = Token { text, user: user.into(), device: device.into(), rights, expires_at, verdict };
        self.made.push(token.clone());
        token
    }

    /// What the shell's verifier would say.
    pub(crate) fn verify(&self, text: &str, unix_ms: u64) -> Result<Grant, AuthError> {
        let token = text.parse().ok().and_then(|index: usize| self.made.get(index)).expect("a token of this world");
        let mut grant = Grant {
            user: token.user.clone(),
            expires_at: token.expires_at,
            rooms: token.rights.0.clone().map(Arc::new),
            device: Some(token.device.clone()),
        };
        match token.verdict {
            Verdict::Good if token.expires_at != 0 && unix_ms >= token.expires_at * 1000 => {
                return Err(AuthError::Expired);
            }
            Verdict::Good => {}
            Verdict::Expired => return Err(AuthError::Expired),
            Verdict::Invalid => return Err(AuthError::Signature),
            Verdict::OtherUser => grant.user.push_str("-other"),
            Verdict::OtherDevice => grant.device = Some("another".to_owned()),
        }
        Ok(grant)
    }
}
