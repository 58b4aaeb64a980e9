//! A TLS client that seals its records itself: it may send what no library would.

use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use ringgate_net::dial::{Trust, client_tls};
use ringgate_net::tls::compact::traffic::{APPLICATION_DATA, Secret, Suite, TrafficKeys};
use rustls::ClientConnection;
use rustls_pki_types::ServerName;

/// What the client writes with, taken out of the handshake.
#[derive(Debug, Default)]
struct Written(Mutex<Vec<u8>>);

impl rustls::KeyLog for Written {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        if label == "CLIENT_TRAFFIC_SECRET_0" {
            *self.0.lock().unwrap() = secret.to_vec();
        }
    }
}

/// A connection of TLS 1.3 behind its handshake.
pub(crate) struct Sealing {
    pub(crate) keys: TrafficKeys,
    pub(crate) socket: TcpStream,
}

impl Sealing {
    /// Shakes hands on this socket.
    pub(crate) fn over(mut socket: TcpStream, trust: Trust<'_>) -> Sealing {
        let written = Arc::new(Written::default());
        let mut config = (*client_tls(trust).unwrap()).clone();
        config.key_log = written.clone();
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = ClientConnection::new(Arc::new(config), name).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).unwrap();
        }
        while tls.wants_write() {
            tls.write_tls(&mut socket).unwrap();
        }
        let suite = Suite::of(tls.negotiated_cipher_suite().unwrap().suite()).unwrap();
        let secret = Secret::new(&written.0.lock().unwrap()).unwrap();
        Sealing { keys: TrafficKeys::new(suite, &secret, 0).unwrap(), socket }
    }

    /// A record of this content and type, and so much padding.
    pub(crate) fn record(&mut self, content: &[u8], content_type: u8, padding: usize) -> Vec<u8> {
        let mut record = Vec::new();
        let trailer = [&[content_type][..], &vec![0; padding]].concat();
        self.keys.seal(&self.keys.context().unwrap(), content, &trailer, &mut record).unwrap();
        record
    }

    /// A record of application data.
    pub(crate) fn data(&mut self, content: &[u8]) -> Vec<u8> {
        self.record(content, APPLICATION_DATA, 0)
    }
}
