//! Signing tokens, for `ringgate token`, the load tester and tests. The gateway itself signs nothing.

use std::path::Path;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{Key, pem, secret_in};

/// What a token is to say.
#[derive(Clone, Debug, Default)]
pub struct TokenSpec {
    /// `sub`.
    pub user: String,
    /// `device`, if the token is to be bound to one.
    pub device: Option<String>,
    /// `iat`, Unix seconds.
    pub issued_at: u64,
    /// `exp` is this long after `iat`; 0 for none.
    pub ttl_seconds: u64,
    /// `rooms`: patterns for all verbs; none when empty.
    pub rooms: Vec<String>,
}

/// A key that signs.
pub struct Signer {
    header: Header,
    key: EncodingKey,
}

#[derive(Serialize)]
struct Body<'a> {
    sub: &'a str,
    iat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    rooms: &'a [String],
}

impl Signer {
    /// The development key.
    pub fn dev() -> Signer {
        Signer::new(Some(super::DEV_KID), Algorithm::HS256, EncodingKey::from_secret(super::DEV_SECRET.as_bytes()))
    }

    /// A secret (see [`secret_in`]), or a private key in PEM form.
    pub fn from_key_file(path: &Path, algorithm: Option<Algorithm>, kid: Option<&str>) -> Result<Signer, String> {
        let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let bytes = Zeroizing::new(bytes);
        Signer::from_key(&bytes, algorithm, kid).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Like [`Signer::from_key_file`], from memory. A secret that [`Key::secret`] refuses is refused. Without an algorithm a secret means HS256; a PEM key is tried as EdDSA, ES256, RS256.
    pub fn from_key(bytes: &[u8], algorithm: Option<Algorithm>, kid: Option<&str>) -> Result<Signer, String> {
        let is_pem = pem::is_pem(bytes);
        if is_pem {
            // Says what else it is, if it is no private key.
            pem::private_key(bytes)?;
        }
        let candidates = match algorithm {
            Some(algorithm) => vec![algorithm],
            None if is_pem => vec![Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256],
            None => vec![Algorithm::HS256],
        };
        for algorithm in &candidates {
            let key = match algorithm {
                Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 if !is_pem => {
                    let secret = secret_in(bytes);
                    // What is no secret for a gateway is none here.
                    Key::secret(None, *algorithm, secret)?;
                    Ok(EncodingKey::from_secret(secret))
                }
                Algorithm::RS256 => EncodingKey::from_rsa_pem(bytes),
                Algorithm::ES256 => EncodingKey::from_ec_pem(bytes),
                Algorithm::EdDSA => EncodingKey::from_ed_pem(bytes),
                _ => return Err(format!("{algorithm:?} cannot be used with this key")),
            };
            if let Ok(key) = key {
                let signer = Signer::new(kid, *algorithm, key);
                // Some parsers take any private key; signing tells.
                if signer.sign(&TokenSpec { user: "probe".into(), ..TokenSpec::default() }).is_ok() {
                    return Ok(signer);
                }
            }
        }
        Err(format!("not a private key in PEM form for any of {candidates:?}"))
    }

    fn new(kid: Option<&str>, algorithm: Algorithm, key: EncodingKey) -> Signer {
        let mut header = Header::new(algorithm);
        header.kid = kid.map(str::to_owned);
        Signer { header, key }
    }

    /// The token in compact form.
    pub fn sign(&self, spec: &TokenSpec) -> Result<String, String> {
        let body = Body {
            sub: &spec.user,
            iat: spec.issued_at,
            exp: (spec.ttl_seconds > 0).then(|| spec.issued_at + spec.ttl_seconds),
            device: spec.device.as_deref(),
            rooms: &spec.rooms,
        };
        jsonwebtoken::encode(&self.header, &body, &self.key).map_err(|error| format!("signing: {error}"))
    }
}
