//! The gateway of the suite in a process of its own: this test binary again, asked for one test that serves and answers
//! for its figures. So its heap, its descriptors and its tables are nobody else's, and its clients' are not among them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::AtomicBool;

use ringgate::config::{Config, ListenerConfig};
use ringgate::server::Server;
use ringgate_core::limits::Namespace;
use ringgate_core::metrics::{Cell, Refusal, ShardMetrics};
use ringgate_core::transport::Transport;

use crate::counting;

/// Connections of one address: each case has an address of its own.
pub(super) const PER_ADDRESS: usize = 64;
/// Longest payload. No case sends one whole; several announce one.
pub(super) const MESSAGE_BYTES: usize = 16 << 20;
/// Topics of a shard of which only the position is kept.
pub(super) const QUIET_TOPICS: usize = 100;
/// Messages of `calm` rooms that are kept.
const CALM: usize = 4;
/// How long users, messages and positions are kept, so that a case can be seen to leave nothing.
const KEPT_MS: u64 = 200;
/// Slots of all shards together.
const SLOTS: u32 = 2048;

const ARGUMENT: &str = "RINGGATE_HOSTILE_SUITE";
const FIGURES: &str = "figures ";
const READY: &str = "ready ";
/// A PEM on one line.
const CERTIFICATE: &str = "certificate ";

/// The configuration, and the certificate in PEM form.
fn config(compact: bool, shards: usize) -> (Config, String) {
    let (mut config, certificate) = Config::dev(Some(shards)).unwrap();
    config.admin = None;
    config.runtime.pin_cores = false;
    config.runtime.connections_per_shard_max = SLOTS / shards as u32;
    config.runtime.recv_buffers = 64;
    config.runtime.recv_buffer_bytes = 2048;
    config.runtime.accepts_in_flight = 4;
    config.runtime.mailbox_capacity = 1024;
    config.listeners.retain(|listener| matches!(listener.front.transport, Transport::Plain | Transport::Tls));
    for listener in &mut config.listeners {
        listener.address.set_port(0);
    }
    let all = SocketAddr::new("::".parse().unwrap(), 0);
    config.listeners.push(ListenerConfig::new(all, Transport::Plain));
    if compact {
        config.make_tls_compact();
    }
    let settings = &mut config.settings;
    // Nobody must run into these for want of a core.
    (settings.inbox.ack_wait_ms, settings.inbox.ack_wait_ms_max) = (600_000, 600_000);
    (settings.client.handshake_timeout_ms, settings.client.connect_timeout_ms) = (60_000, 60_000);
    settings.client.message_bytes_max = MESSAGE_BYTES;
    settings.client.connections_per_address_max = PER_ADDRESS;
    (settings.inbox.ttl_ms, settings.inbox.device_ttl_ms) = (KEPT_MS, KEPT_MS);
    (settings.topic_ttl_ms, settings.quiet_topics_max) = (KEPT_MS, QUIET_TOPICS);
    settings.dedup_window_ms = KEPT_MS;
    let room = |name: &str, change: fn(&mut Namespace)| {
        let mut namespace = Namespace { history_ttl_ms: KEPT_MS, ..Namespace::named(name) };
        change(&mut namespace);
        namespace
    };
    settings.namespaces = vec![
        room("chat", |_| {}),
        // Its log is always as long as it may be: what its messages take does not change.
        room("calm", |calm| (calm.history_size, calm.history_ttl_ms) = (CALM, 3_600_000)),
        room("loud", |loud| loud.join_leave = true),
        room("brief", |brief| (brief.history_size, brief.vanish_when_empty) = (0, true)),
        room("closed", |closed| (closed.subscribe_all, closed.publish_all) = (false, false)),
    ];
    (config, certificate)
}

/// Serves until its input ends, and writes a line of figures for each line that comes.
#[test]
#[ignore = "the process that the suite starts"]
fn gateway_of_the_suite_then_it_serves_until_told_to_end() {
    let asked = std::env::var(ARGUMENT).ok();
    let (memory, shards) = asked.as_deref().and_then(|asked| asked.split_once(' ')).unwrap_or(("ordinary", "1"));
    let (config, certificate) = config(memory == "compact", shards.parse().unwrap());
    let server = Server::start(config).unwrap();
    let ports: Vec<_> = server.addresses().iter().map(|listener| listener.address.port().to_string()).collect();
    // What the test harness has written so far ends without a newline.
    println!("\n{READY}{}", ports.join(" "));
    println!("{CERTIFICATE}{}", certificate.replace('\n', "|"));
    // Among all tests, nobody asks it anything: it starts and drains.
    for _ in asked.iter().flat_map(|_| std::io::stdin().lines()) {
        let figures = figures(server.metrics());
        let words: Vec<_> = figures.iter().map(|(name, value)| format!("{name}={value}")).collect();
        println!("\n{FIGURES}{}", words.join(" "));
    }
    assert!(server.shutdown(&AtomicBool::new(false)), "the gateway did not drain");
}

fn figures(shards: &[std::sync::Arc<ShardMetrics>]) -> BTreeMap<String, i64> {
    let sum = |cells: &dyn Fn(&ShardMetrics) -> Vec<&Cell>| {
        let all = shards.iter().flat_map(|shard| cells(shard)).map(Cell::read);
        all.fold(0, u64::wrapping_add).cast_signed()
    };
    let mut figures = BTreeMap::new();
    let mut set = |name: &str, value: i64| {
        figures.insert(name.to_owned(), value);
    };
    for (number, shard) in shards.iter().enumerate() {
        let active: u64 = shard.connections_active.iter().map(Cell::read).sum();
        set(&format!("connections_{number}"), active.cast_signed());
        let accepted: u64 = shard.connections_accepted.iter().map(Cell::read).sum();
        set(&format!("accepted_{number}"), accepted.cast_signed());
        set(&format!("full_{number}"), shard.connections_refused[Refusal::Full].read().cast_signed());
    }
    set("connections", sum(&|m| m.connections_active.iter().collect()));
    set("sessions", sum(&|m| vec![&m.sessions_active]));
    set("slots", sum(&|m| vec![&m.ring_slots_used]));
    set("queued", sum(&|m| vec![&m.deliveries_queued]));
    set("deferred", sum(&|m| vec![&m.deliveries_deferred]));
    set("outbox_bytes", sum(&|m| vec![&m.outbox_bytes]));
    set("rooms", sum(&|m| vec![&m.rooms]));
    set("users", sum(&|m| vec![&m.users]));
    set("quiet_topics", sum(&|m| vec![&m.quiet_topics]));
    set("log_bytes", sum(&|m| vec![&m.log_bytes]));
    set("inbox_pending", sum(&|m| vec![&m.inbox_pending]));
    set("unknown_bytes", sum(&|m| vec![&m.inbox_unknown_bytes]));
    let owed = sum(&|m| vec![&m.deliveries_owed]);
    let accounted = sum(&|m| {
        let gauges = [&m.deliveries_sent, &m.deliveries_queued, &m.deliveries_deferred];
        gauges.into_iter().chain(&m.deliveries_dropped).collect()
    });
    set("deliveries_unaccounted", owed - accounted);
    let stored = sum(&|m| vec![&m.inbox_stored]);
    let gone = sum(&|m| [&m.inbox_acked, &m.inbox_pending].into_iter().chain(&m.inbox_expired).collect());
    set("inbox_unaccounted", stored - gone);
    let accepted = sum(&|m| m.connections_accepted.iter().collect());
    let ended = sum(&|m| m.closes.iter().flatten().chain(&m.connections_active).collect());
    set("accepted_unaccounted", accepted - ended);
    set("accepted", accepted);
    set("refused", sum(&|m| m.connections_refused.iter().collect()));
    set("descriptors", std::fs::read_dir("/proc/self/fd").unwrap().count() as i64);
    set("heap", counting::live() as i64);
    figures
}

/// A gateway's figures at one moment.
pub(super) type Figures = BTreeMap<String, i64>;

/// That process, from outside. Killed when dropped.
pub(super) struct Remote {
    child: Child,
    asks: std::sync::Mutex<(Option<ChildStdin>, BufReader<ChildStdout>)>,
    pub(super) plain: SocketAddr,
    pub(super) tls: SocketAddr,
    /// The port of the plain listener at all addresses, of both versions.
    pub(super) any: u16,
    pub(super) shards: usize,
    /// Of the TLS listener, in PEM form.
    pub(super) certificate: String,
}

impl Remote {
    pub(super) fn start(compact: bool, shards: usize) -> Remote {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            "suite::remote::gateway_of_the_suite_then_it_serves_until_told_to_end",
            "--ignored",
            "--nocapture",
        ]);
        command.env(ARGUMENT, format!("{} {shards}", if compact { "compact" } else { "ordinary" }));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, mut output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let ready = line(&mut output, READY);
        let ports: Vec<u16> = ready.split(' ').map(|port| port.parse().unwrap()).collect();
        let certificate = line(&mut output, CERTIFICATE).replace('|', "\n");
        let [plain, tls, any] = ports[..] else { panic!("three ports, not {ready}") };
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let asks = std::sync::Mutex::new((input, output));
        Remote { child, asks, plain: local(plain), tls: local(tls), any, shards, certificate }
    }

    pub(super) fn figures(&self) -> Figures {
        let (input, output) = &mut *self.asks.lock().unwrap();
        input.as_mut().unwrap().write_all(b"figures\n").expect("the gateway runs");
        let line = line(output, FIGURES);
        let figure = |word: &str| {
            let (name, value) = word.split_once('=').unwrap();
            (name.to_owned(), value.parse().unwrap())
        };
        line.split(' ').map(figure).collect()
    }

    pub(super) fn figure(&self, name: &str) -> i64 {
        self.figures()[name]
    }

    /// Ends its input, and sees that it drains and ends well.
    pub(super) fn finish(mut self) {
        self.asks.lock().unwrap().0 = None;
        let status = self.child.wait().unwrap();
        assert!(status.success(), "the gateway ended with {status}");
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What follows this word on the next line that begins with it.
fn line(output: &mut impl BufRead, word: &str) -> String {
    loop {
        let mut line = String::new();
        let read = output.read_line(&mut line).unwrap();
        assert!(read > 0, "the gateway ended without saying {word:?}");
        if let Some(rest) = line.trim_end().strip_prefix(word) {
            return rest.to_owned();
        }
    }
}
