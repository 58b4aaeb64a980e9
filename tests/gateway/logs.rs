//! Log lines about connections: sign-ins, reasons of closes, and that neither probes nor floods fill a log.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use ringgate_core::wire::encode::ConnectRequest;
use serde_json::Value;

use crate::support::{Client, DEADLINE, Login, Process, dev_token, wait_until};

fn gateway(level: &str) -> Process {
    Process::dev_gateway(&["--log-format", "json", "--log-level", level])
}

/// The first line with all of these parts.
fn line(gateway: &Process, parts: &[&str]) -> Value {
    let line = gateway.error_line(&parts.join(" and "), |line| parts.iter().all(|part| line.contains(part)));
    serde_json::from_str(&line).unwrap()
}

/// Lines about connections that have ended.
fn closes(gateway: &Process) -> Vec<Value> {
    let lines = gateway.errors();
    let closes = lines.iter().filter(|line| line.contains("\"connection closed\""));
    closes
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["message"] == "connection closed")
        .collect()
}

#[test]
fn client_signs_in_then_its_program_is_logged() {
    let gateway = gateway("info");
    let mut alice = Client::tcp(gateway.tcp());
    let token = dev_token("alice");
    // A name that would turn the rest of the line around on a terminal.
    let client = "app/1.2 (\u{202e}\"x\")";
    alice.send(|encoder, out| {
        encoder
            .connect(out, &ConnectRequest { request: 1, token: &token, device: "phone", client, ..Default::default() });
    });
    let said = gateway.error_line("a sign-in", |line| line.contains("\"signed in\""));
    assert!(said.is_ascii(), "{said}");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["level"], &said["client"]), (&Value::from("INFO"), &Value::from(client)));
    assert_eq!((&said["user"], &said["device"]), (&Value::from("alice"), &Value::from("phone")));
    assert_eq!((&said["peer"], &said["transport"]), (&Value::from("127.0.0.1"), &Value::from("tcp")));
    drop(alice);
    // The line about its end names that connection, too.
    assert_eq!(line(&gateway, &["\"connection closed\"", "alice"])["connection"], said["connection"]);
}

#[test]
fn name_has_bidi_controls_then_they_are_escaped() {
    let gateway = gateway("info");
    let mut alice = Client::tcp(gateway.tcp());
    alice.sign_in(&Login::token(dev_token("a\u{202e}lice")).device("\u{2066}phone"));
    drop(alice);
    let line = gateway.error_line("its end", |line| line.contains("connection closed\""));
    assert!(line.contains("\"a\\u202elice\"") && line.contains("\"\\u2066phone\"") && line.is_ascii(), "{line}");
}

fn say(address: SocketAddr, bytes: &[u8]) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.write_all(bytes).unwrap();
    // Until the gateway has closed it.
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest);
}

#[test]
fn another_protocol_on_the_plain_port_then_it_is_named() {
    let gateway = gateway("info");
    let hello: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    // One whose first four bytes announce a short frame.
    let short_hello: &[u8] = &[0x16, 3, 1, 0, 0xf0, 1, 0, 0, 0xec, 3, 3];
    for (bytes, reason) in [
        (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], "an HTTP request"),
        (b"OPTIONS * HTTP/1.1\r\n\r\n", "an HTTP request"),
        (hello, "a TLS ClientHello on the plain port"),
        (short_hello, "a TLS ClientHello on the plain port"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "a PROXY protocol header"),
        (&[8, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], "flags or reserved bits are not zero"),
    ] {
        let before = closes(&gateway).len();
        say(gateway.tcp(), bytes);
        wait_until(reason, || closes(&gateway).len() > before);
        let said = closes(&gateway).pop().unwrap();
        assert_eq!((&said["reason"], &said["level"]), (&Value::from(reason), &Value::from("INFO")), "{bytes:?}");
    }
    // In two parts, the first too short to be judged.
    let mut socket = TcpStream::connect(gateway.tcp()).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.write_all(b"HEA").unwrap();
    socket.write_all(b"D / HTTP/1.1\r\n").unwrap();
    wait_until("it is named", || closes(&gateway).len() == 7);
    assert_eq!(closes(&gateway)[6]["reason"], "an HTTP request");
}

#[test]
fn connection_ends_without_a_byte_then_its_line_is_debug() {
    for (level, lines) in [("info", 0), ("debug", 4)] {
        let gateway = gateway(level);
        let tls: SocketAddr = gateway.url("tls").trim_start_matches("tls://").parse().unwrap();
        for address in [gateway.tcp(), tls] {
            drop(TcpStream::connect(address).unwrap());
            // With a reset, as some load balancers do.
            let socket = TcpStream::connect(address).unwrap();
            socket2::SockRef::from(&socket).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        }
        // Both ports have had other connections, with lines of their own, after them.
        for address in [gateway.tcp(), tls] {
            say(address, b"GET / HTTP/1.1\r\n\r\n");
        }
        let said = || closes(&gateway).into_iter().partition::<Vec<_>, _>(|line| line["level"] == "DEBUG");
        wait_until("all have ended", || {
            let (debug, info) = said();
            info.len() == 2 && debug.len() >= lines
        });
        let (debug, info) = said();
        assert_eq!((debug.len(), info.len()), (lines, 2), "{level}: {debug:?} {info:?}");
        for line in debug {
            assert!(line["code"] == 3000 || line["code"] == 3015, "{line}");
        }
    }
}

#[test]
fn many_are_refused_before_sign_in_then_most_are_summed() {
    const COUNT: u64 = 200;
    let gateway = gateway("info");
    let began = Instant::now();
    let garbage = [8, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
    for number in 0..COUNT {
        if number % 2 == 0 {
            say(gateway.tcp(), b"GET / HTTP/1.1\r\n\r\n");
        } else {
            say(gateway.tcp(), &garbage);
        }
    }
    // "12 more closes before sign-in: an HTTP request x 7, flags or reserved bits are not zero x 5"
    let summed = || {
        let lines = gateway.errors().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        let sums = lines.filter_map(|line| {
            Some(line["message"].as_str()?.split_once(" more closes before sign-in: ")?.0.parse::<u64>().unwrap())
        });
        sums.sum::<u64>()
    };
    wait_until("each is in a line or in a sum", || closes(&gateway).len() as u64 + summed() == COUNT);
    // Two shards, ten lines each in a second.
    let seconds = began.elapsed().as_secs() + 1;
    let lines = closes(&gateway).len() as u64;
    assert!(lines >= 10 && lines <= 20 * seconds, "{lines} lines in {seconds} s");
    let sum = line(&gateway, &["more closes before sign-in: ", "an HTTP request x "]);
    assert_eq!(sum["level"], "INFO");
    // A connection that signs in still has a line of its own.
    Client::tcp(gateway.tcp()).sign_in(&Login::user("alice"));
    line(&gateway, &["\"connection closed\"", "alice"]);
}
