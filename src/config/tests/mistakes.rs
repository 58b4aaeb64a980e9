//! Mistakes, and the messages that name them.

use super::every_key::Files;
use super::*;

#[test]
fn value_is_wrong_then_file_line_key_and_remedy_are_named() {
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
        (
            "[websocket]\npath = \"ws\"",
            vec!["x.toml:2: websocket.path: \"ws\" is not the path of a URL", "like \"/ws\""],
        ),
        ("[websocket]\npath = \"/ws?token=1\"", vec!["websocket.path", "without a query"]),
        (
            "[websocket]\norigins = [\"*\", \"chat.example.org\"]",
            vec!["x.toml:2: websocket.origins[1]: origin \"chat.example.org\" has no scheme", "SCHEME://HOST"],
        ),
        (
            "[[listeners]]\naddress = \"127.0.0.1:1\"\nprotocols = [\"wss\"]",
            vec!["x.toml:3: listeners[0].protocols: \"wss\" is not one of \"tcp\", \"ws\""],
        ),
        (
            "[[listeners]]\naddress = \"127.0.0.1:1\"\nprotocols = [\"tcp\", \"tcp\"]",
            vec!["listeners[0].protocols: has a protocol twice; write [\"tcp\"], [\"ws\"] or [\"tcp\", \"ws\"]"],
        ),
        (
            "[[listeners]]\naddress = \"127.0.0.1:1\"\nprotocols = []",
            vec!["listeners[0].protocols: is empty; write [\"tcp\"], [\"ws\"] or [\"tcp\", \"ws\"]"],
        ),
        (
            "[[listeners]]\naddress = \"127.0.0.1:1\"\nproxy_protocol = true",
            vec!["x.toml:2: listeners[0].trusted_proxies: is missing", "[\"10.0.0.0/8\"]"],
        ),
        (
            "[[listeners]]\naddress = \"127.0.0.1:1\"\nproxy_protocol = true\ntrusted_proxies = [\"10.1.0.0/8\"]",
            vec![
                "x.toml:4: listeners[0].trusted_proxies[0]: \"10.1.0.0/8\" has bits beyond its prefix",
                "\"10.0.0.0/8\"",
            ],
        ),
        (
            "[[listeners]]\naddress = \"127.0.0.1:1\"\ntls = true\nprotocols = [\"ws\"]",
            vec!["tls: is missing, but a listener has tls = true"],
        ),
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
        ("[admin]\nhealth_address = \"7481\"", vec!["x.toml:2: admin.health_address", "with a port"]),
        (
            "[admin]\nhealth_address = \"0.0.0.0:7480\"",
            vec!["x.toml:2: admin.health_address: 0.0.0.0:7480 and admin.address 127.0.0.1:7480 are the same"],
        ),
        (
            "[admin]\nhealth_address = \"127.0.0.1:9\"\n[[listeners]]\naddress = \"127.0.0.1:9\"",
            vec!["x.toml:2: admin.health_address: 127.0.0.1:9 and listeners[0].address 127.0.0.1:9 are the same"],
        ),
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
fn redis_is_set_wrong_then_the_key_and_what_would_be_right_are_named() {
    let files = Files::new("redis-wrong");
    let folder = files.folder.to_str().unwrap();
    std::fs::write(files.folder.join("empty"), "\n").unwrap();
    std::fs::write(files.folder.join("no-text"), [0xff, 0xfe]).unwrap();
    const ADDRESS: &str = "address = \"127.0.0.1:6379\"";
    for (redis, wanted) in [
        ("", "redis.address: is missing; for instance \"127.0.0.1:6379\""),
        ("address = \"redis\"", "x.toml:6: redis.address: \"redis\" has no port; write \"redis:6379\""),
        ("address = []", "redis.address: is empty; write at least one"),
        ("address = [\"a:1\", \"a:1\"]\nmode = \"cluster\"", "redis.address: has \"a:1\" twice"),
        ("address = [\"a:1\", \"b:1\"]", "redis.address: has several addresses, and redis.mode is \"standalone\""),
        ("address = 6379", "an address like \"127.0.0.1:6379\", or a list of them"),
        (
            "ADDRESS\nmode = \"sentinels\"",
            "x.toml:7: redis.mode: \"sentinels\" is not one of \"standalone\", \"sentinel\", \"cluster\"",
        ),
        ("ADDRESS\nmode = \"sentinel\"", "redis.sentinel_master: is missing"),
        (
            "ADDRESS\nmode = \"sentinel\"\nsentinel_master = \"a b\"",
            "redis.sentinel_master: \"a b\" is no name of Sentinel",
        ),
        ("ADDRESS\nsentinel_password = \"a\"", "x.toml:7: redis.sentinel_password: is for redis.mode = \"sentinel\""),
        (
            "ADDRESS\nmode = \"sentinel\"\nsentinel_master = \"a\"\nsentinel_password = \"\"",
            "x.toml:9: redis.sentinel_password: is empty; remove it",
        ),
        (
            "ADDRESS\nsentinel_master = \"a\"",
            "x.toml:7: redis.sentinel_master: is for redis.mode = \"sentinel\", and that is \"standalone\"",
        ),
        (
            "ADDRESS\nmode = \"cluster\"\ndatabase = 1",
            "x.toml:8: redis.database: 1 is not there: a Cluster has database 0 alone",
        ),
        ("ADDRESS\ndatabase = -1", "x.toml:7: redis.database: -1 is negative; 0 to 65535"),
        (
            "ADDRESS\nuser = \"edge\"",
            "x.toml:7: redis.user: needs a password; add redis.password_file or redis.password",
        ),
        ("ADDRESS\nuser = \"a b\"\npassword = \"p\"", "x.toml:7: redis.user: \"a b\" is no user of Redis"),
        ("ADDRESS\npassword = \"\"", "x.toml:7: redis.password: is empty"),
        (
            "ADDRESS\npassword = \"p\"\npassword_file = \"/nowhere\"",
            "x.toml:8: redis.password_file: is there beside redis.password",
        ),
        ("ADDRESS\npassword_file = \"/nowhere\"", "x.toml:7: redis.password_file: /nowhere cannot be read"),
        ("ADDRESS\npassword_file = \"FOLDER/empty\"", "empty is empty; write the password into it"),
        ("ADDRESS\npassword_file = \"FOLDER/no-text\"", "no-text is no text in UTF-8"),
        ("ADDRESS\nca_file = \"FOLDER/certificate.pem\"", "x.toml:7: redis.ca_file: is for redis.tls = true"),
        ("ADDRESS\ntls = true\nca_file = \"/nowhere\"", "x.toml:8: redis.ca_file: /nowhere cannot be read"),
        ("ADDRESS\ntls = true\nca_file = \"FOLDER/public.pem\"", "public.pem has no certificate in it"),
        ("ADDRESS\nprefix = \"{a}\"", "x.toml:7: redis.prefix: \"{a}\" is no prefix; 1 to 64 letters, digits or _.:-"),
        ("ADDRESS\nconnect_timeout = \"2m\"", "x.toml:7: redis.connect_timeout: \"2m\" is too long; at most 1m"),
        ("ADDRESS\ncommand_timeout = \"1ms\"", "x.toml:7: redis.command_timeout: \"1ms\" is too short; at least 10ms"),
        ("ADDRESS\nwhen_away = \"drop\"", "x.toml:7: redis.when_away: \"drop\" is not one of \"refuse\", \"wait\""),
        (
            "ADDRESS\nwhen_away = \"wait\"\nwait_max = \"6m\"",
            "x.toml:8: redis.wait_max: \"6m\" is too long; at most 5m",
        ),
        ("ADDRESS\nreplicas_min = 17", "x.toml:7: redis.replicas_min: 17 is out of bounds; 0 to 16"),
        ("ADDRESS\nallow_volatile = 1", "x.toml:7: redis.allow_volatile"),
        ("ADDRESS\nadress = \"a:1\"", "unknown field `adress`, expected one of `address`"),
    ] {
        let redis = redis.replace("ADDRESS", ADDRESS).replace("FOLDER", folder);
        let text = format!("[node]\nnumber = 1\n[log]\nengine = \"redis\"\n[redis]\n{redis}\n{MINIMAL}");
        let Err(problems) = understand(&text) else { panic!("accepted: {redis}") };
        let message = problems.to_string();
        assert!(message.contains(wanted), "{redis:?} gives {message:?} without {wanted:?}");
    }
    for (text, wanted) in [
        ("[log]\nengine = \"Redis\"", "x.toml:2: log.engine: \"Redis\" is not one of \"memory\", \"redis\""),
        ("[log]\nengine = \"redis\"\n[node]\nnumber = 1", "redis: is missing, but log.engine is \"redis\""),
        (
            "[log]\nengine = \"redis\"\n[redis]\nADDRESS",
            "node.number: is missing; with log.engine = \"redis\" each node needs",
        ),
        (
            "[redis]\nADDRESS",
            "x.toml:1: redis: is there, but log.engine is \"memory\"; write engine = \"redis\" in [log]",
        ),
    ] {
        let text = format!("{}\n{MINIMAL}", text.replace("ADDRESS", ADDRESS));
        let message = understand(&text).err().unwrap_or_else(|| panic!("accepted: {text}")).to_string();
        assert!(message.contains(wanted), "{message:?} without {wanted:?}");
    }
}

#[test]
fn token_key_is_wrong_then_the_error_says_what_would_be_right() {
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
fn file_has_several_problems_then_all_are_reported() {
    let problems = Config::parse("[client]\nrooms_max = -1\nping_interval = \"x\"", "x").err().unwrap();
    let message = problems.to_string();
    for part in ["rooms_max", "ping_interval", "listeners", "token.keys"] {
        assert!(message.contains(part), "{message}");
    }
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
    std::fs::write(&file, files.with_other_key()).unwrap();
    let chmod = |name: &str, mode: u32| {
        std::fs::set_permissions(files.folder.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let warnings = || {
        let text = std::fs::read_to_string(&file).unwrap();
        let config = Config::understand(&text, file.to_str().unwrap(), |_| Vec::new()).unwrap();
        config.warnings.into_iter().map(|warning| (warning.key.clone(), warning.in_file(""))).collect::<Vec<_>>()
    };
    let secrets: [(&str, &[&str]); 4] = [
        ("key.pem", &["tls.key"]),
        ("secret", &["token.keys[1].secret_file"]),
        ("ringgate.toml", &["redis.sentinel_password", "token.keys[0].secret"]),
        ("redis-password", &["redis.password_file"]),
    ];
    for (name, _) in secrets {
        chmod(name, 0o640);
    }
    assert_eq!(warnings(), []);
    for (name, keys) in secrets {
        for mode in [0o644, 0o602] {
            chmod(name, mode);
            let warnings = warnings();
            let wanted = format!("(mode 0{mode:o}); `chmod o-rwx {}`", files.folder.join(name).display());
            assert!(warnings.iter().map(|(key, _)| key).eq(keys), "{warnings:?}");
            assert!(warnings.iter().all(|(_, text)| text.contains(&wanted)), "{warnings:?}");
        }
        chmod(name, 0o400);
    }
    // The password of Redis may stand beside the secret.
    std::fs::write(&file, files.every_key()).unwrap();
    chmod("ringgate.toml", 0o644);
    let keys: Vec<_> = warnings().into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["redis.sentinel_password", "redis.password", "token.keys[0].secret"]);
    chmod("ringgate.toml", 0o600);
    // Everybody may read these, and nobody else may exchange them.
    let ca = ("redis-ca.pem", "redis.ca_file");
    for (name, key) in [ca, ("certificate.pem", "tls.certificate"), ("public.pem", "token.keys[2].public_key_file")] {
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

#[test]
fn trusted_proxies_are_everybody_or_without_effect_then_a_warning_says_so() {
    for (proxies, wanted) in [
        ("proxy_protocol = true\ntrusted_proxies = [\"0.0.0.0/0\"]", "0.0.0.0/0 is everybody"),
        ("trusted_proxies = [\"10.0.0.0/8\"]", "connections are taken from everywhere, unless proxy_protocol = true"),
    ] {
        let text = format!(
            "[[listeners]]\naddress = \"127.0.0.1:1\"\n{proxies}\n[[token.keys]]\nalgorithm = \"HS256\"\n\
             secret = \"a secret that is long enough for everybody\"\n"
        );
        let config = Config::understand(&text, "x.toml", |_| Vec::new()).unwrap();
        let [warning] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
        assert!(
            warning.key.starts_with("listeners[0].trusted_proxies") && warning.text.contains(wanted),
            "{warning:?}"
        );
    }
}
