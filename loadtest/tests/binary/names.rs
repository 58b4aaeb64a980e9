//! A gateway whose name has several addresses, of which not all answer. The names are those of a file of the test's own, which
//! only the load tester's process sees in place of /etc/hosts.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Output, Stdio};

use ringgate_core::session::Transport;
use serde_json::Value;

use crate::support::{Folder, Gateway, PROGRAM, assert_clean, count};

const NAME: &str = "gateway.test";
/// Behind 127.0.0.1, which the system prefers as it is that of the interface.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// Runs the load tester where [`NAME`] has these addresses.
fn loadtest(folder: &Folder, addresses: &[Ipv4Addr], arguments: &[&str]) -> Output {
    let hosts = folder.path("hosts");
    let lines: Vec<_> = addresses.iter().map(|address| format!("{address} {NAME}\n")).collect();
    std::fs::write(&hosts, lines.concat()).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\"", &hosts, PROGRAM]);
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn first_address_of_the_name_refuses_then_clients_connect_to_the_next() {
    let folder = Folder::new("names");
    let gateway = Gateway::start_at(GATEWAY.into());
    for transport in [Transport::Plain, Transport::Tls] {
        let url = gateway.url(transport).replace(&GATEWAY.to_string(), NAME);
        // Nobody listens at 127.0.0.1 on this port; the gateway's own is free there.
        let output = loadtest(
            &folder,
            &[Ipv4Addr::LOCALHOST, GATEWAY],
            &[
                "p2p",
                "--url",
                &url,
                "--dev",
                "--json",
                "-",
                "--quiet",
                "--connections",
                "20",
                "--rate",
                "50",
                "--duration",
                "1s",
            ],
        );
        let result: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        assert_clean(output.status.code().unwrap(), &result);
        assert_eq!(count(&result, "connections"), 20, "{result:#}");
        // What an address refused is not counted as a connection that was closed.
        assert_eq!(result["closed"].as_object().map_or(0, serde_json::Map::len), 0, "{result:#}");
    }
}

#[test]
fn no_address_of_the_name_answers_then_the_run_says_so() {
    let folder = Folder::new("no-names");
    // A port that is free while it is bound elsewhere.
    let other = TcpListener::bind("127.0.0.10:0").unwrap();
    let url = format!("tcp://{NAME}:{}", other.local_addr().unwrap().port());
    let output = loadtest(
        &folder,
        &[Ipv4Addr::LOCALHOST, GATEWAY],
        &["connect", "--url", &url, "--dev", "--quiet", "--connections", "2"],
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("Connection refused") && said.contains("is the gateway running there?"), "{said}");
    let port = other.local_addr().unwrap().port();
    let tried = format!("the last of 2 addresses that were tried: 127.0.0.1:{port}, {GATEWAY}:{port}");
    assert!(said.contains(&tried), "{said}");
}
