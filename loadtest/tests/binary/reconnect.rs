//! How clients come back: after a wait that grows while connections do not last (docs/protocol.md, Reconnecting).

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ringgate_core::transport::Transport;

use crate::support::{Gateway, loadtest};

/// A way to a gateway that ends every connection this long after it was made; where it is, and how many it has ended.
fn cutting_way(gateway: SocketAddr, after: Duration) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, cut) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = cut.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(gateway).unwrap();
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                std::thread::spawn(move || forward(from, to));
            }
            let count = count.clone();
            std::thread::spawn(move || {
                std::thread::sleep(after);
                count.fetch_add(1, Ordering::Relaxed);
                let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
            });
        }
    });
    (address, cut)
}

fn forward(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}

#[test]
fn connections_do_not_last_then_the_waits_between_them_grow() {
    let gateway = Gateway::start();
    let at = gateway.url(Transport::Plain).replace("tcp://", "").parse().unwrap();
    let (address, cut) = cutting_way(at, Duration::from_millis(300));
    let url = format!("tcp://{address}");
    loadtest(&["idle", "--url", &url, "--dev", "--connections", "1", "--reconnect", "--duration", "10s", "--quiet"]);
    // Waits of 0 to 1 s, again and again, would make it about 12; of 0 to 1, 2, 4, 8, 16 and 20 s it is about 5, and
    // more than 9 once in thirty thousand times.
    let cut = cut.load(Ordering::Relaxed);
    assert!((2..=9).contains(&cut), "{cut} connections");
}
