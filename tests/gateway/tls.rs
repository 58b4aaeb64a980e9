//! TLS from outside: versions, trust, long records both ways, and how such a connection ends.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use ringgate::config::dev_certificate;
use ringgate_core::close::CloseReason;
use ringgate_core::transport::Transport;
use ringgate_core::wire::Encoder;
use ringgate_core::wire::encode::{ConnectRequest, PublishRequest};
use ringgate_net::dial::{Stream, Trust};
use ringgate_net::shrink_buffers;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

use crate::support::{Client, DEADLINE, Gateway, Login, Process, TlsMemory, connect_frame, wait_until};

/// A client's settings for one version alone.
fn only(version: &'static SupportedProtocolVersion, certificate: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

fn server_name() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

/// A TLS stream with nothing of ours on it.
fn raw_tls(gateway: &Gateway) -> StreamOwned<ClientConnection, TcpStream> {
    let config = only(&rustls::version::TLS13, &gateway.certificate);
    let socket = TcpStream::connect(gateway.tls()).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    StreamOwned::new(ClientConnection::new(config, server_name()).unwrap(), socket)
}

fn tls_closes(gateway: &Gateway, reason: CloseReason) -> u64 {
    gateway.sum(|m| &m.closes[Transport::Tls][reason])
}

#[test]
fn tls_1_2_or_1_3_then_long_messages_go_both_ways() {
    const MESSAGES: usize = 40;
    for (gateway, memory) in Gateway::of_each_tls_memory() {
        for (round, version) in (1..).zip([&rustls::version::TLS12, &rustls::version::TLS13]) {
            let mut pair = ["alice", "bob"].map(|user| {
                let socket = TcpStream::connect(gateway.tls()).unwrap();
                let tls = Some((only(version, &gateway.certificate), server_name()));
                let mut client = gateway.client_over(Stream::over(socket, tls).unwrap());
                client.sign_in(&Login::user(user));
                client
            });
            let [alice, bob] = &mut pair;
            // Each is several records of 16 KiB at most; sizes around the bound among them.
            let sizes = [16_000, 16_383, 16_384, 16_385, 32_768, 65_536, 1, 0];
            let payload = |number: usize| vec![number as u8; sizes[number % sizes.len()]];
            for number in 0..MESSAGES {
                alice.publish("@bob", payload(number));
                bob.publish("@alice", payload(number));
            }
            for client in [alice, bob] {
                for number in 0..MESSAGES {
                    let message = client.message();
                    let (length, stamp) = (message.payload.len(), message.stamp);
                    assert!(
                        message.payload == payload(number),
                        "message {number} under {version:?}: {length} B, {stamp:?}"
                    );
                    client.ack(stamp.position);
                }
            }
            // A client that signs in before the gateway has read the last Acks is sent those messages again.
            gateway.wait_for("acknowledged", round * 2 * MESSAGES as u64, |m| &m.inbox_acked);
        }
        assert_eq!(gateway.handshakes(), [4, 0]);
        let compacted = if memory == TlsMemory::Compact { 2 } else { 0 };
        assert_eq!(gateway.sum(|m| &m.tls_compacted), compacted, "those of TLS 1.3");
        gateway.finish();
    }
}

#[test]
fn one_client_is_plain_and_one_tls_then_they_talk() {
    let gateway = Gateway::start();
    let mut secured = gateway.tls_client();
    secured.sign_in(&Login::user("secured"));
    let mut plain = gateway.sign_in("plain");
    for client in [&mut secured, &mut plain] {
        client.subscribe("chat:a");
    }
    secured.publish("@plain", "one");
    plain.publish("@secured", "two");
    plain.publish("chat:a", "three");
    assert_eq!(plain.texts(2), ["one", "three"]);
    assert_eq!(secured.texts(2), ["two", "three"]);
    gateway.finish();
}

#[test]
fn client_trusts_another_certificate_then_it_does_not_connect() {
    let gateway = Gateway::start();
    let (other, _) = dev_certificate().unwrap();
    let error = Client::open(gateway.tls(), true, Trust::Pem(other.as_bytes())).err().unwrap();
    assert!(error.contains("certificate"), "{error}");
    // The client's alert races with its reset of the socket.
    let heard = [CloseReason::TlsError, CloseReason::ConnectionReset, CloseReason::ConnectionClosed];
    wait_until("the gateway has heard", || heard.iter().map(|reason| tls_closes(&gateway, *reason)).sum::<u64>() == 1);
    assert_eq!(gateway.handshakes(), [0, 0]);
    gateway.finish();
}

#[test]
fn plain_bytes_on_the_tls_port_then_the_connection_ends() {
    let gateway = Gateway::start();
    let connect = connect_frame("alice");
    for bytes in [&connect[..], b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", &[0; 64]] {
        let mut socket = TcpStream::connect(gateway.tls()).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.write_all(bytes).unwrap();
        let mut said = Vec::new();
        // A reset is an end, too.
        let _ = socket.read_to_end(&mut said);
        assert!(said.is_empty() || said[0] == 0x15, "at most an alert: {said:?}");
    }
    wait_until("all are closed", || tls_closes(&gateway, CloseReason::TlsError) == 3);
    gateway.finish();
}

#[test]
fn tls_fails_then_the_log_says_why() {
    let gateway = Process::dev_gateway(&[]);
    let address = gateway.url("tls").trim_start_matches("tls://").to_owned();
    for (bytes, why) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "received corrupt message of type InvalidContentType"),
        // A ClientHello is announced and an alert comes: the client does not trust the certificate, say.
        (&[21, 3, 1, 0, 2, 2, 48], "received fatal alert: UnknownCA"),
        // A ClientHello of 65 535 bytes, one byte in each record: 78 000 bytes, and it is far from its end.
        (
            &[[22, 3, 1, 0, 4, 1, 0, 255, 255].as_slice(), &[22, 3, 1, 0, 1, 0].repeat(13_000)].concat(),
            "an unfinished handshake message",
        ),
    ] {
        let mut socket = TcpStream::connect(&address).unwrap();
        // It may be closed before all is written.
        let _ = socket.write_all(bytes);
        gateway.error_line(why, |line| line.contains("code=3511") && line.contains(why));
    }
}

#[test]
fn gateway_ends_a_tls_connection_then_close_notify_follows_goodbye() {
    for (gateway, _) in Gateway::of_each_tls_memory() {
        let mut stream = raw_tls(&gateway);
        let mut connect = Vec::new();
        Encoder::default()
            .connect(&mut connect, &ConnectRequest { request: 1, token: "garbage", ..Default::default() });
        stream.write_all(&connect).unwrap();
        let mut said = Vec::new();
        // rustls calls it an error when the stream ends without close_notify.
        stream.read_to_end(&mut said).unwrap();
        assert_eq!(said[4], 140, "Goodbye");
        drop(stream);
        gateway.finish();
    }
}

#[test]
fn client_sends_close_notify_then_the_connection_ends() {
    for (gateway, _) in Gateway::of_each_tls_memory() {
        let mut stream = raw_tls(&gateway);
        stream.write_all(&connect_frame("alice")).unwrap();
        gateway.wait_for("sessions", 1, |m| &m.sessions_active);
        stream.conn.send_close_notify();
        stream.flush().unwrap();
        wait_until("the session has ended", || tls_closes(&gateway, CloseReason::ConnectionClosed) == 1);
        gateway.wait_for("slots", 0, |m| &m.ring_slots_used);
        // Answered with close_notify: rustls calls it an error when the stream ends without.
        let mut said = Vec::new();
        stream.read_to_end(&mut said).unwrap();
        assert_eq!(said[4], 128, "Connected");
        drop(stream);
        gateway.finish();
    }
}

#[test]
fn record_was_tampered_with_then_the_connection_ends() {
    for (gateway, _) in Gateway::of_each_tls_memory() {
        let mut stream = raw_tls(&gateway);
        stream.write_all(&connect_frame("alice")).unwrap();
        gateway.wait_for("sessions", 1, |m| &m.sessions_active);
        let mut record = Vec::new();
        stream.conn.writer().write_all(&[0; 100]).unwrap();
        stream.conn.write_tls(&mut record).unwrap();
        *record.last_mut().unwrap() ^= 1;
        // The answer to Connect is read first: an alert that found it on its way would not be waited for.
        stream.read_exact(&mut [0; 8]).unwrap();
        stream.sock.write_all(&record).unwrap();
        let error = stream.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("BadRecordMac"), "{error}");
        wait_until("the session has ended", || tls_closes(&gateway, CloseReason::TlsError) == 1);
        drop(stream);
        gateway.finish();
    }
}

/// A client that sends everything at once: the end of the handshake, half a frame, a key update, the other half.
#[test]
fn frames_come_with_the_end_of_the_handshake_then_they_are_answered() {
    for (gateway, _) in Gateway::of_each_tls_memory() {
        let mut stream = raw_tls(&gateway);
        while stream.conn.is_handshaking() {
            if stream.conn.wants_write() {
                stream.conn.write_tls(&mut stream.sock).unwrap();
            } else {
                stream.conn.read_tls(&mut stream.sock).unwrap();
                stream.conn.process_new_packets().unwrap();
            }
        }
        let connect = connect_frame("alice");
        let (first, second) = connect.split_at(connect.len() / 2);
        stream.conn.writer().write_all(first).unwrap();
        stream.conn.refresh_traffic_keys().unwrap();
        stream.conn.writer().write_all(second).unwrap();
        let mut flight = Vec::new();
        while stream.conn.wants_write() {
            stream.conn.write_tls(&mut flight).unwrap();
        }
        stream.sock.write_all(&flight).unwrap();
        let mut header = [0; 8];
        stream.read_exact(&mut header).unwrap();
        assert_eq!(header[4], 128, "Connected");
        drop(stream);
        gateway.finish();
    }
}

#[test]
fn client_updates_its_keys_then_messages_go_on() {
    for (gateway, _) in Gateway::of_each_tls_memory() {
        let mut bob = gateway.tls_client();
        bob.sign_in(&Login::user("bob"));
        let mut stream = raw_tls(&gateway);
        let mut frames = connect_frame("alice");
        stream.write_all(&frames).unwrap();
        gateway.wait_for("sessions", 2, |m| &m.sessions_active);
        // Each is answered by an update of the gateway's own: its next messages come with new keys.
        for round in 0..50u32 {
            stream.conn.refresh_traffic_keys().unwrap();
            let text = round.to_string();
            frames.clear();
            let publish = PublishRequest { request: 2, topic: "@bob", payload: text.as_bytes(), ..Default::default() };
            Encoder::default().publish(&mut frames, &publish);
            stream.write_all(&frames).unwrap();
            assert_eq!(bob.message().text(), text);
            bob.publish("@alice", format!("<{text}>"));
            let (mut heard, wanted) = (Vec::new(), format!("<{text}>"));
            while !heard.windows(wanted.len()).any(|window| window == wanted.as_bytes()) {
                let start = heard.len();
                heard.resize(start + 4096, 0);
                let read = stream.read(&mut heard[start..]).unwrap();
                assert!(read > 0, "the connection has ended");
                heard.truncate(start + read);
            }
        }
        drop(stream);
        gateway.finish();
    }
}

#[test]
fn client_half_closes_with_close_notify_while_messages_flow_then_records_are_whole_and_it_is_answered() {
    const PAYLOAD: usize = 30_000;
    for memory in [TlsMemory::Ordinary, TlsMemory::Compact] {
        let gateway = Gateway::with(|config| {
            if memory == TlsMemory::Compact {
                config.make_tls_compact();
            }
            let client = &mut config.settings.client;
            (client.messages_rate, client.bytes_rate) = (0, 0);
        });
        let mut stream = raw_tls(&gateway);
        shrink_buffers(&stream.sock, 64 * 1024).unwrap();
        stream.write_all(&connect_frame("alice")).unwrap();
        gateway.wait_for("sessions", 1, |m| &m.sessions_active);
        let mut bob = gateway.sign_in("bob");
        // Alice reads nothing: in the end a send waits in the kernel, and others behind it.
        wait_until("a send waits for the client", || {
            bob.publish("@alice", vec![7; PAYLOAD]);
            gateway.sum(|m| &m.deliveries_queued) >= 4
        });
        stream.conn.send_close_notify();
        stream.flush().unwrap();
        stream.sock.shutdown(std::net::Shutdown::Write).unwrap();
        wait_until("the session has ended", || tls_closes(&gateway, CloseReason::ConnectionClosed) == 1);
        // rustls calls it an error when the stream ends within a record, or without close_notify.
        let mut said = Vec::new();
        stream.read_to_end(&mut said).unwrap();
        assert!(said[4] == 128 && said.len() > PAYLOAD, "Connected, and messages: {} bytes", said.len());
        gateway.wait_for("slots", 1, |m| &m.ring_slots_used);
        drop((stream, bob));
        gateway.finish();
    }
}
