//! The admin listener: `/healthz`, `/readyz`, `/metrics`, on a thread of its own; and the health listener, which has the first two
//! alone, on another thread: rendering figures keeps nobody waiting who only asks how the node is.
//!
//! It reads what shards count and touches nothing of theirs. Prometheus rules: prefix `ringgate_`, base units,
//! `_total` on counters, few labels. Not reachable from outside the host by default.
//!
//! Requests for a host name that is not known here are refused: a page in a browser on this host could otherwise read these
//! pages under a name of its own that it lets resolve to this address (DNS rebinding).

mod connections;
mod families;
mod process;
mod redis;
mod text;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue, VARY};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use connections::{Connections, Socket};
pub use families::Limits;

use crate::readiness::{Readiness, Reason};
use ringgate_core::metrics::ShardMetrics;
use ringgate_redis::Status;

/// How long clients are waited for.
#[derive(Clone, Copy, Debug)]
struct Timeouts {
    /// For the head of a request, from the accept or the last answer on.
    head: Duration,
    /// For an answer to be taken.
    write: Duration,
}

const TIMEOUTS: Timeouts = Timeouts { head: Duration::from_secs(5), write: Duration::from_secs(10) };
/// The pause after an accept that failed, as when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running admin listener; stops when dropped.
pub struct Admin {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// Has all pages. Requests are answered that name an address, `localhost`, or one of `hosts` (in lower case, without a port)
    /// as their host. The error names the address.
    pub fn start(
        address: SocketAddr,
        hosts: Vec<String>,
        metrics: Arc<[Arc<ShardMetrics>]>,
        limits: Limits,
        redis: Option<Arc<Status>>,
        readiness: Arc<Readiness>,
    ) -> io::Result<Admin> {
        let figures = Some(Figures { hosts, metrics, limits, redis, started: Instant::now() });
        Admin::start_with(address, ("admin", "admin.address"), Pages { figures, readiness }, TIMEOUTS)
    }

    /// Has `/healthz` and `/readyz` alone, for requests by any host name: they tell nothing that strangers may not know. The
    /// error names the address.
    pub fn start_health(address: SocketAddr, readiness: Arc<Readiness>) -> io::Result<Admin> {
        let pages = Pages { figures: None, readiness };
        Admin::start_with(address, ("health", "admin.health_address"), pages, TIMEOUTS)
    }

    /// Has pages of another kind. `name` is that of the listener and its thread, `key` is where its address is set; the error names both.
    pub(crate) fn start_pages(address: SocketAddr, (name, key): (&str, &str), pages: impl Answer) -> io::Result<Admin> {
        Admin::start_with(address, (name, key), pages, TIMEOUTS)
    }

    fn start_with(
        address: SocketAddr,
        (name, key): (&str, &str),
        pages: impl Answer,
        timeouts: Timeouts,
    ) -> io::Result<Admin> {
        let refused = |error: io::Error| {
            io::Error::other(format!(
                "the {name} listener cannot listen on {address}: {error} (stop what listens there, or set {key})"
            ))
        };
        let listener = std::net::TcpListener::bind(address).map_err(refused)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        if name == "admin" && address.ip().is_unspecified() {
            tracing::warn!(
                %address,
                "the admin listener is on every address of this host: anybody who reaches one of them reads /metrics; set \
                 admin.address to one that only your own systems reach"
            );
        }
        // One thread is enough for the few requests, and leaves the shards' cores alone.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let listener = runtime.block_on(async { TcpListener::from_std(listener) })?;
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            runtime.spawn(accept(listener, Arc::new(pages), timeouts));
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
async fn accept(listener: TcpListener, pages: Arc<impl Answer>, timeouts: Timeouts) {
    let connections = Arc::new(Connections::default());
    for number in 0.. {
        let socket = loop {
            match listener.accept().await {
                Ok((socket, _)) => break socket,
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        };
        let task = tokio::spawn(serve(number, socket, pages.clone(), connections.clone(), timeouts));
        // The only thread of this runtime is here: the task has not begun.
        connections.add(number, task.abort_handle());
    }
}

async fn serve(
    number: u64,
    socket: TcpStream,
    pages: Arc<impl Answer>,
    connections: Arc<Connections>,
    timeouts: Timeouts,
) {
    let service = service_fn(|request: Request<Incoming>| {
        connections.on_request(number);
        let response = pages.answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeouts.head)
        .serve_connection(TokioIo::new(Socket::new(socket, timeouts.write)), service);
    // A client that went away, stands still, or does not speak HTTP, does not get its answer.
    let _ = serving.await;
    connections.remove(number);
}

/// Pages of a listener.
pub(crate) trait Answer: Send + Sync + 'static {
    /// The answer to a request, whose body is not read.
    fn answer<T>(&self, request: &Request<T>) -> Response<Full<Bytes>>;
}

/// What the answers are made from.
struct Pages {
    /// None on the health listener.
    figures: Option<Figures>,
    readiness: Arc<Readiness>,
}

/// What is not for strangers.
struct Figures {
    /// Names that requests may be for, in lower case.
    hosts: Vec<String>,
    metrics: Arc<[Arc<ShardMetrics>]>,
    limits: Limits,
    /// Of the engine that nodes share, if there is one.
    redis: Option<Arc<Status>>,
    started: Instant,
}

impl Answer for Pages {
    fn answer<T>(&self, request: &Request<T>) -> Response<Full<Bytes>> {
        if self.figures.as_ref().is_some_and(|figures| !figures.are_for_host_of(request)) {
            let help = "this host name is not known here; name it in admin.hosts, or ask by address\n";
            return plain(StatusCode::MISDIRECTED_REQUEST, help);
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        match (request.uri().path(), &self.figures) {
            ("/healthz", _) => condition("healthy", self.readiness.illnesses(), Vec::new()),
            ("/readyz", figures) => {
                let mut reasons = [self.readiness.obstacles(), self.readiness.lacks()];
                if figures.is_none() {
                    // Strangers are not told where Redis is.
                    reasons.iter_mut().flatten().for_each(Reason::hide_addresses);
                }
                let [against, lacks] = reasons;
                condition("ready", against, lacks)
            }
            ("/metrics", Some(figures)) => {
                let open = families::render(
                    &figures.metrics,
                    figures.limits,
                    figures.redis.as_ref(),
                    figures.started.elapsed(),
                );
                let accept = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
                let (body, kind) = match text::wants_openmetrics(accept) {
                    true => (open, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
                    false => (text::to_0_0_4(&open), "text/plain; version=0.0.4; charset=utf-8"),
                };
                let mut response = plain(StatusCode::OK, body);
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
                response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
                response
            }
            (_, Some(_)) => plain(StatusCode::NOT_FOUND, "there are /healthz, /readyz and /metrics\n"),
            (_, None) => plain(StatusCode::NOT_FOUND, "there are /healthz and /readyz\n"),
        }
    }
}

/// The reference of all metrics as Markdown: name, type, labels with their values, meaning.
pub fn reference() -> String {
    let shard = ShardMetrics::default();
    // What is only exported with a certificate, and with a thread that runs.
    shard.tls_cert_ends.set(1);
    shard.thread.set(std::process::id().into());
    text::reference(&families::render(&[Arc::new(shard)], Limits::default(), Some(&Arc::default()), Duration::ZERO))
}

impl Figures {
    /// Whether every host that the request names is known. Browsers always name one; simple health checks may not.
    fn are_for_host_of<T>(&self, request: &Request<T>) -> bool {
        let named = request.headers().get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
        let asked = request.uri().authority().map(hyper::http::uri::Authority::as_str);
        named.chain(asked).all(|host| self.is_known(host))
    }

    /// `host` may have a port. DNS rebinding needs a name; a request by address is safe.
    fn is_known(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        name.parse::<IpAddr>().is_ok() || name == "localhost" || self.hosts.contains(&name)
    }
}

/// `{"NAME":true,"reasons":[]}`; 503 and false where there are reasons against it. What is lacking is said, too.
fn condition(name: &str, against: Vec<Reason>, lacks: Vec<Reason>) -> Response<Full<Bytes>> {
    let is_so = against.is_empty();
    let reasons: Vec<Reason> = against.into_iter().chain(lacks).collect();
    let body = serde_json::json!({ name: is_so, "reasons": reasons });
    let status = if is_so { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = plain(status, format!("{body}\n"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer in plain text.
pub(crate) fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readiness::State;
    use ringgate_core::transport::Transport;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    const DEADLINE: Duration = Duration::from_secs(30);

    fn exchange(address: SocketAddr, request: &str) -> String {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        text
    }

    fn get(address: SocketAddr, request: &str) -> String {
        exchange(address, &format!("{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))
    }

    fn loopback() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    /// Ready, with these timeouts and hosts.
    fn admin(timeouts: Timeouts, hosts: &[&str]) -> Admin {
        let readiness = Arc::new(Readiness::default());
        readiness.set(State::Ready);
        let metrics: Arc<[Arc<ShardMetrics>]> = (0..2).map(|_| Arc::default()).collect();
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        let figures = Some(Figures { hosts, metrics, limits: Limits::default(), redis: None, started: Instant::now() });
        Admin::start_with(loopback(), ("admin", "admin.address"), Pages { figures, readiness }, timeouts).unwrap()
    }

    const PATIENT: Timeouts = Timeouts { head: Duration::from_secs(600), write: Duration::from_secs(600) };

    #[test]
    fn state_changes_then_the_pages_say_so_over_a_real_socket() {
        let metrics: Arc<[Arc<ShardMetrics>]> = (0..2).map(|_| Arc::default()).collect();
        metrics[0].connections_active[Transport::Plain].add(3);
        metrics[1].connections_active[Transport::Plain].add(4);
        metrics[1].delivery_duration.record_us(70);
        let readiness = Arc::new(Readiness::default());
        let admin = Admin::start(loopback(), Vec::new(), metrics, Limits::default(), None, readiness.clone()).unwrap();
        assert!(get(admin.address(), "GET /healthz").contains("200 OK"));
        let not_ready = |reason: &str, text: &str| {
            format!("{{\"ready\":false,\"reasons\":[{{\"reason\":\"{reason}\",\"text\":\"{text}\"}}]}}\n")
        };
        for (state, status, body) in [
            (State::Starting, "503 Service Unavailable", not_ready("starting", "not listening yet")),
            (State::Ready, "200 OK", "{\"ready\":true,\"reasons\":[]}\n".to_owned()),
            (State::Draining, "503 Service Unavailable", not_ready("draining", "clients are sent away")),
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
        let taken = Admin::start(admin.address(), Vec::new(), Arc::from([]), Limits::default(), None, readiness)
            .err()
            .unwrap()
            .to_string();
        assert!(taken.contains("admin.address"), "{taken}");
    }

    #[test]
    fn request_for_an_unknown_host_then_it_is_refused() {
        let admin = admin(PATIENT, &["metrics.example.org"]);
        let ask = |head: &str| exchange(admin.address(), &format!("{head}Connection: close\r\n\r\n"));
        for known in
            ["127.0.0.1", "127.0.0.1:7480", "localhost", "LocalHost:1", "[::1]:7480", "192.0.2.7", "localhost."]
        {
            let answer = ask(&format!("GET /metrics HTTP/1.1\r\nHost: {known}\r\n"));
            assert!(answer.starts_with("HTTP/1.1 200 "), "{known}: {answer}");
        }
        assert!(ask("GET /healthz HTTP/1.1\r\nHost: Metrics.Example.org:80\r\n").starts_with("HTTP/1.1 200 "));
        // As simple health checks ask.
        assert!(ask("GET /healthz HTTP/1.0\r\n").starts_with("HTTP/1.0 200 "));
        for unknown in [
            "GET /metrics HTTP/1.1\r\nHost: evil.example\r\n",
            "GET /healthz HTTP/1.1\r\nHost: evil.example:7480\r\n",
            "POST /nothing HTTP/1.1\r\nHost: localhost.evil.example\r\n",
            "GET /metrics HTTP/1.1\r\nHost: metrics.example.org.evil.example\r\n",
            "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n",
            "GET /metrics HTTP/1.1\r\nHost: \r\n",
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n",
            "GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\n",
        ] {
            let answer = ask(unknown);
            assert!(answer.starts_with("HTTP/1.1 421 "), "{unknown:?}: {answer}");
            assert!(answer.contains("admin.hosts") && !answer.contains("ringgate_"), "{answer}");
        }
    }

    /// Waits for the gateway's end of this connection.
    fn wait_for_end(mut socket: &TcpStream) {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut rest = Vec::new();
        match socket.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
    }

    #[test]
    fn every_place_is_taken_then_the_oldest_idle_one_makes_room() {
        let admin = admin(PATIENT, &[]);
        let idle: Vec<_> =
            (0..connections::CONNECTIONS_MAX).map(|_| TcpStream::connect(admin.address()).unwrap()).collect();
        let answered = |mut socket: &TcpStream| {
            socket.set_read_timeout(Some(DEADLINE)).unwrap();
            write!(socket, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            let mut answer = [0; 15];
            socket.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200 OK");
        };
        // The last of them has its answer: all were accepted. The first is not idle for longest any more.
        answered(&idle[connections::CONNECTIONS_MAX - 1]);
        answered(&idle[0]);
        // Two that trickle a head, which makes them no younger.
        for mut socket in &idle[1..3] {
            socket.write_all(b"GET /heal").unwrap();
        }
        let _another = TcpStream::connect(admin.address()).unwrap();
        wait_for_end(&idle[1]);
        assert!(get(admin.address(), "GET /healthz").starts_with("HTTP/1.1 200 "));
        wait_for_end(&idle[2]);
        let mut first = &idle[0];
        write!(first, "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut rest = String::new();
        first.read_to_string(&mut rest).unwrap();
        assert!(rest.ends_with("{\"ready\":true,\"reasons\":[]}\n"), "{rest}");
    }

    #[test]
    fn head_takes_too_long_then_the_connection_is_closed() {
        let admin = admin(Timeouts { head: Duration::from_millis(100), ..PATIENT }, &[]);
        for sent in [&b""[..], b"GET /healthz HTTP/1.1\r\nHost: local"] {
            let mut socket = TcpStream::connect(admin.address()).unwrap();
            socket.write_all(sent).unwrap();
            wait_for_end(&socket);
        }
        assert!(get(admin.address(), "GET /healthz").starts_with("HTTP/1.1 200 "));
    }

    #[test]
    fn answers_are_not_read_then_the_connection_is_closed() {
        let admin = admin(Timeouts { write: Duration::from_millis(100), ..PATIENT }, &[]);
        let mut socket = TcpStream::connect(admin.address()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let requests = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
        let deadline = Instant::now() + DEADLINE;
        // As many as it takes until nothing more fits anywhere; then it is closed, which a write finds out.
        let error = loop {
            assert!(Instant::now() < deadline, "it is still open");
            match socket.write(requests.as_bytes()) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => break error.kind(),
            }
        };
        assert!(matches!(error, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe), "{error}");
        assert!(get(admin.address(), "GET /healthz").starts_with("HTTP/1.1 200 "));
    }
}
