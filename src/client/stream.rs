//! A blocking connection for tools: address, TCP or TLS, whole frames in and out.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

use crate::wire::{RawFrame, Split, split};

/// Where a gateway is, from `tcp://HOST:PORT` or `tls://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Over TLS.
    pub tls: bool,
}

impl std::str::FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("\"{text}\" is not a gateway's address; write tcp://HOST:PORT or tls://HOST:PORT");
        let (scheme, rest) = text.split_once("://").ok_or_else(wanted)?;
        let (host, port) = rest.trim_end_matches('/').rsplit_once(':').ok_or_else(wanted)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = port.parse().map_err(|_| wanted())?;
        if host.is_empty() {
            return Err(wanted());
        }
        match scheme {
            "tcp" => Ok(Url { host, port, tls: false }),
            "tls" => Ok(Url { host, port, tls: true }),
            _ => Err(wanted()),
        }
    }
}

impl Url {
    /// The first address of the host.
    pub fn resolve(&self) -> Result<SocketAddr, String> {
        let addresses = (self.host.as_str(), self.port).to_socket_addrs();
        let addresses = addresses.map_err(|error| format!("{}: {error}", self.host))?;
        addresses.into_iter().next().ok_or_else(|| format!("{} has no address", self.host))
    }

    /// The name that the gateway's certificate must be for.
    pub fn server_name(&self) -> Result<ServerName<'static>, String> {
        ServerName::try_from(self.host.clone()).map_err(|_| format!("{} is not a name for TLS", self.host))
    }
}

/// Whom to trust.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// Certificates in this PEM file.
    File(&'a Path),
    /// Certificates in PEM form.
    Pem(&'a [u8]),
    /// Anybody; for development.
    Anybody,
}

/// TLS settings of a client.
pub fn client_tls(trust: Trust<'_>) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let pem = match trust {
        Trust::Anybody => {
            let verifier = Arc::new(TrustAnybody(provider));
            let config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
            return Ok(Arc::new(config));
        }
        Trust::Pem(pem) => pem.to_vec(),
        Trust::File(path) => std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?,
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("the CA file: {error}"))?;
        roots.add(certificate).map_err(|error| format!("the CA file: {error}"))?;
    }
    if roots.is_empty() {
        return Err("the CA file holds no certificate in PEM form".to_owned());
    }
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// Accepts every certificate; signatures are still checked.
#[derive(Debug)]
struct TrustAnybody(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for TrustAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// See the module.
pub struct Stream {
    socket: Socket,
    buffer: Vec<u8>,
    used: usize,
}

enum Socket {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// Longest body that is taken from a gateway.
const BODY_BYTES_MAX: usize = 64 << 20;

impl Stream {
    /// Connects, including the TLS handshake.
    pub fn connect(url: &Url, trust: Trust<'_>) -> Result<Stream, String> {
        let address = url.resolve()?;
        let socket = TcpStream::connect_timeout(&address, Duration::from_secs(10))
            .map_err(|error| format!("{address}: {error}"))?;
        socket.set_nodelay(true).map_err(|error| error.to_string())?;
        let tls = if url.tls { Some((client_tls(trust)?, url.server_name()?)) } else { None };
        Stream::over(socket, tls)
    }

    /// On a socket that is connected already; with TLS its handshake comes first.
    pub fn over(socket: TcpStream, tls: Option<(Arc<ClientConfig>, ServerName<'static>)>) -> Result<Stream, String> {
        let socket = match tls {
            Some((config, name)) => {
                let connection = ClientConnection::new(config, name).map_err(|error| error.to_string())?;
                let mut stream = StreamOwned::new(connection, socket);
                while stream.conn.is_handshaking() {
                    stream.conn.complete_io(&mut stream.sock).map_err(|error| {
                        let peer = stream.sock.peer_addr().map_or_else(|_| "the gateway".into(), |a| a.to_string());
                        format!("TLS with {peer}: {error}")
                    })?;
                }
                Socket::Tls(Box::new(stream))
            }
            None => Socket::Plain(socket),
        };
        Ok(Stream { socket, buffer: Vec::new(), used: 0 })
    }

    /// The socket underneath.
    pub fn tcp(&self) -> &TcpStream {
        match &self.socket {
            Socket::Plain(socket) => socket,
            Socket::Tls(stream) => &stream.sock,
        }
    }

    /// Sends whole frames.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.socket {
            Socket::Plain(socket) => socket.write_all(bytes),
            Socket::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Waits for bytes, at most this long. False at the end of the stream.
    pub fn fill(&mut self, timeout: Duration) -> io::Result<bool> {
        self.buffer.drain(..self.used);
        self.used = 0;
        self.tcp().set_read_timeout(Some(timeout.max(Duration::from_millis(1))))?;
        let mut chunk = [0; 16 * 1024];
        let read = match &mut self.socket {
            Socket::Plain(socket) => socket.read(&mut chunk),
            Socket::Tls(stream) => stream.read(&mut chunk),
        };
        match read {
            Ok(0) => Ok(false),
            Ok(length) => {
                self.buffer.extend_from_slice(chunk.get(..length).unwrap_or_default());
                Ok(true)
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The next whole frame among the bytes that have come.
    pub fn next_frame(&mut self) -> Result<Option<RawFrame<'_>>, String> {
        let bytes = self.buffer.get(self.used..).unwrap_or_default();
        let total = bytes.len();
        match split(bytes, BODY_BYTES_MAX).map_err(|error| format!("the gateway sent {}", error.label()))? {
            Split::Frame(frame, rest) => {
                self.used += total - rest.len();
                Ok(Some(frame))
            }
            Split::Incomplete(_) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let url = |text: &str| text.parse::<Url>();
        assert_eq!(url("tls://example.org:7443"), Ok(Url { host: "example.org".into(), port: 7443, tls: true }));
        assert_eq!(url("tcp://[::1]:7400"), Ok(Url { host: "::1".into(), port: 7400, tls: false }));
        for bad in ["", "example.org:1", "http://a:1", "tcp://a", "tcp://:1", "tcp://a:b", "tcp://a:70000"] {
            assert!(url(bad).unwrap_err().contains("tcp://HOST:PORT"), "{bad}");
        }
    }
}
