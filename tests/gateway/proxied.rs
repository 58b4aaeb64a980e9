//! Listeners behind a proxy: clients are who the header of the PROXY protocol says, and nobody comes in without one.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::thread;

use ringgate::config::{Config, ListenerConfig};
use ringgate_core::close::CloseReason;
use ringgate_core::metrics::Refusal;
use ringgate_core::transport::Transport;
use ringgate_net::Front;
use ringgate_net::network::Network;

use crate::support::{Client, Gateway, Login, Process, WsStream, connect_frame, wait_until};

/// Two listeners, one of them over TLS, that take frames and WebSocket from proxies in these networks.
fn behind(config: &mut Config, networks: &[&str]) {
    let listener = |transport| {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let proxies = networks.iter().map(|network| Network::parse(network).unwrap()).collect();
        let front = Front { transport, is_open_to_websocket: true, proxies };
        ListenerConfig { front, ..ListenerConfig::new(address, transport) }
    };
    config.listeners = vec![listener(Transport::Plain), listener(Transport::Tls)];
}

/// A header of version 1, or 2 with a field behind the addresses.
fn header(version: u8, client: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(address) = client else { panic!("IPv4 only") };
    if version == 1 {
        return format!("PROXY TCP4 {} 10.0.0.1 {} 443\r\n", address.ip(), address.port()).into_bytes();
    }
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x12".to_vec();
    header.extend(address.ip().octets());
    header.extend([10, 0, 0, 1]);
    header.extend(address.port().to_be_bytes());
    header.extend([1, 0xbb, 4, 0, 3, 1, 2, 3]);
    header
}

/// A proxy of this gateway that takes one connection and writes this before it. Returns where it listens.
fn proxy(gateway: SocketAddr, header: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        let mut gateway = TcpStream::connect(gateway).unwrap();
        gateway.write_all(&header).unwrap();
        let pump = |mut from: TcpStream, mut to: TcpStream| {
            // A reset ends it, as an end does.
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        };
        let (to, back) = (gateway.try_clone().unwrap(), client.try_clone().unwrap());
        let inward = thread::spawn(move || pump(client, to));
        pump(gateway, back);
        inward.join().unwrap();
    });
    address
}

fn client_through(gateway: &Gateway, transport: Transport, header: Vec<u8>) -> Client {
    let certificate = gateway.certificate.as_str();
    match transport {
        Transport::Plain => Client::tcp(proxy(gateway.tcp(), header)),
        Transport::Tls => Client::tls(proxy(gateway.tls(), header), certificate),
        Transport::Ws => Client::over_websocket(WsStream::connect(proxy(gateway.tcp(), header), None)),
        Transport::Wss => Client::over_websocket(WsStream::connect(proxy(gateway.tls(), header), Some(certificate))),
    }
}

/// What the gateway answers to these bytes, until it closes.
fn answer(gateway: &Gateway, bytes: &[u8]) -> Vec<u8> {
    let mut socket = gateway.raw();
    socket.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // A reset says as much as an end.
    let _ = socket.read_to_end(&mut answer);
    answer
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn header_comes_first_then_clients_of_each_transport_are_served_under_their_own_address() {
    for version in [1, 2] {
        let gateway = Gateway::with(|config| {
            behind(config, &["127.0.0.0/8"]);
            config.settings.client.connections_per_address_max = 1;
        });
        // All come from one host; only with their own addresses they are within the limit.
        let mut clients: Vec<_> = Transport::ALL
            .iter()
            .enumerate()
            .map(|(number, transport)| {
                let header = header(version, SocketAddr::from(([192, 0, 2, number as u8], 5000)));
                let mut client = client_through(&gateway, *transport, header);
                client.sign_in(&Login::user(&format!("user{number}")));
                client.subscribe("chat:general");
                client
            })
            .collect();
        for transport in Transport::ALL {
            assert_eq!(gateway.sum(|m| &m.connections_active[transport]), 1, "{transport:?}");
        }
        clients[0].publish("chat:general", "hello");
        for client in &mut clients {
            assert_eq!(client.texts(1), ["hello"]);
        }
        drop(clients);
        gateway.finish();
    }
}

#[test]
fn client_in_the_header_has_as_many_connections_as_it_may_then_it_is_refused_and_others_are_not() {
    let gateway = Gateway::with(|config| {
        behind(config, &["127.0.0.1"]);
        config.settings.client.connections_per_address_max = 1;
    });
    let mut first = client_through(&gateway, Transport::Plain, header(2, address("192.0.2.1:1")));
    first.sign_in(&Login::user("alice"));
    let mut second = client_through(&gateway, Transport::Plain, header(1, address("192.0.2.1:2")));
    second.expect_close(CloseReason::Busy.code());
    assert_eq!(gateway.sum(|m| &m.connections_refused[Refusal::Address]), 1);
    let mut other = client_through(&gateway, Transport::Plain, header(1, address("192.0.2.2:1")));
    other.sign_in(&Login::user("bob"));
    drop(first);
    wait_until("alice has gone", || gateway.connections() == 1);
    let mut third = client_through(&gateway, Transport::Ws, header(2, address("192.0.2.1:3")));
    third.sign_in(&Login::user("alice"));
    drop((second, third, other));
    gateway.finish();
}

#[test]
fn header_comes_byte_by_byte_with_a_frame_behind_it_then_the_client_signs_in() {
    let gateway = Gateway::with(|config| behind(config, &["127.0.0.1"]));
    let mut sockets = Vec::new();
    for (number, version) in [(1, 1), (2, 2)] {
        let mut socket = gateway.raw();
        let header = header(version, address("192.0.2.1:1"));
        let (last, bytes) = header.split_last().unwrap();
        for byte in bytes {
            socket.write_all(&[*byte]).unwrap();
        }
        assert_eq!(gateway.connections(), number - 1, "nobody is told before the header is whole");
        let rest = [&[*last], &connect_frame(&format!("user{number}"))[..]].concat();
        socket.write_all(&rest).unwrap();
        gateway.wait_for("sessions", number, |m| &m.sessions_active);
        sockets.push(socket);
    }
    drop(sockets);
    gateway.finish();
}

#[test]
fn proxy_speaks_for_itself_then_the_connection_is_its_own() {
    let gateway = Gateway::with(|config| {
        behind(config, &["127.0.0.1"]);
        config.settings.client.connections_per_address_max = 1;
    });
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0".to_vec();
    let mut first = client_through(&gateway, Transport::Plain, local);
    first.sign_in(&Login::user("alice"));
    let mut second = client_through(&gateway, Transport::Plain, b"PROXY UNKNOWN\r\n".to_vec());
    second.expect_close(CloseReason::Busy.code());
    drop((first, second));
    gateway.finish();
}

#[test]
fn connection_begins_without_a_header_then_it_is_closed_without_a_word_and_counted() {
    let gateway = Gateway::with(|config| {
        behind(config, &["127.0.0.1"]);
        config.settings.client.handshake_timeout_ms = 300;
    });
    let long = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", &[0; 2000][..]].concat();
    let line = [b"PROXY UNKNOWN ", &[b'x'; 2000][..]].concat();
    let cases: [&[u8]; 9] = [
        &connect_frame("alice"),
        b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"PROXY TCP4 192.0.2.1 10.0.0.1 1\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\x04abcd",
        &long,
        &line,
        // Nothing, or a part: until the time is up.
        b"",
        b"PROXY TCP4 192.0.2.1",
    ];
    let mut count = 0;
    for bytes in cases {
        assert_eq!(answer(&gateway, bytes), b"", "{}", bytes.escape_ascii());
        count += 1;
        let refused = || gateway.sum(|m| &m.connections_refused[Refusal::Proxy]);
        wait_until("it is counted", || refused() == count);
    }
    // A part, and the end.
    let socket = gateway.raw();
    (&socket).write_all(b"PROXY ").unwrap();
    drop(socket);
    gateway.wait_for("refused", count + 1, |m| &m.connections_refused[Refusal::Proxy]);
    // A look whether the port is open is no refusal, and is not heard of.
    drop(gateway.raw());
    gateway.wait_for("slots", 0, |m| &m.ring_slots_used);
    assert_eq!(gateway.sum(|m| &m.connections_refused[Refusal::Proxy]), count + 1);
    assert_eq!((gateway.all_closed(), gateway.sum_all(|m| &m.connections_accepted)), (0, 0));
    gateway.finish();
}

#[test]
fn connection_comes_from_elsewhere_then_it_is_closed_although_it_has_a_header() {
    let gateway = Gateway::with(|config| behind(config, &["10.0.0.0/8", "127.0.0.2"]));
    assert_eq!(answer(&gateway, &header(1, address("10.0.0.1:1"))), b"");
    assert_eq!(gateway.sum(|m| &m.connections_refused[Refusal::Proxy]), 1);
    gateway.finish();
}

#[test]
fn gateway_drains_while_a_header_is_awaited_then_it_does_not_wait_for_it() {
    let gateway = Gateway::with(|config| behind(config, &["127.0.0.1"]));
    let mut socket = gateway.raw();
    socket.write_all(b"PROXY ").unwrap();
    gateway.wait_for("slots", 1, |m| &m.ring_slots_used);
    assert!(gateway.shutdown(&AtomicBool::new(false)), "nothing is left to wait for");
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest);
    assert_eq!(rest, b"");
}

#[test]
fn clients_come_through_a_proxy_then_logs_have_their_addresses() {
    let gateway = Process::gateway(
        "[[listeners]]\naddress = \"127.0.0.1:0\"\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]\n\
         [runtime]\nshards = 1\nconnections_per_shard_max = 64\n[admin]\nenabled = false\n\
         [[token.keys]]\nalgorithm = \"HS256\"\nsecret = \"a secret that is long enough for everybody\"\n\
         [logging]\nformat = \"json\"\n",
    );
    let mut client = Client::tcp(proxy(gateway.tcp(), header(1, address("192.0.2.77:1234"))));
    assert!(client.try_sign_in(&Login::token("no token")).is_err());
    let line = gateway.error_line("its end", |line| line.contains("connection closed"));
    assert!(line.contains("\"peer\":\"192.0.2.77\""), "{line}");
    let mut socket = Gateway::raw_at(gateway.tcp());
    socket.write_all(b"hello").unwrap();
    let line = gateway.error_line("a refusal", |line| line.contains("connection refused"));
    assert!(line.contains("\"peer\":\"127.0.0.1:"), "{line}");
    assert!(line.contains("\"reason\":\"no header of the PROXY protocol\""), "{line}");
}

/// A client whose request for a WebSocket has these headers, from this host itself.
fn forwarded(gateway: &Gateway, headers: &str) -> Client {
    let headers = format!("Sec-WebSocket-Protocol: ringgate.v1\r\n{headers}");
    Client::over_websocket(WsStream::ask(gateway.ws(), None, &headers))
}

/// One connection for each address, and proxies of HTTP in these networks.
fn behind_http(networks: &[&str]) -> Gateway {
    Gateway::with(|config| {
        config.settings.client.connections_per_address_max = 1;
        config.websocket.trusted_proxies = networks.iter().map(|network| Network::parse(network).unwrap()).collect();
    })
}

#[test]
fn trusted_proxy_names_the_client_then_limits_are_about_the_client() {
    let gateway = behind_http(&["127.0.0.0/8", "10.0.0.0/8"]);
    let mut alice = forwarded(&gateway, "X-Forwarded-For: 192.0.2.1\r\n");
    alice.sign_in(&Login::user("alice"));
    // What the client itself has written stands before, and counts for nothing; nor does the other header.
    let headers = "X-Forwarded-For: 192.0.2.9, 192.0.2.1\r\nX-Forwarded-For: 10.0.0.1\r\nForwarded: for=192.0.2.9\r\n";
    let mut again = forwarded(&gateway, headers);
    again.expect_close(CloseReason::Busy.code());
    assert_eq!(gateway.sum(|m| &m.connections_refused[Refusal::Address]), 1);
    let mut bob = forwarded(&gateway, "X-Forwarded-For: 192.0.2.2\r\n");
    bob.sign_in(&Login::user("bob"));
    // The proxy itself, such as for a look whether the gateway is there, is not limited.
    let mut own = [forwarded(&gateway, ""), forwarded(&gateway, "X-Forwarded-For: unknown\r\n")];
    for (number, client) in own.iter_mut().enumerate() {
        client.sign_in(&Login::user(&format!("proxy{number}")));
    }
    drop((again, alice));
    wait_until("alice has gone", || gateway.connections() == 3);
    let mut alice = forwarded(&gateway, "X-Forwarded-For: 192.0.2.1\r\n");
    alice.sign_in(&Login::user("alice"));
    drop((alice, bob, own));
    gateway.finish();
}

#[test]
fn request_names_a_client_and_comes_from_no_trusted_proxy_then_it_is_ignored() {
    for networks in [&[][..], &["10.0.0.0/8"]] {
        let gateway = behind_http(networks);
        let mut first = forwarded(&gateway, "X-Forwarded-For: 192.0.2.1\r\n");
        first.sign_in(&Login::user("alice"));
        let mut second = Gateway::raw_at(gateway.ws());
        let mut rest = String::new();
        second.read_to_string(&mut rest).unwrap();
        assert!(rest.starts_with("HTTP/1.1 503 "), "both have the address of this host: {rest}");
        drop(first);
        gateway.finish();
    }
}
