//! `log.engine` and `[redis]`: where messages are kept, and the Redis that links nodes.

use ringgate_auth::secret_in;
use ringgate_core::limits::Engine;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::super::raw::{self, Addresses};
use super::super::redis::{HostPort, Password, RedisConfig, RedisMode, RedisTls, WhenAway};
use super::check::{Check, at, take};

/// What stores, and the Redis if that does.
pub(super) fn engine(raw: &raw::File, file: &str, check: &mut Check<'_>) -> (Engine, Option<RedisConfig>) {
    let engines = [("memory", Engine::Memory), ("redis", Engine::Shared)];
    let engine = check.choice("log.engine", &raw.log.engine, Engine::Memory, &engines);
    match engine {
        Engine::Memory | Engine::Store => {
            // A node that was meant to be linked and is not would lose what others send, and say nothing.
            if let Some(redis) = &raw.redis {
                let text =
                    "is there, but log.engine is \"memory\"; write engine = \"redis\" in [log], or remove [redis]";
                check.problem("redis", at(redis), text);
            }
            (engine, None)
        }
        Engine::Shared => {
            if raw.node.number.is_none() {
                let text = "is missing; with log.engine = \"redis\" each node needs a number of its own, 0 to 1023";
                check.problem("node.number", None, text);
            }
            let Some(redis) = &raw.redis else {
                let text = "is missing, but log.engine is \"redis\"; add [redis] with address = \"127.0.0.1:6379\"";
                check.problem("redis", None, text);
                return (engine, None);
            };
            (engine, Some(self::redis(redis.get_ref(), file, check)))
        }
    }
}

fn redis(raw: &raw::Redis, file: &str, check: &mut Check<'_>) -> RedisConfig {
    let default = RedisConfig::at(addresses(raw, check));
    let redis = RedisConfig {
        mode: mode(raw, default.addresses.len(), check),
        sentinel_password: sentinel_password(raw, file, check),
        user: user(raw, check),
        password: password(raw, file, check),
        tls: tls(raw, check),
        prefix: prefix(raw, default.prefix.clone(), check),
        when_away: check.choice(
            "redis.when_away",
            &raw.when_away,
            default.when_away,
            &[("refuse", WhenAway::Refuse), ("wait", WhenAway::Wait)],
        ),
        allow_volatile: raw.allow_volatile.unwrap_or(default.allow_volatile),
        ..default
    };
    let redis = take!(check, "redis", raw, redis, RedisConfig {
        database = count(database, 0..=65_535),
        connect_timeout_ms = duration(connect_timeout, 10..=60_000),
        command_timeout_ms = duration(command_timeout, 10..=60_000),
        wait_ms_max = duration(wait_max, 100..=300_000),
        replicas_min = count(replicas_min, 0..=16),
        .. rest
    });
    if redis.mode == RedisMode::Cluster && redis.database != 0 {
        let text = format!("{} is not there: a Cluster has database 0 alone; remove it", redis.database);
        check.problem("redis.database", raw.database.as_ref().and_then(at), text);
    }
    if redis.when_away == WhenAway::Refuse
        && let Some(wait) = &raw.wait_max
    {
        check.warn(
            "redis.wait_max",
            at(wait),
            "has no effect without redis.when_away = \"wait\"; add that, or remove it",
        );
    }
    redis
}

fn addresses(raw: &raw::Redis, check: &mut Check<'_>) -> Vec<HostPort> {
    const KEY: &str = "redis.address";
    let Some(value) = &raw.address else {
        check.problem(KEY, None, "is missing; for instance \"127.0.0.1:6379\"");
        return Vec::new();
    };
    let texts = match value.get_ref() {
        Addresses::One(text) => std::slice::from_ref(text),
        Addresses::Several(list) => list,
    };
    if texts.is_empty() {
        check.problem(KEY, at(value), "is empty; write at least one, like [\"127.0.0.1:6379\"]");
    }
    let mut addresses: Vec<HostPort> = Vec::new();
    for text in texts {
        match HostPort::parse(text) {
            Ok(address) if addresses.contains(&address) => {
                check.problem(KEY, at(value), format!("has \"{text}\" twice; remove one"));
            }
            Ok(address) => addresses.push(address),
            Err(text) => check.problem(KEY, at(value), text),
        }
    }
    addresses
}

fn mode(raw: &raw::Redis, addresses: usize, check: &mut Check<'_>) -> RedisMode {
    const MASTER: &str = "redis.sentinel_master";
    let modes = ["standalone", "sentinel", "cluster"].map(|mode| (mode, mode));
    let mode = check.choice("redis.mode", &raw.mode, "standalone", &modes);
    if let Some(master) = raw.sentinel_master.as_ref().filter(|_| mode != "sentinel") {
        let text = format!("is for redis.mode = \"sentinel\", and that is \"{mode}\"; change that, or remove it");
        check.problem(MASTER, at(master), text);
    }
    match (mode, &raw.sentinel_master) {
        ("sentinel", Some(master)) => {
            let text = master.get_ref();
            if text.is_empty() || !text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c)) {
                let text = format!(
                    "\"{text}\" is no name of Sentinel; letters, digits and .-_, as in `sentinel monitor NAME`"
                );
                check.problem(MASTER, at(master), text);
            }
            RedisMode::Sentinel { master: text.clone() }
        }
        ("sentinel", None) => {
            let text = "is missing; with redis.mode = \"sentinel\" it is the NAME of `sentinel monitor NAME`, like \"mymaster\"";
            check.problem(MASTER, None, text);
            RedisMode::Sentinel { master: String::new() }
        }
        ("cluster", _) => RedisMode::Cluster,
        _ => {
            if addresses > 1 {
                let text = "has several addresses, and redis.mode is \"standalone\"; leave one, or choose \"sentinel\" or \"cluster\"";
                check.problem("redis.address", raw.address.as_ref().and_then(at), text);
            }
            RedisMode::Standalone
        }
    }
}

fn user(raw: &raw::Redis, check: &mut Check<'_>) -> Option<String> {
    let user = raw.user.as_ref()?;
    let text = user.get_ref();
    if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        check.problem("redis.user", at(user), format!("\"{text}\" is no user of Redis; without blanks, and not empty"));
    }
    if raw.password.is_none() && raw.password_file.is_none() {
        let text = "needs a password; add redis.password_file or redis.password";
        check.problem("redis.user", at(user), text);
    }
    Some(text.clone())
}

fn sentinel_password(raw: &raw::Redis, file: &str, check: &mut Check<'_>) -> Option<Password> {
    const KEY: &str = "redis.sentinel_password";
    let password = raw.sentinel_password.as_ref()?;
    check.warn_if_open(KEY, at(password), file);
    if raw.mode.as_ref().is_none_or(|mode| mode.get_ref() != "sentinel") {
        let text = "is for redis.mode = \"sentinel\"; change that, or remove it";
        check.problem(KEY, at(password), text);
    }
    let text = &password.get_ref().0;
    if text.is_empty() {
        check.problem(KEY, at(password), "is empty; remove it if the Sentinels ask for none");
    }
    Some(Password::new(text.clone()))
}

fn password(raw: &raw::Redis, file: &str, check: &mut Check<'_>) -> Option<Password> {
    const IN_FILE: &str = "redis.password_file";
    match (&raw.password, &raw.password_file) {
        (None, None) => None,
        (Some(_), Some(path)) => {
            check.problem(IN_FILE, at(path), "is there beside redis.password; remove one of them");
            None
        }
        (Some(password), None) => {
            check.warn_if_open("redis.password", at(password), file);
            let text = &password.get_ref().0;
            if text.is_empty() {
                check.problem("redis.password", at(password), "is empty; remove it if Redis asks for none");
            }
            Some(Password::new(text.clone()))
        }
        (None, Some(path)) => {
            let name = path.get_ref();
            check.warn_if_open(IN_FILE, at(path), name);
            let bytes = match std::fs::read(name) {
                Ok(bytes) => Zeroizing::new(bytes),
                Err(error) => {
                    check.problem(IN_FILE, at(path), format!("{name} cannot be read: {error}"));
                    return None;
                }
            };
            match std::str::from_utf8(secret_in(&bytes)) {
                Ok("") => check.problem(IN_FILE, at(path), format!("{name} is empty; write the password into it")),
                Ok(text) => return Some(Password::new(Zeroizing::new(text.to_owned()))),
                Err(_) => check.problem(
                    IN_FILE,
                    at(path),
                    format!("{name} is no text in UTF-8; write the password alone into it"),
                ),
            }
            None
        }
    }
}

fn tls(raw: &raw::Redis, check: &mut Check<'_>) -> Option<RedisTls> {
    const KEY: &str = "redis.ca_file";
    if !raw.tls.unwrap_or(false) {
        if let Some(path) = &raw.ca_file {
            check.problem(KEY, at(path), "is for redis.tls = true, and that is false; change that, or remove it");
        }
        return None;
    }
    let Some(path) = &raw.ca_file else { return Some(RedisTls { authorities: None }) };
    let name = path.get_ref();
    check.warn_if_writable(KEY, at(path), name);
    let bytes = match std::fs::read(name) {
        Ok(bytes) => bytes,
        Err(error) => {
            check.problem(KEY, at(path), format!("{name} cannot be read: {error}"));
            return None;
        }
    };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => {}
        Ok(_) => {
            check.problem(KEY, at(path), format!("{name} has no certificate in it; PEM, with \"BEGIN CERTIFICATE\""))
        }
        Err(error) => check.problem(KEY, at(path), format!("{name} is no PEM with certificates: {error}")),
    }
    Some(RedisTls { authorities: Some(bytes) })
}

/// Longest prefix: it stands in each key.
const PREFIX_BYTES_MAX: usize = 64;

fn prefix(raw: &raw::Redis, default: String, check: &mut Check<'_>) -> String {
    let Some(prefix) = &raw.prefix else { return default };
    let text = prefix.get_ref();
    // A brace would begin a hash tag, which chooses the slot of a key.
    let is_right = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
    if text.is_empty() || text.len() > PREFIX_BYTES_MAX || !text.chars().all(is_right) {
        let text = format!("\"{text}\" is no prefix; 1 to {PREFIX_BYTES_MAX} letters, digits or _.:-, like \"rg\"");
        check.problem("redis.prefix", at(prefix), text);
    }
    text.clone()
}
