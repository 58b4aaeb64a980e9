//! A file with every key: each value is read in its unit, and leaving it out, changing it or writing something wrong is noticed.

use super::*;
use ringgate_auth::Algorithm;
use ringgate_core::id::Durability;
use ringgate_core::limits::{ClientLimits, Engine, InboxSettings, Namespace};
use ringgate_core::session::Authenticator as _;
use ringgate_net::network::Network;
use ringgate_net::ws::ForwardedHeader;

/// Every key, at a value that is not its default; units of each kind. Capital words stand for what depends on the host.
const EVERY_KEY: &str = r#"
[node]
name = "edge-7"
number = 1023

[runtime]
shards = 5
pin_cores = false
cores = [4, 2, 0]
huge_pages = true
dumpable = true
descriptors = "DESCRIPTORS"
connections_per_shard_max = 321
recv_buffers = 64
recv_buffer_size = "2KiB"
accepts_in_flight = 6
mailbox_capacity = 99

[[listeners]]
address = "127.0.0.1:7001"

[[listeners]]
address = "[::1]:7002"
tls = true
protocols = ["ws"]
ipv6_only = true

[[listeners]]
address = "127.0.0.1:7005"
protocols = ["tcp", "ws"]
proxy_protocol = true
trusted_proxies = ["10.0.0.0/8", "::1"]

[tls]
certificate = "FOLDER/certificate.pem"
key = "FOLDER/key.pem"
names = ["localhost", "127.0.0.1"]
memory = "compact"

[websocket]
path = "/chat/socket"
origins = ["https://*.example.org", "http://localhost:*"]
token_cookie = "session"
trusted_proxies = ["10.0.0.0/8"]
forwarded_header = "forwarded"

[client]
ping_interval = "2m"
ping_interval_min = "6s"
ping_interval_max = "7m"
pong_timeout = "1500ms"
missed_pings_max = 4
handshake_timeout = "7s"
connect_timeout = "700ms"
frame_timeout = "1h"
write_timeout = "1d"
message_size_max = "3KiB"
outbox_size_max = "2MiB"
outbox_messages_max = 17
rooms_max = 18
sessions_per_user_max = 19
requests_in_flight_max = 20
messages_rate = 21
messages_burst = 22
bytes_rate = 230000
bytes_burst = "1GiB"
connections_max = 24
connections_per_address_max = 25
address_prefix_ipv6 = 56
accept_rate = 26

[token]
leeway = "2m"
require_exp = false
audience = ["im", "push"]
issuer = "https://id.example.org"

[[token.keys]]
kid = "one"
algorithm = "HS384"
secret = "a secret of thirty-two bytes, and a few more"

[[token.keys]]
kid = "two"
algorithm = "HS512"
secret_file = "FOLDER/secret"

[[token.keys]]
kid = "three"
algorithm = "EdDSA"
public_key_file = "FOLDER/public.pem"

[inbox]
messages_max = 31
size_max = "96KiB"
ttl = "2d"
devices_max = 33
device_ttl = "34h"
unknown_messages_max = 35
unknown_size_per_shard_max = "36MiB"
in_flight_max = 37
ack_wait = "38s"
ack_wait_max = "39m"
publish = "token"
copy_to_own_devices = true

[log]
engine = "redis"
size_per_shard_max = "40GiB"
topic_ttl = "41m"
quiet_topics_max = 42
dedup_window = "43s"
dedup_entries_max = 44

[redis]
address = ["redis-1.example.org:7001", "[::1]:7002"]
mode = "sentinel"
sentinel_master = "chat-master"
sentinel_password = "a word for Sentinels"
user = "edge"
password = "a password of Redis"
database = 9
tls = true
ca_file = "FOLDER/redis-ca.pem"
prefix = "im:eu-1"
connect_timeout = "1234ms"
command_timeout = "6s"
when_away = "wait"
wait_max = "8s"
replicas_min = 2
allow_volatile = true

[[namespaces]]
name = "orders"
history_size = 51
history_ttl = "52s"
join_leave = true
presence = false
subscribe = "token"
publish = "token"
publish_without_subscribe = true
echo = false
vanish_when_empty = true

[[namespaces]]
name = "typing"
durability = "ephemeral"

[admin]
enabled = false
address = "127.0.0.2:7003"
hosts = ["Gateway.example.org", "gate-1"]
health_address = "127.0.0.3:7004"

[shutdown]
timeout = "61s"

[logging]
level = "debug"
format = "json"
"#;

/// A folder with the files that [`EVERY_KEY`] names, removed when dropped.
pub(super) struct Files {
    pub(super) folder: std::path::PathBuf,
    /// Signs what the third key accepts.
    signer: ringgate_auth::Signer,
}

/// What cannot stand beside a line of [`EVERY_KEY`]: that line, and the other one.
const INSTEAD: (&str, &str) = ("password = \"a password of Redis\"", "password_file = \"FOLDER/redis-password\"");

impl Files {
    pub(super) fn new(name: &str) -> Files {
        let folder = std::env::temp_dir().join(format!("ringgate-config-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (certificate, key) = dev_certificate().unwrap();
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        for (name, content) in [
            ("redis-ca.pem", certificate.clone()),
            ("certificate.pem", certificate),
            ("key.pem", key),
            ("secret", "another secret of thirty-two bytes, or so\n".to_owned()),
            ("public.pem", pair.public_key_pem()),
            ("redis-password", "another password of Redis\n".to_owned()),
        ] {
            std::fs::write(folder.join(name), content).unwrap();
        }
        let signer = ringgate_auth::Signer::from_key(pair.serialize_pem().as_bytes(), None, Some("three")).unwrap();
        Files { folder, signer }
    }

    /// [`EVERY_KEY`] with what depends on the host filled in.
    pub(super) fn every_key(&self) -> String {
        let descriptors = match Runtime::default().descriptors {
            Descriptors::Direct => "ordinary",
            Descriptors::Ordinary => "direct",
        };
        EVERY_KEY.replace("FOLDER", self.folder.to_str().unwrap()).replace("DESCRIPTORS", descriptors)
    }

    /// As [`Self::every_key`], with the other line of [`INSTEAD`].
    pub(super) fn with_other_key(&self) -> String {
        self.every_key().replace(INSTEAD.0, &INSTEAD.1.replace("FOLDER", self.folder.to_str().unwrap()))
    }

    /// A text with every key that can stand beside the others, and each of its keys; then the text with the other key, and that.
    fn texts_with_keys(&self) -> Vec<(String, usize, String, String)> {
        let owned =
            |text: &str, (number, key, value): (usize, String, &str)| (text.to_owned(), number, key, value.to_owned());
        let (text, other) = (self.every_key(), self.with_other_key());
        let known: Vec<_> = keys_in(&text).into_iter().map(|(_, key, _)| key).collect();
        let is_new = |(_, key, _): &(usize, String, &str)| !known.contains(key);
        let of_other = keys_in(&other).into_iter().filter(is_new).map(|key| owned(&other, key));
        keys_in(&text).into_iter().map(|key| owned(&text, key)).chain(of_other).collect()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

/// All of a configuration that can be compared.
fn shown(config: &Config) -> String {
    let Config {
        settings,
        runtime,
        listeners,
        tls,
        tls_names,
        websocket,
        keys,
        claims,
        admin,
        admin_hosts,
        health,
        redis,
        logging,
        ..
    } = config;
    let passwords = redis.iter().flat_map(|redis| [&redis.password, &redis.sentinel_password]);
    let password: Vec<_> = passwords.flatten().map(Password::reveal).collect();
    let compact = tls.as_ref().map(|tls| tls.enable_secret_extraction);
    let keys: Vec<_> = keys.iter().map(|key| (&key.kid, key.algorithm)).collect();
    format!(
        "{settings:#?} {runtime:#?} {listeners:?} {compact:?} {tls_names:?} {websocket:?} {keys:?} {claims:#?} {admin:?} {admin_hosts:?} {health:?} {redis:#?} {password:?} {logging:?}"
    )
}

/// Line number, key with its section, and value of each line with a key.
fn keys_in(text: &str) -> Vec<(usize, String, &str)> {
    let mut section = "";
    let mut keys = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let is_key = |key: &str| key.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        if let Some((key, value)) = line.split_once(" = ").filter(|(key, _)| is_key(key)) {
            keys.push((index + 1, format!("{section}.{key}"), value));
        } else if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
        }
    }
    keys
}

/// Every key that a file may have, as the parser names them when it refuses another one.
fn keys_that_exist() -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![String::new()];
    while let Some(path) = open.pop() {
        let headers = match path.as_str() {
            "" => vec![String::new()],
            path => vec![format!("[{path}]\n"), format!("[[{path}]]\n")],
        };
        let refusals = headers.iter().filter_map(|header| understand(&format!("{header}nonsense = 1\n")).err());
        let expected = refusals.map(|problems| problems.problems[0].text.clone()).find_map(|text| {
            text.split_once("unknown field `nonsense`, expected ").map(|(_, expected)| expected.to_owned())
        });
        match expected {
            Some(names) => {
                let dot = if path.is_empty() { "" } else { "." };
                open.extend(names.split('`').skip(1).step_by(2).map(|name| format!("{path}{dot}{name}")));
            }
            None => found.push(path),
        }
    }
    found
}

#[test]
fn every_key_set_then_every_value_is_read_in_its_unit() {
    let files = Files::new("every");
    let text = files.every_key();
    let config = understand(&text).unwrap_or_else(|problems| panic!("{problems}"));
    let client = ClientLimits {
        ping_interval_ms: 120_000,
        ping_interval_ms_min: 6000,
        ping_interval_ms_max: 420_000,
        pong_timeout_ms: 1500,
        missed_pings_max: 4,
        handshake_timeout_ms: 7000,
        connect_timeout_ms: 700,
        frame_timeout_ms: 3_600_000,
        write_timeout_ms: 86_400_000,
        message_bytes_max: 3072,
        outbox_bytes_max: 2_097_152,
        outbox_messages_max: 17,
        rooms_max: 18,
        sessions_per_user_max: 19,
        requests_in_flight_max: 20,
        messages_rate: 21,
        messages_burst: 22,
        bytes_rate: 230_000,
        bytes_burst: 1_073_741_824,
        connections_max: 24,
        connections_per_address_max: 25,
        address_prefix_ipv6: 56,
        accept_rate: 26,
    };
    let inbox = InboxSettings {
        messages_max: 31,
        bytes_max: 98_304,
        ttl_ms: 172_800_000,
        devices_max: 33,
        device_ttl_ms: 122_400_000,
        unknown_messages_max: 35,
        unknown_bytes_per_shard_max: 37_748_736,
        in_flight_max: 37,
        ack_wait_ms: 38_000,
        ack_wait_ms_max: 2_340_000,
        publish_all: false,
        copy_to_own_devices: true,
    };
    let orders = Namespace {
        name: "orders".to_owned(),
        durability: Durability::Memory,
        history_size: 51,
        history_ttl_ms: 52_000,
        join_leave: true,
        presence: false,
        subscribe_all: false,
        publish_all: false,
        publish_without_subscribe: true,
        echo: false,
        vanish_when_empty: true,
    };
    let typing = Namespace { durability: Durability::Ephemeral, history_size: 0, ..Namespace::named("typing") };
    let settings = Settings {
        node: "edge-7".to_owned(),
        node_number: 1023,
        client,
        inbox,
        namespaces: vec![orders, typing],
        log_bytes_per_shard_max: 42_949_672_960,
        engine: Engine::Shared,
        engine_durability: Durability::Memory,
        topic_ttl_ms: 2_460_000,
        quiet_topics_max: 42,
        dedup_window_ms: 43_000,
        dedup_entries_max: 44,
        shutdown_timeout_ms: 61_000,
    };
    assert_eq!(config.settings, settings);
    let descriptors = match Runtime::default().descriptors {
        Descriptors::Direct => Descriptors::Ordinary,
        Descriptors::Ordinary => Descriptors::Direct,
    };
    let runtime = Runtime {
        shards: Some(5),
        pin_cores: false,
        cores: Cores::List(vec![4, 2, 0]),
        huge_pages: true,
        dumpable: true,
        descriptors,
        connections_per_shard_max: 321,
        recv_buffers: 64,
        recv_buffer_bytes: 2048,
        accepts_in_flight: 6,
        mailbox_capacity: 99,
    };
    assert_eq!(config.runtime, runtime);
    let plain = ListenerConfig::new("127.0.0.1:7001".parse().unwrap(), Transport::Plain);
    let wss = ListenerConfig { ipv6_only: true, ..ListenerConfig::new("[::1]:7002".parse().unwrap(), Transport::Wss) };
    let proxies = ["10.0.0.0/8", "::1"].map(|network| Network::parse(network).unwrap());
    let front = Front { transport: Transport::Plain, is_open_to_websocket: true, proxies: proxies.to_vec() };
    let proxied = ListenerConfig { front, ..ListenerConfig::new("127.0.0.1:7005".parse().unwrap(), Transport::Plain) };
    assert_eq!(config.listeners, [plain, wss, proxied]);
    let origins = ["https://*.example.org", "http://localhost:*"].map(|origin| OriginPattern::parse(origin).unwrap());
    // message_size_max is so small that a message of 1 MiB takes every frame.
    let websocket = Rules {
        path: "/chat/socket".to_owned(),
        origins: origins.to_vec(),
        token_in_authorization: true,
        token_cookie: Some("session".to_owned()),
        trusted_proxies: vec![proxies[0]],
        forwarded_header: ForwardedHeader::Forwarded,
        token_subprotocol_prefix: Some("bearer.".to_owned()),
        ..Rules::default()
    };
    assert_eq!(config.websocket, websocket);
    assert_eq!(config.tls.as_ref().map(|tls| tls.enable_secret_extraction), Some(true), "compact");
    assert_eq!(config.tls_names, ["localhost", "127.0.0.1"]);
    assert_eq!(config.logging, Logging { level: "debug".to_owned(), json: true });
    let claims = Claims {
        audience: vec!["im".to_owned(), "push".to_owned()],
        issuer: Some("https://id.example.org".to_owned()),
        leeway_seconds: 120,
        require_exp: false,
    };
    assert_eq!(config.claims, claims);
    // Each key accepts what was signed with its own material.
    let kids: Vec<_> = config.keys.iter().map(|key| (key.kid.as_deref().unwrap(), key.algorithm)).collect();
    assert_eq!(kids, [("one", Algorithm::HS384), ("two", Algorithm::HS512), ("three", Algorithm::EdDSA)]);
    let keys = ringgate_auth::Keys::new(config.keys, Claims::default());
    let spec = ringgate_auth::TokenSpec { user: "alice".to_owned(), ..Default::default() };
    let signer = |secret: &str, algorithm, kid| {
        ringgate_auth::Signer::from_key(secret.as_bytes(), Some(algorithm), Some(kid)).unwrap()
    };
    for signer in [
        &signer("a secret of thirty-two bytes, and a few more", Algorithm::HS384, "one"),
        &signer("another secret of thirty-two bytes, or so", Algorithm::HS512, "two"),
        &files.signer,
    ] {
        assert_eq!(keys.verify(&signer.sign(&spec).unwrap(), 0).map(|grant| grant.user), Ok("alice".to_owned()));
    }
    assert_eq!(config.admin_hosts, ["gateway.example.org", "gate-1"]);
    let host = |host: &str, port| HostPort { host: host.to_owned(), port };
    let certificate = std::fs::read(files.folder.join("redis-ca.pem")).unwrap();
    let redis = RedisConfig {
        addresses: vec![host("redis-1.example.org", 7001), host("::1", 7002)],
        mode: RedisMode::Sentinel { master: "chat-master".to_owned() },
        sentinel_password: Some(Password::new(Zeroizing::new("a word for Sentinels".to_owned()))),
        user: Some("edge".to_owned()),
        password: Some(Password::new(Zeroizing::new("a password of Redis".to_owned()))),
        database: 9,
        tls: Some(RedisTls { authorities: Some(certificate) }),
        prefix: "im:eu-1".to_owned(),
        connect_timeout_ms: 1234,
        command_timeout_ms: 6000,
        when_away: WhenAway::Wait,
        wait_ms_max: 8000,
        replicas_min: 2,
        allow_volatile: true,
    };
    assert_eq!(config.redis.as_ref(), Some(&redis));
    let in_file = understand(&files.with_other_key()).unwrap().redis.unwrap().password.unwrap();
    assert_eq!(in_file.reveal(), "another password of Redis");
    // The admin listener is off; its address is read where it is on.
    assert_eq!(config.admin, None);
    let on = understand(&text.replace("enabled = false", "enabled = true")).unwrap();
    assert_eq!(on.admin, Some("127.0.0.2:7003".parse().unwrap()));
    for config in [&config.health, &on.health] {
        assert_eq!(*config, Some("127.0.0.3:7004".parse().unwrap()));
    }
}

#[test]
fn key_exists_then_it_is_documented_and_tested() {
    let documented: Vec<_> = default_text().lines().map(|line| line.trim_start_matches("# ")).collect();
    let documented = documented.join("\n");
    let documented: Vec<_> = keys_in(&documented).into_iter().map(|(_, key, _)| key).collect();
    let other = EVERY_KEY.replace(INSTEAD.0, INSTEAD.1);
    let tested: Vec<_> = keys_in(EVERY_KEY).into_iter().chain(keys_in(&other)).map(|(_, key, _)| key).collect();
    let exist = keys_that_exist();
    assert!(exist.len() >= 80 && exist.contains(&"token.keys.kid".to_owned()), "{exist:?}");
    for key in &exist {
        assert!(tested.contains(key), "{key} is not in EVERY_KEY; set it to a value that is not its default");
        assert!(documented.contains(key), "{key} is not in default.toml");
    }
    for key in documented {
        assert!(exist.contains(&key), "{key} in default.toml does not exist");
    }
}

#[test]
fn key_left_out_then_it_is_noticed() {
    let files = Files::new("left-out");
    // What cannot be left out, or stands alone in its section, or is asked for by another key.
    const NEEDED: &[&str] = &[
        "node.number",
        "log.engine",
        "redis.address",
        "redis.mode",
        "redis.sentinel_master",
        "redis.sentinel_password",
        "redis.password",
        "redis.password_file",
        "redis.tls",
        "listeners.address",
        "listeners.trusted_proxies",
        "tls.certificate",
        "tls.key",
        "token.keys.algorithm",
        "token.keys.secret",
        "token.keys.secret_file",
        "token.keys.public_key_file",
        "namespaces.name",
    ];
    for (text, number, key, _) in files.texts_with_keys() {
        let texts = [text.clone(), text.replace("enabled = false", "enabled = true")];
        let noticed = texts.iter().any(|text| {
            let without: Vec<_> = text.lines().enumerate().filter(|(index, _)| index + 1 != number).collect();
            let without: Vec<_> = without.into_iter().map(|(_, line)| line).collect();
            match understand(&without.join("\n")) {
                Ok(config) => shown(&config) != shown(&understand(text).unwrap()),
                Err(problems) => {
                    assert!(NEEDED.contains(&key.as_str()), "without {key}: {problems}");
                    true
                }
            }
        });
        assert!(noticed, "{key} changes nothing, or its value here is the default");
    }
}

#[test]
fn wrong_value_then_its_line_and_key_are_named() {
    let files = Files::new("wrong");
    // Any text will do for these.
    const FREE: &[&str] =
        &["token.audience", "token.issuer", "token.keys.kid", "redis.password", "redis.sentinel_password"];
    let mut tried = 0;
    for (text, number, key, value) in files.texts_with_keys() {
        let quoted = value.trim_matches('"');
        let is_duration = parse_duration_ms(quoted).is_ok();
        let is_size = value.starts_with(|c: char| c.is_ascii_digit()) || quoted.ends_with("iB");
        // A number where text or a duration belongs, nested lists, words that mean nothing, and what is too much.
        let mut wrong = vec![("-1", ""), ("1.5", ""), ("[[]]", "")];
        if !FREE.contains(&key.as_str()) {
            wrong.push(("\"no such thing\"", ""));
        }
        if is_duration {
            wrong.extend([("\"999999d\"", "at most "), ("\"99999999999999999999d\"", "too long"), ("5", "\"25s\"")]);
        }
        if is_size {
            wrong.extend([("9223372036854775807", " to "), ("-1", " to "), ("\"-1\"", ""), ("true", "a whole number")]);
        }
        for (wrong, right) in wrong {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            let line = &mut lines[number - 1];
            *line = line.replace(&value, wrong);
            let Err(problems) = understand(&lines.join("\n")) else { panic!("accepted {wrong} for {key}") };
            let name = key.rsplit('.').next().unwrap();
            let named = problems.problems.iter().any(|problem| {
                problem.line == Some(number)
                    && problem.key.ends_with(name)
                    && problem.key.split(['.', '[']).next() == key.split('.').next()
                    && problem.text.contains(right)
            });
            assert!(named, "{key} = {wrong} gives {problems}, without its line {number}, its key, or {right:?}");
            tried += 1;
        }
    }
    assert!(tried > 300, "{tried}");
}

#[test]
fn key_changed_then_it_is_exchanged_or_named_as_in_need_of_a_restart() {
    let files = Files::new("changed");
    // Where a value is not the default already, leaving it out changes it; these cannot be left out.
    let other = |key: &str, value: &str| match key {
        "listeners.address" => Some(value.replace(":7", ":8")),
        "token.keys.algorithm" => Some(value.replace("HS384", "HS512")),
        "token.keys.secret" => Some(value.replace("a secret", "b secret")),
        "listeners.trusted_proxies" | "websocket.trusted_proxies" => Some(value.replace("10.", "11.")),
        "namespaces.name" => Some(value.replace("orders", "bills").replace("typing", "hints")),
        "node.number" => Some("7".to_owned()),
        "redis.address" => Some(value.replace(":7", ":8")),
        "redis.sentinel_master" => Some(value.replace("chat", "push")),
        "redis.password" => Some(value.replace("a password", "b password")),
        "redis.sentinel_password" => Some(value.replace("a word", "b word")),
        _ => None,
    };
    let (mut named, mut exchanged) = (0, 0);
    for (text, number, key, value) in files.texts_with_keys() {
        let texts = [text.clone(), text.replace("enabled = false", "enabled = true")];
        // They change together with others: `engine_mode_or_tls_changed_then_named`.
        if ["log.engine", "redis.mode", "redis.tls"].contains(&key.as_str()) {
            continue;
        }
        let is_exchanged = ["token.", "tls.", "logging.level"].iter().any(|start| key.starts_with(start));
        if is_exchanged && matches!(key.as_str(), "tls.certificate" | "tls.key") || key.ends_with("_file") {
            // Their content is exchanged, which tests of the gateway look at.
            continue;
        }
        let is_told = texts.iter().any(|text| {
            let lines =
                text.lines().enumerate().filter_map(|(index, line)| match (index + 1 == number, other(&key, &value)) {
                    (false, _) => Some(line.to_owned()),
                    (true, None) => None,
                    (true, Some(other)) => Some(line.replace(&value, &other)),
                });
            let new = understand(&lines.collect::<Vec<_>>().join("\n"))
                .unwrap_or_else(|problems| panic!("{key}: {problems}"));
            let old = understand(text).unwrap();
            let names = Running::of(&old).needs_restart(&new);
            let field = key.rsplit('.').next().unwrap();
            let is_named = names
                .iter()
                .any(|name| name.starts_with(key.split('.').next().unwrap()) && name.rsplit('.').next() == Some(field));
            assert!(!is_exchanged || names.is_empty(), "{key} is exchanged, and {names:?} named");
            is_named || is_exchanged
        });
        assert!(is_told, "{key} is neither exchanged nor named");
        match is_exchanged {
            true => exchanged += 1,
            false => named += 1,
        }
    }
    assert!(named >= 70 && exchanged >= 8, "{named}, {exchanged}");
}

#[test]
fn engine_mode_or_tls_of_redis_changed_then_named() {
    let files = Files::new("changed-together");
    let text = files.every_key();
    let old = understand(&text).unwrap();
    let names = |text: &str| {
        let new = understand(text).unwrap_or_else(|problems| panic!("{problems}"));
        Running::of(&old).needs_restart(&new)
    };
    assert_eq!(names(&text), [""; 0]);
    let section = text.split("[redis]").nth(1).and_then(|rest| rest.split("\n[").next()).unwrap();
    let in_memory = text.replace("engine = \"redis\"", "engine = \"memory\"").replace(&format!("[redis]{section}"), "");
    assert!(names(&in_memory).contains(&"log.engine".to_owned()));
    let cluster = text
        .replace("mode = \"sentinel\"", "mode = \"cluster\"")
        .replace("sentinel_master = \"chat-master\"\n", "")
        .replace("sentinel_password = \"a word for Sentinels\"\n", "")
        .replace("database = 9\n", "");
    assert_eq!(names(&cluster), ["redis.database", "redis.mode", "redis.sentinel_master", "redis.sentinel_password"]);
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("ca_file")).collect();
    let (start, end) = text.split_once("[redis]").unwrap();
    let plain = format!("{start}[redis]{}", end.replacen("tls = true\n", "", 1));
    let plain: Vec<_> = plain.lines().filter(|line| !line.starts_with("ca_file")).collect();
    assert_eq!(plain.len() + 1, lines.len());
    assert_eq!(names(&plain.join("\n")), ["redis.ca_file", "redis.tls"]);
}

#[test]
fn file_that_redis_needs_has_another_content_then_its_key_is_named() {
    let files = Files::new("changed-content");
    let text = files.with_other_key();
    let old = Running::of(&understand(&text).unwrap());
    assert_eq!(old.needs_restart(&understand(&text).unwrap()), [""; 0]);
    std::fs::write(files.folder.join("redis-password"), "a new one").unwrap();
    let names = old.needs_restart(&understand(&text).unwrap());
    assert_eq!(names, ["redis.password_file"]);
    std::fs::write(files.folder.join("redis-ca.pem"), dev_certificate().unwrap().0).unwrap();
    let names = old.needs_restart(&understand(&text).unwrap());
    assert_eq!(names, ["redis.ca_file", "redis.password_file"]);
}
