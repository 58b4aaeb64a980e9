//! TLS that goes wrong after the handshake: a record with any one byte changed ends that connection.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use ringgate_core::close::CloseReason;
use ringgate_core::transport::{Handshake, Transport};
use ringgate_net::dial::{Trust, client_tls};
use rustls::{ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

use crate::bystanders::Bystanders;
use crate::support::{DEADLINE, Gateway, TlsMemory, connect_frame, wait_until};

/// A TLS client whose records the test may see before they leave.
pub(crate) struct Secured {
    pub(crate) tls: ClientConnection,
    pub(crate) socket: TcpStream,
}

impl Secured {
    /// Connected; nothing was said.
    pub(crate) fn connect(gateway: &Gateway) -> Secured {
        let config: Arc<_> = client_tls(Trust::Pem(gateway.certificate.as_bytes())).unwrap();
        let socket = TcpStream::connect(gateway.tls()).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        Secured { tls: ClientConnection::new(config, name).unwrap(), socket }
    }

    /// Connected, with the handshake done.
    pub(crate) fn established(gateway: &Gateway) -> Secured {
        let mut secured = Secured::connect(gateway);
        while secured.tls.is_handshaking() {
            secured.tls.complete_io(&mut secured.socket).unwrap();
        }
        while secured.tls.wants_write() {
            secured.tls.write_tls(&mut secured.socket).unwrap();
        }
        secured
    }

    /// What waits to be sent: a ClientHello, or the records of this plaintext.
    pub(crate) fn records(&mut self, plaintext: &[u8]) -> Vec<u8> {
        self.tls.writer().write_all(plaintext).unwrap();
        let mut records = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut records).unwrap();
        }
        records
    }
}

/// Where a record is changed. Its version is not among them: RFC 8446 wants it ignored.
#[derive(Clone, Copy)]
enum Change {
    FromStart(usize),
    FromEnd(usize),
}

#[test]
fn record_is_changed_then_its_connection_ends() {
    use Change::{FromEnd, FromStart};
    for (gateway, memory) in Gateway::of_each_tls_memory() {
        // What encryption may add: rustls allows in every version what TLS 1.2 does.
        let expansion_bytes_max = if memory == TlsMemory::Compact { 256 } else { 2048 };
        let bystanders = Bystanders::start(&gateway);
        let tls = |reason: CloseReason| gateway.sum(|m| &m.closes[Transport::Tls][reason]);
        // Type and length, then what is encrypted; the tag is the last sixteen bytes.
        let changes = [FromStart(0), FromStart(3), FromStart(4), FromStart(5), FromStart(9), FromEnd(17), FromEnd(1)];
        for (round, change) in changes.into_iter().enumerate() {
            let mut secured = Secured::established(&gateway);
            // Bytes that come with the end of the handshake would be looked at later than the end of the stream.
            gateway.wait_for("handshakes", round as u64 + 1, |m| &m.tls_handshakes[Handshake::Full]);
            let mut record = secured.records(&connect_frame("mallory"));
            let length = |record: &[u8]| usize::from(u16::from_be_bytes([record[3], record[4]]));
            let before = length(&record);
            let at = match change {
                FromStart(at) => at,
                FromEnd(at) => record.len() - at,
            };
            record[at] ^= 0x40;
            // With a greater length the record is not whole: the end of the stream is the end then.
            let longer = length(&record) > before && length(&record) <= 16 * 1024 + expansion_bytes_max;
            let reason = if longer { CloseReason::ConnectionClosed } else { CloseReason::TlsError };
            let closed = tls(reason);
            secured.socket.write_all(&record).unwrap();
            secured.socket.shutdown(Shutdown::Write).unwrap();
            wait_until(format_args!("closed as {reason:?}, byte {at}"), || tls(reason) == closed + 1);
            let mut stream = StreamOwned::new(secured.tls, secured.socket);
            let mut said = Vec::new();
            // An alert, a reset, or the end; never an answer.
            let _ = stream.read_to_end(&mut said);
            assert!(said.is_empty(), "byte {at}: {said:?}");
        }
        bystanders.finish();
        assert_eq!(gateway.sum(|m| &m.auth_succeeded), 2, "the bystanders alone");
        gateway.finish();
    }
}

/// A record that was sent already, again: it does not decrypt a second time.
#[test]
fn record_is_replayed_then_its_connection_ends() {
    for (gateway, _) in Gateway::of_each_tls_memory() {
        let mut secured = Secured::established(&gateway);
        let record = secured.records(&[0, 0, 0, 0, 10, 0, 0, 0]);
        let mut other = Secured::established(&gateway);
        other.socket.write_all(&record).unwrap();
        wait_until("closed", || gateway.closed(CloseReason::TlsError) == 1);
        let twice = [secured.records(&connect_frame("alice")), record].concat();
        // Out of their order, as well.
        secured.socket.write_all(&twice).unwrap();
        wait_until("closed", || gateway.closed(CloseReason::TlsError) == 2);
        assert_eq!(gateway.sum(|m| &m.auth_succeeded), 0);
        gateway.finish();
    }
}

/// A handshake message that breaks off within a record, and something else behind it: by rustls' unbuffered interface
/// these bytes have to be shown to it again.
#[test]
fn half_a_client_hello_then_its_connection_ends() {
    for (gateway, _) in Gateway::of_each_tls_memory() {
        let bystanders = Bystanders::start(&gateway);
        let half: &[u8] = &[22, 3, 1, 0, 4, 1, 0, 2, 0];
        let others: [&[u8]; 4] =
            [&[23, 3, 3, 0, 1, 0], &[22, 3, 1, 0, 0], &[21, 3, 1, 0, 2, 2, 40], b"GET / HTTP/1.1\r\n"];
        for (round, other) in others.into_iter().enumerate() {
            let mut socket = TcpStream::connect(gateway.tls()).unwrap();
            socket.set_read_timeout(Some(DEADLINE)).unwrap();
            socket.write_all(&[half, other].concat()).unwrap();
            wait_until(format_args!("closed, {other:?}"), || gateway.closed(CloseReason::TlsError) == round as u64 + 1);
            // At most an alert; a reset is an end, too.
            let _ = socket.read_to_end(&mut Vec::new());
        }
        bystanders.finish();
        gateway.finish();
    }
}
