//! `[tls]` and `[token]`: certificates and keys.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use ringgate_auth::certificate::{self, CertificateError, Loaded};
use ringgate_auth::{Algorithm, Claims, Key, parse_algorithm, secret_in};
use rustls_pki_types::ServerName;
use toml::Spanned;
use zeroize::Zeroizing;

use super::super::{ListenerConfig, raw};
use super::check::{Check, at};

pub(super) fn tls(raw: &raw::File, listeners: &[ListenerConfig], check: &mut Check<'_>) -> Option<Loaded> {
    let wanted = listeners.iter().any(|listener| listener.front.transport.has_tls());
    let Some(tls) = &raw.tls else {
        if wanted {
            check.problem("tls", None, "is missing, but a listener has tls = true; add [tls] with certificate and key");
        }
        return None;
    };
    let compact = check.choice("tls.memory", &tls.memory, false, &[("ordinary", false), ("compact", true)]);
    let mut names = Vec::new();
    for name in &tls.names {
        match ServerName::try_from(name.get_ref().as_str()) {
            Ok(name) => names.push(name),
            Err(_) => {
                let text = format!("\"{}\" is neither a host name nor an address", name.get_ref());
                check.problem("tls.names", at(name), text);
            }
        }
    }
    let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) else {
        check.problem("tls", None, "needs both certificate and key, each the path of a PEM file");
        return None;
    };
    check.warn_if_open("tls.key", at(key), key.get_ref());
    check.warn_if_writable("tls.certificate", at(certificate), certificate.get_ref());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    match certificate::load(Path::new(certificate.get_ref()), Path::new(key.get_ref()), &names, now) {
        Ok(mut loaded) => {
            for text in std::mem::take(&mut loaded.warnings) {
                check.warn("tls.certificate", at(certificate), text);
            }
            if compact {
                ringgate_net::tls::make_compact(&mut loaded.config);
            }
            Some(loaded)
        }
        Err(CertificateError::Certificate(text)) => {
            check.problem("tls.certificate", at(certificate), text);
            None
        }
        Err(CertificateError::Key(text)) => {
            check.problem("tls.key", at(key), text);
            None
        }
    }
}

/// A token that ended longer ago is old; clocks do not differ that much.
const LEEWAY_MS_MAX: u64 = 24 * 3600 * 1000;
pub(super) fn token(raw: &raw::Token, file: &str, check: &mut Check<'_>) -> (Vec<Key>, Claims) {
    if raw.keys.is_empty() {
        check.problem(
            "token.keys",
            None,
            "there is none; add [[token.keys]] with algorithm and secret_file or public_key_file",
        );
    }
    let mut keys: Vec<Key> = Vec::new();
    for (index, raw) in raw.keys.iter().enumerate() {
        let name = |field: &str| format!("token.keys[{index}].{field}");
        if let Some(path) = &raw.secret_file {
            check.warn_if_open(&name("secret_file"), at(path), path.get_ref());
        }
        if let Some(secret) = &raw.secret {
            check.warn_if_open(&name("secret"), at(secret), file);
        }
        if let Some(path) = &raw.public_key_file {
            check.warn_if_writable(&name("public_key_file"), at(path), path.get_ref());
        }
        match key(raw) {
            Ok(key) => {
                if keys.iter().any(|known| known.kid == key.kid && known.algorithm == key.algorithm) {
                    check.problem(
                        &name("kid"),
                        None,
                        "another key has the same kid and algorithm; give each its own kid",
                    );
                }
                keys.push(key);
            }
            Err((field, at, text)) => check.problem(&name(field), at, text),
        }
    }
    let leeway_ms = check.duration("token.leeway", &raw.leeway, 5000, 0..=LEEWAY_MS_MAX);
    if !leeway_ms.is_multiple_of(1000) {
        let text = "is no whole number of seconds, which is how tokens count; for instance \"5s\"";
        check.problem("token.leeway", raw.leeway.as_ref().and_then(at), text);
    }
    let claims = Claims {
        audience: raw.audience.clone(),
        issuer: raw.issuer.clone(),
        leeway_seconds: leeway_ms / 1000,
        require_exp: raw.require_exp.unwrap_or(true),
    };
    (keys, claims)
}

type KeyProblem = (&'static str, Option<usize>, String);

fn key(raw: &raw::Key) -> Result<Key, KeyProblem> {
    let Some(algorithm_name) = &raw.algorithm else {
        return Err(("algorithm", None, "is missing; for instance \"HS256\" or \"EdDSA\"".to_owned()));
    };
    let algorithm =
        parse_algorithm(algorithm_name.get_ref()).map_err(|text| ("algorithm", at(algorithm_name), text))?;
    let read = |field: &'static str, path: &Spanned<String>| {
        std::fs::read(path.get_ref())
            .map(Zeroizing::new)
            .map_err(|error| (field, at(path), format!("{} cannot be read: {error}", path.get_ref())))
    };
    let kid = raw.kid.clone();
    match (&raw.secret, &raw.secret_file, &raw.public_key_file) {
        (Some(secret), None, None) => {
            secret_key(kid, algorithm, secret.get_ref().0.as_bytes()).map_err(|text| ("secret", at(secret), text))
        }
        (None, Some(path), None) => {
            let bytes = read("secret_file", path)?;
            secret_key(kid, algorithm, secret_in(&bytes)).map_err(|text| ("secret_file", at(path), text))
        }
        (None, None, Some(path)) => {
            let bytes = read("public_key_file", path)?;
            Key::public(kid, algorithm, &bytes)
                .map_err(|text| ("public_key_file", at(path), format!("{} {text}", path.get_ref())))
        }
        _ => Err(("secret", None, "give exactly one of secret, secret_file and public_key_file".to_owned())),
    }
}

/// A secret from either place; everybody knows the development key.
fn secret_key(kid: Option<String>, algorithm: Algorithm, secret: &[u8]) -> Result<Key, String> {
    if secret == ringgate_auth::DEV_SECRET.as_bytes() {
        return Err("is the public development key; make a secret of your own".to_owned());
    }
    Key::secret(kid, algorithm, secret)
}
