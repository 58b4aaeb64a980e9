//! `deploy/haproxy.cfg`.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::guest::{Guest, Way, come_stay_and_move, write};
use crate::site::{Site, filled};
use crate::support::{http, wait_until};

fn start() -> Site {
    let mut site = Site::start();
    let socket = site.folder.path("admin.sock").display().to_string();
    let addresses = site.addresses();
    let mut edits: Vec<(&str, String)> = vec![
        ("bind :7443", format!("bind 127.0.0.1:{}", site.front.number)),
        ("bind 127.0.0.1:8404", format!("bind 127.0.0.1:{}", site.front_http.number)),
        (":7443", format!(":{}", site.tls_port())),
        ("port 7481", format!("port {}", site.health_port())),
        ("/run/haproxy/admin.sock", socket),
        // As many files as an ordinary process may open.
        ("maxconn 100000", "maxconn 400".to_owned()),
        // Of whoever runs the tests.
        ("    user haproxy\n    group haproxy\n", String::new()),
    ];
    edits.extend(addresses);
    let edits: Vec<_> = edits.iter().map(|(from, to)| (*from, to.as_str())).collect();
    let file = site.folder.write("haproxy.cfg", filled("haproxy.cfg", &edits));
    site.put_in_front("haproxy", &["-db", "-f", file.to_str().unwrap()]);
    wait_until(format_args!("HAProxy finds every gateway; its file is {}", file.display()), || {
        (0..3).all(|node| is_up(&site, node))
    });
    site
}

/// What HAProxy says of a gateway: `UP`, `DOWN`, or on the way from one to the other.
fn status(site: &Site, node: usize) -> String {
    let Ok(mut socket) = UnixStream::connect(site.folder.path("admin.sock")) else { return String::new() };
    let mut answer = String::new();
    socket.write_all(b"show stat\n").and_then(|()| socket.read_to_string(&mut answer).map(drop)).unwrap();
    let row = format!("gateways,gateway{},", node + 1);
    let row = answer.lines().find(|line| line.starts_with(&row));
    row.and_then(|row| row.split(',').nth(17)).unwrap_or_default().to_owned()
}

fn is_up(site: &Site, node: usize) -> bool {
    status(site, node).starts_with("UP")
}

fn is_down(site: &Site, node: usize) -> bool {
    status(site, node).starts_with("DOWN")
}

#[test]
fn gateways_are_behind_haproxy_then_clients_come_stay_and_move_and_miss_nothing() {
    for way in [Way::Tls, Way::Wss] {
        come_stay_and_move(&mut start(), way, is_up);
    }
}

#[test]
fn gateway_stands_still_behind_haproxy_then_new_clients_go_elsewhere_and_its_own_stay() {
    let site = start();
    let mut guests: Vec<_> = (0..6).map(|number| Guest::come(&site, Way::Tls, &format!("user{number}"))).collect();
    let stopped = site.nodes[1].as_ref().unwrap();
    stopped.signal(libc::SIGSTOP);
    wait_until("HAProxy takes it for down", || is_down(&site, 1));
    for number in 0..6 {
        assert_ne!(Guest::come(&site, Way::Tls, &format!("newcomer{number}")).node(), "gateway2");
    }
    stopped.signal(libc::SIGCONT);
    wait_until("HAProxy takes it for up", || is_up(&site, 1));
    // On the connections that they have had all the time.
    for guest in &mut guests {
        guest.client.ping();
    }
}

#[test]
fn redis_is_away_then_readyz_takes_the_gateways_out_of_haproxy_and_clients_stay() {
    let mut site = start();
    let mut guests: Vec<_> = (0..3).map(|number| Guest::come(&site, Way::Tls, &format!("user{number}"))).collect();
    write(&mut guests, 0, 1);
    guests[1].read_all();
    site.redis.kill();
    wait_until("no gateway gets new clients", || (0..3).all(|node| is_down(&site, node)));
    for guest in &mut guests {
        guest.client.ping();
    }
    site.redis.restart();
    wait_until("all of them do again", || (0..3).all(|node| is_up(&site, node)));
    // A Redis that was started again begins new epochs, for which clients are sent back once.
    for guest in &mut guests {
        guest.come_again(&site);
    }
    write(&mut guests, 0, 1);
    guests[1].read_all();
    let metrics = http(([127, 0, 0, 1], site.front_http.number).into(), "GET", "/metrics");
    assert_eq!(metrics.status, 200);
    assert!(metrics.body.contains("haproxy_server_check_status"), "{}", metrics.body);
}
