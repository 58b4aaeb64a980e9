//! TLS clients that seal what no library would: one byte of a message in each record, and padding around it.

use std::io::Write;
use std::net::TcpStream;

use ringgate_core::close::CloseReason;
use ringgate_core::wire::{Encoder, Kind};
use ringgate_net::dial::Trust;
use ringgate_net::tls::compact::traffic::{APPLICATION_DATA, CONTENT_BYTES_MAX, HANDSHAKE};

use crate::bystanders::Bystanders;
use crate::sealing::Sealing;
use crate::support::{DEADLINE, Gateway, connect_frame, wait_until};

fn connect(gateway: &Gateway) -> Sealing {
    let socket = TcpStream::connect(gateway.tls()).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.set_write_timeout(Some(DEADLINE)).unwrap();
    Sealing::over(socket, Trust::Pem(gateway.certificate.as_bytes()))
}

fn sign_in(client: &mut Sealing, gateway: &Gateway, user: &str) {
    let before = gateway.sum(|m| &m.sessions_active);
    let connect = client.data(&connect_frame(user));
    client.socket.write_all(&connect).unwrap();
    gateway.wait_for("sessions", before + 1, |m| &m.sessions_active);
}

#[test]
fn handshake_message_with_a_byte_in_each_padded_record_then_closed_after_a_few() {
    // The gateway would keep 32 MB.
    const RECORDS: usize = 2_000;
    for (gateway, _) in Gateway::of_each_tls_memory() {
        let bystanders = Bystanders::start(&gateway);
        for (round, signed_in) in [false, true].into_iter().enumerate() {
            let mut client = connect(&gateway);
            if signed_in {
                sign_in(&mut client, &gateway, "mallory");
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
        let mut client = connect(&gateway);
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
        let mut client = connect(&gateway);
        sign_in(&mut client, &gateway, "mallory");
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
