//! The default file means the defaults; some keys depend on others.

use super::*;
use ringgate_core::limits::Engine;

mod every_key;
mod mistakes;

const MINIMAL: &str = r#"
[[listeners]]
address = "127.0.0.1:0"
[[token.keys]]
algorithm = "HS256"
secret = "0123456789abcdef0123456789abcdef"
"#;

/// How many connections the host can hold is not asked.
fn understand(text: &str) -> Result<Config, Problems> {
    Config::understand(text, "x.toml", |_| Vec::new())
}

#[test]
fn default_text_is_parsed_then_it_gives_the_defaults() {
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
fn section_of_redis_is_taken_out_of_its_comments_then_it_gives_the_defaults() {
    let is_free = |line: &str| {
        !line.contains("/etc/")
            && !["password", "user", "sentinel_master", "sentinel_password"].iter().any(|key| line.starts_with(key))
    };
    let lines = default_text().lines().skip_while(|line| *line != "# [redis]").take_while(|line| !line.is_empty());
    let lines: Vec<_> = lines.map(|line| line.trim_start_matches("# ")).filter(|line| is_free(line)).collect();
    assert!(lines.len() > 12, "{lines:?}");
    let engine = "[node]\nnumber = 0\n[log]\nengine = \"redis\"\n";
    let config =
        understand(&format!("{engine}{}\n{MINIMAL}", lines.join("\n"))).unwrap_or_else(|problems| panic!("{problems}"));
    let wanted = RedisConfig::at(vec![HostPort { host: "127.0.0.1".to_owned(), port: 6379 }]);
    assert_eq!(config.redis, Some(wanted.clone()));
    // But for one that has no effect unless another is changed.
    let warnings: Vec<_> = config.warnings.iter().map(|warning| warning.key.as_str()).collect();
    assert_eq!(warnings, ["redis.wait_max"]);
    let short = understand(&format!("{engine}[redis]\naddress = \"127.0.0.1:6379\"\n{MINIMAL}")).unwrap();
    assert_eq!((short.redis, short.settings.engine, short.warnings), (Some(wanted), Engine::Shared, Vec::new()));
}

#[test]
fn cores_are_listed_then_each_has_a_shard_unless_shards_is_set() {
    let config = understand(&format!("[runtime]\ncores = [3, 1, 0]\n{MINIMAL}")).unwrap();
    assert_eq!((config.runtime.cores.clone(), config.runtime.shard_count()), (Cores::List(vec![3, 1, 0]), 3));
    let config = understand(&format!("[runtime]\nshards = 2\ncores = [3]\n{MINIMAL}")).unwrap();
    assert_eq!(config.runtime.shard_count(), 2);
    let config = Config::parse(&format!("[runtime]\ncores = \"auto\"\n{MINIMAL}"), "x").unwrap();
    assert_eq!(config.runtime, Runtime::default());
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
fn longest_frame_is_more_than_half_a_mib_then_a_websocket_message_may_be_twice_as_long() {
    for (size, wanted) in [("64KiB", 1 << 20), ("2MiB", 2 * ((2 << 20) + 4096 + 8))] {
        let client = format!("message_size_max = \"{size}\"\noutbox_size_max = \"8MiB\"\nbytes_burst = \"8MiB\"");
        let inbox = "size_max = \"8MiB\"\nunknown_size_per_shard_max = \"8MiB\"";
        let config = Config::parse(&format!("[client]\n{client}\n[inbox]\n{inbox}\n{MINIMAL}"), "x").unwrap();
        assert_eq!(config.websocket.message_bytes_max, wanted, "{size}");
    }
}

#[test]
fn tls_memory_is_compact_then_the_server_keeps_compact_state() {
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
