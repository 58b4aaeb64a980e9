//! What the values of a configuration mean, and whether they fit together.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls_pki_types::ServerName;
use toml::Spanned;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use zeroize::Zeroizing;

use super::raw::{self, At, CoreList, Duration, Number};
use super::reload::Values;
use super::{CertificateError, Config, ListenerConfig, Logging, Problem, Runtime};
use crate::cores::Cores;
use ringgate_auth::certificate::{self, Loaded};
use ringgate_auth::{Algorithm, Claims, Key, parse_algorithm, secret_in};
use ringgate_core::id::Durability;
use ringgate_core::limits::{
    BODY_OVERHEAD_BYTES, CONNECTIONS_PER_SHARD_MAX, ClientLimits, DEDUP_ENTRIES_MAX, DEDUP_WINDOW_MS_MAX,
    DURATION_MS_MAX, HEADER_BYTES, HEARTBEAT_MS_MAX, InboxSettings, NODES_MAX, Namespace, SHARDS_MAX, Settings,
};
use ringgate_core::transport::Transport;
use ringgate_core::units::{duration_text, line_of, parse_duration_ms, parse_size};
use ringgate_net::Descriptors;

/// Collects problems while values are taken.
struct Check<'a> {
    text: &'a str,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Check<'_> {
    fn problem(&mut self, key: &str, at: Option<usize>, text: impl Into<String>) {
        let line = at.map(|offset| line_of(self.text, offset));
        self.problems.push(Problem { line, key: key.to_owned(), text: text.into() });
    }

    fn warn(&mut self, key: &str, at: Option<usize>, text: impl Into<String>) {
        let line = at.map(|offset| line_of(self.text, offset));
        self.warnings.push(Problem { line, key: key.to_owned(), text: text.into() });
    }

    /// Warns where a file that holds a secret is not for its owner and group alone.
    fn warn_if_open(&mut self, key: &str, at: Option<usize>, path: &str) {
        self.warn_if_allowed(key, at, path, 0o007, "open to", "o-rwx");
    }

    /// Warns where everybody could exchange what clients are checked against.
    fn warn_if_writable(&mut self, key: &str, at: Option<usize>, path: &str) {
        self.warn_if_allowed(key, at, path, 0o002, "writable for", "o-w");
    }

    fn warn_if_allowed(&mut self, key: &str, at: Option<usize>, path: &str, bits: u32, how: &str, remedy: &str) {
        let Ok(metadata) = std::fs::metadata(path) else { return };
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & bits != 0 {
            let text = format!("{path} is {how} every user of this host (mode {mode:04o}); `chmod {remedy} {path}`");
            self.warn(key, at, text);
        }
    }

    /// Milliseconds within a range.
    fn duration(&mut self, key: &str, value: &At<Duration>, default_ms: u64, range_ms: (u64, u64)) -> u64 {
        let Some(value) = value else { return default_ms };
        let text = &value.get_ref().0;
        let wrong = match parse_duration_ms(text) {
            Ok(ms) if ms < range_ms.0 => format!("\"{text}\" is too short; at least {}", duration_text(range_ms.0)),
            Ok(ms) if ms > range_ms.1 => format!("\"{text}\" is too long; at most {}", duration_text(range_ms.1)),
            Ok(ms) => return ms,
            Err(error) => error,
        };
        self.problem(key, at(value), wrong);
        default_ms
    }

    /// An integer, or a size when `units`.
    fn number(&mut self, key: &str, value: &At<Number>, default: u64, range: (u64, u64), units: bool) -> u64 {
        let Some(value) = value else { return default };
        let right = format!("{} to {}{}", range.0, range.1, if units { " bytes" } else { "" });
        let (number, shown) = match value.get_ref() {
            Number::Integer(number) if *number < 0 => (Err(format!("{number} is negative; {right}")), String::new()),
            Number::Integer(number) => (Ok(u64::try_from(*number).unwrap_or(u64::MAX)), number.to_string()),
            Number::Text(text) if units => (parse_size(text), format!("\"{text}\"")),
            Number::Text(text) => (Err(format!("\"{text}\" is not a number; {right}")), String::new()),
        };
        let wrong = match number {
            Ok(number) if (range.0..=range.1).contains(&number) => return number,
            Ok(_) => format!("{shown} is out of bounds; {right}"),
            Err(error) => error,
        };
        self.problem(key, at(value), wrong);
        default
    }

    fn choice<T: Copy>(&mut self, key: &str, value: &At<String>, default: T, choices: &[(&str, T)]) -> T {
        let Some(value) = value else { return default };
        if let Some((_, chosen)) = choices.iter().find(|(name, _)| name == value.get_ref()) {
            return *chosen;
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        self.problem(key, at(value), format!("\"{}\" is not one of {}", value.get_ref(), names.join(", ")));
        default
    }

    fn address(&mut self, key: &str, value: &At<String>) -> Option<SocketAddr> {
        let Some(value) = value else {
            self.problem(key, None, "is missing; for instance \"127.0.0.1:7400\" or \"[::]:7400\"");
            return None;
        };
        let parsed = value.get_ref().parse();
        if parsed.is_err() {
            let text = format!("\"{}\" is not an address with a port; for instance \"0.0.0.0:7400\"", value.get_ref());
            self.problem(key, at(value), text);
        }
        parsed.ok()
    }
}

fn at<T>(value: &Spanned<T>) -> Option<usize> {
    Some(value.span().start)
}

/// A token that ended longer ago is old, whatever the clocks say.
const LEEWAY_MS_MAX: u64 = 24 * 3600 * 1000;
const NO_LIMIT: (u64, u64) = (0, u32::MAX as u64);
const POSITIVE: (u64, u64) = (1, u32::MAX as u64);

/// Why the host cannot give what `[runtime]` asks for: keys, and what is wrong.
pub(super) type Fits = fn(&Runtime) -> Vec<(&'static str, String)>;

/// `file` is where the text comes from.
pub(super) fn validate(raw: &raw::File, text: &str, file: &str, fits: Fits) -> Result<Config, Vec<Problem>> {
    let mut check = Check { text, problems: Vec::new(), warnings: Vec::new() };
    let settings = settings(raw, &mut check);
    let runtime = runtime(&raw.runtime, fits, &mut check);
    let listeners = listeners(raw, &mut check);
    let tls_names = raw.tls.iter().flat_map(|tls| &tls.names).map(|name| name.get_ref().clone()).collect();
    let loaded = tls(raw, &listeners, &mut check);
    let (tls, tls_ends) = match loaded {
        Some(loaded) => (Some(Arc::new(loaded.config)), Some(loaded.ends)),
        None => (None, None),
    };
    let (keys, claims) = token(&raw.token, file, &mut check);
    let admin = admin(&raw.admin, &listeners, &mut check);
    let admin_hosts = admin_hosts(&raw.admin, &mut check);
    let level = raw.logging.level.as_ref().map_or("info", |level| level.get_ref().as_str()).to_owned();
    if let Err(error) = log_filter(&level) {
        check.problem("logging.level", raw.logging.level.as_ref().and_then(at), error);
    }
    let json = check.choice("logging.format", &raw.logging.format, false, &[("human", false), ("json", true)]);
    if check.problems.is_empty() {
        Ok(Config {
            settings,
            runtime,
            listeners,
            tls,
            tls_ends,
            tls_names,
            keys,
            claims,
            admin,
            admin_hosts,
            logging: Logging { level, json },
            warnings: check.warnings,
            values: Values::of(text),
        })
    } else {
        Err(check.problems)
    }
}

fn settings(raw: &raw::File, check: &mut Check<'_>) -> Settings {
    let default = Settings::default();
    let name = raw.node.name.as_ref();
    if let Some(name) = name.filter(|name| !ringgate_core::wire::is_name(name.get_ref())) {
        check.problem(
            "node.name",
            at(name),
            "must be 1 to 128 bytes without blanks and control characters, with a visible character",
        );
    }
    let client = client(&raw.client, check);
    Settings {
        node: name.map_or(default.node, |name| name.get_ref().clone()),
        node_number: check.number("node.number", &raw.node.number, 0, (0, NODES_MAX as u64 - 1), false) as u16,
        inbox: inbox(&raw.inbox, client.message_bytes_max, check),
        namespaces: namespaces(raw, check),
        log_bytes_per_shard_max: check.number(
            "log.size_per_shard",
            &raw.log.size_per_shard,
            default.log_bytes_per_shard_max as u64,
            (1 << 20, 1 << 50),
            true,
        ) as usize,
        topic_ttl_ms: check.duration(
            "log.topic_ttl",
            &raw.log.topic_ttl,
            default.topic_ttl_ms,
            (1000, DURATION_MS_MAX),
        ),
        quiet_topics_max: check.number(
            "log.quiet_topics_max",
            &raw.log.quiet_topics_max,
            default.quiet_topics_max as u64,
            (0, 1 << 30),
            false,
        ) as usize,
        dedup_window_ms: check.duration(
            "log.dedup_window",
            &raw.log.dedup_window,
            default.dedup_window_ms,
            (1, DEDUP_WINDOW_MS_MAX),
        ),
        dedup_entries_max: check.number(
            "log.dedup_entries_max",
            &raw.log.dedup_entries_max,
            default.dedup_entries_max as u64,
            (1, DEDUP_ENTRIES_MAX as u64),
            false,
        ) as usize,
        shutdown_timeout_ms: check.duration(
            "shutdown.timeout",
            &raw.shutdown.timeout,
            default.shutdown_timeout_ms,
            (1, DURATION_MS_MAX),
        ),
        client,
    }
}

fn client(raw: &raw::Client, check: &mut Check<'_>) -> ClientLimits {
    let d = ClientLimits::default();
    let mut limits = ClientLimits {
        ping_interval_ms: check.duration(
            "client.ping_interval",
            &raw.ping_interval,
            d.ping_interval_ms,
            (100, HEARTBEAT_MS_MAX),
        ),
        ping_interval_ms_min: check.duration(
            "client.ping_interval_min",
            &raw.ping_interval_min,
            d.ping_interval_ms_min,
            (100, HEARTBEAT_MS_MAX),
        ),
        ping_interval_ms_max: check.duration(
            "client.ping_interval_max",
            &raw.ping_interval_max,
            d.ping_interval_ms_max,
            (100, HEARTBEAT_MS_MAX),
        ),
        pong_timeout_ms: check.duration(
            "client.pong_timeout",
            &raw.pong_timeout,
            d.pong_timeout_ms,
            (100, HEARTBEAT_MS_MAX),
        ),
        missed_pings_max: check.number(
            "client.missed_pings_max",
            &raw.missed_pings_max,
            d.missed_pings_max.into(),
            (2, 100),
            false,
        ) as u32,
        handshake_timeout_ms: check.duration(
            "client.handshake_timeout",
            &raw.handshake_timeout,
            d.handshake_timeout_ms,
            (10, DURATION_MS_MAX),
        ),
        connect_timeout_ms: check.duration(
            "client.connect_timeout",
            &raw.connect_timeout,
            d.connect_timeout_ms,
            (10, DURATION_MS_MAX),
        ),
        frame_timeout_ms: check.duration(
            "client.frame_timeout",
            &raw.frame_timeout,
            d.frame_timeout_ms,
            (10, DURATION_MS_MAX),
        ),
        write_timeout_ms: check.duration(
            "client.write_timeout",
            &raw.write_timeout,
            d.write_timeout_ms,
            (10, DURATION_MS_MAX),
        ),
        message_bytes_max: check.number(
            "client.message_size_limit",
            &raw.message_size_limit,
            d.message_bytes_max as u64,
            (1, 16 << 20),
            true,
        ) as usize,
        outbox_bytes_max: check.number(
            "client.queue_max_size",
            &raw.queue_max_size,
            d.outbox_bytes_max as u64,
            (1024, 1 << 30),
            true,
        ) as usize,
        outbox_frames_max: check.number(
            "client.queue_max_messages",
            &raw.queue_max_messages,
            d.outbox_frames_max as u64,
            POSITIVE,
            false,
        ) as usize,
        rooms_max: check.number("client.room_limit", &raw.room_limit, d.rooms_max as u64, (1, 65535), false) as usize,
        sessions_per_user_max: check.number(
            "client.user_connection_limit",
            &raw.user_connection_limit,
            d.sessions_per_user_max as u64,
            (1, 65535),
            false,
        ) as usize,
        requests_in_flight_max: check.number(
            "client.requests_in_flight_limit",
            &raw.requests_in_flight_limit,
            d.requests_in_flight_max as u64,
            (1, 65535),
            false,
        ) as usize,
        messages_rate: check.number("client.messages_rate", &raw.messages_rate, d.messages_rate.into(), NO_LIMIT, false)
            as u32,
        messages_burst: check.number(
            "client.messages_burst",
            &raw.messages_burst,
            d.messages_burst.into(),
            POSITIVE,
            false,
        ) as u32,
        bytes_rate: check.number("client.bytes_rate", &raw.bytes_rate, d.bytes_rate.into(), NO_LIMIT, true) as u32,
        bytes_burst: check.number("client.bytes_burst", &raw.bytes_burst, d.bytes_burst.into(), POSITIVE, true) as u32,
        connections_max: check.number("client.connection_limit", &raw.connection_limit, 0, NO_LIMIT, false) as usize,
        connections_per_address_max: check.number(
            "client.connection_limit_per_address",
            &raw.connection_limit_per_address,
            0,
            NO_LIMIT,
            false,
        ) as usize,
        address_prefix_ipv6: check.number(
            "client.address_prefix_ipv6",
            &raw.address_prefix_ipv6,
            d.address_prefix_ipv6.into(),
            (1, 128),
            false,
        ) as u8,
        accept_rate: check.number("client.connection_rate_limit", &raw.connection_rate_limit, 0, NO_LIMIT, false)
            as u32,
    };
    if limits.message_bytes_max > limits.outbox_bytes_max {
        let text = "is larger than client.queue_max_size, so the largest message would fit no queue; raise that one";
        check.problem("client.message_size_limit", raw.message_size_limit.as_ref().and_then(at), text);
    }
    if limits.pong_timeout_ms >= limits.ping_interval_ms {
        let text = "must be shorter than client.ping_interval";
        check.problem("client.pong_timeout", raw.pong_timeout.as_ref().and_then(at), text);
    } else if limits.pong_timeout_ms >= limits.ping_interval_ms_min {
        if raw.ping_interval_min.is_none() {
            // A file from before there was such a minimum: its heartbeats stay as they were.
            limits.ping_interval_ms_min = limits.pong_timeout_ms + 1;
            if raw.ping_interval_max.is_none() {
                limits.ping_interval_ms_max = limits.ping_interval_ms_max.max(limits.ping_interval_ms);
            }
        } else {
            let (timeout, min) = (duration_text(limits.pong_timeout_ms), duration_text(limits.ping_interval_ms_min));
            let text = format!(
                "\"{timeout}\" must be shorter than client.ping_interval_min, the shortest interval that a client may wish, \
                 which is \"{min}\"; raise that one or lower this one"
            );
            check.problem("client.pong_timeout", raw.pong_timeout.as_ref().and_then(at), text);
        }
    }
    if limits.ping_interval_ms_min > limits.ping_interval_ms_max {
        let text = "is longer than client.ping_interval_max";
        check.problem("client.ping_interval_min", raw.ping_interval_min.as_ref().and_then(at), text);
    }
    let frame_bytes_max = limits.message_bytes_max + BODY_OVERHEAD_BYTES + HEADER_BYTES;
    if limits.bytes_rate != 0 && (limits.bytes_burst as usize) < frame_bytes_max {
        let text = format!(
            "{} is smaller than the largest frame, which could never be sent: {frame_bytes_max} bytes, \
             client.message_size_limit and what goes with a payload; at least {frame_bytes_max}",
            limits.bytes_burst
        );
        let place = raw.bytes_burst.as_ref().and_then(at).or(raw.message_size_limit.as_ref().and_then(at));
        check.problem("client.bytes_burst", place, text);
    }
    limits
}

fn inbox(raw: &raw::Inbox, message_bytes_max: usize, check: &mut Check<'_>) -> InboxSettings {
    let d = InboxSettings::default();
    let inbox = InboxSettings {
        messages_max: check.number("inbox.messages_max", &raw.messages_max, d.messages_max as u64, POSITIVE, false)
            as usize,
        bytes_max: check.number("inbox.size_max", &raw.size_max, d.bytes_max as u64, (1024, 1 << 40), true) as usize,
        age_ms_max: check.duration("inbox.ttl", &raw.ttl, d.age_ms_max, (1000, DURATION_MS_MAX)),
        devices_max: check.number("inbox.devices_max", &raw.devices_max, d.devices_max as u64, (1, 10_000), false)
            as usize,
        device_ttl_ms: check.duration("inbox.device_ttl", &raw.device_ttl, d.device_ttl_ms, (1000, DURATION_MS_MAX)),
        unknown_messages_max: check.number(
            "inbox.unknown_messages_max",
            &raw.unknown_messages_max,
            d.unknown_messages_max as u64,
            POSITIVE,
            false,
        ) as usize,
        unknown_bytes_per_shard_max: check.number(
            "inbox.unknown_size_per_shard",
            &raw.unknown_size_per_shard,
            d.unknown_bytes_per_shard_max as u64,
            (64 * 1024, 1 << 50),
            true,
        ) as usize,
        in_flight_max: check.number("inbox.in_flight_max", &raw.in_flight_max, d.in_flight_max, POSITIVE, false),
        ack_wait_ms: check.duration("inbox.ack_wait", &raw.ack_wait, d.ack_wait_ms, (10, DURATION_MS_MAX)),
        ack_wait_ms_max: check.duration(
            "inbox.ack_wait_max",
            &raw.ack_wait_max,
            d.ack_wait_ms_max,
            (10, DURATION_MS_MAX),
        ),
        publish_all: check.choice("inbox.publish", &raw.publish, d.publish_all, WHO),
        copy_to_own_devices: raw.copy_to_own_devices.unwrap_or(d.copy_to_own_devices),
    };
    if inbox.ack_wait_ms > inbox.ack_wait_ms_max {
        let (wait, most) = (duration_text(inbox.ack_wait_ms), duration_text(inbox.ack_wait_ms_max));
        let text = format!("\"{wait}\" is longer than inbox.ack_wait_max, which is \"{most}\"; raise that one too");
        check.problem("inbox.ack_wait", raw.ack_wait.as_ref().and_then(at), text);
    }
    for (key, bytes, place) in [
        ("inbox.size_max", inbox.bytes_max, &raw.size_max),
        ("inbox.unknown_size_per_shard", inbox.unknown_bytes_per_shard_max, &raw.unknown_size_per_shard),
    ] {
        if bytes < message_bytes_max + BODY_OVERHEAD_BYTES {
            let text = "is smaller than client.message_size_limit and 4 KiB, so the largest message would not be kept";
            check.problem(key, place.as_ref().and_then(at), text);
        }
    }
    inbox
}

const WHO: &[(&str, bool)] = &[("all", true), ("token", false)];

fn namespaces(raw: &raw::File, check: &mut Check<'_>) -> Vec<Namespace> {
    let Some(list) = &raw.namespaces else { return Settings::default().namespaces };
    let mut namespaces: Vec<Namespace> = Vec::new();
    for (index, raw) in list.iter().enumerate() {
        let key = |field: &str| format!("namespaces[{index}].{field}");
        let Some(name) = &raw.name else {
            check.problem(&key("name"), None, "is missing; rooms are called name:room");
            continue;
        };
        let text = name.get_ref();
        if !ringgate_core::wire::is_name(text) || text.contains([':', '@']) {
            check.problem(&key("name"), at(name), "must not be empty or hold a colon, an @ or blanks");
        }
        if namespaces.iter().any(|known| known.name == *text) {
            check.problem(&key("name"), at(name), format!("\"{text}\" is there twice; remove one"));
        }
        let d = Namespace::named(text);
        let durable = raw.durability.as_ref().filter(|durability| durability.get_ref() == "durable");
        if let Some(durable) = durable {
            let text = "\"durable\" needs a durable store, which this version does not have; use \"memory\"";
            check.problem(&key("durability"), at(durable), text);
        }
        let levels = [("memory", Durability::Memory), ("ephemeral", Durability::Ephemeral)];
        let durability = match durable {
            Some(_) => d.durability,
            None => check.choice(&key("durability"), &raw.durability, d.durability, &levels),
        };
        let kept = durability != Durability::Ephemeral;
        let history_size =
            check.number(&key("history_size"), &raw.history_size, d.history_size as u64, (0, 1_000_000), false)
                as usize;
        namespaces.push(Namespace {
            durability,
            history_size: if kept { history_size } else { 0 },
            history_ttl_ms: check.duration(
                &key("history_ttl"),
                &raw.history_ttl,
                d.history_ttl_ms,
                (1, DURATION_MS_MAX),
            ),
            join_leave: raw.join_leave.unwrap_or(d.join_leave),
            presence: raw.presence.unwrap_or(d.presence),
            subscribe_all: check.choice(&key("subscribe"), &raw.subscribe, d.subscribe_all, WHO),
            publish_all: check.choice(&key("publish"), &raw.publish, d.publish_all, WHO),
            publish_without_subscribe: raw.publish_without_subscribe.unwrap_or(d.publish_without_subscribe),
            echo: raw.echo.unwrap_or(d.echo),
            vanish_when_empty: raw.vanish_when_empty.unwrap_or(d.vanish_when_empty),
            name: text.clone(),
        });
    }
    namespaces
}

fn runtime(raw: &raw::Runtime, fits: Fits, check: &mut Check<'_>) -> Runtime {
    let d = Runtime::default();
    let shards = match raw.shards.as_ref().map(Spanned::get_ref) {
        None => None,
        Some(Number::Text(text)) if text == "auto" => None,
        Some(Number::Text(text)) => {
            let text = format!("\"{text}\" is neither \"auto\" nor a number");
            check.problem("runtime.shards", raw.shards.as_ref().and_then(at), text);
            None
        }
        Some(Number::Integer(_)) => {
            Some(check.number("runtime.shards", &raw.shards, 1, (1, SHARDS_MAX as u64), false) as usize)
        }
    };
    let runtime = Runtime {
        shards,
        pin_cores: raw.pin_cores.unwrap_or(d.pin_cores),
        cores: cores(&raw.cores, check),
        huge_pages: raw.huge_pages.unwrap_or(d.huge_pages),
        dumpable: raw.dumpable.unwrap_or(d.dumpable),
        descriptors: check.choice(
            "runtime.descriptors",
            &raw.descriptors,
            d.descriptors,
            &[("auto", d.descriptors), ("direct", Descriptors::Direct), ("ordinary", Descriptors::Ordinary)],
        ),
        connections_per_shard_max: check.number(
            "runtime.connections_per_shard_max",
            &raw.connections_per_shard_max,
            d.connections_per_shard_max.into(),
            (16, CONNECTIONS_PER_SHARD_MAX as u64),
            false,
        ) as u32,
        recv_buffers: check.number("runtime.recv_buffers", &raw.recv_buffers, d.recv_buffers.into(), (1, 32768), false)
            as u16,
        recv_buffer_bytes: check.number(
            "runtime.recv_buffer_size",
            &raw.recv_buffer_size,
            d.recv_buffer_bytes as u64,
            (64, 1 << 20),
            true,
        ) as usize,
        accepts_in_flight: check.number(
            "runtime.accepts_in_flight",
            &raw.accepts_in_flight,
            d.accepts_in_flight as u64,
            (1, 1024),
            false,
        ) as usize,
        mailbox_capacity: check.number(
            "runtime.mailbox_capacity",
            &raw.mailbox_capacity,
            d.mailbox_capacity as u64,
            (1, 1 << 20),
            false,
        ) as usize,
    };
    if !runtime.recv_buffers.is_power_of_two() {
        let text = format!("{} is not a power of two", runtime.recv_buffers);
        check.problem("runtime.recv_buffers", raw.recv_buffers.as_ref().and_then(at), text);
    }
    for (key, text) in fits(&runtime) {
        let place = match key {
            "runtime.cores" => raw.cores.as_ref().and_then(at),
            "runtime.recv_buffers" => {
                let size = raw.recv_buffer_size.as_ref().and_then(at);
                raw.recv_buffers.as_ref().and_then(at).or(size).or(raw.shards.as_ref().and_then(at))
            }
            _ => raw.connections_per_shard_max.as_ref().and_then(at),
        };
        check.problem(key, place, text);
    }
    runtime
}

fn cores(raw: &At<CoreList>, check: &mut Check<'_>) -> Cores {
    let Some(value) = raw else { return Cores::Auto };
    let wrong = match value.get_ref() {
        CoreList::Text(text) if text == "auto" => return Cores::Auto,
        CoreList::Text(text) => format!("\"{text}\" is neither \"auto\" nor a list of core numbers like [0, 2, 4]"),
        CoreList::List(list) => match list.iter().map(core_number).collect::<Result<Vec<_>, _>>() {
            Err(wrong) => wrong,
            Ok(list) if list.is_empty() => "is empty; list at least one core, or write \"auto\"".to_owned(),
            Ok(list) => {
                let mut once = list.clone();
                once.sort_unstable();
                once.dedup();
                if once.len() == list.len() {
                    return Cores::List(list);
                }
                "names a core twice; more shards than cores share them in turn anyway".to_owned()
            }
        },
    };
    check.problem("runtime.cores", at(value), wrong);
    Cores::Auto
}

fn core_number(number: &Number) -> Result<usize, String> {
    match number {
        Number::Integer(core) => {
            usize::try_from(*core).map_err(|_| format!("has {core} in it; cores are counted from 0"))
        }
        Number::Text(text) => Err(format!("has \"{text}\" in it; cores are numbers, like [0, 2, 4]")),
    }
}

fn listeners(raw: &raw::File, check: &mut Check<'_>) -> Vec<ListenerConfig> {
    if raw.listeners.is_empty() {
        let text = "there is none; add [[listeners]] with address = \"0.0.0.0:7400\"";
        check.problem("listeners", None, text);
    }
    let mut listeners: Vec<ListenerConfig> = Vec::new();
    for (index, raw) in raw.listeners.iter().enumerate() {
        let key = format!("listeners[{index}].address");
        let Some(address) = check.address(&key, &raw.address) else { continue };
        let ipv6_only = raw.ipv6_only.as_ref().is_some_and(|only| *only.get_ref());
        if let Some(only) = raw.ipv6_only.as_ref().filter(|_| ipv6_only && address.is_ipv4()) {
            let text = "is for IPv6 addresses, and listeners.address is none; remove it";
            check.problem(&format!("listeners[{index}].ipv6_only"), at(only), text);
        }
        let transport = if raw.tls { Transport::Tls } else { Transport::Plain };
        let listener = ListenerConfig { address, transport, ipv6_only };
        if let Some((other, known)) = listeners.iter().enumerate().find(|(_, known)| overlap(known, &listener)) {
            let text = match known.address == address {
                true => format!("{address} is there twice; remove one"),
                false => {
                    let other = format!("listeners[{other}]");
                    let name = format!("listeners[{index}]");
                    taken(address, &format!("{other}.address"), known.address)
                        + &way_out([(&name, &listener), (&other, known)])
                }
            };
            check.problem(&key, raw.address.as_ref().and_then(at), text);
        }
        listeners.push(listener);
    }
    listeners
}

fn taken(address: SocketAddr, key: &str, other: SocketAddr) -> String {
    format!("{address} and {key} {other} are the same to the kernel; choose another port, or remove one")
}

/// Where `[::]` takes IPv4 from a listener beside it, what keeps it from that. Names, and what they are.
fn way_out(both: [(&str, &ListenerConfig); 2]) -> String {
    let takes_all = |one: &ListenerConfig| one.address.is_ipv6() && one.address.ip().is_unspecified() && !one.ipv6_only;
    let is_ipv4 = |one: &ListenerConfig| one.address.ip().to_canonical().is_ipv4();
    let [one, other] = both;
    for ((name, all), (_, beside)) in [(one, other), (other, one)] {
        if takes_all(all) && is_ipv4(beside) {
            return format!("; {} takes IPv4, too, unless {name}.ipv6_only = true", all.address);
        }
    }
    String::new()
}

/// Whether both would take the same connections, so that the kernel gives the port to one of them only.
fn overlap(one: &ListenerConfig, other: &ListenerConfig) -> bool {
    let covers = |one: &ListenerConfig, other: &ListenerConfig| {
        let (all, one_of) = (one.address.ip(), other.address.ip().to_canonical());
        match all {
            IpAddr::V4(all) => all.is_unspecified() && one_of.is_ipv4(),
            IpAddr::V6(all) => all.is_unspecified() && (one_of.is_ipv6() || !one.ipv6_only),
        }
    };
    let (port, other_port) = (one.address.port(), other.address.port());
    let same = one.address.ip().to_canonical() == other.address.ip().to_canonical();
    port != 0 && port == other_port && (same || covers(one, other) || covers(other, one))
}

fn tls(raw: &raw::File, listeners: &[ListenerConfig], check: &mut Check<'_>) -> Option<Loaded> {
    let wanted = listeners.iter().any(|listener| listener.transport == Transport::Tls);
    let Some(tls) = &raw.tls else {
        if wanted {
            check.problem("tls", None, "is missing, but a listener has tls = true; add [tls] with certificate and key");
        }
        return None;
    };
    let compact = check.choice("tls.memory", &tls.memory, false, &[("ordinary", false), ("compact", true)]);
    let mut names = Vec::new();
    for name in &tls.names {
        match ServerName::try_from(name.get_ref().as_str()) {
            Ok(name) => names.push(name),
            Err(_) => {
                let text = format!("\"{}\" is neither a host name nor an address", name.get_ref());
                check.problem("tls.names", at(name), text);
            }
        }
    }
    let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) else {
        check.problem("tls", None, "needs both certificate and key, each the path of a PEM file");
        return None;
    };
    check.warn_if_open("tls.key", at(key), key.get_ref());
    check.warn_if_writable("tls.certificate", at(certificate), certificate.get_ref());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    match certificate::load(Path::new(certificate.get_ref()), Path::new(key.get_ref()), &names, now) {
        Ok(mut loaded) => {
            for text in std::mem::take(&mut loaded.warnings) {
                check.warn("tls.certificate", at(certificate), text);
            }
            if compact {
                ringgate_net::tls::make_compact(&mut loaded.config);
            }
            Some(loaded)
        }
        Err(CertificateError::Certificate(text)) => {
            check.problem("tls.certificate", at(certificate), text);
            None
        }
        Err(CertificateError::Key(text)) => {
            check.problem("tls.key", at(key), text);
            None
        }
    }
}

fn token(raw: &raw::Token, file: &str, check: &mut Check<'_>) -> (Vec<Key>, Claims) {
    if raw.keys.is_empty() {
        check.problem(
            "token.keys",
            None,
            "there is none; add [[token.keys]] with algorithm and secret_file or public_key_file",
        );
    }
    let mut keys: Vec<Key> = Vec::new();
    for (index, raw) in raw.keys.iter().enumerate() {
        let name = |field: &str| format!("token.keys[{index}].{field}");
        if let Some(path) = &raw.secret_file {
            check.warn_if_open(&name("secret_file"), at(path), path.get_ref());
        }
        if let Some(secret) = &raw.secret {
            check.warn_if_open(&name("secret"), at(secret), file);
        }
        if let Some(path) = &raw.public_key_file {
            check.warn_if_writable(&name("public_key_file"), at(path), path.get_ref());
        }
        match key(raw) {
            Ok(key) => {
                if keys.iter().any(|known| known.kid == key.kid && known.algorithm == key.algorithm) {
                    check.problem(
                        &name("kid"),
                        None,
                        "another key has the same kid and algorithm; give each its own kid",
                    );
                }
                keys.push(key);
            }
            Err((field, at, text)) => check.problem(&name(field), at, text),
        }
    }
    let leeway_ms = check.duration("token.leeway", &raw.leeway, 5000, (0, LEEWAY_MS_MAX));
    if !leeway_ms.is_multiple_of(1000) {
        let text = "is no whole number of seconds, which is how tokens count; for instance \"5s\"";
        check.problem("token.leeway", raw.leeway.as_ref().and_then(at), text);
    }
    let claims = Claims {
        audience: raw.audience.clone(),
        issuer: raw.issuer.clone(),
        leeway_seconds: leeway_ms / 1000,
        require_exp: raw.require_exp.unwrap_or(true),
    };
    (keys, claims)
}

type KeyProblem = (&'static str, Option<usize>, String);

fn key(raw: &raw::Key) -> Result<Key, KeyProblem> {
    let Some(algorithm_name) = &raw.algorithm else {
        return Err(("algorithm", None, "is missing; for instance \"HS256\" or \"EdDSA\"".to_owned()));
    };
    let algorithm =
        parse_algorithm(algorithm_name.get_ref()).map_err(|text| ("algorithm", at(algorithm_name), text))?;
    let read = |field: &'static str, path: &Spanned<String>| {
        std::fs::read(path.get_ref())
            .map(Zeroizing::new)
            .map_err(|error| (field, at(path), format!("{} cannot be read: {error}", path.get_ref())))
    };
    let kid = raw.kid.clone();
    match (&raw.secret, &raw.secret_file, &raw.public_key_file) {
        (Some(secret), None, None) => {
            secret_key(kid, algorithm, secret.get_ref().0.as_bytes()).map_err(|text| ("secret", at(secret), text))
        }
        (None, Some(path), None) => {
            let bytes = read("secret_file", path)?;
            secret_key(kid, algorithm, secret_in(&bytes)).map_err(|text| ("secret_file", at(path), text))
        }
        (None, None, Some(path)) => {
            let bytes = read("public_key_file", path)?;
            Key::public(kid, algorithm, &bytes)
                .map_err(|text| ("public_key_file", at(path), format!("{} {text}", path.get_ref())))
        }
        _ => Err(("secret", None, "give exactly one of secret, secret_file and public_key_file".to_owned())),
    }
}

/// A secret from either place; everybody knows the development key.
fn secret_key(kid: Option<String>, algorithm: Algorithm, secret: &[u8]) -> Result<Key, String> {
    if secret == ringgate_auth::DEV_SECRET.as_bytes() {
        return Err("is the public development key; make a secret of your own".to_owned());
    }
    Key::secret(kid, algorithm, secret)
}

/// Reads a level, or directives of tracing with a level each; the error says what would be right. A bare word that is no level is
/// refused: tracing takes it for the name of a module, and a misspelt level would switch off everything else.
pub fn log_filter(text: &str) -> Result<EnvFilter, String> {
    let wrong = || {
        let right = "use error, warn, info, debug, trace or off, or directives like \"info,ringgate_net=debug\"";
        format!("\"{text}\" is not a log level; {right}")
    };
    // An empty word is the level "error" to tracing.
    let is_known = |directive: &str| match directive.trim().rsplit_once('=') {
        Some((_, level)) => !level.is_empty(),
        None => !directive.trim().is_empty() && directive.trim().parse::<LevelFilter>().is_ok(),
    };
    if !text.split(',').all(is_known) {
        return Err(wrong());
    }
    EnvFilter::try_new(text).map_err(|_| wrong())
}

fn admin(raw: &raw::Admin, listeners: &[ListenerConfig], check: &mut Check<'_>) -> Option<SocketAddr> {
    // Also where it is off: a mistake is better found now than when it is switched on.
    let address = match &raw.address {
        None => Some(SocketAddr::from(([127, 0, 0, 1], super::DEFAULT_ADMIN_PORT))),
        address => check.address("admin.address", address),
    };
    let address = address.filter(|_| raw.enabled.unwrap_or(true))?;
    let admin = ListenerConfig { address, transport: Transport::Plain, ipv6_only: false };
    if let Some((index, known)) = listeners.iter().enumerate().find(|(_, known)| overlap(known, &admin)) {
        let other = format!("listeners[{index}]");
        let mut text = taken(address, &format!("{other}.address"), known.address);
        if address.is_ipv4() {
            text += &way_out([("admin", &admin), (&other, known)]);
        }
        check.problem("admin.address", raw.address.as_ref().and_then(at), text);
    }
    Some(address)
}

/// Host names as a request has them, in lower case.
fn admin_hosts(raw: &raw::Admin, check: &mut Check<'_>) -> Vec<String> {
    for (index, host) in raw.hosts.iter().enumerate() {
        let text = host.get_ref();
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if text.is_empty() || text.ends_with('.') || !text.chars().all(is_host) {
            let wrong = format!(
                "\"{text}\" is not a host name; write it without scheme and port, like \"gateway.example.org\""
            );
            check.problem(&format!("admin.hosts[{index}]"), at(host), wrong);
        }
    }
    raw.hosts.iter().map(|host| host.get_ref().to_ascii_lowercase()).collect()
}
