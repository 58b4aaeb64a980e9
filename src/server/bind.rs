//! The listeners of all shards: each shard has a socket of its own for each address (SO_REUSEPORT).

use std::net::TcpListener;

use super::StartError;
use crate::config::ListenerConfig;
use ringgate_net::{Front, kernel};

/// Binds every address once per shard. The first socket of an address fixes a port that was left open.
#[expect(clippy::type_complexity, reason = "one list of listeners for each shard")]
pub(super) fn bind_all(
    listeners: &[ListenerConfig],
    shards: usize,
) -> Result<(Vec<ListenerConfig>, Vec<Vec<(TcpListener, Front)>>), StartError> {
    let mut addresses = Vec::new();
    let mut sockets: Vec<Vec<_>> = (0..shards).map(|_| Vec::new()).collect();
    for listener in listeners {
        let refused = |error: std::io::Error| {
            let what = format!("cannot listen on {}", listener.address);
            let hint = match error.kind() {
                std::io::ErrorKind::AddrInUse => "another process listens there; stop it or choose another port",
                std::io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE",
                std::io::ErrorKind::AddrNotAvailable => "this host has no such address",
                _ => return StartError(kernel::explain(&what, &error)),
            };
            StartError(format!("{what}: {error} ({hint})"))
        };
        let mut address = listener.address;
        if address.port() != 0 {
            ringgate_net::is_taken(address, listener.ipv6_only).map_err(refused)?;
        }
        for sockets in &mut sockets {
            let socket = ringgate_net::bind(address, listener.ipv6_only).map_err(refused)?;
            address = socket.local_addr().map_err(refused)?;
            sockets.push((socket, listener.front.clone()));
        }
        addresses.push(ListenerConfig { address, ..listener.clone() });
    }
    Ok((addresses, sockets))
}
