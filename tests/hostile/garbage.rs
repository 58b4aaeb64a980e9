//! Random bytes on every port. What must come of them is known beforehand: the wire module judges the bytes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use ringgate_core::close::CloseReason;
use ringgate_core::transport::Transport;
use ringgate_core::wire::{ClientFrame, Split, split_first_of_client};

use crate::bystanders::Bystanders;
use crate::support::{DEADLINE, Gateway, wait_until};
use ringgate_sim::Random;

const ROUNDS: u64 = 300;

/// Bytes without any sense, or with a good header in front of them.
fn garbage(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let length = if random.one_in(4) { 1 + random.below(40_000) } else { 1 + random.below(200) };
    let mut bytes: Vec<u8> = (0..length).map(|_| random.bits() as u8).collect();
    if bytes.len() >= 8 && !random.one_in(3) {
        let body = if random.one_in(2) { bytes.len() - 8 } else { random.below(400) };
        bytes[..4].copy_from_slice(&(body as u32).to_le_bytes());
        // Of other kinds than Connect the header is enough.
        bytes[4] = if random.one_in(2) { 1 } else { 1 + random.below(11) as u8 };
        bytes[5..8].fill(0);
    }
    bytes
}

/// The code of the Goodbye that the first frame of a connection leads to; none when there is no Goodbye.
fn close_of(bytes: &[u8]) -> Option<u16> {
    match split_first_of_client(bytes) {
        Err(error) => Some(error.close_reason().code()),
        Ok(Split::Incomplete(_)) => None,
        Ok(Split::Frame(raw, _)) => match ClientFrame::parse(raw) {
            Err(error) => Some(error.close_reason().code()),
            Ok(ClientFrame::Disconnect) => None,
            Ok(ClientFrame::Connect(_)) => panic!("a Connect by chance"),
            Ok(_) => Some(CloseReason::BadRequest.code()),
        },
    }
}

#[test]
fn random_bytes_on_the_plain_port_then_the_close_is_what_the_wire_says() {
    let gateway = Gateway::start();
    let bystanders = Bystanders::start(&gateway);
    let (mut with, mut without) = (0, 0);
    for seed in 0..ROUNDS {
        let bytes = garbage(seed);
        let mut client = gateway.client();
        // Fails when the gateway had enough before the end.
        let _ = client.try_send_bytes(&bytes);
        match close_of(&bytes) {
            Some(code) => {
                client.expect_close(code);
                with += 1;
            }
            None => {
                // Incomplete: only the end of the stream brings a verdict.
                let _ = client.socket().shutdown(Shutdown::Write);
                client.expect_end();
                without += 1;
            }
        }
    }
    bystanders.finish();
    assert!(with > ROUNDS / 2 && without > ROUNDS / 20, "{with} with a Goodbye, {without} without");
    let closed = gateway.closed(CloseReason::BadRequest) + gateway.closed(CloseReason::FrameTooBig);
    assert_eq!(closed, with);
    // The bystanders may have hung up in the meantime.
    assert!((without..=without + 2).contains(&gateway.closed(CloseReason::ConnectionClosed)));
    gateway.finish();
}

/// Half of it begins like a ClientHello, which is judged once it is whole; the other half ends at once.
#[test]
fn random_bytes_on_the_tls_port_then_the_connection_ends() {
    const HELLO: [u8; 9] = [0x16, 3, 1, 0, 200, 1, 0, 0, 196];
    let gateway = Gateway::start();
    let bystanders = Bystanders::start(&gateway);
    let tls = |reason: CloseReason| gateway.sum(|m| &m.closes[Transport::Tls][reason]);
    let mut refused = 0;
    for seed in 0..ROUNDS {
        let mut bytes = garbage(seed);
        let whole = seed % 2 == 0 && bytes.len() >= 5 + 200;
        if seed % 2 == 0 {
            bytes.splice(..0, HELLO);
        }
        let mut socket = TcpStream::connect(gateway.tls()).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        // Fails when the gateway had enough before the end.
        let _ = socket.write_all(&bytes);
        if whole {
            refused += 1;
        } else {
            let _ = socket.shutdown(Shutdown::Write);
        }
        let mut said = Vec::new();
        // A reset is an end, too.
        if let Err(error) = socket.read_to_end(&mut said) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "seed {seed}");
        }
        assert!(said.is_empty() || said[0] == 0x15, "at most an alert, seed {seed}: {said:?}");
    }
    bystanders.finish();
    let all = || {
        tls(CloseReason::TlsError) + tls(CloseReason::ConnectionClosed) + tls(CloseReason::ConnectionReset) == ROUNDS
    };
    wait_until("every connection has ended for its own reason", all);
    assert!(refused > 20 && tls(CloseReason::TlsError) >= refused, "{} of {refused}", tls(CloseReason::TlsError));
    assert_eq!(gateway.handshakes(), [0, 0]);
    gateway.finish();
}
