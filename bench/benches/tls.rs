//! Our TLS connection in its two modes beside rustls' buffered one: the gateway's side of handshakes, and records.
//!
//! One client (rustls, buffered) talks to all, and all use the gateway's own settings: P-256 certificate, TLS
//! 1.3, tickets without state. Only the calls of the server's side are measured.

#[path = "support/mod.rs"]
mod support;

use std::hint::black_box;
use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::Duration;

use criterion::BenchmarkId;
use ringgate_auth::certificate::{dev_certificate, server_config};
use ringgate_net::tls::compact::traffic::{Secret, Suite, TrafficKeys};
use ringgate_net::tls::{Tls, make_compact};
use rustls::client::Resumption;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection};

use support::{Criterion, cpu_time};

/// The gateway's side of a connection.
trait Server {
    const NAME: &'static str;
    fn settings(ends: &Ends) -> &Arc<ServerConfig> {
        &ends.server
    }
    fn new(config: Arc<ServerConfig>) -> Self;
    /// Takes bytes in, returns how many plaintext bytes were in them.
    fn receive(&mut self, bytes: &mut [u8]) -> usize;
    /// Takes out what the handshake has to say.
    fn answer(&mut self, out: &mut Vec<u8>);
    fn encrypt(&mut self, plaintext: &[u8], out: &mut Vec<u8>);
}

impl Server for Tls {
    const NAME: &'static str = "ringgate";

    fn new(config: Arc<ServerConfig>) -> Self {
        Tls::accept(config).expect("the settings are good")
    }

    fn receive(&mut self, bytes: &mut [u8]) -> usize {
        let mut plaintext_bytes = 0;
        Tls::receive(self, bytes, |plaintext| plaintext_bytes += black_box(plaintext).len())
            .expect("a friendly client");
        plaintext_bytes
    }

    fn answer(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.take_outgoing());
    }

    fn encrypt(&mut self, plaintext: &[u8], out: &mut Vec<u8>) {
        Tls::encrypt(self, plaintext, out).expect("the handshake is over");
    }
}

/// Compact after its handshake.
struct CompactTls(Tls);

impl Server for CompactTls {
    const NAME: &'static str = "ringgate, compact";

    fn settings(ends: &Ends) -> &Arc<ServerConfig> {
        &ends.compact
    }

    fn new(config: Arc<ServerConfig>) -> Self {
        CompactTls(Server::new(config))
    }

    fn receive(&mut self, bytes: &mut [u8]) -> usize {
        Server::receive(&mut self.0, bytes)
    }

    fn answer(&mut self, out: &mut Vec<u8>) {
        self.0.answer(out);
    }

    fn encrypt(&mut self, plaintext: &[u8], out: &mut Vec<u8>) {
        Server::encrypt(&mut self.0, plaintext, out);
    }
}

impl Server for ServerConnection {
    const NAME: &'static str = "rustls, buffered";

    fn new(config: Arc<ServerConfig>) -> Self {
        ServerConnection::new(config).expect("the settings are good")
    }

    fn receive(&mut self, mut bytes: &mut [u8]) -> usize {
        let mut plaintext_bytes = 0;
        while !bytes.is_empty() {
            let mut rest: &[u8] = bytes;
            let read = self.read_tls(&mut rest).expect("memory can be read");
            self.process_new_packets().expect("a friendly client");
            bytes = &mut bytes[read..];
            while let Ok(plaintext) = self.reader().into_first_chunk() {
                let length = black_box(plaintext).len();
                if length == 0 {
                    break;
                }
                plaintext_bytes += length;
                self.reader().consume(length);
            }
        }
        plaintext_bytes
    }

    fn answer(&mut self, out: &mut Vec<u8>) {
        while self.wants_write() {
            self.write_tls(out).expect("memory can be written");
        }
    }

    fn encrypt(&mut self, plaintext: &[u8], out: &mut Vec<u8>) {
        self.writer().write_all(plaintext).expect("its buffer has room");
        self.answer(out);
    }
}

/// Settings of both ends. A client that shares its resumption store with an earlier one resumes.
struct Ends {
    server: Arc<ServerConfig>,
    compact: Arc<ServerConfig>,
    client: ClientConfig,
}

impl Ends {
    fn new() -> Self {
        let (certificate, key) = dev_certificate().expect("a certificate can be made");
        let server = server_config(certificate.as_bytes(), key.as_bytes()).expect("it is good");
        let trust = ringgate_net::dial::Trust::Pem(certificate.as_bytes());
        let client = ringgate_net::dial::client_tls(trust).expect("it is good");
        let mut compact = server.clone();
        make_compact(&mut compact);
        Ends { server: Arc::new(server), compact: Arc::new(compact), client: (*client).clone() }
    }

    /// A client that has met nobody.
    fn stranger(&self) -> Arc<ClientConfig> {
        let mut client = self.client.clone();
        client.resumption = Resumption::in_memory_sessions(8);
        Arc::new(client)
    }
}

fn main() {
    let mut criterion = support::settings();
    let ends = Ends::new();
    handshakes::<Tls>(&mut criterion, &ends);
    handshakes::<CompactTls>(&mut criterion, &ends);
    handshakes::<ServerConnection>(&mut criterion, &ends);
    for bytes in [100, 16 * 1024] {
        records::<Tls>(&mut criterion, &ends, bytes);
        records::<CompactTls>(&mut criterion, &ends, bytes);
        records::<ServerConnection>(&mut criterion, &ends, bytes);
    }
    contexts(&mut criterion);
    criterion.final_summary();
}

/// Connects; returns both ends and the time that the server's took.
fn connect<S: Server>(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> (S, ClientConnection, Duration) {
    let name = "localhost".try_into().expect("a name");
    let mut client = ClientConnection::new(client.clone(), name).expect("the settings are good");
    let start = cpu_time();
    let mut server = S::new(server.clone());
    let mut spent = cpu_time() - start;
    let (mut there, mut back) = (Vec::new(), Vec::new());
    loop {
        while client.wants_write() {
            client.write_tls(&mut there).expect("memory can be written");
        }
        if there.is_empty() {
            return (server, client, spent);
        }
        let start = cpu_time();
        server.receive(&mut there);
        server.answer(&mut back);
        spent += cpu_time() - start;
        there.clear();
        let mut rest = back.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("memory can be read");
            client.process_new_packets().expect("a friendly server");
        }
        back.clear();
    }
}

fn handshakes<S: Server>(criterion: &mut Criterion, ends: &Ends) {
    let mut group = criterion.benchmark_group("tls handshake");
    group.bench_function(BenchmarkId::new(S::NAME, "full"), |bencher| {
        bencher.iter_custom(|handshakes| {
            (0..handshakes)
                .map(|_| {
                    let (_, client, spent) = connect::<S>(S::settings(ends), &ends.stranger());
                    assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
                    spent
                })
                .sum()
        });
    });
    group.bench_function(BenchmarkId::new(S::NAME, "resumed"), |bencher| {
        bencher.iter_custom(|handshakes| {
            (0..handshakes)
                .map(|_| {
                    let config = ends.stranger();
                    connect::<S>(S::settings(ends), &config);
                    let (_, client, spent) = connect::<S>(S::settings(ends), &config);
                    assert_eq!(client.handshake_kind(), Some(HandshakeKind::Resumed));
                    spent
                })
                .sum()
        });
    });
}

fn records<S: Server>(criterion: &mut Criterion, ends: &Ends, bytes: usize) {
    let plaintext = vec![7; bytes];
    let mut out = Vec::with_capacity(bytes + 1024);
    // A new connection for each sample: one key encrypts only so many records before it has to be changed.
    criterion.benchmark_group("tls encrypt").bench_function(BenchmarkId::new(S::NAME, bytes), |bencher| {
        bencher.iter_custom(|records| {
            let (mut server, ..) = connect::<S>(S::settings(ends), &ends.stranger());
            let start = cpu_time();
            for _ in 0..records {
                out.clear();
                server.encrypt(black_box(&plaintext), &mut out);
            }
            let spent = cpu_time() - start;
            assert!(out.len() > bytes);
            spent
        });
    });
    const BATCH: u64 = 64;
    criterion.benchmark_group("tls decrypt").bench_function(BenchmarkId::new(S::NAME, bytes), |bencher| {
        bencher.iter_custom(|records| {
            let (mut server, mut client, _) = connect::<S>(S::settings(ends), &ends.stranger());
            let (mut left, mut spent) = (records, Duration::ZERO);
            while left > 0 {
                let count = left.min(BATCH);
                let mut batch: Vec<_> = (0..count).map(|_| record(&mut client, &plaintext)).collect();
                let start = cpu_time();
                for record in &mut batch {
                    assert_eq!(server.receive(record), bytes);
                }
                spent += cpu_time() - start;
                left -= count;
            }
            spent
        });
    });
}

/// What a connection in the compact mode sets up anew for every portion of records, and at every key update.
fn contexts(criterion: &mut Criterion) {
    for suite in Suite::ALL {
        let secret = Secret::new(&vec![7; suite.secret_bytes()]).expect("no hash is longer");
        let mut keys = TrafficKeys::new(suite, &secret, 0).expect("the length of its hash");
        let name = format!("{suite:?}");
        let mut group = criterion.benchmark_group("tls compact");
        group.bench_function(BenchmarkId::new("context", &name), |bencher| bencher.iter(|| black_box(keys.context())));
        group.bench_function(BenchmarkId::new("key update", &name), |bencher| bencher.iter(|| keys.update()));
    }
}

fn record(client: &mut ClientConnection, plaintext: &[u8]) -> Vec<u8> {
    client.writer().write_all(plaintext).expect("its buffer has room");
    let mut record = Vec::with_capacity(plaintext.len() + 64);
    while client.wants_write() {
        client.write_tls(&mut record).expect("memory can be written");
    }
    record
}
