//! The admin listener: `/healthz`, `/readyz`, `/metrics`, on a thread of its own.
//!
//! It reads what shards count and touches nothing of theirs. Prometheus rules: prefix `ringgate_`, base units,
//! `_total` on counters, few labels. Not reachable from outside the host by default.

mod families;
mod process;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};

use crate::metrics::ShardMetrics;
use crate::watch::StillShards;

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
pub struct Readiness {
    state: AtomicU8,
    /// Shards that stand still.
    pub still: StillShards,
}

impl Readiness {
    /// Changes the state.
    pub fn set(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// The state now.
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Starting,
            1 => State::Ready,
            _ => State::Draining,
        }
    }
}

/// Connections served at once; more wait in the backlog.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take over the head of a request, or stay between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause after an accept that failed, as when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running admin listener; stops when dropped.
pub struct Admin {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// Listens. The error names the address.
    pub fn start(
        address: SocketAddr,
        metrics: Arc<[Arc<ShardMetrics>]>,
        readiness: Arc<Readiness>,
    ) -> io::Result<Admin> {
        let refused = |error: io::Error| {
            io::Error::other(format!(
                "the admin listener cannot listen on {address}: {error} (stop what listens there, or set admin.address)"
            ))
        };
        let listener = std::net::TcpListener::bind(address).map_err(refused)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let pages = Arc::new(Pages { metrics, readiness, started: Instant::now() });
        // One thread is enough for who asks here, and leaves the shards' cores alone.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let listener = runtime.block_on(async { TcpListener::from_std(listener) })?;
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
            runtime.spawn(accept(listener, pages));
            // Ends when told, or when the other end is dropped; connections end with the runtime.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(Admin { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Accepts for as long as the runtime lives. A process without descriptors gets them back one day: nothing ends this.
async fn accept(listener: TcpListener, pages: Arc<Pages>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(permit) = room.clone().acquire_owned().await {
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let pages = pages.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let response = pages.answer(request.method(), request.uri().path());
            async move { Ok::<_, Infallible>(response) }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(socket), service);
        tokio::spawn(async move {
            // A client that went away, or does not speak HTTP, does not get its answer.
            let _ = serving.await;
            drop(permit);
        });
    }
}

/// What the answers are made from.
struct Pages {
    metrics: Arc<[Arc<ShardMetrics>]>,
    readiness: Arc<Readiness>,
    started: Instant,
}

impl Pages {
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        match path {
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => match self.readiness.state() {
                State::Ready => match self.readiness.still.describe() {
                    None => text(StatusCode::OK, "ready\n"),
                    Some(still) => text(StatusCode::SERVICE_UNAVAILABLE, still),
                },
                State::Starting => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
                State::Draining => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            },
            "/metrics" => {
                let mut response = text(StatusCode::OK, families::render(&self.metrics, self.started.elapsed()));
                let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            _ => text(StatusCode::NOT_FOUND, "there are /healthz, /readyz and /metrics\n"),
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
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
        for (state, status, body) in [
            (State::Starting, "503 Service Unavailable", "starting\n"),
            (State::Ready, "200 OK", "ready\n"),
            (State::Draining, "503 Service Unavailable", "draining\n"),
        ] {
            readiness.set(state);
            let answer = get(admin.address(), "GET /readyz");
            let is_so =
                answer.starts_with(&format!("HTTP/1.1 {status}\r\n")) && answer.ends_with(&format!("\r\n\r\n{body}"));
            assert!(is_so, "{state:?}: {answer}");
        }
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
