//! Certificates: read, checked against their key, judged, and made for development.
//!
//! What cannot work is an error, and blamed on the file that is at fault. What clients may refuse (dates, a chain with holes,
//! names that are not there) is a warning: a gateway whose certificate ended last night still serves those who know it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::aws_lc_rs;
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CipherSuite, InconsistentKeys, RootCertStore, ServerConfig};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer, ServerName, UnixTime,
};
use zeroize::Zeroizing;

use crate::der::{Certificate, name_text, time_text};
use crate::pem;

/// Which of the two files is at fault, and why.
#[derive(Debug)]
pub enum CertificateError {
    /// The certificate's file.
    Certificate(String),
    /// The key's file.
    Key(String),
}

/// A certificate that can be served.
pub struct Loaded {
    /// Ready to be served.
    pub config: ServerConfig,
    /// Unix seconds: when the server's certificate ends, the first of the chain.
    pub ends: u64,
    /// Why clients may refuse it.
    pub warnings: Vec<String>,
}

/// Reads and checks a certificate chain and its key.
pub fn certificate_from_files(certificate: &Path, key: &Path) -> Result<ServerConfig, CertificateError> {
    load(certificate, key, &[], unix_seconds()).map(|loaded| loaded.config)
}

/// [`certificate_from_files`], with warnings: judged by the names that clients ask for and the time in Unix seconds.
pub fn load(certificate: &Path, key: &Path, names: &[ServerName<'_>], now: i64) -> Result<Loaded, CertificateError> {
    let read = |path: &Path| {
        std::fs::read(path).map(Zeroizing::new).map_err(|error| format!("{} cannot be read: {error}", path.display()))
    };
    let certificate_pem = read(certificate).map_err(CertificateError::Certificate)?;
    let key_pem = read(key).map_err(CertificateError::Key)?;
    let of_certificate = |text: String| CertificateError::Certificate(format!("{} {text}", certificate.display()));
    let of_key = |text: String| CertificateError::Key(format!("{} {text}", key.display()));
    let chain = chain_of(&certificate_pem).map_err(of_certificate)?;
    let key_section = pem::private_key(&key_pem).map_err(of_key)?;
    let config = config_of(&chain, &key_section)
        .map_err(|error| CertificateError::Key(format!("{} and {}: {error}", certificate.display(), key.display())))?;
    let parsed: Vec<_> = chain.iter().filter_map(|der| Certificate::parse(der)).collect();
    let ends = parsed.first().map_or(0, |certificate| certificate.ends);
    let judged = judge(&chain, &parsed, names, now);
    let warnings = judged.into_iter().map(|text| format!("{} {text}", certificate.display())).collect();
    Ok(Loaded { config, ends: u64::try_from(ends).unwrap_or(0), warnings })
}

/// TLS 1.2 and 1.3, no client certificates, one ticket per full handshake, no session state in the gateway. The chain begins
/// with the server's certificate.
pub fn server_config(certificate_pem: &[u8], key_pem: &[u8]) -> Result<ServerConfig, String> {
    let chain = chain_of(certificate_pem).map_err(|error| format!("the certificate's file {error}"))?;
    let key = pem::private_key(key_pem).map_err(|error| format!("the key's file {error}"))?;
    config_of(&chain, &key)
}

/// When the server's certificate ends, the first of a chain, in Unix seconds; none if it cannot be read.
pub fn ends(certificate_pem: &[u8]) -> Option<u64> {
    let chain = chain_of(certificate_pem).ok()?;
    u64::try_from(Certificate::parse(chain.first()?)?.ends).ok()
}

fn unix_seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// The certificates of a file, each of which can be read. The error follows the file's name.
fn chain_of(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut chain = Vec::new();
    for (index, section) in pem::certificates(text)?.into_iter().enumerate() {
        let damaged = |why: &str| format!("is damaged: certificate {} of it cannot be read{why}", index + 1);
        if Certificate::parse(&section.der).is_none() {
            return Err(damaged(""));
        }
        let der = CertificateDer::from(section.der.to_vec());
        if index == 0 {
            // The one that clients check the key against must pass rustls, too.
            ParsedCertificate::try_from(&der).map_err(|error| damaged(&format!(": {error}")))?;
        }
        chain.push(der);
    }
    Ok(chain)
}

fn config_of(chain: &[CertificateDer<'static>], key: &pem::Section) -> Result<ServerConfig, String> {
    // Borrowed: what owns the bytes wipes them.
    let der = key.der.as_slice();
    let der = match key.label.as_str() {
        "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(der)),
        "EC PRIVATE KEY" => PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(der)),
        _ => PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der)),
    };
    let signing = aws_lc_rs::sign::any_supported_type(&der)
        .map_err(|_| "the key cannot be used: RSA from 2048 bits, ECDSA and Ed25519 can".to_owned())?;
    let certified = CertifiedKey::new(chain.to_vec(), signing);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            return Err(
                "the key does not belong to the certificate; give the key that the certificate was made for".to_owned()
            );
        }
        Err(error) => return Err(error.to_string()),
    }
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| rank(suite.suite()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.ignore_client_order = true;
    config.send_tls13_tickets = 1;
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| error.to_string())?;
    Ok(config)
}

/// Why clients may refuse this chain; each text follows the file's name.
fn judge(
    chain: &[CertificateDer<'static>],
    parsed: &[Certificate<'_>],
    names: &[ServerName<'_>],
    now: i64,
) -> Vec<String> {
    let mut warnings = Vec::new();
    for (index, certificate) in parsed.iter().enumerate() {
        let which = format!("certificate {} ({})", index + 1, name_text(certificate.subject));
        if certificate.ends < now {
            warnings.push(format!("has expired: {which} ended {}; renew it", time_text(certificate.ends)));
        }
        if certificate.begins > now {
            let begins = time_text(certificate.begins);
            warnings.push(format!("is not valid yet: {which} begins {begins}; look at the clock of this host"));
        }
    }
    let (Some(leaf), Some(leaf_der)) = (parsed.first(), chain.first()) else { return warnings };
    warnings.extend(judge_chain(chain, parsed));
    if leaf.names.is_empty() {
        let text = "names no host in subjectAltName, where clients look; have it made with the names that they ask for";
        warnings.push(text.to_owned());
    } else if let Ok(certificate) = ParsedCertificate::try_from(leaf_der) {
        for name in names.iter().filter(|name| verify_server_name(&certificate, name).is_err()) {
            let (name, names) = (name.to_str(), leaf.names.join(", "));
            warnings.push(format!("is not for {name}, which tls.names has; it is for {names}"));
        }
    }
    warnings
}

/// Whether each certificate was issued by the next.
fn judge_chain(chain: &[CertificateDer<'static>], parsed: &[Certificate<'_>]) -> Option<String> {
    for (index, pair) in parsed.windows(2).enumerate() {
        let [certificate, next] = pair else { continue };
        if certificate.issuer != next.subject {
            return Some(format!(
                "has a gap after certificate {}: that was issued by {}, and the next one is {}; clients need the server's \
                 certificate first, then that of its issuer, and so on",
                index + 1,
                name_text(certificate.issuer),
                name_text(next.subject)
            ));
        }
    }
    let [leaf, ..] = parsed else { return None };
    if parsed.len() == 1 {
        return (leaf.issuer != leaf.subject).then(|| {
            format!(
                "holds one certificate, issued by {}; unless clients trust that one itself, append its certificate (the \
                 intermediate), as in fullchain.pem",
                name_text(leaf.issuer)
            )
        });
    }
    // The names fit; whether the signatures do is asked at a time when all are good, dates have been judged.
    let [first, between @ .., last] = chain else { return None };
    let begins = parsed.iter().map(|certificate| certificate.begins).max().unwrap_or(0);
    if parsed.iter().any(|certificate| certificate.ends < begins) {
        return None;
    }
    let mut roots = RootCertStore::empty();
    let result = ParsedCertificate::try_from(first).and_then(|certificate| {
        roots.add(last.clone())?;
        let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(begins).unwrap_or(0)));
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &roots, between, time, algorithms)
    });
    result.err().map(|error| format!("is no chain from its first certificate to its last: {error}"))
}

/// Hashing is a seventh of a handshake's CPU time with SHA-384, for which few processors have instructions, and next to
/// nothing with SHA-256. Most clients would ask for SHA-384 first; who offers nothing else gets it.
fn rank(suite: CipherSuite) -> u8 {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 0,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => 1,
        _ => 2,
    }
}

/// A certificate for `localhost`, 127.0.0.1 and ::1, signed by itself, and its key: both in PEM form.
pub fn dev_certificate() -> Result<(String, String), String> {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).map_err(|error| error.to_string())?;
    Ok((made.cert.pem(), made.signing_key.serialize_pem()))
}

#[cfg(test)]
mod tests;
