//! What stands before the sessions of a listener: telling frames and WebSocket apart on one port.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};

use ringgate::config::{Config, ListenerConfig};
use ringgate_core::close::CloseReason;
use ringgate_core::transport::Transport;
use ringgate_net::Front;

use crate::support::{Client, Gateway, Login, connect_frame, upgrade_request, wait_until};

/// Two listeners, one of them over TLS, that take frames and WebSocket.
fn of_both(config: &mut Config) {
    let listener = |transport| {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let front = Front { is_open_to_websocket: true, ..Front::new(transport) };
        ListenerConfig { front, ..ListenerConfig::new(address, transport) }
    };
    config.listeners = vec![listener(Transport::Plain), listener(Transport::Tls)];
}

fn client(gateway: &Gateway, transport: Transport) -> Client {
    match transport {
        Transport::Plain => gateway.client(),
        Transport::Tls => gateway.tls_client(),
        Transport::Ws | Transport::Wss => gateway.ws_client(transport),
    }
}

/// Connections by transport: accepted, open.
fn counts(gateway: &Gateway, transport: Transport) -> (u64, u64) {
    let accepted = gateway.sum(|m| &m.connections_accepted[transport]);
    (accepted, gateway.sum(|m| &m.connections_active[transport]))
}

#[test]
fn port_takes_frames_and_websocket_then_each_client_is_served_and_counted_as_what_it_speaks() {
    for is_compact in [false, true] {
        let gateway = Gateway::with(|config| {
            of_both(config);
            if is_compact {
                config.make_tls_compact();
            }
        });
        let mut clients = Transport::ALL.map(|transport| client(&gateway, transport));
        for (number, client) in clients.iter_mut().enumerate() {
            client.sign_in(&Login::user(&format!("user{number}")));
            client.subscribe("chat:general");
        }
        for transport in Transport::ALL {
            assert_eq!(counts(&gateway, transport), (1, 1), "{transport:?}");
        }
        for client in &mut clients {
            client.publish("chat:general", vec![1; 5000]);
        }
        for client in &mut clients {
            assert_eq!(client.texts(4).len(), 4);
            client.ping();
        }
        drop(clients);
        for transport in Transport::ALL {
            let closed = || gateway.sum(|m| &m.closes[transport][CloseReason::ConnectionClosed]);
            wait_until("it is closed under the same name", || closed() == 1);
        }
        gateway.finish();
    }
}

#[test]
fn first_bytes_come_one_by_one_then_frames_and_requests_are_told_apart() {
    let gateway = Gateway::with(of_both);
    let mut websocket = gateway.raw();
    for byte in upgrade_request("").bytes() {
        websocket.write_all(&[byte]).unwrap();
    }
    let mut start = [0; 13];
    websocket.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 101 ");
    let mut frames = gateway.raw();
    for byte in connect_frame("alice") {
        frames.write_all(&[byte]).unwrap();
    }
    wait_until("alice is signed in", || gateway.sum(|m| &m.sessions_active) == 1);
    assert_eq!((counts(&gateway, Transport::Plain).0, counts(&gateway, Transport::Ws).0), (1, 1));
    drop((websocket, frames));
    gateway.finish();
}

#[test]
fn first_bytes_are_neither_then_the_connection_ends_as_one_of_frames() {
    let gateway = Gateway::with(|config| {
        of_both(config);
        config.settings.client.connect_timeout_ms = 300;
    });
    let ends = |bytes: &[u8]| {
        let mut socket = gateway.raw();
        socket.write_all(bytes).unwrap();
        let mut rest = Vec::new();
        // A reset says as much as an end.
        let _ = socket.read_to_end(&mut rest);
        rest
    };
    // What began like a request is heard as a frame, from its first byte on.
    for bytes in [&b"GETTY IMAGES"[..], b"POST /ws HTTP/1.1\r\n\r\n", b"GET\0\x01\0\0\0"] {
        let goodbye = ends(bytes);
        assert_eq!(goodbye.get(4), Some(&(ringgate_core::wire::Kind::Goodbye as u8)), "{goodbye:?}");
    }
    for bytes in [&b""[..], b"G", b"GET"] {
        let goodbye = ends(bytes);
        assert_eq!(goodbye.get(4), Some(&(ringgate_core::wire::Kind::Goodbye as u8)), "{goodbye:?}");
    }
    assert!(ends(b"GET \r\n\r\n").starts_with(b"HTTP/1.1 400 "));
    // Left before it said anything: counted, as what the listener is over.
    gateway.raw().shutdown(Shutdown::Both).unwrap();
    wait_until("all have ended", || gateway.all_closed() == 8);
    assert_eq!(counts(&gateway, Transport::Plain).0, 7);
    assert_eq!(gateway.sum(|m| &m.closes[Transport::Plain][CloseReason::Stale]), 3);
    assert_eq!(gateway.sum(|m| &m.closes[Transport::Ws][CloseReason::BadRequest]), 1);
    gateway.finish();
}

#[test]
fn listener_has_both_protocols_then_its_urls_are_both() {
    let text = "[[listeners]]\naddress = \"127.0.0.1:0\"\nprotocols = [\"ws\", \"tcp\"]\n[[token.keys]]\n\
                algorithm = \"HS256\"\nsecret = \"a secret that is long enough for everybody\"\n";
    let gateway = Gateway::toml(text);
    let address = gateway.tcp();
    assert_eq!(gateway.server().urls(), [format!("tcp://{address}"), format!("ws://{address}/ws")]);
    gateway.finish();
}
