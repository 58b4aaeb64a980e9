//! What the fuzz target of whole TLS connections does with its input; `tests/fuzz_corpus.rs` replays the corpus.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex, OnceLock};

use ringgate_auth::certificate::{dev_certificate, server_config};
use ringgate_net::tls::compact::traffic::{
    ALERT, APPLICATION_DATA, CONTENT_BYTES_MAX, HANDSHAKE, Secret, Suite, TrafficKeys,
};
use ringgate_net::tls::{HANDSHAKE_BYTES_MAX, Tls, UNFINISHED_BYTES_MAX, make_compact};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, KeyLog, ProtocolVersion, RootCertStore, ServerConfig};

/// Memory for bytes that wait, after the handshake: `Vec` may have made twice as much room, and an answer may wait.
const BUFFERED_BYTES_MAX: usize = 2 * UNFINISHED_BYTES_MAX;

/// Both modes of the gateway, and clients of TLS 1.3 and 1.2 alone: made once, a certificate takes long.
struct Ends {
    servers: [Arc<ServerConfig>; 2],
    clients: [ClientConfig; 2],
}

fn ends() -> &'static Ends {
    static ENDS: OnceLock<Ends> = OnceLock::new();
    ENDS.get_or_init(|| {
        let (certificate, key) = dev_certificate().expect("a certificate");
        let server = || server_config(certificate.as_bytes(), key.as_bytes()).expect("a good certificate");
        let mut compact = server();
        make_compact(&mut compact);
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM");
        roots.add(certificate).expect("a certificate");
        let client = |version| {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]);
            builder.expect("a known version").with_root_certificates(roots.clone()).with_no_client_auth()
        };
        Ends {
            servers: [Arc::new(server()), Arc::new(compact)],
            clients: [client(&rustls::version::TLS13), client(&rustls::version::TLS12)],
        }
    })
}

/// What the client writes with, so that records may be sealed that rustls would not.
#[derive(Debug, Default)]
struct Written(Mutex<Vec<u8>>);

impl KeyLog for Written {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        if label == "CLIENT_TRAFFIC_SECRET_0" {
            *self.0.lock().expect("nobody panics with it") = secret.to_vec();
        }
    }
}

/// How a connection begins: compact or not, the client's version, how its hello is cut into records, and how its bytes come.
pub(crate) fn connections(bytes: &[u8]) {
    let [flags, fragment, piece, acts @ ..] = bytes else { return };
    let written = Arc::new(Written::default());
    let mut config = ends().clients[usize::from(flags >> 1 & 1)].clone();
    config.key_log = written.clone();
    let name = "localhost".try_into().expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a good configuration");
    let mut server = Tls::accept(ends().servers[usize::from(flags & 1)].clone()).expect("a good configuration");
    if !shake_hands(&mut server, &mut client, usize::from(*fragment), usize::from(*piece), flags & 4 != 0) {
        return;
    }
    let secret = written.0.lock().expect("nobody panics with it").clone();
    let keys = client.negotiated_cipher_suite().and_then(|suite| Suite::of(suite.suite())).map(|suite| {
        TrafficKeys::new(suite, &Secret::new(&secret).expect("of a hash"), 0).expect("the length of its hash")
    });
    assert_eq!(keys.is_some(), client.protocol_version() == Some(ProtocolVersion::TLSv1_3));
    assert_eq!(server.is_compact(), keys.is_some() && flags & 1 != 0);
    Connection { server, client, keys, said: Vec::new(), heard: Vec::new(), sent_bytes: 0, overhead_bytes: 0 }
        .play(acts);
}

/// False when the gateway has refused the hello, which it does only where it is cut into too many records.
fn shake_hands(server: &mut Tls, client: &mut ClientConnection, fragment: usize, piece: usize, at_once: bool) -> bool {
    for flight in 0.. {
        assert!(flight < 4, "the handshake does not end");
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).expect("a Vec takes everything");
        }
        if flight == 0 && fragment > 0 {
            bytes = bytes[5..]
                .chunks(fragment)
                .flat_map(|part| [&[22, 3, 1, 0, part.len() as u8], part].concat())
                .collect();
        }
        for part in bytes.chunks(if piece == 0 { usize::MAX } else { piece }) {
            if server.is_established() {
                server.receive(&mut part.to_vec(), |_| panic!("nothing was said")).expect("the end of a good flight");
                continue;
            }
            if server.hold_back(part).is_err() {
                assert!(bytes.len() > HANDSHAKE_BYTES_MAX);
                return false;
            }
            assert!(server.buffered_bytes() <= 2 * HANDSHAKE_BYTES_MAX);
            if !at_once {
                server.receive(&mut [], |_| panic!("nothing was said")).expect("a good flight");
            }
        }
        if !server.is_established() {
            server.receive(&mut [], |_| panic!("nothing was said")).expect("a good flight");
        }
        let answer = server.take_outgoing();
        hear(client, &answer);
        if server.is_established() && !client.is_handshaking() && !client.wants_write() {
            return true;
        }
    }
    true
}

/// The client reads; what was in it.
fn hear(client: &mut ClientConnection, mut bytes: &[u8]) -> Vec<u8> {
    let mut plaintext = Vec::new();
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).expect("it reads");
        let state = client.process_new_packets().expect("the gateway's records are good");
        let start = plaintext.len();
        plaintext.resize(start + state.plaintext_bytes_to_read(), 0);
        client.reader().read_exact(&mut plaintext[start..]).expect("that is there");
    }
    plaintext
}

struct Connection {
    server: Tls,
    client: ClientConnection,
    /// Of TLS 1.3.
    keys: Option<TrafficKeys>,
    said: Vec<u8>,
    heard: Vec<u8>,
    sent_bytes: usize,
    overhead_bytes: usize,
}

impl Connection {
    /// An act: what, how many bytes of the input belong to it, and these; see `records`.
    fn play(mut self, mut rest: &[u8]) {
        while let [act, length, later @ ..] = rest {
            let (content, later) = later.split_at(usize::from(*length).min(later.len()));
            rest = later;
            let marked = act & 8 != 0;
            let mut sent = match act % 8 {
                0 => self.data(content, 0),
                1 => self.data(content.get(..content.len().min(8)).unwrap_or_default(), usize::from(*length) * 64),
                2 => {
                    let record = self.seal(&[24, 0, 0, 1, length & 1], HANDSHAKE, 0);
                    if let Some(keys) = &mut self.keys {
                        keys.update().expect("good keys");
                    }
                    record
                }
                // Each byte in a record of its own, as long as a record may be.
                3 if marked => {
                    content.iter().flat_map(|byte| self.seal(&[*byte], HANDSHAKE, CONTENT_BYTES_MAX - 1)).collect()
                }
                3 => self.seal(content, HANDSHAKE, 0),
                4 => self.seal(content, ALERT, 0),
                5 => {
                    // Any type, so that of data, too.
                    if *length == APPLICATION_DATA && self.keys.is_some() {
                        self.said.extend_from_slice(content);
                    }
                    self.seal(content, *length, 0)
                }
                6 => content.to_vec(),
                _ => {
                    self.answer(content);
                    continue;
                }
            };
            if marked
                && act % 8 != 3
                && let Some(byte) = content.first().and_then(|at| sent.get_mut(usize::from(*at)))
            {
                *byte ^= 1 << (length % 8);
            }
            let cut = usize::from(act >> 4) * sent.len() / 15;
            let (one, two) = sent.split_at_mut(cut);
            for piece in [one, two] {
                if !self.send(piece) {
                    return;
                }
            }
        }
    }

    /// Data in a record with so much padding; with TLS 1.2, which has none, as rustls sends it.
    fn data(&mut self, content: &[u8], padding: usize) -> Vec<u8> {
        self.said.extend_from_slice(content);
        if self.keys.is_some() {
            return self.seal(content, APPLICATION_DATA, padding.min(CONTENT_BYTES_MAX - content.len()));
        }
        let mut records = Vec::new();
        self.client.writer().write_all(content).expect("little");
        while self.client.wants_write() {
            self.client.write_tls(&mut records).expect("a Vec takes everything");
        }
        records
    }

    /// One record; with TLS 1.2, one that is not protected.
    fn seal(&mut self, content: &[u8], content_type: u8, padding: usize) -> Vec<u8> {
        let Some(keys) = &mut self.keys else {
            return [&[content_type, 3, 3, 0, content.len() as u8], content].concat();
        };
        let trailer = [&[content_type][..], &vec![0; padding]].concat();
        let mut record = Vec::new();
        keys.seal(&keys.context().expect("good keys"), content, &trailer, &mut record).expect("few records");
        record
    }

    /// The gateway takes it in. False when it has refused it: an error is the last thing that happens.
    fn send(&mut self, piece: &mut [u8]) -> bool {
        self.sent_bytes += piece.len();
        let Connection { server, heard, .. } = self;
        let result = server.receive(piece, |plaintext| heard.extend_from_slice(plaintext));
        assert!(self.said.starts_with(&self.heard), "only what was sealed");
        let buffered = self.server.buffered_bytes();
        assert!(buffered <= BUFFERED_BYTES_MAX, "{buffered} bytes are kept");
        match result {
            Ok(progress) => {
                self.overhead_bytes += progress.overhead_bytes;
                assert!(self.overhead_bytes + self.heard.len() <= self.sent_bytes, "counted twice");
                true
            }
            Err(_) => {
                self.server.take_outgoing();
                assert!(self.server.receive(&mut [0], |_| panic!("no data")).is_err());
                assert!(self.server.encrypt(b"more", &mut Vec::new()).is_err());
                assert!(self.server.buffered_bytes() <= BUFFERED_BYTES_MAX);
                false
            }
        }
    }

    /// The gateway says something; the client can read it, whatever has happened.
    fn answer(&mut self, content: &[u8]) {
        let mut out = self.server.take_outgoing();
        self.server.encrypt(content, &mut out).expect("nothing has failed");
        assert_eq!(hear(&mut self.client, &out), content);
    }
}
