//! TLS clients that seal what no library would: one byte of a message in each record, and padding around it.

use std::io::Write;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use ringgate::client::{Trust, client_tls};
use ringgate::close::CloseReason;
use ringgate::tls::compact::traffic::{APPLICATION_DATA, CONTENT_BYTES_MAX, HANDSHAKE, Secret, Suite, TrafficKeys};
use ringgate::wire::{Encoder, Kind};
use rustls::ClientConnection;
use rustls_pki_types::ServerName;

use crate::bystanders::Bystanders;
use crate::support::{DEADLINE, Gateway, connect_frame, wait_until};

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

/// A connection behind its handshake, whose records the test seals.
struct Sealing {
    keys: TrafficKeys,
    socket: TcpStream,
}

impl Sealing {
    fn connect(gateway: &Gateway) -> Sealing {
        let written = Arc::new(Written::default());
        let mut config = (*client_tls(Trust::Pem(gateway.certificate.as_bytes())).unwrap()).clone();
        config.key_log = written.clone();
        let mut socket = TcpStream::connect(gateway.tls()).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
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

    fn record(&mut self, content: &[u8], content_type: u8, padding: usize) -> Vec<u8> {
        let mut record = Vec::new();
        let trailer = [&[content_type][..], &vec![0; padding]].concat();
        self.keys.seal(&self.keys.context().unwrap(), content, &trailer, &mut record).unwrap();
        record
    }

    fn sign_in(&mut self, gateway: &Gateway, user: &str) {
        let before = gateway.sum(|m| &m.sessions_active);
        let connect = self.record(&connect_frame(user), APPLICATION_DATA, 0);
        self.socket.write_all(&connect).unwrap();
        gateway.wait_for("sessions", before + 1, |m| &m.sessions_active);
    }
}

#[test]
fn handshake_message_with_a_byte_in_each_padded_record_then_closed_after_a_few() {
    // The gateway would keep 32 MB.
    const RECORDS: usize = 2_000;
    for (gateway, _) in Gateway::of_each_tls_memory() {
        let bystanders = Bystanders::start(&gateway);
        for (round, signed_in) in [false, true].into_iter().enumerate() {
            let mut client = Sealing::connect(&gateway);
            if signed_in {
                client.sign_in(&gateway, "mallory");
            }
            // A certificate of 65 535 bytes.
            for byte in [11, 0, 255, 255].into_iter().chain(std::iter::repeat_n(7, RECORDS)) {
                let record = client.record(&[byte], HANDSHAKE, CONTENT_BYTES_MAX - 1);
                if client.socket.write_all(&record).is_err() {
                    break;
                }
            }
            wait_until("closed", || gateway.closed(CloseReason::TlsError) == round as u64 + 1);
        }
        bystanders.finish();
        gateway.finish();
    }
}

#[test]
fn key_update_in_five_padded_records_then_what_follows_is_read_with_new_keys() {
    for (gateway, _) in Gateway::of_each_tls_memory() {
        let mut client = Sealing::connect(&gateway);
        let mut records: Vec<u8> =
            [24, 0, 0, 1, 0].iter().flat_map(|byte| client.record(&[*byte], HANDSHAKE, 100)).collect();
        client.keys.update().unwrap();
        records.extend(client.record(&connect_frame("alice"), APPLICATION_DATA, 0));
        client.socket.write_all(&records).unwrap();
        gateway.wait_for("sessions", 1, |m| &m.sessions_active);
        drop(client);
        gateway.finish();
    }
}

#[test]
fn a_byte_of_frames_in_each_padded_record_then_the_records_count_against_the_rate_of_bytes() {
    for compact in [false, true] {
        let gateway = Gateway::with(|config| {
            let client = &mut config.settings.client;
            (client.bytes_rate, client.bytes_burst) = (200_000, 400_000);
            if compact {
                config.make_tls_compact();
            }
        });
        let bystanders = Bystanders::start(&gateway);
        let mut client = Sealing::connect(&gateway);
        client.sign_in(&gateway, "mallory");
        let mut pong = Vec::new();
        Encoder::empty(&mut pong, Kind::ClientPong);
        // Eight bytes in 130 KiB; the frames alone would be far within the rate, and Pongs are never refused.
        wait_until("closed for what the records take", || {
            let records: Vec<u8> =
                pong.iter().flat_map(|byte| client.record(&[*byte], APPLICATION_DATA, CONTENT_BYTES_MAX - 1)).collect();
            let taken = client.socket.write_all(&records).is_ok();
            !taken || gateway.closed(CloseReason::TooManyRequests) == 1
        });
        wait_until("counted", || gateway.closed(CloseReason::TooManyRequests) == 1);
        bystanders.finish();
        gateway.finish();
    }
}
