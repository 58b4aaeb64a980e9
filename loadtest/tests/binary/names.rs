//! A gateway whose name has several addresses, of which not all answer. The names are those of a file of the test's own, which
//! only the load tester's process sees in place of /etc/hosts.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};

use ringgate_core::transport::Transport;
use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
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

/// A port on which connects are refused for as long as the socket lives: it is bound and does not listen, so that no other test
/// gets this port on this address. None if somebody else has it.
fn refusing(address: Ipv4Addr, port: u16) -> Option<(OwnedFd, u16)> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddrV4::new(address, port)).ok()?;
    let bound = SocketAddr::try_from(getsockname(&socket).unwrap()).unwrap();
    Some((socket, bound.port()))
}

/// A gateway, and sockets that keep 127.0.0.1 refusing on its ports.
fn gateway_behind_refusing_address() -> (Gateway, [OwnedFd; 2]) {
    loop {
        let gateway = Gateway::start_at(GATEWAY.into());
        let refusing = [Transport::Plain, Transport::Tls].map(|transport| {
            let port = gateway.url(transport).rsplit(':').next().unwrap().parse().unwrap();
            Some(refusing(Ipv4Addr::LOCALHOST, port)?.0)
        });
        if let [Some(plain), Some(tls)] = refusing {
            return (gateway, [plain, tls]);
        }
    }
}

#[test]
fn first_address_of_the_name_refuses_then_clients_connect_to_the_next() {
    let folder = Folder::new("names");
    let (gateway, _refusing) = gateway_behind_refusing_address();
    for transport in [Transport::Plain, Transport::Tls] {
        let url = gateway.url(transport).replace(&GATEWAY.to_string(), NAME);
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
    let (port, _refusing) = loop {
        let (first, port) = refusing(Ipv4Addr::LOCALHOST, 0).unwrap();
        if let Some((second, _)) = refusing(GATEWAY, port) {
            break (port, [first, second]);
        }
    };
    let url = format!("tcp://{NAME}:{port}");
    let output = loadtest(
        &folder,
        &[Ipv4Addr::LOCALHOST, GATEWAY],
        &["connect", "--url", &url, "--dev", "--quiet", "--connections", "2"],
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("Connection refused") && said.contains("is the gateway running there?"), "{said}");
    let tried = format!("the last of 2 addresses that were tried: 127.0.0.1:{port}, {GATEWAY}:{port}");
    assert!(said.contains(&tried), "{said}");
}
