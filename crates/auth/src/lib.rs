//! Tokens: JSON Web Tokens, verified against configured keys, and signed for tools and tests.
//!
//! A key has one algorithm; a token whose header names another is refused before any cryptography, so neither
//! `alg: none` nor a public key used as an HMAC secret gets anywhere. Several keys by `kid` make a rotation. Every
//! refusal has its cause ([`AuthError`]), for metrics and the log: the client sees a code. Time is an argument. Signatures by jsonwebtoken and aws-lc; header and claims are read here, each once (jsonwebtoken's
//! `decode` reads the header twice more and the claims once more, which is two thirds of what HS256 costs).

pub mod certificate;
mod date;
mod der;
mod key;
mod pem;
mod sign;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use date::Date;
pub use jsonwebtoken::Algorithm;
pub use key::{Key, secret_in};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
pub use sign::{Signer, TokenSpec};

use ringgate_core::close::AuthError;
use ringgate_core::limits::{NAME_BYTES_MAX, TOKEN_BYTES_MAX};
use ringgate_core::session::{Authenticator, Grant, RoomGrants};

/// The key of `serve --dev`, `token --dev` and `ringgate-loadtest --dev`. It is no secret: only a gateway on a
/// loopback address accepts it.
pub const DEV_SECRET: &str = "ringgate-development-key-never-use-it-in-production";
/// Its `kid`.
pub const DEV_KID: &str = "ringgate-dev";

/// Patterns per verb in a token, and their length.
const PATTERNS_MAX: usize = 64;
/// Different `rooms` claims that are kept to be shared between sessions.
const SHARED_GRANTS_MAX: usize = 1024;

/// What a token must say beside being signed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// If not empty, one of these must be in `aud`.
    pub audience: Vec<String>,
    /// If given, `iss` must be this.
    pub issuer: Option<String>,
    /// How far our clock and the issuer's may be apart.
    pub leeway_seconds: u64,
    /// Refuse tokens that never end.
    pub require_exp: bool,
}

/// Verifies tokens; see the module.
pub struct Keys {
    keys: Vec<Key>,
    claims: Claims,
    /// Equal `rooms` claims are one allocation, however many sessions have them.
    shared: Mutex<HashMap<RoomGrants, Arc<RoomGrants>>>,
}

/// Reads the name of an algorithm that is supported.
pub fn parse_algorithm(name: &str) -> Result<Algorithm, String> {
    match name {
        "HS256" => Ok(Algorithm::HS256),
        "HS384" => Ok(Algorithm::HS384),
        "HS512" => Ok(Algorithm::HS512),
        "RS256" => Ok(Algorithm::RS256),
        "ES256" => Ok(Algorithm::ES256),
        // RFC 9864 names the one curve that EdDSA is used with here.
        "EdDSA" | "Ed25519" => Ok(Algorithm::EdDSA),
        _ => Err(format!("\"{name}\" is not supported; use one of HS256, HS384, HS512, RS256, ES256, EdDSA")),
    }
}

/// Only what we look at; the rest is ignored.
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    kid: Option<Cow<'a, str>>,
    /// Names what a reader must understand to accept the token (RFC 7515, 4.1.11), and we understand none of it.
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
}

/// True whatever the value is, also where it is null or empty.
fn is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// Only the claims that we look at; others are ignored.
#[derive(Deserialize)]
struct Body {
    sub: String,
    exp: Option<Date>,
    nbf: Option<Date>,
    #[serde(default)]
    aud: OneOrMany,
    iss: Option<String>,
    device: Option<String>,
    rooms: Option<Rooms>,
}

#[derive(Deserialize, Default)]
#[serde(untagged)]
enum OneOrMany {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Rooms {
    All(Vec<String>),
    ByVerb(ByVerb),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ByVerb {
    #[serde(default)]
    subscribe: Vec<String>,
    #[serde(default)]
    publish: Vec<String>,
    #[serde(default)]
    presence: Vec<String>,
    #[serde(default)]
    history: Vec<String>,
}

impl Keys {
    /// Accepts tokens signed with any of these keys.
    pub fn new(keys: Vec<Key>, claims: Claims) -> Keys {
        Keys { keys, claims, shared: Mutex::new(HashMap::new()) }
    }

    fn decode(&self, token: &str) -> Result<Body, AuthError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::Malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(AuthError::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(AuthError::Malformed)?;
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| AuthError::Malformed)?;
        let header: Header<'_> = serde_json::from_slice(&header).map_err(|_| AuthError::Malformed)?;
        if header.crit {
            return Err(AuthError::Malformed);
        }
        let algorithm = parse_algorithm(&header.alg).map_err(|_| AuthError::Algorithm)?;
        // Until a signature is good, the cause tells how far it got.
        let mut cause = AuthError::UnknownKey;
        for key in self.keys.iter().filter(|key| key.kid.as_deref() == header.kid.as_deref()) {
            if key.algorithm != algorithm {
                cause = if cause == AuthError::UnknownKey { AuthError::Algorithm } else { cause };
                continue;
            }
            if key.signed(message, signature) {
                let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| AuthError::Malformed)?;
                return serde_json::from_slice(&claims).map_err(|error| match error.is_data() {
                    true => AuthError::Claims,
                    false => AuthError::Malformed,
                });
            }
            cause = AuthError::Signature;
        }
        Err(cause)
    }

    fn check(&self, body: Body, unix_seconds: u64) -> Result<Grant, AuthError> {
        let leeway = self.claims.leeway_seconds;
        let ends = body.exp.map(Date::seconds_begun);
        match ends {
            Some(ends) if ends.saturating_add(leeway) <= unix_seconds => return Err(AuthError::Expired),
            None if self.claims.require_exp => return Err(AuthError::Claims),
            _ => {}
        }
        if body.nbf.is_some_and(|nbf| nbf.seconds_whole() > unix_seconds.saturating_add(leeway)) {
            return Err(AuthError::NotYetValid);
        }
        let audience: &[String] = match &body.aud {
            OneOrMany::None => &[],
            OneOrMany::One(one) => core::slice::from_ref(one),
            OneOrMany::Many(many) => many,
        };
        if !self.claims.audience.is_empty() && !audience.iter().any(|aud| self.claims.audience.contains(aud)) {
            return Err(AuthError::Audience);
        }
        if self.claims.issuer.is_some() && self.claims.issuer != body.iss {
            return Err(AuthError::Issuer);
        }
        let names_fit = ringgate_core::wire::is_name(&body.sub)
            && !body.sub.starts_with('@')
            && body.device.as_deref().is_none_or(ringgate_core::wire::is_name);
        if !names_fit {
            return Err(AuthError::Claims);
        }
        Ok(Grant {
            user: body.sub,
            // The leeway also applies at the end of the session.
            expires_at: ends.map_or(0, |ends| ends.saturating_add(leeway)),
            rooms: body.rooms.map(|rooms| self.share(rooms)).transpose()?,
            device: body.device,
        })
    }

    fn share(&self, rooms: Rooms) -> Result<Arc<RoomGrants>, AuthError> {
        let grants = match rooms {
            Rooms::All(all) => {
                RoomGrants { subscribe: all.clone(), publish: all.clone(), presence: all.clone(), history: all }
            }
            Rooms::ByVerb(ByVerb { subscribe, publish, presence, history }) => {
                RoomGrants { subscribe, publish, presence, history }
            }
        };
        let lists = [&grants.subscribe, &grants.publish, &grants.presence, &grants.history];
        let fits = |list: &&Vec<String>| {
            list.len() <= PATTERNS_MAX && list.iter().all(|pattern| pattern.len() <= NAME_BYTES_MAX)
        };
        if !lists.iter().all(fits) {
            return Err(AuthError::Claims);
        }
        let Ok(mut shared) = self.shared.lock() else { return Ok(Arc::new(grants)) };
        if let Some(known) = shared.get(&grants) {
            return Ok(known.clone());
        }
        if shared.len() >= SHARED_GRANTS_MAX {
            shared.retain(|_, known| Arc::strong_count(known) > 1);
        }
        let new = Arc::new(grants.clone());
        if shared.len() < SHARED_GRANTS_MAX {
            shared.insert(grants, new.clone());
        }
        Ok(new)
    }
}

impl Authenticator for Keys {
    fn verify(&self, token: &str, unix_seconds: u64) -> Result<Grant, AuthError> {
        self.check(self.decode(token)?, unix_seconds)
    }

    /// Measured by `bench` (docs/performance.md) as multiples of HS256: RS256 (2048 bits) 14, EdDSA 27, ES256 39; rounded
    /// up, for the budget is there to keep a turn short.
    fn cost(&self, token: &str) -> u32 {
        // The length of the signature tells the families apart well enough for a budget; HS512 alone counts for more than it
        // takes, for its signature is as long as that of EdDSA.
        match token.rsplit('.').next().map_or(0, str::len) {
            0..=64 => 1,
            65..=128 => 40,
            _ => 15,
        }
    }
}

#[cfg(test)]
mod tests;
