//! Ten thousand connections that come and go: what they cost is given back.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use ringgate_core::wire::Kind;
use ringgate_net::dial::Stream;

use crate::support::{Client, Gateway, Login, Process, wait_until};

const CONNECTIONS: usize = 10_000;
const BATCH: usize = 100;

/// A socket from an address of the batch's own: ports of connections that have ended are not free for a while.
fn connect_from(batch: usize, to: SocketAddr) -> TcpStream {
    let from = Ipv4Addr::new(127, 1 + (batch / 250) as u8, 1 + (batch % 250) as u8, 1);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

/// One batch of connections, all open at once, a tenth of them signed in; then all end, each in one of four ways.
fn batch(number: usize, to: SocketAddr) {
    let mut sockets: Vec<_> = (0..BATCH).map(|_| connect_from(number, to)).collect();
    let mut signed_in: Vec<_> = sockets
        .drain(..BATCH / 10)
        .enumerate()
        .map(|(user, socket)| {
            let mut client = Client::over(Stream::over(socket, None).unwrap());
            let connected = client.sign_in(&Login::user(&format!("guest{user}")).room("chat:lobby", None));
            // Subscribed.
            client.answer(connected.request);
            client
        })
        .collect();
    for (index, client) in signed_in.iter_mut().enumerate() {
        match index % 3 {
            0 => client.publish("chat:lobby", "hello").stamp.position.offset,
            1 => client.publish("@guest0", "hello").stamp.position.offset,
            _ => continue,
        };
    }
    for (index, client) in signed_in.into_iter().enumerate() {
        let mut client = client;
        if index % 2 == 0 {
            client.send_empty(Kind::Disconnect);
            client.rest();
        }
    }
    for (index, socket) in sockets.iter_mut().enumerate() {
        match index % 3 {
            0 => socket.write_all(&[9; 5]).unwrap(),
            1 => socket2::SockRef::from(&*socket).set_linger(Some(Duration::ZERO)).unwrap(),
            _ => {}
        }
    }
}

/// Sockets of this host that are bound to the port and neither listen nor are past their end.
fn sockets_on(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let (listening, time_wait) = ("0A", "06");
            fields[1].ends_with(&local) && fields[3] != listening && fields[3] != time_wait
        })
        .count()
}

#[test]
fn ten_thousand_connections_end_then_slots_outboxes_and_sockets_are_free() {
    let gateway = Gateway::start();
    let address = gateway.tcp();
    let mut stays = gateway.sign_in("stays");
    for number in 0..CONNECTIONS / BATCH {
        batch(number, address);
        stays.ping();
        // The table has room for a few batches; the gateway may lag behind.
        gateway.wait_for("slots", 1, |m| &m.ring_slots_used);
    }
    let accepted = gateway.sum_all(|m| &m.connections_accepted);
    assert_eq!(accepted, CONNECTIONS as u64 + 1);
    assert_eq!(gateway.all_closed(), CONNECTIONS as u64);
    assert_eq!((gateway.connections(), gateway.sum(|m| &m.sessions_active)), (1, 1));
    gateway.wait_for("bytes in outboxes", 0, |m| &m.outbox_bytes);
    wait_until("the kernel has one socket left", || sockets_on(address.port()) == 1);
    gateway.finish();
}

/// In a process of its own, since other tests' memory would be counted otherwise.
#[test]
fn connections_come_and_go_then_memory_does_not_grow() {
    // With its default ports taken it chooses free ones; sockets of other gateways on those would be counted, too. Where a
    // port cannot be had, somebody has it already.
    let _taken = [7400, 7443, 7480].map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
    let mut command = Command::new("sh");
    command.args(["-c", "echo pid $$; exec \"$0\" serve --dev --shards 2", env!("CARGO_BIN_EXE_ringgate")]);
    // Without huge pages memory is counted in steps of 4 KiB, not 2 MiB.
    command.env("MIMALLOC_ALLOW_THP", "0");
    let process = Process::of(command);
    process.line("ready", |line| line.starts_with("ready: "));
    let pid = process.line("pid", |line| line.starts_with("pid "));
    let pid = pid.trim_start_matches("pid ").to_owned();
    let address = process.tcp();
    assert_ne!(address.port(), 7400, "a free port");
    let anonymous_kib = || -> i64 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    // A shard gives memory back once it has been at rest for a while: what counts is what it keeps.
    let settled_kib = || {
        wait_until("all sockets are closed", || sockets_on(address.port()) == 0);
        let (mut last, mut since) = (anonymous_kib(), Instant::now());
        wait_until("memory to settle", || {
            let now = anonymous_kib();
            if now != last {
                (last, since) = (now, Instant::now());
            }
            since.elapsed() > Duration::from_secs(2)
        });
        last
    };
    const WARM_UP: usize = 40;
    for number in 0..WARM_UP {
        batch(number, address);
    }
    let before = settled_kib();
    for number in WARM_UP..WARM_UP + 2 * CONNECTIONS / BATCH {
        batch(number, address);
    }
    let grown = settled_kib() - before;
    // The kernel deals slots out around the whole table, so that each is touched once, at 220 bytes, and a tenth of the
    // clients are users that the gateway still knows: 4.4 MB. The least that a connection could leave behind beside
    // that, its 400 bytes, would be 8 MB more.
    assert!(grown < 7000, "{grown} KiB more after twice {CONNECTIONS} connections");
}

#[test]
fn connections_come_and_go_at_one_address_beyond_its_limit_and_the_accept_rate_then_others_get_in() {
    const LIMIT: usize = 8;
    let gateway = Gateway::with(|config| {
        let client = &mut config.settings.client;
        (client.connections_per_address_max, client.accept_rate) = (LIMIT, 100);
    });
    for number in 0..40 {
        let sockets: Vec<_> = (0..2 * LIMIT).map(|_| connect_from(0, gateway.tcp())).collect();
        for (index, socket) in sockets.iter().enumerate() {
            if (index + number) % 2 == 0 {
                socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO)).unwrap();
            }
        }
    }
    wait_until("all were accepted or refused", || {
        gateway.sum_all(|m| &m.connections_accepted) + gateway.sum_all(|m| &m.connections_refused) == 80 * LIMIT as u64
    });
    assert!(gateway.sum_all(|m| &m.connections_refused) > 0, "the limits were never reached");
    // Another address, once the rate lets it: none of its connections stand in for the limit of the first.
    wait_until("another address gets in", || {
        let mut client = gateway.client_over(Stream::over(connect_from(1, gateway.tcp()), None).unwrap());
        client.is_admitted(&Login::user("other"))
    });
    gateway.finish();
}

/// Handshakes that end well, and some that never begin; fewer than over TCP.
#[test]
fn tls_connections_come_and_go_then_slots_are_free() {
    let gateway = Gateway::start();
    for number in 0..10 {
        let clients: Vec<_> = (0..20).map(|_| gateway.tls_client()).collect();
        let silent: Vec<_> = (0..20).map(|_| connect_from(number, gateway.tls())).collect();
        drop((clients, silent));
    }
    wait_until("the gateway has seen the end of all", || gateway.all_closed() == 400);
    wait_until("all handshakes are counted", || gateway.handshakes() == [200, 0]);
    wait_until("the kernel has no socket left", || sockets_on(gateway.tls().port()) == 0);
    gateway.finish();
}
