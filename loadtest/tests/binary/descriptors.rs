//! Where the limit of open files is too low: what the load tester makes of it, and what it says.

use std::process::{Command, Output, Stdio};

use ringgate_core::transport::Transport;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;

use crate::support::{Gateway, LOOPBACK, PROGRAM, Process};

/// The load tester with limits of open files: soft, hard.
fn limited(soft: u32, hard: u32) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" \"$@\""), PROGRAM]);
    command
}

#[test]
fn connections_that_the_limit_does_not_allow_are_not_begun() {
    let gateway = Gateway::start();
    let url = gateway.url(Transport::Plain);
    let run = |soft, hard| {
        let mut command = limited(soft, hard);
        command.args(["connect", "--url", &url, "--dev", "--connections", "100", "--quiet"]).stdin(Stdio::null());
        let Output { status, stdout, stderr } = command.output().unwrap();
        (status.code(), [stdout, stderr].map(|said| String::from_utf8_lossy(&said).into_owned()))
    };
    let (code, [stdout, stderr]) = run(80, 80);
    assert_eq!((code, &*stdout), (Some(2), ""), "{stderr}");
    let cause = "ringgate-loadtest: the limit of open files is 80, and these connections need ";
    assert!(stderr.starts_with(cause) && stderr.contains("raise it (ulimit -n "), "{stderr}");
    // What it says is enough.
    let wanted = stderr[cause.len()..].split(':').next().unwrap().parse().unwrap();
    let (code, said) = run(wanted, wanted);
    assert_eq!(code, Some(0), "{said:?}");
    let (code, said) = run(80, wanted);
    assert_eq!(code, Some(0), "it raises the soft limit by itself: {said:?}");
}

#[test]
fn a_worker_whose_limit_is_too_low_says_so_to_both_sides() {
    let gateway = Gateway::start();
    let url = gateway.url(Transport::Plain);
    let load = ["connect", "--url", &url, "--connections", "200", "--quiet"];
    let (controller, address) = Process::controller(LOOPBACK, "1", &load);
    let worker = Process::start(limited(80, 80), &["worker", &address, "--dev"]);
    let cause = "the limit of open files is 80, and these connections need ";
    let (code, _, stderr) = worker.end();
    assert!(code == Some(2) && stderr.contains(cause), "{stderr}");
    let (code, stdout, _) = controller.end();
    assert!(code == Some(2) && stdout.contains(") was lost: ") && stdout.contains(cause), "{stdout}");
}

#[test]
fn descriptors_that_run_out_on_the_way_are_named() {
    let gateway = Gateway::start();
    let url = gateway.url(Transport::Plain);
    let arguments =
        ["connect", "--url", &url, "--dev", "--connections", "1000", "--ramp-rate", "5", "--plain", "--json", "-"];
    let mut run = Process::start(Command::new(PROGRAM), &arguments);
    while run.wait_for_line(" of 1000 connections").contains(" 0 of ") {}
    // From now on there is no room for another file, whatever it may have open.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    prlimit(Pid::from_raw(run.id().cast_signed()), Resource::Nofile, none).unwrap();
    let (code, stdout, stderr) = run.end();
    let result: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    assert_eq!((code, &result["failure"]), (Some(1), &Value::from("connections were refused or lost")), "{result:#}");
    assert_eq!(result["closed_by_code"], serde_json::json!({}), "no gateway has closed anything");
    let kinds: Vec<_> = result["errors_by_kind"].as_object().unwrap().keys().collect();
    let wanted = "this load tester could not connect: Too many open files; more files must be allowed to be open \
                  (ulimit -n, fs.file-max)";
    assert_eq!(kinds, [wanted]);
    assert!(stderr.contains(wanted), "{stderr}");
}
