//! The demo of several nodes on one Redis: it tells what it does, nothing is lost, and nothing is left behind.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Folder, PROGRAM};

/// The demo, with its files below this folder.
fn demo(folder: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["demo", "--nodes", "3"]).env("TMPDIR", folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// The processes that the demo has named.
fn gateways(said: &str) -> Vec<u32> {
    said.lines().filter_map(|line| line.split_once(": process ")?.1.parse().ok()).collect()
}

#[test]
fn node_is_killed_and_another_one_drained_then_nothing_is_lost_and_the_demo_says_so() {
    let folder = Folder::new("nodes");
    let path = Path::new(&folder.path("")).to_owned();
    let output = demo(&path).output().unwrap();
    let [said, errors] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert_eq!((output.status.code(), errors.as_str()), (Some(0), ""), "{said}");
    assert!(said.contains("Lost: 0. Doubled: 0. Out of order: 0.\nNothing is missing."), "{said}");
    for part in [
        "30 people know these addresses and have come: 10 on node 1, 10 on node 2, 10 on node 3.",
        "node 2 is killed (kill -9), and with it the connections of 10 people",
        "  all 10 are back, the last one after ",
        "node 2 runs again after ",
        "node 3 is asked to end (SIGTERM)",
        "node 3 has ended in order; ",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert_eq!(gateways(&said).len(), 3, "{said}");
    assert!(is_empty(&path), "its files are removed");
}

#[test]
fn demo_of_nodes_is_interrupted_then_gateways_redis_and_files_are_gone() {
    for asked in [Signal::INT, Signal::TERM] {
        let folder = Folder::new(&format!("nodes-interrupted-{}", asked.as_raw()));
        let path = Path::new(&folder.path("")).to_owned();
        let mut child = demo(&path).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        while !said.contains("people chat") {
            assert!(lines.read_line(&mut said).unwrap() > 0, "{said}");
        }
        signal(&child, asked);
        lines.read_to_string(&mut said).unwrap();
        let mut errors = String::new();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{said}{errors}");
        assert!(errors.starts_with("ended early, as it was asked to"), "{errors}");
        let gateways = gateways(&said);
        assert_eq!(gateways.len(), 3, "{said}");
        for gateway in gateways {
            assert!(!Path::new(&format!("/proc/{gateway}")).exists(), "gateway {gateway} goes on");
        }
        let redis = said.lines().find_map(|line| line.strip_prefix("Redis ")?.split(' ').nth(2)).unwrap();
        let address: std::net::SocketAddr = redis.trim_end_matches(',').parse().unwrap();
        assert!(std::net::TcpStream::connect(address).is_err(), "Redis goes on at {address}");
        assert!(is_empty(&path), "its files are removed");
    }
}

#[test]
fn redis_is_not_installed_then_the_demo_says_how_to_get_it() {
    let folder = Folder::new("nodes-without-redis");
    let path = Path::new(&folder.path("")).to_owned();
    let output = demo(&path).env("PATH", &path).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("redis-server is not on the search path"), "{errors}");
    assert!(errors.contains("apt-get install redis-server"), "{errors}");
    assert!(is_empty(&path), "its files are removed");
}

#[test]
fn demo_of_nodes_has_an_option_of_the_other_demo_then_it_is_refused() {
    for (option, value) in [("--connections", "100"), ("--json", "-"), ("--shards", "2")] {
        let output = Command::new(PROGRAM).args(["demo", "--nodes", "3", option, value]).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains("cannot be used with") && errors.contains(option), "{errors}");
    }
    let output = Command::new(PROGRAM).args(["demo", "--nodes", "2"]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("must be a whole number from 3 to 9"), "{errors}");
}
