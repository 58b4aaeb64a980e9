//! Certificates: read, checked against their key, and made for development.

use std::path::Path;
use std::sync::Arc;

use rustls::{CipherSuite, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Which of the two files is at fault, and why.
#[derive(Debug)]
pub enum CertificateError {
    /// The certificate's file.
    Certificate(String),
    /// The key's file.
    Key(String),
}

/// Reads and checks a certificate chain and its key.
pub fn certificate_from_files(certificate: &Path, key: &Path) -> Result<ServerConfig, CertificateError> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()));
    let certificate_pem = read(certificate).map_err(CertificateError::Certificate)?;
    let key_pem = read(key).map_err(CertificateError::Key)?;
    if CertificateDer::pem_slice_iter(&certificate_pem).flatten().next().is_none() {
        let text = format!("{} holds no certificate in PEM form", certificate.display());
        return Err(CertificateError::Certificate(text));
    }
    if PrivateKeyDer::from_pem_slice(&key_pem).is_err() {
        return Err(CertificateError::Key(format!("{} holds no private key in PEM form", key.display())));
    }
    server_config(&certificate_pem, &key_pem)
        .map_err(|error| CertificateError::Key(format!("{} and {}: {error}", certificate.display(), key.display())))
}

/// TLS 1.2 and 1.3, no client certificates, one ticket per full handshake, no session state in the gateway.
pub fn server_config(certificate_pem: &[u8], key_pem: &[u8]) -> Result<ServerConfig, String> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate_pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("the certificate chain cannot be read: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| format!("the key cannot be read: {error}"))?;
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| rank(suite.suite()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                "the key does not belong to the certificate; give the key that the certificate was made for".to_owned()
            }
            error => error.to_string(),
        })?;
    config.ignore_client_order = true;
    config.send_tls13_tickets = 1;
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|error| error.to_string())?;
    Ok(config)
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
