//! The default file means the defaults, and every mistake is named.

use super::*;
use ringgate_auth::Algorithm;
use ringgate_core::id::Durability;
use ringgate_core::limits::{ClientLimits, Engine, InboxSettings, Namespace};
use ringgate_core::session::Authenticator as _;

const MINIMAL: &str = r#"
[[listeners]]
address = "127.0.0.1:0"
[[token.keys]]
algorithm = "HS256"
secret = "0123456789abcdef0123456789abcdef"
"#;

#[test]
fn the_commented_default_is_the_default() {
    let config = Config::parse(&format!("{}{MINIMAL}", default_text()), "x").unwrap();
    assert_eq!(config.settings, Settings::default());
    assert_eq!(config.runtime, Runtime::default());
    let minimal = Config::parse(MINIMAL, "x").unwrap();
    assert_eq!(minimal.settings, config.settings);
    assert_eq!(minimal.claims, config.claims);
    assert_eq!(minimal.logging, config.logging);
    assert_eq!(minimal.admin, config.admin);
}

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
ipv6_only = true

[tls]
certificate = "FOLDER/certificate.pem"
key = "FOLDER/key.pem"
names = ["localhost", "127.0.0.1"]
memory = "compact"

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
size_per_shard_max = "40GiB"
topic_ttl = "41m"
quiet_topics_max = 42
dedup_window = "43s"
dedup_entries_max = 44

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

[shutdown]
timeout = "61s"

[logging]
level = "debug"
format = "json"
"#;

/// A folder with the files that [`EVERY_KEY`] names, removed when dropped.
struct Files {
    folder: std::path::PathBuf,
    /// Signs what the third key accepts.
    signer: ringgate_auth::Signer,
}

impl Files {
    fn new(name: &str) -> Files {
        let folder = std::env::temp_dir().join(format!("ringgate-config-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (certificate, key) = dev_certificate().unwrap();
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        for (name, content) in [
            ("certificate.pem", certificate),
            ("key.pem", key),
            ("secret", "another secret of thirty-two bytes, or so\n".to_owned()),
            ("public.pem", pair.public_key_pem()),
        ] {
            std::fs::write(folder.join(name), content).unwrap();
        }
        let signer = ringgate_auth::Signer::from_key(pair.serialize_pem().as_bytes(), None, Some("three")).unwrap();
        Files { folder, signer }
    }

    /// [`EVERY_KEY`] with what depends on the host filled in.
    fn every_key(&self) -> String {
        let descriptors = match Runtime::default().descriptors {
            Descriptors::Direct => "ordinary",
            Descriptors::Ordinary => "direct",
        };
        EVERY_KEY.replace("FOLDER", self.folder.to_str().unwrap()).replace("DESCRIPTORS", descriptors)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

/// How many connections the host can hold is not asked.
fn understand(text: &str) -> Result<Config, Problems> {
    Config::understand(text, "x.toml", |_| Vec::new())
}

/// All of a configuration that can be compared.
fn shown(config: &Config) -> String {
    let Config { settings, runtime, listeners, tls, tls_names, keys, claims, admin, admin_hosts, logging, .. } = config;
    let compact = tls.as_ref().map(|tls| tls.enable_secret_extraction);
    let keys: Vec<_> = keys.iter().map(|key| (&key.kid, key.algorithm)).collect();
    format!(
        "{settings:#?} {runtime:#?} {listeners:?} {compact:?} {tls_names:?} {keys:?} {claims:#?} {admin:?} {admin_hosts:?} {logging:?}"
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
        engine: Engine::Memory,
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
    let plain =
        ListenerConfig { address: "127.0.0.1:7001".parse().unwrap(), transport: Transport::Plain, ipv6_only: false };
    let tls = ListenerConfig { address: "[::1]:7002".parse().unwrap(), transport: Transport::Tls, ipv6_only: true };
    assert_eq!(config.listeners, [plain, tls]);
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
    // The admin listener is off; its address is read where it is on.
    assert_eq!(config.admin, None);
    let on = understand(&text.replace("enabled = false", "enabled = true")).unwrap();
    assert_eq!(on.admin, Some("127.0.0.2:7003".parse().unwrap()));
}

#[test]
fn key_exists_then_it_is_documented_and_tested() {
    let documented: Vec<_> = default_text().lines().map(|line| line.trim_start_matches("# ")).collect();
    let documented = documented.join("\n");
    let documented: Vec<_> = keys_in(&documented).into_iter().map(|(_, key, _)| key).collect();
    let tested: Vec<_> = keys_in(EVERY_KEY).into_iter().map(|(_, key, _)| key).collect();
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
    let text = files.every_key();
    // What cannot be left out, or stands alone in its section.
    const NEEDED: &[&str] = &[
        "listeners.address",
        "tls.certificate",
        "tls.key",
        "token.keys.algorithm",
        "token.keys.secret",
        "token.keys.secret_file",
        "token.keys.public_key_file",
        "namespaces.name",
    ];
    let texts = [text.clone(), text.replace("enabled = false", "enabled = true")];
    for (number, key, _) in keys_in(&text) {
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
    let text = files.every_key();
    // Any text will do for these.
    const FREE: &[&str] = &["token.audience", "token.issuer", "token.keys.kid"];
    let mut tried = 0;
    for (number, key, value) in keys_in(&text) {
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
            *line = line.replace(value, wrong);
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
fn listed_cores_say_how_many_shards_there_are() {
    let config = understand(&format!("[runtime]\ncores = [3, 1, 0]\n{MINIMAL}")).unwrap();
    assert_eq!((config.runtime.cores.clone(), config.runtime.shard_count()), (Cores::List(vec![3, 1, 0]), 3));
    let config = understand(&format!("[runtime]\nshards = 2\ncores = [3]\n{MINIMAL}")).unwrap();
    assert_eq!(config.runtime.shard_count(), 2);
    let config = Config::parse(&format!("[runtime]\ncores = \"auto\"\n{MINIMAL}"), "x").unwrap();
    assert_eq!(config.runtime, Runtime::default());
}

#[test]
fn mistakes_are_named_with_file_line_key_and_remedy() {
    for (text, wanted) in [
        ("[client]\nping_intervall = \"1s\"", vec!["x.toml:2", "ping_intervall", "ping_interval"]),
        ("[client]\nping_interval = \"25\"", vec!["x.toml:2: client.ping_interval", "\"25s\""]),
        ("[client]\nping_interval = \"1ms\"", vec!["client.ping_interval", "at least 100ms"]),
        ("[client]\npong_timeout = \"60s\"", vec!["client.pong_timeout", "shorter than client.ping_interval"]),
        (
            "[client]\npong_timeout = \"12s\"\nping_interval_min = \"11s\"",
            vec!["x.toml:2: client.pong_timeout", "\"12s\"", "shorter than client.ping_interval_min", "\"11s\""],
        ),
        (
            "[client]\nmessage_size_max = \"64KiB\"\nbytes_burst = 69639",
            vec!["x.toml:3: client.bytes_burst", "69639 is smaller", "at least 69640"],
        ),
        (
            "[client]\nmessage_size_max = \"16MiB\"\noutbox_size_max = \"16MiB\"",
            vec!["x.toml:2: client.bytes_burst", "at least 16781320"],
        ),
        ("[logging]\nlevel = \"\"", vec!["x.toml:2: logging.level", "\"\" is not a log level"]),
        ("[logging]\nlevel = \" \"", vec!["logging.level", "is not a log level"]),
        ("[logging]\nlevel = \"info,\"", vec!["logging.level", "\"info,\" is not a log level"]),
        ("[logging]\nlevel = \"info,ringgate=\"", vec!["logging.level", "is not a log level"]),
        (
            "[client]\nping_interval_min = \"6m\"",
            vec!["client.ping_interval_min", "longer than client.ping_interval_max"],
        ),
        ("[client]\nmessage_size_max = \"2MiB\"", vec!["client.message_size_max", "outbox_size_max"]),
        ("[client]\nrooms_max = -1", vec!["x.toml:2: client.rooms_max", "-1 is negative; 1 to 65535"]),
        ("[client]\nrooms_max = \"many\"", vec!["x.toml:2: client.rooms_max", "\"many\" is not a number; 1 to 65535"]),
        ("[client]\nrooms_max = true", vec!["x.toml:2: client.rooms_max", "boolean", "expected a whole number"]),
        (
            "[client]\nping_interval = 25",
            vec!["x.toml:2: client.ping_interval", "`25`", "a duration with its unit, like \"25s\""],
        ),
        ("[client]\nping_interval = \"2d\"", vec!["x.toml:2: client.ping_interval", "\"2d\" is too long; at most 1d"]),
        ("[client]\nwrite_timeout = \"3651d\"", vec!["x.toml:2: client.write_timeout", "too long; at most 3650d"]),
        ("[client]\nbytes_rate = \"4MB\"", vec!["x.toml:2: client.bytes_rate", "\"4MB\" is not a size", "\"1MiB\""]),
        (
            "[client]\nbytes_rate = \"4GiB\"",
            vec!["client.bytes_rate", "\"4GiB\" is out of bounds; 0 to 4294967295 bytes"],
        ),
        ("[client]\nbytes_burst = \"99999999999GiB\"", vec!["client.bytes_burst", "is too large for a size"]),
        ("[token]\nleeway = \"500ms\"", vec!["x.toml:2: token.leeway", "whole number of seconds", "\"5s\""]),
        ("[token]\nleeway = \"25h\"", vec!["x.toml:2: token.leeway", "at most 1d"]),
        ("[token]\nrequire_exp = \"no\"", vec!["x.toml:2: token.require_exp", "expected a boolean"]),
        ("[inbox]\npublish = \"nobody\"", vec!["x.toml:2: inbox.publish", "\"all\", \"token\""]),
        (
            "[[namespaces]]\nname = \"a\"\npublish = \"none\"",
            vec!["x.toml:3: namespaces[0].publish", "\"all\", \"token\""],
        ),
        ("[runtime]\ncores = [1, \"x\"]", vec!["x.toml:2: runtime.cores", "\"x\"", "[0, 2, 4]"]),
        ("[runtime]\ncores = 3", vec!["x.toml:2: runtime.cores", "\"auto\" or a list"]),
        ("[client]\nrooms_max = 0", vec!["client.rooms_max", "1 to 65535"]),
        ("[inbox]\nsize_max = \"32KiB\"", vec!["x.toml:2: inbox.size_max", "client.message_size_max"]),
        (
            "[inbox]\nunknown_size_per_shard_max = \"64KiB\"",
            vec!["inbox.unknown_size_per_shard_max", "would not be kept"],
        ),
        ("[inbox]\ndevices_max = 0", vec!["inbox.devices_max", "1 to 10000"]),
        ("[inbox]\ndevice_ttl = \"1ms\"", vec!["inbox.device_ttl", "at least 1s"]),
        ("[log]\ntopic_ttl = \"30\"", vec!["x.toml:2: log.topic_ttl", "\"25s\""]),
        ("[runtime]\nshards = \"many\"", vec!["runtime.shards", "auto"]),
        ("[runtime]\nshards = 100000", vec!["runtime.shards", "1 to 256"]),
        ("[runtime]\ncores = \"all\"", vec!["x.toml:2: runtime.cores", "[0, 2, 4]"]),
        ("[runtime]\ncores = []", vec!["runtime.cores", "at least one"]),
        ("[runtime]\ncores = [-1]", vec!["runtime.cores", "-1", "counted from 0"]),
        ("[runtime]\ncores = [1, 0, 1]", vec!["runtime.cores", "twice"]),
        ("[runtime]\ndescriptors = \"x\"", vec!["runtime.descriptors", "\"direct\""]),
        ("[runtime]\nrecv_buffers = 100", vec!["runtime.recv_buffers", "power of two"]),
        ("[runtime]\nconnections_per_shard_max = 16777216", vec!["connections_per_shard_max", "LimitNOFILE="]),
        ("[[namespaces]]\nname = \"a:b\"", vec!["namespaces[0].name", "colon"]),
        ("[[namespaces]]\nname = \"a\"\n[[namespaces]]\nname = \"a\"", vec!["namespaces[1].name", "twice"]),
        ("[[namespaces]]\nname = \"a\"\ndurability = \"durable\"", vec!["namespaces[0].durability", "\"memory\""]),
        ("[[namespaces]]\nhistory_size = 1", vec!["namespaces[0].name", "missing"]),
        ("[admin]\naddress = \"localhost\"", vec!["admin.address", "with a port"]),
        ("[admin]\nhosts = [\"a\", \"http://b:1\"]", vec!["x.toml:2: admin.hosts[1]", "without scheme and port"]),
        ("[admin]\nhosts = [\"\"]", vec!["admin.hosts[0]", "not a host name"]),
        (
            "[logging]\nlevel = \"inof\"",
            vec!["x.toml:2: logging.level", "\"inof\" is not a log level", "error, warn, info"],
        ),
        ("[logging]\nlevel = \"info,ringgate=loud\"", vec!["x.toml:2: logging.level", "info,ringgate_net=debug"]),
        ("[logging]\nformat = \"xml\"", vec!["logging.format", "\"json\""]),
        ("[tls]\ncertificate = \"/nowhere.pem\"\nkey = \"/nowhere.key\"", vec!["tls.certificate", "/nowhere.pem"]),
        ("[tls]\ncertificate = \"/nowhere.pem\"", vec!["tls", "both certificate and key"]),
        ("[tls]\nmemory = \"small\"", vec!["x.toml:2: tls.memory", "\"ordinary\", \"compact\""]),
        ("[node]\nname = \"a b\"", vec!["node.name", "blanks"]),
        ("[node\n", vec!["x.toml:1"]),
        ("[logging]\nlevel = \"warning\"", vec!["x.toml:2: logging.level", "\"warning\" is not a log level", "warn"]),
        ("[logging]\nlevel = \"infoo\"", vec!["x.toml:2: logging.level", "\"infoo\" is not a log level"]),
        ("[client]\nping_interval = \"50d\"", vec!["x.toml:2: client.ping_interval", "at most 1d"]),
        ("[client]\npong_timeout = \"6148914691236517206ms\"", vec!["client.pong_timeout", "at most 1d"]),
        (
            "[inbox]\nack_wait = \"6m\"",
            vec!["x.toml:2: inbox.ack_wait", "\"6m\" is longer than inbox.ack_wait_max", "\"5m\""],
        ),
        (
            "[inbox]\nack_wait_max = \"20s\"",
            vec!["inbox.ack_wait", "\"30s\" is longer than inbox.ack_wait_max", "\"20s\""],
        ),
        // What the dedup window would have been cut to.
        ("[log]\ndedup_window = \"13d\"", vec!["x.toml:2: log.dedup_window", "too long; at most 12d"]),
        ("[log]\ndedup_entries_max = 4294967295", vec!["log.dedup_entries_max", "1 to 2147483647"]),
        (
            "[runtime]\ncores = [4095]",
            vec!["x.toml:2: runtime.cores", "names core 4095, which this process may not use"],
        ),
        (
            "[runtime]\nshards = 256\nrecv_buffers = 32768\nrecv_buffer_size = \"1MiB\"",
            vec!["x.toml:3: runtime.recv_buffers", "are 8796093022208 bytes", "lower runtime.recv_buffers"],
        ),
    ] {
        let Err(problems) = Config::parse(&format!("{text}\n{MINIMAL}"), "x.toml") else {
            panic!("accepted: {text}");
        };
        let message = problems.to_string();
        for part in wanted {
            assert!(message.contains(part), "{text:?} gives {message:?} without {part:?}");
        }
    }
}

#[test]
fn pong_timeout_is_long_and_no_minimum_is_set_then_the_minimum_is_raised() {
    for (text, wanted) in [
        ("pong_timeout = \"9999ms\"", (10_000, 300_000)),
        ("pong_timeout = \"15s\"", (15_001, 300_000)),
        ("pong_timeout = \"29s\"\nping_interval_max = \"40s\"", (29_001, 40_000)),
        ("ping_interval = \"10m\"\npong_timeout = \"6m\"", (360_001, 600_000)),
    ] {
        let config =
            understand(&format!("[client]\n{text}\n{MINIMAL}")).unwrap_or_else(|problems| panic!("{problems}"));
        let client = &config.settings.client;
        assert_eq!((client.ping_interval_ms_min, client.ping_interval_ms_max), wanted, "{text}");
    }
}

#[test]
fn burst_is_as_large_as_the_largest_frame_then_accepted() {
    for burst in ["bytes_burst = 69640", "bytes_burst = 1\nbytes_rate = 0"] {
        assert!(understand(&format!("[client]\n{burst}\n{MINIMAL}")).is_ok(), "{burst}");
    }
}

#[test]
fn key_changed_then_it_is_exchanged_or_named_as_in_need_of_a_restart() {
    let files = Files::new("changed");
    // Where a value is not the default already, leaving it out changes it; these cannot be left out.
    let other = |key: &str, value: &str| match key {
        "listeners.address" => Some(value.replace(":7", ":8")),
        "token.keys.algorithm" => Some(value.replace("HS384", "HS512")),
        "token.keys.secret" => Some(value.replace("a secret", "b secret")),
        "namespaces.name" => Some(value.replace("orders", "bills").replace("typing", "hints")),
        _ => None,
    };
    let text = files.every_key();
    let texts = [text.clone(), text.replace("enabled = false", "enabled = true")];
    let (mut named, mut exchanged) = (0, 0);
    for (number, key, value) in keys_in(&text) {
        let is_exchanged = ["token.", "tls.", "logging.level"].iter().any(|start| key.starts_with(start));
        if is_exchanged && matches!(key.as_str(), "tls.certificate" | "tls.key") || key.ends_with("_file") {
            // Their content is exchanged, which tests of the gateway look at.
            continue;
        }
        let is_told = texts.iter().any(|text| {
            let lines =
                text.lines().enumerate().filter_map(|(index, line)| match (index + 1 == number, other(&key, value)) {
                    (false, _) => Some(line.to_owned()),
                    (true, None) => None,
                    (true, Some(other)) => Some(line.replace(value, &other)),
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
fn keys_are_checked() {
    for (key, wanted) in [
        ("algorithm = \"none\"\nsecret = \"x\"", "HS256"),
        ("algorithm = \"HS256\"\nsecret = \"short\"", "at least 32"),
        ("algorithm = \"HS256\"", "exactly one"),
        ("secret = \"0123456789abcdef0123456789abcdef\"", "is missing"),
        ("algorithm = \"RS256\"\npublic_key_file = \"/nowhere\"", "/nowhere cannot be read"),
        (&format!("algorithm = \"HS256\"\nsecret = \"{}\"", ringgate_auth::DEV_SECRET), "development key"),
    ] {
        let text = format!("[[listeners]]\naddress = \"127.0.0.1:0\"\n[[token.keys]]\n{key}");
        let message = Config::parse(&text, "x").err().map(|problems| problems.to_string()).unwrap_or_default();
        assert!(message.contains(wanted), "{key:?} gives {message:?}");
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let problems = Config::parse("[client]\nrooms_max = -1\nping_interval = \"x\"", "x").err().unwrap();
    let message = problems.to_string();
    for part in ["rooms_max", "ping_interval", "listeners", "token.keys"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn tls_is_compact_where_the_file_says_so() {
    let directory = std::env::temp_dir().join(format!("ringgate-config-compact-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (certificate, key) = dev_certificate().unwrap();
    let (certificate_path, key_path) = (directory.join("c.pem"), directory.join("k.pem"));
    std::fs::write(&certificate_path, certificate).unwrap();
    std::fs::write(&key_path, key).unwrap();
    for (memory, compact) in [("", false), ("memory = \"ordinary\"", false), ("memory = \"compact\"", true)] {
        let files = format!("certificate = {certificate_path:?}\nkey = {key_path:?}");
        let config = Config::parse(&format!("[tls]\n{files}\n{memory}\n{MINIMAL}"), "x").unwrap();
        assert_eq!(config.tls.unwrap().enable_secret_extraction, compact, "{memory:?}");
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

/// Listeners at these addresses, of which those that end with "only" are for IPv6 only, and an admin listener.
fn with_listeners(addresses: &[&str], admin: &str) -> Result<Config, Problems> {
    let listeners = addresses.iter().map(|address| match address.strip_suffix(" only") {
        Some(address) => format!("[[listeners]]\naddress = \"{address}\"\nipv6_only = true\n"),
        None => format!("[[listeners]]\naddress = \"{address}\"\n"),
    });
    let key = MINIMAL.split_once("[[token.keys]]").map_or("", |(_, key)| key);
    let listeners: String = listeners.collect();
    understand(&format!("{listeners}[admin]\naddress = \"{admin}\"\n[[token.keys]]{key}"))
}

#[test]
fn addresses_that_the_kernel_takes_for_one_then_refused() {
    const ADMIN: &str = "127.0.0.1:9";
    for (one, other) in [
        ("127.0.0.1:7400", "127.0.0.1:7400"),
        ("0.0.0.0:7400", "127.0.0.1:7400"),
        ("127.0.0.1:7400", "0.0.0.0:7400"),
        ("[::]:7400", "[::1]:7400"),
        ("[::]:7400 only", "[::1]:7400"),
        ("[::]:7400", "127.0.0.1:7400"),
        ("0.0.0.0:7400", "[::]:7400"),
        ("[::ffff:127.0.0.1]:7400", "127.0.0.1:7400"),
    ] {
        let problems = with_listeners(&[one, other], ADMIN).err().unwrap_or_else(|| panic!("took {one}, {other}"));
        let shown = problems.to_string();
        assert!(shown.contains("listeners[1].address") && shown.contains("7400"), "{shown}");
        // What helps is said where it helps.
        let helps = [one, other].contains(&"[::]:7400") && ![one, other].contains(&"[::1]:7400");
        let remedy = format!("listeners[{}].ipv6_only = true", usize::from(other == "[::]:7400"));
        assert_eq!(shown.contains(&remedy), helps, "{shown}");
        assert_eq!(shown.contains("ipv6_only"), helps, "{shown}");
        // The admin listener wants a port of its own, too; it takes IPv4 at [::].
        if !one.contains("only") {
            let shown =
                with_listeners(&[one], other).err().unwrap_or_else(|| panic!("took {one}, {other}")).to_string();
            assert!(shown.contains("admin.address") && shown.contains("listeners[0].address"), "{shown}");
            assert_eq!(shown.contains("listeners[0].ipv6_only = true"), helps && one == "[::]:7400", "{shown}");
            assert!(!shown.contains("admin.ipv6_only"), "{shown}");
        }
    }
    for (one, other) in [
        ("127.0.0.1:7400", "127.0.0.1:7401"),
        ("127.0.0.1:7400", "127.0.0.2:7400"),
        ("0.0.0.0:0", "127.0.0.1:0"),
        ("[::]:7400 only", "0.0.0.0:7400"),
        ("[::]:7400 only", "127.0.0.1:7400"),
        ("[::1]:7400", "127.0.0.1:7400"),
        ("[::1]:7400", "0.0.0.0:7400"),
    ] {
        assert!(with_listeners(&[one, other], ADMIN).is_ok(), "{one}, {other}");
    }
    let shown = with_listeners(&["127.0.0.1:1 only"], ADMIN).err().unwrap().to_string();
    assert!(shown.contains("listeners[0].ipv6_only"), "{shown}");
}

#[test]
fn file_with_a_secret_open_to_everybody_then_a_warning_names_the_command() {
    use std::os::unix::fs::PermissionsExt;
    let files = Files::new("open");
    let file = files.folder.join("ringgate.toml");
    std::fs::write(&file, files.every_key()).unwrap();
    let chmod = |name: &str, mode: u32| {
        std::fs::set_permissions(files.folder.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let warnings = || {
        let text = std::fs::read_to_string(&file).unwrap();
        let config = Config::understand(&text, file.to_str().unwrap(), |_| Vec::new()).unwrap();
        config.warnings.into_iter().map(|warning| (warning.key.clone(), warning.in_file(""))).collect::<Vec<_>>()
    };
    let secrets =
        [("key.pem", "tls.key"), ("secret", "token.keys[1].secret_file"), ("ringgate.toml", "token.keys[0].secret")];
    for (name, _) in secrets {
        chmod(name, 0o640);
    }
    assert_eq!(warnings(), []);
    for (name, key) in secrets {
        for mode in [0o644, 0o602] {
            chmod(name, mode);
            let warnings = warnings();
            let wanted = format!("(mode 0{mode:o}); `chmod o-rwx {}`", files.folder.join(name).display());
            assert!(warnings.len() == 1 && warnings[0].0 == key && warnings[0].1.contains(&wanted), "{warnings:?}");
        }
        chmod(name, 0o400);
    }
    // Everybody may read these, and nobody else may exchange them.
    for (name, key) in [("certificate.pem", "tls.certificate"), ("public.pem", "token.keys[2].public_key_file")] {
        chmod(name, 0o644);
        assert_eq!(warnings(), []);
        chmod(name, 0o646);
        let warnings = warnings();
        let wanted = format!("(mode 0646); `chmod o-w {}`", files.folder.join(name).display());
        assert!(warnings.len() == 1 && warnings[0].0 == key && warnings[0].1.contains(&wanted), "{warnings:?}");
        chmod(name, 0o644);
    }
}

#[test]
fn key_has_another_name_now_then_the_error_says_which() {
    for (old, new) in raw::RENAMED {
        let (section, key) = old.split_once('.').unwrap();
        let problem = &Config::parse(&format!("[{section}]\n{key} = 1\n"), "x.toml").err().unwrap().problems[0];
        assert_eq!(problem.line, Some(2), "{problem:?}");
        assert_eq!(problem.text, format!("`{key}` is called `{new}` now: write {section}.{new}"));
        // The new name is one that is known.
        let problems = Config::parse(&format!("[{section}]\n{new} = \"\"\n"), "x.toml").err().unwrap().problems;
        assert!(problems.iter().any(|problem| problem.key == format!("{section}.{new}")), "{problems:?}");
    }
    let problem = &Config::parse("[inbox]\nroom_limit = 1\n", "x.toml").err().unwrap().problems[0];
    assert!(problem.text.starts_with("unknown field `room_limit`"), "{problem:?}");
}
