//! Tokens: JSON Web Tokens, verified against configured keys, and signed for tools and tests.
//!
//! A key has one algorithm; a token whose header names another is refused before any cryptography, so neither
//! `alg: none` nor a public key used as an HMAC secret gets anywhere. Several keys by `kid` make a rotation. Time is
//! an argument. Signatures by jsonwebtoken and aws-lc; header and claims are read here, each once (jsonwebtoken's
//! `decode` reads the header twice more and the claims once more, which is two thirds of what HS256 costs).

mod sign;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
pub use jsonwebtoken::Algorithm;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde::de::IgnoredAny;
pub use sign::{Signer, TokenSpec};

use crate::limits::{NAME_BYTES_MAX, TOKEN_BYTES_MAX};
use crate::session::{AuthError, Authenticator, Grant, RoomGrants};

/// The key of `serve --dev`, `token --dev` and `ringgate-loadtest --dev`. It is no secret: only a gateway on a
/// loopback address accepts it.
pub const DEV_SECRET: &str = "ringgate-development-key-never-use-it-in-production";
/// Its `kid`.
pub const DEV_KID: &str = "ringgate-dev";

/// Patterns per verb in a token, and their length.
const PATTERNS_MAX: usize = 64;
/// Different `rooms` claims that are kept to be shared between sessions.
const SHARED_GRANTS_MAX: usize = 1024;

/// A key that tokens may be signed with.
pub struct Key {
    /// `kid` of the tokens; none for tokens without one.
    pub kid: Option<String>,
    /// The one algorithm.
    pub algorithm: Algorithm,
    material: Material,
}

enum Material {
    /// Prepared once: its two hash states are the same for every token.
    Secret(Box<hmac::Key>),
    Public(DecodingKey),
}

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

impl Key {
    /// A shared secret, for HS256, HS384 or HS512.
    pub fn secret(kid: Option<String>, algorithm: Algorithm, secret: &[u8]) -> Result<Key, String> {
        let hash = match algorithm {
            Algorithm::HS256 => hmac::HMAC_SHA256,
            Algorithm::HS384 => hmac::HMAC_SHA384,
            Algorithm::HS512 => hmac::HMAC_SHA512,
            _ => return Err(format!("{algorithm:?} wants a public key in PEM form, not a secret")),
        };
        if secret.len() < 32 {
            return Err(format!("the secret has {} bytes; at least 32 are needed", secret.len()));
        }
        Ok(Key { kid, algorithm, material: Material::Secret(Box::new(hmac::Key::new(hash, secret))) })
    }

    /// A public key in PEM form, for RS256, ES256 or EdDSA.
    pub fn public(kid: Option<String>, algorithm: Algorithm, pem: &[u8]) -> Result<Key, String> {
        let material = match algorithm {
            Algorithm::RS256 => DecodingKey::from_rsa_pem(pem),
            Algorithm::ES256 => DecodingKey::from_ec_pem(pem),
            Algorithm::EdDSA => DecodingKey::from_ed_pem(pem),
            _ => return Err(format!("{algorithm:?} wants a secret, not a public key")),
        };
        let material = material.map_err(|error| format!("not a public key for {algorithm:?} in PEM form: {error}"))?;
        Ok(Key { kid, algorithm, material: Material::Public(material) })
    }

    /// The development key.
    pub fn dev() -> Key {
        Key {
            kid: Some(DEV_KID.to_owned()),
            algorithm: Algorithm::HS256,
            material: Material::Secret(Box::new(hmac::Key::new(hmac::HMAC_SHA256, DEV_SECRET.as_bytes()))),
        }
    }

    /// Whether the signature, in base64url, is this key's for the message (header, dot and claims as they were sent).
    fn signed(&self, message: &str, signature: &str) -> bool {
        match &self.material {
            Material::Secret(secret) => URL_SAFE_NO_PAD
                .decode(signature)
                .is_ok_and(|signature| hmac::verify(secret, message.as_bytes(), &signature).is_ok()),
            Material::Public(public) => {
                jsonwebtoken::crypto::verify(signature, message.as_bytes(), public, self.algorithm).unwrap_or(false)
            }
        }
    }
}

/// Reads the name of an algorithm that is supported.
pub fn parse_algorithm(name: &str) -> Result<Algorithm, String> {
    match name {
        "HS256" => Ok(Algorithm::HS256),
        "HS384" => Ok(Algorithm::HS384),
        "HS512" => Ok(Algorithm::HS512),
        "RS256" => Ok(Algorithm::RS256),
        "ES256" => Ok(Algorithm::ES256),
        "EdDSA" => Ok(Algorithm::EdDSA),
        _ => Err(format!("\"{name}\" is not supported; use one of HS256, HS384, HS512, RS256, ES256, EdDSA")),
    }
}

/// Only what we look at; the rest is ignored.
#[derive(Deserialize)]
struct Header<'a> {
    alg: Algorithm,
    #[serde(borrow)]
    kid: Option<Cow<'a, str>>,
    /// Names what a reader must understand to accept the token (RFC 7515, 4.1.11), and we understand none of it.
    crit: Option<IgnoredAny>,
}

/// Only the claims that we look at; others are ignored.
#[derive(Deserialize)]
struct Body {
    sub: String,
    exp: Option<u64>,
    nbf: Option<u64>,
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

    fn decode(&self, token: &str) -> Option<Body> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let header = URL_SAFE_NO_PAD.decode(header).ok()?;
        let header: Header<'_> = serde_json::from_slice(&header).ok()?;
        let signed = self.keys.iter().any(|key| {
            key.algorithm == header.alg && key.kid.as_deref() == header.kid.as_deref() && key.signed(message, signature)
        });
        if !signed || header.crit.is_some() {
            return None;
        }
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }

    fn check(&self, body: Body, unix_seconds: u64) -> Result<Grant, AuthError> {
        let leeway = self.claims.leeway_seconds;
        match body.exp {
            Some(exp) if exp.saturating_add(leeway) <= unix_seconds => return Err(AuthError::Expired),
            None if self.claims.require_exp => return Err(AuthError::Invalid),
            _ => {}
        }
        if body.nbf.is_some_and(|nbf| nbf > unix_seconds.saturating_add(leeway)) {
            return Err(AuthError::NotYetValid);
        }
        let audience: &[String] = match &body.aud {
            OneOrMany::None => &[],
            OneOrMany::One(one) => core::slice::from_ref(one),
            OneOrMany::Many(many) => many,
        };
        let meant_for_us =
            self.claims.audience.is_empty() || audience.iter().any(|aud| self.claims.audience.contains(aud));
        let from_issuer = self.claims.issuer.is_none() || self.claims.issuer == body.iss;
        let names_fit = crate::wire::is_name(&body.sub)
            && !body.sub.starts_with('@')
            && body.device.as_deref().is_none_or(crate::wire::is_name);
        if !meant_for_us || !from_issuer || !names_fit {
            return Err(AuthError::Invalid);
        }
        Ok(Grant {
            user: body.sub,
            // The leeway also applies at the end of the session.
            expires_at: body.exp.map_or(0, |exp| exp.saturating_add(leeway)),
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
            return Err(AuthError::Invalid);
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
        let body = self.decode(token).ok_or(AuthError::Invalid)?;
        self.check(body, unix_seconds)
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
