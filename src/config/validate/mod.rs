//! What the values of a configuration mean, and whether they fit together.
//!
//! | file | what |
//! |---|---|
//! | `check` | takes values, and collects what is wrong with them |
//! | `client`, `topics`, `runtime`, `listeners`, `websocket`, `secrets`, `redis` | the sections |

mod check;
mod client;
mod listeners;
mod redis;
mod runtime;
mod secrets;
mod topics;
mod websocket;

use std::sync::Arc;

use ringgate_core::limits::{DEDUP_ENTRIES_MAX, DEDUP_WINDOW_MS_MAX, DURATION_MS_MAX, NODES_MAX, Settings};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::raw;
use super::reload::Values;
use super::{Config, Logging, Problem, Runtime};
use check::{Check, at, take};
use client::client;
use listeners::{admin, admin_hosts, health, listeners};
use runtime::runtime;
use secrets::{tls, token};
use topics::{inbox, namespaces};
pub(super) use websocket::rules;
use websocket::websocket;

/// Why the host cannot give what `[runtime]` asks for: keys, and what is wrong.
pub(super) type Fits = fn(&Runtime) -> Vec<(&'static str, String)>;

/// `file` is where the text comes from.
pub(super) fn validate(raw: &raw::File, text: &str, file: &str, fits: Fits) -> Result<Config, Vec<Problem>> {
    let mut check = Check { text, problems: Vec::new(), warnings: Vec::new() };
    let (engine, redis) = redis::engine(raw, file, &mut check);
    let settings = Settings { engine, ..settings(raw, &mut check) };
    let runtime = runtime(&raw.runtime, fits, &mut check);
    let listeners = listeners(raw, &mut check);
    let websocket = websocket(&raw.websocket, &settings, &mut check);
    let tls_names = raw.tls.iter().flat_map(|tls| &tls.names).map(|name| name.get_ref().clone()).collect();
    let loaded = tls(raw, &listeners, &mut check);
    let (tls, tls_ends) = match loaded {
        Some(loaded) => (Some(Arc::new(loaded.config)), Some(loaded.ends)),
        None => (None, None),
    };
    let (keys, claims) = token(&raw.token, file, &mut check);
    let admin = admin(&raw.admin, &listeners, &mut check);
    let admin_hosts = admin_hosts(&raw.admin, &mut check);
    let health = health(&raw.admin, admin, &listeners, &mut check);
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
            websocket,
            keys,
            claims,
            admin,
            admin_hosts,
            health,
            redis,
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
    let node = Settings {
        node: name.map_or(default.node.clone(), |name| name.get_ref().clone()),
        node_number: check.count("node.number", &raw.node.number, 0, 0..=NODES_MAX as u64 - 1),
        inbox: inbox(&raw.inbox, client.message_bytes_max, check),
        namespaces: namespaces(raw, check),
        shutdown_timeout_ms: check.duration(
            "shutdown.timeout",
            &raw.shutdown.timeout,
            default.shutdown_timeout_ms,
            1..=DURATION_MS_MAX,
        ),
        client,
        ..default
    };
    take!(check, "log", &raw.log, node, Settings {
        log_bytes_per_shard_max = size(size_per_shard_max, 1 << 20..=1 << 50),
        topic_ttl_ms = duration(topic_ttl, 1000..=DURATION_MS_MAX),
        quiet_topics_max = count(quiet_topics_max, 0..=1 << 30),
        dedup_window_ms = duration(dedup_window, 1..=DEDUP_WINDOW_MS_MAX),
        dedup_entries_max = count(dedup_entries_max, 1..=DEDUP_ENTRIES_MAX as u64),
        .. rest
    })
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
