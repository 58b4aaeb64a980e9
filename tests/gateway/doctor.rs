//! `ringgate doctor` on the machine that the tests run on: on any machine the answer has a shape, and an
//! impossible target is refused with what stands in the way.

use std::process::Command;

use serde_json::Value;

use ringgate_test_servers::{Append, Options, Server, User};

use crate::support::{Process, TempFolder};

fn doctor(arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
    let ended = Process::ringgate(&[&["doctor", "--json"], arguments].concat()).ended();
    assert!(ended.err.is_empty(), "{ended:?}");
    (ended.code, serde_json::from_str(&ended.out.join("\n")).unwrap())
}

fn text<'a>(finding: &'a Value, field: &str) -> &'a str {
    finding[field].as_str().unwrap_or_else(|| panic!("{field} of {finding}"))
}

#[test]
fn doctor_runs_here_then_every_finding_has_one_shape() {
    let (code, findings) = doctor(&["--connections", "1000", "--shards", "1"]);
    let mut names = Vec::new();
    let mut problems = 0;
    for finding in &findings {
        assert_eq!(finding.as_object().unwrap().len(), 7, "{finding}");
        assert!(["found", "wanted", "why"].iter().all(|field| !text(finding, field).is_empty()), "{finding}");
        match text(finding, "state") {
            "ok" | "unknown" => assert!(text(finding, "fix").is_empty(), "{finding}"),
            "warning" => assert!(!text(finding, "fix").is_empty(), "{finding}"),
            "problem" => {
                problems += 1;
                assert!(!text(finding, "fix").is_empty(), "{finding}");
            }
            other => panic!("{other}"),
        }
        names.push((text(finding, "group"), text(finding, "check")));
    }
    assert_eq!(code, Some(i32::from(problems > 0)));
    for name in [
        ("target", "shards"),
        ("io_uring", "kernel"),
        ("io_uring", "multishot receive"),
        ("limits", "open files (hard limit)"),
        ("limits", "fs.nr_open"),
        ("memory", "memory"),
        ("network", "net.core.somaxconn"),
        ("network", "connection tracking"),
        ("cores", "shards to cores"),
        ("cores", "CPU quota"),
        ("cores", "isolated cores"),
        ("cores", "interrupts of other devices"),
    ] {
        assert!(names.contains(&name), "{name:?} is not in {names:?}");
    }
    // The gateway runs here, in the other tests: so these must be found to work.
    for finding in findings.iter().filter(|finding| text(finding, "group") == "io_uring") {
        assert_ne!(text(finding, "state"), "problem", "{finding}");
    }
}

#[test]
fn target_is_impossible_then_the_limit_and_the_command_are_named() {
    let doctor = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringgate"));
        command.args(["doctor", "--connections", "100000000", "--shards", "1"]).args(more);
        super::startup::limit_open_files(&mut command, 1000);
        Process::of(command).ended()
    };
    let ended = doctor(&["--json"]);
    assert_eq!(ended.code, Some(1));
    let findings: Vec<Value> = serde_json::from_str(&ended.out.join("\n")).unwrap();
    let found = |check: &str| findings.iter().find(|finding| text(finding, "check") == check).unwrap();
    let files = found("open files (hard limit)");
    assert_eq!((text(files, "state"), text(files, "found")), ("problem", "1 000"));
    assert!(text(files, "wanted").starts_with("at least 112 510 100: 100 000 0"), "{files}");
    let command = "tuning/apply --connections 100000000 --shards 1 (LimitNOFILE=112510100 for systemd)";
    assert!(text(files, "fix").starts_with(command), "{files}");
    assert!(text(files, "fix").contains("ulimit -Hn 112510100"), "{files}");
    assert_eq!((text(found("shards"), "state"), text(found("shards"), "fix")), ("problem", "runtime.shards = 12"));
    // For people, without colours where nobody looks, and with the plan.
    let ended = doctor(&[]);
    assert_eq!((ended.code, ended.err.len()), (Some(1), 0));
    let all = ended.out.join("\n");
    assert!(all.starts_with("ringgate doctor: 100 000 000 plain connections on 1 shard\n"), "{all}");
    assert!(
        all.contains("  problem  open files (hard limit) ") && all.contains("\n           -> tuning/apply "),
        "{all}"
    );
    assert!(all.contains("\nplan\n  shard 0 -> cpu "), "{all}");
    assert!(!all.contains('\x1b'));
}

#[test]
fn table_is_above_the_limit_of_open_files_then_a_finding_and_not_a_mistake() {
    let folder = TempFolder::new();
    let text_of = |table: u32| {
        format!(
            "[[listeners]]\naddress = \"127.0.0.1:0\"\n[[token.keys]]\nalgorithm = \"HS256\"\n\
             secret = \"0123456789abcdef0123456789abcdef\"\n[runtime]\nshards = 1\nconnections_per_shard_max = {table}\n"
        )
    };
    let file = folder.write("ringgate.toml", text_of(16_000_000));
    let (_, findings) = doctor(&["--connections", "1000", "--config", file.to_str().unwrap()]);
    let files = findings.iter().find(|finding| text(finding, "check") == "open files (hard limit)").unwrap();
    assert!(text(files, "wanted").starts_with("at least 18 010 1"), "{files}");
    assert!(text(files, "wanted").contains(": 16 000 0"), "{files}");
    let file = folder.write("small.toml", text_of(100));
    let (code, findings) = doctor(&["--connections", "1000", "--config", file.to_str().unwrap()]);
    let table = findings.iter().find(|finding| text(finding, "check") == "connections per shard").unwrap();
    assert_eq!((code, text(table, "state")), (Some(1), "problem"));
    assert_eq!(text(table, "fix"), "runtime.connections_per_shard_max = 1000");
}

#[test]
fn configuration_cannot_be_read_then_exit_code_2_and_no_findings() {
    let folder = TempFolder::new();
    let broken = folder.write("broken.toml", "[runtime]\nshards = \"many\"\n");
    let missing = broken.with_file_name("missing.toml");
    for (file, said) in [(&broken, "broken.toml:2: runtime.shards"), (&missing, "missing.toml: ")] {
        let ended = Process::ringgate(&["doctor", "--config", file.to_str().unwrap()]).ended();
        assert_eq!((ended.code, ended.out.len()), (Some(2), 0), "{ended:?}");
        assert!(ended.err.iter().any(|line| line.contains(said)), "{ended:?}");
    }
    assert_eq!(Process::ringgate(&["doctor", "--connections", "many"]).ended().code, Some(2));
    let help = Process::ringgate(&["doctor", "--help"]).ended();
    assert_eq!(help.code, Some(0));
    for line in ["Exit codes:", "  0  nothing is in the way", "  1  something is"] {
        assert!(help.out.iter().any(|found| found == line), "{help:?}");
    }
    assert!(help.out.iter().any(|found| found.starts_with("  2  it could not be asked")), "{help:?}");
}

#[test]
fn seccomp_forbids_the_ring_then_it_is_named() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringgate"));
    command.args(["doctor", "--json", "--connections", "1000"]);
    super::startup::forbid_io_uring(&mut command);
    let ended = Process::of(command).ended();
    assert_eq!(ended.code, Some(1));
    let findings: Vec<Value> = serde_json::from_str(&ended.out.join("\n")).unwrap();
    let state = |check: &str| {
        let finding = findings.iter().find(|finding| text(finding, "check") == check).unwrap();
        text(finding, "state").to_owned()
    };
    assert_eq!((state("seccomp"), state("ring setup")), ("problem".to_owned(), "problem".to_owned()));
    assert_eq!(state("multishot receive"), "unknown");
}

#[test]
fn configuration_names_a_redis_then_it_is_looked_at() {
    let user = User { name: "edge".to_owned(), password: "a-password-of-redis".to_owned() };
    let options = Options { tls: true, users: vec![user], append: Append::Always, ..Options::default() };
    let mut server = Server::start(&options);
    let folder = TempFolder::new();
    let file = folder.write(
        "ringgate.toml",
        format!(
            "[[listeners]]\naddress = \"127.0.0.1:0\"\n[[token.keys]]\nalgorithm = \"HS256\"\n\
             secret = \"0123456789abcdef0123456789abcdef\"\n[node]\nnumber = 1\n[log]\nengine = \"redis\"\n\
             [redis]\naddress = \"{}\"\nuser = \"edge\"\npassword = \"a-password-of-redis\"\ntls = true\n\
             ca_file = {:?}\nconnect_timeout = \"30s\"\ncommand_timeout = \"30s\"\n",
            server.tls_address(),
            server.authority_file()
        ),
    );
    let look = || {
        let (code, findings) = doctor(&["--connections", "100", "--shards", "1", "--config", file.to_str().unwrap()]);
        let of_redis = findings.into_iter().filter(|finding| text(finding, "group") == "redis");
        let of_redis: Vec<_> = of_redis.map(|finding| (text(&finding, "check").to_owned(), finding)).collect();
        (code, of_redis)
    };
    let (_, findings) = look();
    let address = server.tls_address();
    let state = |findings: &[(String, Value)], check: &str| {
        let name = format!("{address} {check}");
        let found = findings.iter().find(|(known, _)| *known == name);
        text(&found.unwrap_or_else(|| panic!("{name}: {findings:?}")).1, "state").to_owned()
    };
    assert_eq!(findings.len(), 8, "{findings:?}");
    for check in ["version", "mode", "appendonly, appendfsync", "maxmemory-policy", "replicas"] {
        assert_eq!(state(&findings, check), "ok", "{check}");
    }
    // The server's defaults.
    for check in ["client-output-buffer-limit of pubsub", "stream-node-max-bytes"] {
        assert_eq!(state(&findings, check), "warning", "{check}");
    }
    server.config_set("appendonly", "no");
    let (code, findings) = look();
    assert_eq!((code, state(&findings, "appendonly, appendfsync").as_str()), (Some(1), "problem"));
    server.kill();
    let (code, findings) = look();
    let [(check, finding)] = &findings[..] else { panic!("{findings:?}") };
    assert_eq!((code, check.clone(), text(finding, "state")), (Some(1), address.to_string(), "problem"));
    assert!(text(finding, "found").contains("refused"), "{finding}");
}
