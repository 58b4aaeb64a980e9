//! A blocking connection for tools: address, TCP or TLS, whole frames in and out.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

use ringgate_core::wire::{RawFrame, Split, split};

/// Where a gateway is, from `tcp://HOST:PORT` or `tls://HOST:PORT`; several that are linked may follow each other, as in
/// `tcp://HOST:PORT,HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Further gateways, hosts and ports. Over TLS their certificates are for the name of the first one, too.
    pub others: Vec<(String, u16)>,
    /// Over TLS.
    pub tls: bool,
}

impl std::str::FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = |what: &str| format!("\"{text}\" {what}; write tcp://HOST:PORT or tls://HOST:PORT");
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wanted("is not a gateway's address"))?;
        let tls = match scheme {
            "tcp" => false,
            "tls" => true,
            "ws" | "wss" => return Err(wanted("is WebSocket, which is not supported yet")),
            "http" | "https" => return Err(wanted("is a web server's address, not a gateway's")),
            _ => return Err(wanted("is not a gateway's address")),
        };
        if rest.contains('@') {
            // It may have a password in it: it is not shown.
            return Err("the address has a user name in it, which no gateway asks for; write tcp://HOST:PORT or tls://HOST:PORT".to_owned());
        }
        if rest.trim_end_matches('/').contains('/') {
            return Err(wanted("has a path"));
        }
        let mut hosts = rest.trim_end_matches('/').split(',').map(|host| host_and_port(host).map_err(wanted));
        let (host, port) = hosts.next().unwrap_or_else(|| Err(wanted("has no host")))?;
        Ok(Url { host, port, others: hosts.collect::<Result<_, _>>()?, tls })
    }
}

/// What stands before and after the last colon; the error says what is missing.
fn host_and_port(text: &str) -> Result<(String, u16), &'static str> {
    let (host, port) = text.rsplit_once(':').ok_or("has no port")?;
    // The colon of an IPv6 address without a port.
    if host.starts_with('[') != host.ends_with(']') {
        return Err("has no port");
    }
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    match port.parse() {
        Ok(0) | Err(_) => Err("has no port from 1 to 65535"),
        Ok(_) if host.is_empty() => Err("has no host"),
        Ok(port) => Ok((host, port)),
    }
}

impl Url {
    /// The addresses of the hosts as they are now, at least one of each, in the order in which they are to be tried.
    pub fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        let mut all = Vec::new();
        for (host, port) in std::iter::once((&self.host, self.port)).chain(self.others.iter().map(|(h, p)| (h, *p))) {
            let addresses = (host.as_str(), port).to_socket_addrs();
            let addresses: Vec<_> = addresses.map_err(|error| format!("{host}: {error}"))?.collect();
            if addresses.is_empty() {
                return Err(format!("{host} has no address"));
            }
            all.extend(addresses);
        }
        Ok(all)
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

/// How long an attempt may take with all addresses of a host, and the least that one of them gets.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT_EACH_MIN: Duration = Duration::from_secs(1);

impl Stream {
    /// Looks the host up and connects, including the TLS handshake, to the first of its addresses with which that works.
    pub fn connect(url: &Url, trust: Trust<'_>) -> Result<Stream, String> {
        let tls = if url.tls { Some((client_tls(trust)?, url.server_name()?)) } else { None };
        Stream::connect_to_any(&url.addresses()?, tls.as_ref())
    }

    /// Connects, including the TLS handshake, to the first of these addresses with which that works. All of them together
    /// get 10 s, and each at least one. The error says what became of each.
    pub fn connect_to_any(
        addresses: &[SocketAddr],
        tls: Option<&(Arc<ClientConfig>, ServerName<'static>)>,
    ) -> Result<Stream, String> {
        let began = Instant::now();
        let mut failures = Vec::new();
        for (tried, address) in addresses.iter().enumerate() {
            let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            let timeout = CONNECT_TIMEOUT.saturating_sub(began.elapsed()) / left;
            match Stream::connect_to(*address, tls.cloned(), timeout.max(CONNECT_TIMEOUT_EACH_MIN)) {
                Ok(stream) => return Ok(stream),
                Err(error) => failures.push(error),
            }
        }
        Err(if failures.is_empty() { "there is no address to connect to".to_owned() } else { failures.join("; ") })
    }

    fn connect_to(
        address: SocketAddr,
        tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
        timeout: Duration,
    ) -> Result<Stream, String> {
        let named = |error: io::Error| format!("{address}: {error}");
        let deadline = Instant::now() + timeout;
        let socket = TcpStream::connect_timeout(&address, timeout).map_err(named)?;
        socket.set_nodelay(true).map_err(named)?;
        let stream = Stream::over_until(socket, tls, Some(deadline))?;
        set_timeouts(stream.tcp(), None).map_err(named)?;
        Ok(stream)
    }

    /// On a socket that is connected already; with TLS its handshake comes first.
    pub fn over(socket: TcpStream, tls: Option<(Arc<ClientConfig>, ServerName<'static>)>) -> Result<Stream, String> {
        Stream::over_until(socket, tls, None)
    }

    /// [`Self::over`], with a time at which the whole handshake must be over: a peer that says nothing, or a byte now and then,
    /// does not hold it up. Changes the timeouts of the socket.
    fn over_until(
        socket: TcpStream,
        tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
        deadline: Option<Instant>,
    ) -> Result<Stream, String> {
        let socket = match tls {
            Some((config, name)) => {
                // Asked now: of a connection that was reset there is none.
                let peer = socket.peer_addr().map_or_else(|_| "the gateway".to_owned(), |peer| peer.to_string());
                let connection = ClientConnection::new(config, name).map_err(|error| error.to_string())?;
                let mut stream = StreamOwned::new(connection, socket);
                while stream.conn.is_handshaking() || stream.conn.wants_write() {
                    let stepped = step_handshake(&mut stream.conn, &mut stream.sock, deadline);
                    stepped.map_err(|error| format!("TLS with {peer}: {error}"))?;
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

fn set_timeouts(socket: &TcpStream, timeout: Option<Duration>) -> io::Result<()> {
    socket.set_read_timeout(timeout).and_then(|()| socket.set_write_timeout(timeout))
}

/// One write or read of a handshake.
fn step_handshake(
    connection: &mut ClientConnection,
    socket: &mut TcpStream,
    deadline: Option<Instant>,
) -> io::Result<()> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long");
    if let Some(deadline) = deadline {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(late());
        }
        set_timeouts(socket, Some(left))?;
    }
    let stepped = if connection.wants_write() { connection.write_tls(socket) } else { connection.read_tls(socket) };
    match stepped {
        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
        Err(error) if deadline.is_some() && error.kind() == io::ErrorKind::WouldBlock => return Err(late()),
        Err(error) => return Err(error),
    }
    connection.process_new_packets().map(|_| ()).map_err(|error| {
        // There is an alert for the peer. Whether it arrives changes nothing here.
        let _ = connection.write_tls(socket);
        io::Error::new(io::ErrorKind::InvalidData, error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_handshake_comes_byte_by_byte_then_the_attempt_ends_at_its_deadline() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let trickling = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            // The header of a handshake record of 16 KiB, and then its bytes, each long before a timeout of its own.
            let mut bytes = [22, 3, 3, 64, 0, 2, 0, 63, 252].into_iter().chain(std::iter::repeat(0));
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(20)
                && bytes.next().is_some_and(|byte| socket.write_all(&[byte]).is_ok())
            {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let tls = (client_tls(Trust::Anybody).unwrap(), ServerName::try_from("localhost").unwrap());
        let error = Stream::connect_to(address, Some(tls), Duration::from_millis(500)).err().unwrap();
        trickling.join().unwrap();
        assert_eq!(error, format!("TLS with {address}: the handshake took too long"));
    }

    #[test]
    fn urls() {
        let url = |text: &str| text.parse::<Url>();
        assert_eq!(
            url("tls://example.org:7443"),
            Ok(Url { host: "example.org".into(), port: 7443, others: Vec::new(), tls: true })
        );
        assert_eq!(url("tcp://[::1]:7400"), Ok(Url { host: "::1".into(), port: 7400, others: Vec::new(), tls: false }));
        let several = url("tcp://a.example:1,[::1]:2,127.0.0.1:3").unwrap();
        assert_eq!((several.host.as_str(), several.port), ("a.example", 1));
        assert_eq!(several.others, [("::1".to_owned(), 2), ("127.0.0.1".to_owned(), 3)]);
        assert!(url("tcp://127.0.0.1:1,127.0.0.1").is_err_and(|text| text.contains("has no port")));
        for bad in ["", "example.org:1", "http://a:1", "tcp://a", "tcp://:1", "tcp://a:b", "tcp://a:70000"] {
            assert!(url(bad).unwrap_err().contains("tcp://HOST:PORT"), "{bad}");
        }
        for (bad, part) in [
            ("tcp://a:99999", "has no port from 1 to 65535"),
            ("tcp://a:0", "has no port from 1 to 65535"),
            ("tcp://a:1/b", "has a path"),
            ("tcp://bob:secret@a:1", "the address has a user name in it"),
            ("tls://[::1]", "has no port"),
            ("ws://a:1", "WebSocket, which is not supported yet"),
            ("wss://a", "WebSocket, which is not supported yet"),
        ] {
            assert!(url(bad).unwrap_err().contains(part), "{bad}: {:?}", url(bad));
        }
    }

    /// Bound, so that nobody else gets it, and nobody listens.
    fn nobody() -> (socket2::Socket, SocketAddr) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        (socket, address)
    }

    #[test]
    fn first_addresses_refuse_then_the_next_one_is_tried() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let good = listener.local_addr().unwrap();
        let ((_first, refusing), (_second, refusing_too)) = (nobody(), nobody());
        let stream = Stream::connect_to_any(&[refusing, refusing_too, good], None).unwrap();
        assert_eq!(stream.tcp().peer_addr().unwrap(), good);
        assert_eq!((stream.tcp().read_timeout().unwrap(), stream.tcp().write_timeout().unwrap()), (None, None));
    }

    #[test]
    fn every_address_refuses_then_each_is_named() {
        let ((_first, refusing), (_second, refusing_too)) = (nobody(), nobody());
        let error = Stream::connect_to_any(&[refusing, refusing_too], None).err().unwrap();
        let parts: Vec<_> = error.split("; ").collect();
        assert!(parts.len() == 2 && parts[0].starts_with(&refusing.to_string()), "{error}");
        assert!(parts[1].starts_with(&refusing_too.to_string()), "{error}");
        assert!(Stream::connect_to_any(&[], None).is_err());
    }

    #[test]
    fn tls_handshake_fails_at_one_address_then_the_next_one_is_tried() {
        // The first closes every connection at once.
        let closing = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (closes_at, accepted) =
            (closing.local_addr().unwrap(), std::thread::spawn(move || closing.accept().map(|_| ())));
        let (_nobody, refusing) = nobody();
        let tls = (client_tls(Trust::Anybody).unwrap(), ServerName::try_from("localhost").unwrap());
        let error = Stream::connect_to_any(&[closes_at, refusing], Some(&tls)).err().unwrap();
        accepted.join().unwrap().unwrap();
        assert!(
            error.starts_with(&format!("TLS with {closes_at}: ")) && error.contains(&refusing.to_string()),
            "{error}"
        );
    }
}
