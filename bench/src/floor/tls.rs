//! TLS for the bare ring: rustls as its manual shows it, with the gateway's settings, and nothing that saves memory.

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};

use crate::exchange::Outgoing;

/// The gateway's settings, with a certificate made for this run.
pub(super) fn settings() -> io::Result<Arc<ServerConfig>> {
    let (certificate, key) = ringgate_auth::certificate::dev_certificate().map_err(io::Error::other)?;
    ringgate_auth::certificate::server_config(certificate.as_bytes(), key.as_bytes())
        .map(Arc::new)
        .map_err(io::Error::other)
}

/// A connection that nothing has come from yet.
pub(super) fn accept(settings: &Arc<ServerConfig>) -> io::Result<Box<ServerConnection>> {
    let mut tls = ServerConnection::new(settings.clone()).map(Box::new).map_err(io::Error::other)?;
    // What waits is bounded by what the driver asks for.
    tls.set_buffer_limit(None);
    Ok(tls)
}

/// What the client said in these bytes.
pub(super) fn open(tls: &mut ServerConnection, mut bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut plaintext = Vec::new();
    while !bytes.is_empty() {
        tls.read_tls(&mut bytes)?;
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        let already = plaintext.len();
        plaintext.resize(already + state.plaintext_bytes_to_read(), 0);
        tls.reader().read_exact(&mut plaintext[already..])?;
    }
    Ok(plaintext)
}

/// The records for these bytes, behind what the handshake still has to send.
pub(super) fn seal(tls: &mut ServerConnection, outgoing: Outgoing) -> io::Result<Outgoing> {
    if let Some(shared) = &outgoing.shared {
        tls.writer().write_all(shared)?;
    }
    tls.writer().write_all(&outgoing.bytes)?;
    let mut bytes = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut bytes)?;
    }
    Ok(Outgoing { shared: None, bytes })
}
