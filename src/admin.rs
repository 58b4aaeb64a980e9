//! The admin listener: `/healthz`, `/readyz`, `/metrics`, on a thread of its own.
//!
//! It reads what shards count and touches nothing of theirs. Prometheus rules: prefix `ringgate_`, base units,
//! `_total` on counters, few labels. Not reachable from outside the host by default.

mod families;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use tiny_http::{Header, Method, Response, Server};

use crate::metrics::ShardMetrics;

/// How the node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Not listening yet.
    Starting = 0,
    /// Accepting clients.
    Ready = 1,
    /// Sending clients away.
    Draining = 2,
}

/// The state, shared between the server and the admin listener.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

impl Readiness {
    /// Changes the state.
    pub fn set(&self, state: State) {
        self.0.store(state as u8, Ordering::Release);
    }

    /// The state now.
    pub fn state(&self) -> State {
        match self.0.load(Ordering::Acquire) {
            0 => State::Starting,
            1 => State::Ready,
            _ => State::Draining,
        }
    }
}

/// A running admin listener; stops when dropped.
pub struct Admin {
    server: Arc<Server>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// Listens. The error names the address.
    pub fn start(
        address: SocketAddr,
        metrics: Arc<[Arc<ShardMetrics>]>,
        readiness: Arc<Readiness>,
    ) -> io::Result<Admin> {
        let refused = |error: &dyn std::fmt::Display| {
            io::Error::other(format!(
                "the admin listener cannot listen on {address}: {error} (stop what listens there, or set admin.address)"
            ))
        };
        let server = Arc::new(Server::http(address).map_err(|error| refused(&error))?);
        let address = server.server_addr().to_ip().ok_or_else(|| refused(&"no IP address"))?;
        let serving = server.clone();
        let started = Instant::now();
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
            while let Ok(request) = serving.recv() {
                let response = answer(request.method(), request.url(), &metrics, &readiness, started);
                // A client that went away does not get its answer.
                let _ = request.respond(response);
            }
        })?;
        Ok(Admin { server, address, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.server.unblock();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(
    method: &Method,
    url: &str,
    metrics: &[Arc<ShardMetrics>],
    readiness: &Readiness,
    started: Instant,
) -> Response<io::Cursor<Vec<u8>>> {
    if !matches!(method, Method::Get | Method::Head) {
        return Response::from_string("only GET\n").with_status_code(405);
    }
    match url.split('?').next().unwrap_or_default() {
        "/healthz" => Response::from_string("ok\n"),
        "/readyz" => match readiness.state() {
            State::Ready => Response::from_string("ready\n"),
            State::Starting => Response::from_string("starting\n").with_status_code(503),
            State::Draining => Response::from_string("draining\n").with_status_code(503),
        },
        "/metrics" => {
            let text = families::render(metrics, started.elapsed());
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            match Header::from_bytes("Content-Type", kind) {
                Ok(header) => Response::from_string(text).with_header(header),
                Err(()) => Response::from_string(text),
            }
        }
        _ => Response::from_string("there are /healthz, /readyz and /metrics\n").with_status_code(404),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn get(address: SocketAddr, request: &str) -> String {
        let mut socket = std::net::TcpStream::connect(address).unwrap();
        write!(socket, "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn answers_over_a_real_socket() {
        let metrics: Arc<[Arc<ShardMetrics>]> = (0..2).map(|_| Arc::default()).collect();
        metrics[0].connections_active[0].add(3);
        metrics[1].connections_active[0].add(4);
        metrics[1].delivery_duration.record_us(70);
        let readiness = Arc::new(Readiness::default());
        let admin = Admin::start(SocketAddr::from(([127, 0, 0, 1], 0)), metrics, readiness.clone()).unwrap();
        assert!(get(admin.address(), "GET /healthz").contains("200 OK"));
        assert!(get(admin.address(), "GET /readyz").contains("503"));
        readiness.set(State::Ready);
        assert!(get(admin.address(), "GET /readyz").contains("200 OK"));
        readiness.set(State::Draining);
        assert!(get(admin.address(), "GET /readyz").contains("draining"));
        assert!(get(admin.address(), "GET /nothing").contains("404"));
        assert!(get(admin.address(), "POST /metrics").contains("405"));
        let metrics = get(admin.address(), "GET /metrics");
        for line in [
            "ringgate_connections_active{transport=\"tcp\"} 7",
            "ringgate_delivery_duration_seconds_bucket{le=\"0.0001\"} 1",
            "ringgate_connection_closes_total{transport=\"tcp\",reason=\"slow\"} 0",
            "ringgate_conservation_error{ledger=\"deliveries\"} 0",
        ] {
            assert!(metrics.contains(line), "no {line} in {metrics}");
        }
        let taken = Admin::start(admin.address(), Arc::from([]), readiness).err().unwrap().to_string();
        assert!(taken.contains("admin.address"), "{taken}");
    }
}
