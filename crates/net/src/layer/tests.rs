//! WebSocket over real sockets: a client in a thread of its own, plain and over TLS, against a driver that echoes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringgate_auth::certificate::{dev_certificate, server_config};
use ringgate_core::close::CloseReason;
use ringgate_core::id::ConnectionKey;
use ringgate_core::metrics::ShardMetrics;
use ringgate_core::outbox::{Arrival, Chunk, Delivery};
use ringgate_core::transport::{Handshake, Transport};
use ringgate_core::wire::ws::{Decoder, FrameHeader, Item, Opcode, Peer, Std, append_client_frame, append_close, code};

use crate::dial::{Trust, client_tls};
use crate::tls::make_compact;
use crate::ws::{Accepted, Failure, Refusal, Rules, Subprotocol};
use crate::{Bell, Descriptors, Driver, Net, NetOptions};

/// As long as a test may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
const KEY: [u8; 4] = [9, 8, 7, 6];

/// What carries the WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Under {
    Tcp,
    Tls,
    CompactTls,
}

const ALL: [Under; 3] = [Under::Tcp, Under::Tls, Under::CompactTls];

/// Echoes what it receives, and writes down what it is told.
#[derive(Default)]
struct Echo {
    key: Option<ConnectionKey>,
    turned_away: bool,
    refuses: bool,
    /// What a client over TLS sends in one piece with the end of its handshake.
    early: Vec<u8>,
    /// Once the client has ended, its socket is closed only when this has come.
    waits_for: Option<mpsc::Receiver<()>>,
    secured: usize,
    upgraded: Vec<Accepted>,
    received: Vec<u8>,
    overhead_bytes: usize,
    queue: Vec<Chunk>,
    failures: Vec<Failure>,
    ended: Vec<CloseReason>,
    freed: bool,
}

impl Driver for Echo {
    fn opened(&mut self, key: ConnectionKey, _: SocketAddr, _: Transport, _: bool) -> bool {
        self.turned_away = self.refuses;
        self.key = Some(key);
        !self.refuses
    }
    fn secured(&mut self, _: ConnectionKey, _: Handshake) {
        assert!(self.upgraded.is_empty(), "TLS comes first");
        self.secured += 1;
    }
    fn upgraded(&mut self, _: ConnectionKey, accepted: &Accepted) {
        assert!(self.received.is_empty(), "the request comes first");
        self.upgraded.push(accepted.clone());
    }
    fn received(&mut self, _: ConnectionKey, bytes: &[u8]) {
        assert!(self.ended.is_empty(), "nothing is read behind the end");
        self.received.extend_from_slice(bytes);
        self.queue.push(data(bytes));
    }
    fn carried(&mut self, _: ConnectionKey, overhead_bytes: usize) {
        self.overhead_bytes += overhead_bytes;
    }
    fn websocket_failed(&mut self, _: ConnectionKey, failure: &Failure) {
        self.failures.push(failure.clone());
    }
    fn ended(&mut self, _: ConnectionKey, reason: CloseReason) {
        self.ended.push(reason);
    }
    fn freed(&mut self, _: ConnectionKey) {
        self.freed = true;
    }
    fn pull(&mut self, _: ConnectionKey) -> Option<Chunk> {
        (!self.queue.is_empty()).then(|| self.queue.remove(0))
    }
    fn recycle(&mut self, _: ConnectionKey, _: Vec<u8>) {}
}

fn data(bytes: &[u8]) -> Chunk {
    Chunk::Data(Delivery { frame: Bytes::copy_from_slice(bytes), arrival: Arrival::UNTIMED })
}

/// The client's end of a connection, whatever carries it.
trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

struct Client {
    stream: Box<dyn Stream>,
    socket: TcpStream,
    /// Bytes that came and were not looked at.
    read: Vec<u8>,
}

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.stream.flush().unwrap();
    }

    fn send_frame(&mut self, fin: bool, opcode: Opcode, payload: &[u8]) {
        let mut out = Vec::new();
        append_client_frame(fin, opcode, payload, KEY, &mut out);
        self.send(&out);
    }

    /// Reads until the bytes so far are enough for `take`.
    fn read_until<T>(&mut self, take: impl Fn(&[u8]) -> Option<(T, usize)>) -> T {
        loop {
            if let Some((value, used)) = take(&self.read) {
                self.read.drain(..used);
                return value;
            }
            let mut buffer = [0; 4096];
            let length = self.stream.read(&mut buffer).expect("more comes");
            assert!(length > 0, "the stream ends with {:?}", self.read.escape_ascii().to_string());
            self.read.extend_from_slice(&buffer[..length]);
        }
    }

    /// The head of an answer of HTTP, with its empty line.
    fn head(&mut self) -> String {
        self.read_until(|bytes| {
            let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
            Some((String::from_utf8(bytes[..end].to_vec()).unwrap(), end))
        })
    }

    fn upgrade(&mut self) {
        self.send(REQUEST.as_bytes());
        let head = self.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("\r\nSec-WebSocket-Protocol: ringgate.v1\r\n"), "{head}");
    }

    /// The next frame, which has to be whole: a server of ours sends no fragments.
    fn frame(&mut self) -> (Opcode, Vec<u8>) {
        self.read_until(|bytes| {
            let first = *bytes.first()?;
            let opcodes = [Opcode::Binary, Opcode::Close, Opcode::Ping, Opcode::Pong];
            let opcode = opcodes.into_iter().find(|opcode| 0x80 | *opcode as u8 == first).expect("a whole frame");
            let length = match *bytes.get(1)? {
                126 => usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap())),
                127 => u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap()) as usize,
                length => usize::from(length),
            };
            let header = FrameHeader::new(true, opcode, length).len();
            let payload = bytes.get(header..header + length)?;
            Some(((opcode, payload.to_vec()), header + length))
        })
    }

    /// The code and the reason of the Close that comes next, and that nothing follows.
    fn close(&mut self) -> (u16, String) {
        let (opcode, body) = self.frame();
        assert_eq!(opcode, Opcode::Close);
        self.end();
        let code = u16::from_be_bytes(body[..2].try_into().unwrap());
        (code, String::from_utf8(body[2..].to_vec()).unwrap())
    }

    /// Nothing comes any more. Over TLS, rustls makes an error of an end without close_notify.
    fn end(&mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("the stream ends as it should");
        assert_eq!((self.read.escape_ascii().to_string(), rest.escape_ascii().to_string()), Default::default());
    }
}

const REQUEST: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: ringgate.v1\r\n\r\n";

/// Runs a client beside a `Net` until it has returned and its socket is freed. `each_turn` is called between turns.
fn run(
    under: Under,
    rules: Rules,
    mut driver: Echo,
    client: impl FnOnce(Client) + Send + 'static,
    mut each_turn: impl FnMut(&mut Net, &mut Echo),
) -> Echo {
    let options = NetOptions {
        slots: 8,
        descriptors: Descriptors::for_this_kernel(),
        recv_buffers: 64,
        accepts_in_flight: 1,
        ..NetOptions::default()
    };
    let mut net = Net::new(options, Arc::new(ShardMetrics::default()), &Bell::new().unwrap()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut tls = None;
    if under != Under::Tcp {
        let (certificate, key) = dev_certificate().unwrap();
        let mut config = server_config(certificate.as_bytes(), key.as_bytes()).unwrap();
        if under == Under::CompactTls {
            make_compact(&mut config);
        }
        net.set_server_tls(Arc::new(config));
        tls = Some(client_tls(Trust::Pem(certificate.as_bytes())).unwrap());
    }
    let transport = if tls.is_some() { Transport::Tls } else { Transport::Plain };
    net.listen_websocket(listener, transport, rules);
    let early = std::mem::take(&mut driver.early);
    let client = thread::spawn(move || {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let carrier = socket.try_clone().unwrap();
        let stream: Box<dyn Stream> = match tls {
            None => Box::new(carrier),
            Some(config) => {
                let name = "localhost".try_into().unwrap();
                let mut session = rustls::ClientConnection::new(config, name).unwrap();
                session.writer().write_all(&early).unwrap();
                Box::new(rustls::StreamOwned::new(session, carrier))
            }
        };
        client(Client { stream, socket, read: Vec::new() });
    });
    let began = Instant::now();
    while !(client.is_finished() && (driver.freed || driver.turned_away)) {
        assert!(began.elapsed() < DEADLINE, "not within {DEADLINE:?}: ended {:?}", driver.ended);
        net.poll(&mut driver);
        if let Some(key) = driver.key {
            net.flush(key, &mut driver);
            if !driver.ended.is_empty() {
                if let Some(signal) = driver.waits_for.take() {
                    signal.recv_timeout(DEADLINE).unwrap();
                    // What has come before the signal is taken in first.
                    for _ in 0..3 {
                        net.wait(Duration::from_millis(5));
                        net.poll(&mut driver);
                    }
                }
                net.close(key, true, &mut driver);
            }
        }
        each_turn(&mut net, &mut driver);
        net.wait(Duration::from_millis(5));
    }
    client.join().unwrap();
    driver
}

fn run_echo(under: Under, client: impl FnOnce(Client) + Send + 'static) -> Echo {
    run(under, Rules::default(), Echo::default(), client, |_, _| {})
}

#[test]
fn client_speaks_websocket_then_messages_pings_and_the_close_are_answered() {
    for under in ALL {
        let driver = run_echo(under, |mut client| {
            client.upgrade();
            client.send_frame(false, Opcode::Binary, b"one ");
            client.send_frame(true, Opcode::Ping, b"still there?");
            client.send_frame(true, Opcode::Continuation, b"two ");
            client.send_frame(true, Opcode::Binary, b"three");
            client.send_frame(true, Opcode::Pong, b"of nothing");
            let (mut echoed, mut pongs) = (Vec::new(), Vec::new());
            while echoed.len() < "one two three".len() || pongs.is_empty() {
                match client.frame() {
                    (Opcode::Binary, bytes) => echoed.extend(bytes),
                    (Opcode::Pong, bytes) => pongs.push(bytes),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(echoed, b"one two three");
            assert_eq!(pongs, [b"still there?"]);
            let mut body = Vec::new();
            append_close(code::GOING_AWAY, "tab closed", &mut body);
            client.send_frame(true, Opcode::Close, &body);
            assert_eq!(client.close(), (code::GOING_AWAY, String::new()), "the code comes back");
        });
        assert_eq!(driver.received, b"one two three", "{under:?}");
        assert_eq!(driver.upgraded.len(), 1);
        assert_eq!(driver.upgraded[0].subprotocol, Subprotocol::Binary);
        assert_eq!(
            (driver.secured, driver.ended),
            (usize::from(under != Under::Tcp), vec![CloseReason::ConnectionClosed])
        );
        // Six headers of six bytes, and what the control frames carried.
        let frames = 6 * 6 + "still there?".len() + "of nothing".len() + 2 + "tab closed".len();
        match under {
            Under::Tcp => assert_eq!(driver.overhead_bytes, frames),
            Under::Tls | Under::CompactTls => assert!(driver.overhead_bytes > frames, "and those of records"),
        }
    }
}

#[test]
fn request_comes_byte_by_byte_then_it_is_accepted() {
    let driver = run_echo(Under::Tcp, |mut client| {
        for byte in REQUEST.as_bytes() {
            client.send(&[*byte]);
        }
        assert!(client.head().starts_with("HTTP/1.1 101 "));
        client.send_frame(true, Opcode::Binary, b"x");
        assert_eq!(client.frame(), (Opcode::Binary, b"x".to_vec()));
        client.send_frame(true, Opcode::Close, b"");
        assert_eq!(client.frame(), (Opcode::Close, vec![]), "no code for no code");
        client.end();
    });
    assert_eq!((driver.received, driver.ended), (b"x".to_vec(), vec![CloseReason::ConnectionClosed]));
}

#[test]
fn request_is_refused_then_the_answer_arrives_and_the_connection_ends() {
    let large = REQUEST.replace("Host:", &format!("X: {}\r\nHost:", "y".repeat(9000)));
    let early = [REQUEST.as_bytes(), &[0x82, 0x80, 0, 0, 0, 0]].concat();
    let cases = [
        (REQUEST.replace("/ws", "/elsewhere").into_bytes(), 404),
        (REQUEST.replace("GET", "PUT").into_bytes(), 405),
        (REQUEST.replace("Upgrade: websocket\r\n", "").into_bytes(), 426),
        (REQUEST.replace("Host:", "Origin: http://evil.test\r\nHost:").into_bytes(), 403),
        (large.into_bytes(), 431),
        (early, 400),
        // A frame of TCP's protocol, and the beginning of TLS: no line of them ends.
        (vec![0, 0, 0, 9, 1], 400),
        (vec![22, 3, 1, 2, 0, 1], 400),
    ];
    for under in ALL {
        for (request, status) in cases.clone() {
            let shown = request.clone();
            let driver = run_echo(under, move |mut client| {
                client.send(&request);
                let head = client.head();
                assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
                let length: usize =
                    head.split("Content-Length: ").nth(1).unwrap().split('\r').next().unwrap().parse().unwrap();
                let body = client.read_until(|bytes| Some((bytes.get(..length)?.to_vec(), length)));
                assert!(body.ends_with(b".\n"), "a sentence");
                client.end();
            });
            assert_eq!(driver.ended, [CloseReason::BadRequest], "{under:?} {:?}", shown.escape_ascii().to_string());
            assert!(driver.upgraded.is_empty() && driver.received.is_empty());
            assert_eq!(driver.secured, usize::from(under != Under::Tcp), "TLS was agreed on");
            match &driver.failures[..] {
                [Failure::Refused(refusal)] => assert_eq!(refusal.status(), status),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn client_breaks_a_rule_then_the_close_names_it_although_more_is_sent() {
    let not_masked = [0x82, 1, 7].to_vec();
    let mut text = Vec::new();
    append_client_frame(true, Opcode::Text, b"hello", KEY, &mut text);
    let too_long = FrameHeader::masked(true, Opcode::Binary, 5000, KEY).to_vec();
    let cases = [
        (not_masked, code::PROTOCOL_ERROR, "masked", CloseReason::BadRequest),
        (text, code::UNSUPPORTED_DATA, "binary", CloseReason::BadRequest),
        (too_long, code::TOO_BIG, "4096", CloseReason::FrameTooBig),
    ];
    for under in ALL {
        for (bytes, code, says, reason) in cases.clone() {
            let rules = Rules { message_bytes_max: 4096, ..Rules::default() };
            let client = move |mut client: Client| {
                client.upgrade();
                client.send_frame(true, Opcode::Binary, b"before");
                assert_eq!(client.frame(), (Opcode::Binary, b"before".to_vec()));
                // What follows is more than the gateway's socket holds back: it is thrown away, and resets nothing.
                client.send(&bytes);
                client.send(&vec![7; 300_000]);
                let (said, why) = client.close();
                assert_eq!(said, code, "{why}");
                assert!(why.contains(says), "{why}");
            };
            let driver = run(under, rules, Echo::default(), client, |_, _| {});
            assert_eq!((&driver.received[..], driver.ended), (&b"before"[..], vec![reason]), "{under:?}");
            assert_eq!(driver.failures.len(), 1);
        }
    }
}

#[test]
fn driver_closes_with_a_reason_then_the_client_reads_everything_and_its_code() {
    for under in ALL {
        let mut closed = false;
        let each_turn = move |net: &mut Net, driver: &mut Echo| {
            if !closed && driver.received == b"go" {
                closed = true;
                let key = driver.key.unwrap();
                driver.queue = vec![data(b"last "), data(b"words")];
                net.explain(key, CloseReason::Shutdown);
                net.close(key, true, driver);
            }
        };
        let client = |mut client: Client| {
            client.upgrade();
            client.send_frame(true, Opcode::Binary, b"go");
            let mut read = Vec::new();
            while !read.ends_with(b"last words") {
                let (opcode, bytes) = client.frame();
                assert_eq!(opcode, Opcode::Binary);
                read.extend(bytes);
            }
            assert_eq!(client.close(), (3001, String::new()));
        };
        let driver = run(under, Rules::default(), Echo::default(), client, each_turn);
        assert!(driver.failures.is_empty() && driver.freed, "{under:?}");
    }
}

#[test]
fn much_is_queued_then_it_arrives_in_messages_with_headers_of_every_length() {
    // One frame alone, several together, one above what is copied, and more than one send carries.
    let sizes: [&[usize]; 6] = [&[1], &[125], &[126], &[60, 70, 80], &[65_536], &[30_000, 30_000, 30_000, 30_000]];
    for under in ALL {
        let mut next = 0;
        let each_turn = move |_: &mut Net, driver: &mut Echo| {
            // Each byte that is received asks for the next.
            while next < driver.received.len() {
                driver.queue = sizes[next].iter().map(|bytes| data(&vec![next as u8; *bytes])).collect();
                next += 1;
            }
        };
        let client = move |mut client: Client| {
            client.upgrade();
            for (index, sizes) in sizes.iter().enumerate() {
                client.send_frame(true, Opcode::Binary, &[0xff]);
                let (wanted, mut bytes) = (sizes.iter().sum::<usize>(), 0);
                while bytes < wanted {
                    let (opcode, payload) = client.frame();
                    assert_eq!(opcode, Opcode::Binary);
                    // The echo of what was asked with may have been on its way.
                    bytes += payload.iter().filter(|byte| **byte == index as u8).count();
                }
                assert_eq!(bytes, wanted);
            }
            client.send_frame(true, Opcode::Close, b"");
            while client.frame().0 != Opcode::Close {}
            client.end();
        };
        let driver = run(under, Rules::default(), Echo::default(), client, each_turn);
        assert_eq!(driver.received.len(), sizes.len(), "{under:?}");
    }
}

#[test]
fn client_is_turned_away_then_it_is_told_when_to_come_back() {
    let client = |mut client: Client| {
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        let after = head.split("Retry-After: ").nth(1).and_then(|rest| rest.split('\r').next());
        let after: u32 = after.expect("it says when").parse().unwrap();
        assert!((5..=10).contains(&after), "{after}");
        assert!(String::from_utf8(client.read).unwrap().contains(&Refusal::Unavailable(after).sentence()));
    };
    let driver = run(Under::Tcp, Rules::default(), Echo { refuses: true, ..Echo::default() }, client, |_, _| {});
    assert!(driver.turned_away && driver.upgraded.is_empty());
}

#[test]
fn request_comes_with_the_end_of_the_tls_handshake_then_both_are_told_in_their_order() {
    for under in [Under::Tls, Under::CompactTls] {
        let accepted = Echo { early: REQUEST.as_bytes().to_vec(), ..Echo::default() };
        let client = |mut client: Client| {
            client.stream.flush().unwrap();
            assert!(client.head().starts_with("HTTP/1.1 101 "));
            client.send_frame(true, Opcode::Close, b"");
            assert_eq!(client.frame(), (Opcode::Close, vec![]));
            client.end();
        };
        let driver = run(under, Rules::default(), accepted, client, |_, _| {});
        assert_eq!((driver.secured, driver.upgraded.len()), (1, 1), "{under:?}");
        let refused = Echo { early: REQUEST.replace("GET", "PUT").into_bytes(), ..Echo::default() };
        let client = |mut client: Client| {
            client.stream.flush().unwrap();
            assert!(client.head().starts_with("HTTP/1.1 405 "));
        };
        let driver = run(under, Rules::default(), refused, client, |_, _| {});
        assert_eq!((driver.secured, driver.failures.len()), (1, 1), "{under:?}");
    }
}

#[test]
fn refused_client_has_shut_its_side_then_it_reads_the_answer_and_the_socket_is_freed() {
    let (signal, waits_for) = mpsc::channel();
    let driver = Echo { waits_for: Some(waits_for), ..Echo::default() };
    let client = move |mut client: Client| {
        client.send(REQUEST.replace("GET", "PUT").as_bytes());
        client.socket.shutdown(Shutdown::Write).unwrap();
        signal.send(()).unwrap();
        assert!(client.head().starts_with("HTTP/1.1 405 "));
    };
    let driver = run(Under::Tcp, Rules::default(), driver, client, |_, _| {});
    assert_eq!(driver.ended, [CloseReason::BadRequest], "the driver is told once");
}

#[test]
fn client_vanishes_in_the_middle_of_a_frame_then_the_driver_is_told() {
    for under in ALL {
        let driver = run_echo(under, |mut client| {
            client.upgrade();
            client.send(&[0x82, 0x85, 1, 2, 3, 4, 5]);
        });
        assert_eq!(driver.received.len(), 1, "{under:?}");
        assert_eq!(driver.ended.len(), 1);
    }
}

#[test]
fn frames_of_the_client_side_decoder_then_what_a_server_of_ours_sends_is_right() {
    let driver = run_echo(Under::Tcp, |mut client| {
        client.upgrade();
        client.send_frame(true, Opcode::Binary, &[5; 3000]);
        let mut decoder = Decoder::new(Peer::Server, 1 << 20);
        let mut content = 0;
        while content < 3000 {
            let mut buffer = [0; 512];
            let length = client.stream.read(&mut buffer).unwrap();
            let read = decoder.read::<Std>(&mut buffer[..length], |item| match item {
                Item::Data { bytes, .. } => content += bytes.iter().filter(|byte| **byte == 5).count(),
                other => panic!("{other:?}"),
            });
            assert_eq!(read, Ok(()));
        }
    });
    assert_eq!(driver.received.len(), 3000);
}
