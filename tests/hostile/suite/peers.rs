//! Addresses: more connections of one than it may have, connections that come and go, IPv6 and IPv4 within it.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};

use ringgate_core::wire::Kind;
use ringgate_net::dial::Stream;

use super::remote::PER_ADDRESS;
use super::scene::{By, End, Scene, connect, ends};
use super::{Case, case};
use crate::support::{Client, Login, connect_frame, wait_until};

/// Sockets to the listener at all addresses, which IPv4 reaches as an address within IPv6.
fn either(scene: &Scene<'_>) -> [TcpStream; 2] {
    let port = scene.remote.any;
    let six = connect(Ipv6Addr::LOCALHOST.into(), SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port));
    let four = connect(scene.from.into(), SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    [six, four]
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("more_connections_than_an_address_may_have", |scene| {
            let sockets: Vec<_> = (0..PER_ADDRESS + 30).map(|_| scene.socket()).collect();
            // Those that are refused end by themselves, and others' places come back when they go.
            let mut ended = 0;
            for socket in &sockets {
                socket.set_nonblocking(true).unwrap();
            }
            wait_until("those beyond the limit are refused", || {
                ended = sockets.iter().filter(|socket| socket.peek(&mut [0; 1]).is_ok()).count();
                ended >= 30
            });
            assert_eq!(ended, 30);
            drop(sockets);
            wait_until("there is a place again", || {
                scene.try_client().is_ok_and(|mut client| client.is_admitted(&Login::user(&scene.user)))
            });
        }),
        case("connections_come_and_go", |scene| {
            for round in 0..4 {
                let sockets: Vec<_> = (0..PER_ADDRESS - 4).map(|_| scene.socket()).collect();
                for (number, socket) in sockets.iter().enumerate() {
                    let _ = (&mut &*socket).write_all(&[9; 5][..number % 6]);
                    End::ALL[(number + round) % 3].of(socket, false);
                }
                drop(sockets);
                // Reset or closed, the gateway has heard of it before it is asked for as many again.
                wait_until("there is a place again", || {
                    scene.try_client().is_ok_and(|mut client| client.is_admitted(&Login::user(&scene.user)))
                });
            }
        }),
        case("sessions_come_and_go", |scene| {
            for round in 0..30 {
                let mut client = scene.sign_in("d");
                if round % 2 == 0 {
                    client.send_empty(Kind::Disconnect);
                    client.expect_end();
                }
            }
        }),
        case("sessions_by_ipv6_and_by_ipv4_within_it", |scene| {
            for end in End::ALL {
                for socket in either(scene) {
                    let mut client = Client::over(Stream::over(socket, None).unwrap());
                    client.sign_in(&Login::user(&scene.user));
                    client.publish(&scene.inbox(), "x");
                    end.of_client(client, true);
                }
            }
        })
        .on(|by| by == By::Plain),
        case("garbage_by_ipv6_and_by_ipv4_within_it", |scene| {
            for bytes in [&[0xff; 100][..], b"GET / HTTP/1.1\r\n\r\n", &[0; 7]] {
                for end in End::ALL {
                    for socket in either(scene) {
                        let _ = (&socket).write_all(bytes);
                        end.of(&socket, true);
                    }
                }
            }
        })
        .on(|by| by == By::Plain),
        case("more_connections_by_ipv4_within_ipv6_than_an_address_may_have", |scene| {
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), scene.remote.any);
            let plain: Vec<_> = (0..PER_ADDRESS / 2).map(|_| scene.socket()).collect();
            let within: Vec<_> = (0..PER_ADDRESS).map(|_| connect(scene.from.into(), address)).collect();
            let sockets = || plain.iter().chain(&within);
            sockets().for_each(|socket| socket.set_nonblocking(true).unwrap());
            let ended = || sockets().filter(|socket| socket.peek(&mut [0; 1]).is_ok()).count();
            wait_until("both count as one address", || ended() >= PER_ADDRESS / 2);
            assert_eq!(ended(), PER_ADDRESS / 2);
        })
        .on(|by| by == By::Plain),
        case("connects_that_end_with_their_last_byte", |scene| {
            for end in [End::HalfClose, End::Reset] {
                for _ in 0..10 {
                    let mut client = scene.client();
                    client.send_bytes(&connect_frame(&scene.user));
                    client.send_empty(Kind::Ping);
                    end.of_client(client, matches!(end, End::HalfClose));
                }
            }
        }),
        case("a_socket_is_left_open_until_the_end", |scene| {
            let socket = scene.socket();
            End::HalfClose.of(&socket, false);
            ends(&socket);
        }),
    ]
}
