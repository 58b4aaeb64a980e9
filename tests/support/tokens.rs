//! Tokens for tests: signed with the development key, or with any key and any claims.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ringgate_auth::{Signer, TokenSpec};
use ringgate_core::wire::Encoder;
use ringgate_core::wire::encode::ConnectRequest;

/// Now, as tokens count.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A token of the development key, good for an hour.
pub(crate) fn dev_token(user: &str) -> String {
    dev_token_for(user, 3600)
}

/// A token of the development key, good for so many seconds.
pub(crate) fn dev_token_for(user: &str, ttl_seconds: u64) -> String {
    let spec = TokenSpec { user: user.into(), issued_at: unix_seconds(), ttl_seconds, ..TokenSpec::default() };
    Signer::dev().sign(&spec).unwrap()
}

/// A token of any key with any claims.
pub(crate) fn claims_token(
    algorithm: Algorithm,
    kid: Option<&str>,
    key: &EncodingKey,
    claims: &serde_json::Value,
) -> String {
    let mut header = Header::new(algorithm);
    header.kid = kid.map(str::to_owned);
    jsonwebtoken::encode(&header, claims, key).unwrap()
}

/// The bytes of a Connect of this user, for tests that put them on the wire themselves.
pub(crate) fn connect_frame(user: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let token = dev_token(user);
    Encoder::default().connect(&mut bytes, &ConnectRequest { request: 1, token: &token, ..Default::default() });
    bytes
}
