//! Keys that tokens are verified with: what is taken as one, and what is refused by name.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde::de::IgnoredAny;
use zeroize::Zeroizing;

use super::der::{self, KeyKind};
use super::{DEV_KID, DEV_SECRET, pem};

/// Bits of the modulus that RS256 needs (RFC 7518, 3.3), and the most that aws-lc verifies with.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Bytes of the point of a P-256 key: not compressed, both coordinates.
const P256_BYTES: usize = 65;
const ED25519_BYTES: usize = 32;

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

impl Key {
    /// A shared secret of 32 bytes or more, for HS256, HS384 or HS512. A public key is no secret: in any form that keys are
    /// handed out in, it is refused.
    pub fn secret(kid: Option<String>, algorithm: Algorithm, secret: &[u8]) -> Result<Key, String> {
        let hash = match algorithm {
            Algorithm::HS256 => hmac::HMAC_SHA256,
            Algorithm::HS384 => hmac::HMAC_SHA384,
            Algorithm::HS512 => hmac::HMAC_SHA512,
            _ => return Err(format!("{algorithm:?} wants a public key in PEM form, not a secret")),
        };
        if let Some(form) = form_of_key(secret) {
            return Err(format!(
                "is {form}, and {algorithm:?} wants a secret that nobody else knows; make one with `openssl rand -hex 32`, \
                 or give the public key as public_key_file of RS256, ES256 or EdDSA"
            ));
        }
        if secret.len() < 32 {
            return Err(format!("the secret has {} bytes; at least 32 are needed", secret.len()));
        }
        Ok(Key { kid, algorithm, material: Material::Secret(Box::new(hmac::Key::new(hash, secret))) })
    }

    /// A public key in PEM form, or a certificate with one: RSA of 2048 to 8192 bits for RS256, P-256 for ES256, Ed25519 for
    /// EdDSA.
    pub fn public(kid: Option<String>, algorithm: Algorithm, text: &[u8]) -> Result<Key, String> {
        if !matches!(algorithm, Algorithm::RS256 | Algorithm::ES256 | Algorithm::EdDSA) {
            return Err(format!("{algorithm:?} wants a secret, not a public key"));
        }
        let material = public_material(algorithm, text)?;
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
    pub(super) fn signed(&self, message: &str, signature: &str) -> bool {
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

/// The secret in a file. Where the file is text (UTF-8 without control characters but tabs and line breaks), one line break at
/// its end is not part of it: editors and `echo` leave one. Every byte of any other file counts.
pub fn secret_in(file: &[u8]) -> &[u8] {
    let is_text = std::str::from_utf8(file)
        .is_ok_and(|text| !text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\r' | '\n')));
    match file.strip_suffix(b"\n") {
        Some(line) if is_text => line.strip_suffix(b"\r").unwrap_or(line),
        _ => file,
    }
}

/// What makes JSON a JSON Web Key.
#[derive(Deserialize)]
struct Jwk {
    #[serde(rename = "kty")]
    _kty: IgnoredAny,
}

/// What kind of key in a public form this is, if it is one: everybody who knows it could sign tokens with it.
fn form_of_key(secret: &[u8]) -> Option<&'static str> {
    let text = secret.trim_ascii();
    let is_der = |bytes: &[u8]| {
        der::public_key(bytes).is_some()
            || der::rsa_public_key(bytes).is_some()
            || der::Certificate::parse(bytes).is_some()
    };
    // Copies are wiped, and never grow: what grows leaves copies of its own behind.
    let mut lines = Zeroizing::new(Vec::with_capacity(secret.len()));
    lines.extend(secret.iter().filter(|byte| !byte.is_ascii_whitespace()));
    let mut decoded = Zeroizing::new(vec![0; base64::decoded_len_estimate(lines.len())]);
    let decoded_bytes = base64::engine::general_purpose::STANDARD.decode_slice(lines.as_slice(), &mut decoded).ok();
    let decoded = decoded_bytes.and_then(|length| decoded.get(..length));
    let is_jwk = || text.starts_with(b"{") && serde_json::from_slice::<Jwk>(secret).is_ok();
    if pem::is_pem(secret) {
        Some("a key or certificate in PEM form")
    } else if text.starts_with(b"ssh-") || text.starts_with(b"ecdsa-sha2-") {
        Some("a public key of OpenSSH")
    } else if is_der(secret) || decoded.is_some_and(is_der) {
        Some("a public key or certificate in DER form")
    } else if is_jwk() {
        Some("a JSON Web Key")
    } else {
        None
    }
}

fn public_material(algorithm: Algorithm, text: &[u8]) -> Result<DecodingKey, String> {
    let sections = pem::sections(text)?;
    if text.trim_ascii_start().starts_with(b"ssh-") || text.trim_ascii_start().starts_with(b"ecdsa-sha2-") {
        return Err("is a public key of OpenSSH; convert it with `ssh-keygen -e -m PKCS8 -f FILE`".to_owned());
    }
    let private = sections.iter().find(|section| section.label.ends_with("PRIVATE KEY"));
    if let Some(private) = private {
        return Err(format!(
            "holds a private key ({}); the gateway needs only the public one: `openssl pkey -in FILE -pubout`",
            private.label
        ));
    }
    let is_public = |label: &str| matches!(label, "PUBLIC KEY" | "RSA PUBLIC KEY" | "CERTIFICATE" | "X509 CERTIFICATE");
    let labels: Vec<_> = sections.iter().map(|section| section.label.as_str()).collect();
    let Some(section) = sections.iter().find(|section| is_public(&section.label)) else {
        let instead = if labels.is_empty() { String::new() } else { format!(", but {}", labels.join(", ")) };
        return Err(format!("holds no public key in PEM form{instead}"));
    };
    let bytes = section.der.as_slice();
    let key = match section.label.as_str() {
        "PUBLIC KEY" => der::public_key(bytes),
        "RSA PUBLIC KEY" => der::rsa_public_key(bytes),
        _ => der::Certificate::parse(bytes).and_then(|certificate| der::public_key(certificate.spki)),
    };
    let key = key.ok_or_else(|| format!("the section {} is damaged: it holds no public key", section.label))?;
    let wanted = match algorithm {
        Algorithm::RS256 => "an RSA key of 2048 to 8192 bits",
        Algorithm::ES256 => "a P-256 key",
        _ => "an Ed25519 key",
    };
    match (algorithm, key.kind) {
        (Algorithm::RS256, KeyKind::Rsa(bits)) if RSA_BITS.contains(&bits) => Ok(DecodingKey::from_rsa_der(key.bytes)),
        (Algorithm::ES256, KeyKind::P256) if key.bytes.len() == P256_BYTES && key.bytes.first() == Some(&4) => {
            Ok(DecodingKey::from_ec_der(key.bytes))
        }
        (Algorithm::ES256, KeyKind::P256) => {
            Err("is a P-256 key in compressed form; convert it with `openssl ec -pubin -conv_form uncompressed`"
                .to_owned())
        }
        (Algorithm::EdDSA, KeyKind::Ed25519) if key.bytes.len() == ED25519_BYTES => {
            Ok(DecodingKey::from_ed_der(key.bytes))
        }
        (_, kind) => Err(format!("is {kind}; {algorithm:?} wants {wanted}")),
    }
}
