//! The default file means the defaults, and every mistake is named.

use super::*;

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

#[test]
fn what_is_kept_is_bounded_as_the_file_says() {
    let text = r#"
[inbox]
messages_max = 11
size_max = "1MiB"
ttl = "2d"
devices_max = 5
device_ttl = "90d"
unknown_messages_max = 3
unknown_size_per_shard = "2MiB"
[log]
size_per_shard = "1GiB"
topic_ttl = "2h"
quiet_topics_max = 77
"#;
    let settings = Config::parse(&format!("{text}{MINIMAL}"), "x").unwrap().settings;
    let inbox = &settings.inbox;
    assert_eq!((inbox.messages_max, inbox.bytes_max, inbox.age_ms_max), (11, 1 << 20, 2 * 86_400_000));
    assert_eq!((inbox.devices_max, inbox.device_ttl_ms), (5, 90 * 86_400_000));
    assert_eq!((inbox.unknown_messages_max, inbox.unknown_bytes_per_shard_max), (3, 2 << 20));
    let log = (settings.log_bytes_per_shard_max, settings.topic_ttl_ms, settings.quiet_topics_max);
    assert_eq!(log, (1 << 30, 7_200_000, 77));
}

#[test]
fn listed_cores_say_how_many_shards_there_are() {
    let config = Config::parse(&format!("[runtime]\ncores = [3, 1, 0]\n{MINIMAL}"), "x").unwrap();
    assert_eq!((config.runtime.cores.clone(), config.runtime.shard_count()), (Cores::List(vec![3, 1, 0]), 3));
    let config = Config::parse(&format!("[runtime]\nshards = 2\ncores = [3]\n{MINIMAL}"), "x").unwrap();
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
        ("[client]\nmessage_size_limit = \"2MiB\"", vec!["client.message_size_limit", "queue_max_size"]),
        ("[client]\nroom_limit = -1", vec!["client.room_limit", "negative"]),
        ("[client]\nroom_limit = 0", vec!["client.room_limit", "1 to 65535"]),
        ("[inbox]\nsize_max = \"32KiB\"", vec!["x.toml:2: inbox.size_max", "client.message_size_limit"]),
        ("[inbox]\nunknown_size_per_shard = \"64KiB\"", vec!["inbox.unknown_size_per_shard", "would not be kept"]),
        ("[inbox]\ndevices_max = 0", vec!["inbox.devices_max", "1 to 10000"]),
        ("[inbox]\ndevice_ttl = \"1ms\"", vec!["inbox.device_ttl", "at least 1000ms"]),
        ("[log]\ntopic_ttl = \"30\"", vec!["x.toml:2: log.topic_ttl", "\"25s\""]),
        ("[runtime]\nshards = \"many\"", vec!["runtime.shards", "auto"]),
        ("[runtime]\nshards = 100000", vec!["runtime.shards", "1 to 256"]),
        ("[runtime]\ncores = \"all\"", vec!["x.toml:2: runtime.cores", "[0, 2, 4]"]),
        ("[runtime]\ncores = []", vec!["runtime.cores", "at least one"]),
        ("[runtime]\ncores = [-1]", vec!["runtime.cores", "negative"]),
        ("[runtime]\ncores = [1, 0, 1]", vec!["runtime.cores", "twice"]),
        ("[runtime]\ndescriptors = \"x\"", vec!["runtime.descriptors", "\"direct\""]),
        ("[runtime]\nrecv_buffers = 100", vec!["runtime.recv_buffers", "power of two"]),
        ("[runtime]\nconnections_per_shard_max = 16777216", vec!["connections_per_shard_max", "LimitNOFILE="]),
        ("[[namespaces]]\nname = \"a:b\"", vec!["namespaces[0].name", "colon"]),
        ("[[namespaces]]\nname = \"a\"\n[[namespaces]]\nname = \"a\"", vec!["namespaces[1].name", "twice"]),
        ("[[namespaces]]\nname = \"a\"\ndurability = \"durable\"", vec!["namespaces[0].durability", "\"memory\""]),
        ("[[namespaces]]\nhistory_size = 1", vec!["namespaces[0].name", "missing"]),
        ("[admin]\naddress = \"localhost\"", vec!["admin.address", "with a port"]),
        ("[logging]\nformat = \"xml\"", vec!["logging.format", "\"json\""]),
        ("[tls]\ncertificate = \"/nowhere.pem\"\nkey = \"/nowhere.key\"", vec!["tls.certificate", "/nowhere.pem"]),
        ("[tls]\ncertificate = \"/nowhere.pem\"", vec!["tls", "both certificate and key"]),
        ("[tls]\nmemory = \"small\"", vec!["x.toml:2: tls.memory", "\"ordinary\", \"compact\""]),
        ("[node]\nname = \"a b\"", vec!["node.name", "blanks"]),
        ("[node\n", vec!["x.toml:1"]),
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
fn keys_are_checked() {
    for (key, wanted) in [
        ("algorithm = \"none\"\nsecret = \"x\"", "HS256"),
        ("algorithm = \"HS256\"\nsecret = \"short\"", "at least 32"),
        ("algorithm = \"HS256\"", "exactly one"),
        ("secret = \"0123456789abcdef0123456789abcdef\"", "is missing"),
        ("algorithm = \"RS256\"\npublic_key_file = \"/nowhere\"", "/nowhere cannot be read"),
        (&format!("algorithm = \"HS256\"\nsecret = \"{}\"", crate::auth::DEV_SECRET), "development key"),
    ] {
        let text = format!("[[listeners]]\naddress = \"127.0.0.1:0\"\n[[token.keys]]\n{key}");
        let message = Config::parse(&text, "x").err().map(|problems| problems.to_string()).unwrap_or_default();
        assert!(message.contains(wanted), "{key:?} gives {message:?}");
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let problems = Config::parse("[client]\nroom_limit = -1\nping_interval = \"x\"", "x").err().unwrap();
    let message = problems.to_string();
    for part in ["room_limit", "ping_interval", "listeners", "token.keys"] {
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

#[test]
fn a_key_of_another_certificate_is_refused() {
    let directory = std::env::temp_dir().join(format!("ringgate-config-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (certificate, _) = dev_certificate().unwrap();
    let (_, key) = dev_certificate().unwrap();
    let (certificate_path, key_path) = (directory.join("c.pem"), directory.join("k.pem"));
    std::fs::write(&certificate_path, certificate).unwrap();
    std::fs::write(&key_path, key).unwrap();
    let Err(CertificateError::Key(text)) = certificate_from_files(&certificate_path, &key_path) else {
        panic!("accepted a key that does not match");
    };
    assert!(text.contains("does not belong to the certificate"), "{text}");
    let Err(CertificateError::Certificate(text)) = certificate_from_files(&key_path, &key_path) else {
        panic!("accepted a key as a certificate");
    };
    assert!(text.contains("no certificate"), "{text}");
    std::fs::remove_dir_all(&directory).unwrap();
}
