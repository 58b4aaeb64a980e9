//! Exit codes: 0 for a good run, 1 for one that failed, 2 for what could not be run; whoever reads the output or not.

use std::fs::OpenOptions;
use std::process::{Command, Output, Stdio};

use ringgate_core::transport::Transport;

use crate::support::{Folder, Gateway, ON_A_BUSY_MACHINE, PROGRAM, Process, loadtest};

const SHORT: [&str; 8] = ["--dev", "--connections", "4", "--rate", "20", "--duration", "500ms", "--quiet"];
/// Every run fails under this condition.
const MISSED: [&str; 2] = ["--fail-if", "max>=1us"];

/// Runs the load tester where nobody reads its standard output.
fn unread(arguments: &[&str]) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    Command::new(PROGRAM).args(arguments).stdin(Stdio::null()).stdout(writer).output().unwrap()
}

#[test]
fn what_cannot_be_run_is_no_failed_run() {
    let gateway = Gateway::start();
    let folder = Folder::new("exit");
    let (nothing, page) = (folder.path("nothing"), folder.path("page.html"));
    std::fs::write(&page, "{}").unwrap();
    let metrics = gateway.metrics_url().replace("/metrics", "/elsewhere");
    let (tcp, tls) = (gateway.url(Transport::Plain), gateway.url(Transport::Tls));
    let cases: [&[&str]; 15] = [
        &["p2p", "--url", "http://x", "--dev"],
        &["p2p", "--url", &tcp],
        &["p2p", "--url", &tcp, "--dev", "--connections", "1"],
        &["p2p", "--url", &tcp, "--dev", "--fail-if", "q98>1ms"],
        &["p2p", "--url", &tcp, "--dev", "--json", "/nowhere/x"],
        &["p2p", "--url", &tcp, "--key", &nothing],
        &["p2p", "--url", &tls, "--dev", "--ca", &nothing],
        &["p2p", "--url", &tcp, "--dev", "--metrics-url", &metrics],
        &["p2p", "--url", "tcp://127.0.0.1:1", "--dev", "--connections", "2", "--quiet"],
        &["p2p", "--url", &tcp, "--token", "no.to.ken", "--connections", "2", "--quiet"],
        &["mixed", &nothing, "--url", &tcp, "--dev"],
        &["compare", &nothing, &page],
        &["compare", &page, &page],
        &["capacity", "slow", "--url", &tcp, "--dev", "--fail-if", "lost>0"],
        &["capacity", "p2p", "--url", "tcp://127.0.0.1:1", "--dev", "--connections", "2", "--fail-if", "lost>0"],
    ];
    for arguments in cases {
        let output = loadtest(arguments);
        let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text} {said}");
        assert!(!text.is_empty() || !said.is_empty(), "{arguments:?}");
    }
}

#[test]
fn thresholds_of_what_a_load_cannot_have_are_refused_before_it_runs() {
    let gateway = Gateway::start();
    let folder = Folder::new("thresholds");
    let (url, file) = (gateway.url(Transport::Plain), folder.path("pings.toml"));
    let mixture = "[[populations]]\nname='a'\nconnections=2\n[[streams]]\npopulation='a'\nkind='pings'\nrate=5\n\
                   [[phases]]\nname='p'\nduration='1h'\n";
    std::fs::write(&file, mixture).unwrap();
    let hour = &["--duration", "1h"][..];
    let cases = [(vec!["ping"], hour), (vec!["storm"], hour), (vec!["mixed", &file], &[][..])];
    for (load, more) in cases {
        for condition in ["rate<5", "deliver.p99>1s"] {
            let link = ["--url", &url, "--dev", "--quiet", "--fail-if", condition];
            let Output { status, stderr, .. } = loadtest(&[&load[..], &link, more].concat());
            let said = String::from_utf8_lossy(&stderr);
            assert_eq!(status.code(), Some(2), "{load:?}: {said}");
            assert!(
                said.contains("sends no messages and has no ")
                    && said.contains("latency of one kind: connect.p99, ping.p99\n"),
                "{said}"
            );
        }
    }
    let help = String::from_utf8(loadtest(&["ping", "--help"]).stdout).unwrap();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("A bare p99 is that of deliveries where messages are sent"), "{help}");
}

#[test]
fn an_option_that_is_wrong_is_named() {
    let folder = Folder::new("named");
    let (nothing, empty) = (folder.path("nothing"), folder.path("empty.pem"));
    std::fs::write(&empty, "").unwrap();
    let said = |arguments: &[&str]| {
        let Output { status, stderr, .. } = loadtest(arguments);
        let said = String::from_utf8_lossy(&stderr).into_owned();
        assert_eq!(status.code(), Some(2), "{arguments:?}: {said}");
        said
    };
    let (tcp, tls) = ("tcp://127.0.0.1:1", "tls://127.0.0.1:1");
    for (option, file, more) in [
        ("--key", &nothing, &["--url", tcp][..]),
        ("--ca", &nothing, &["--url", tls, "--dev"]),
        ("--ca", &empty, &["--url", tls, "--dev"]),
    ] {
        let said = said(&[&["idle", option, file], more].concat());
        assert!(said.starts_with(&format!("ringgate-loadtest: {option} {file}: ")), "{said}");
    }
    for option in ["--connections", "--rate", "--duration"] {
        let said = said(&["mixed", &nothing, "--url", tcp, "--dev", option, "5"]);
        assert!(said.contains(option) && said.contains("mixed has it in its FILE"), "{said}");
    }
    assert!(!String::from_utf8(loadtest(&["mixed", "--help"]).stdout).unwrap().contains("--connections"));
}

#[test]
fn help_says_what_exit_codes_mean_and_what_capacity_takes() {
    let said = |arguments: &[&str]| String::from_utf8(loadtest(arguments).stdout).unwrap();
    let help = said(&["--help"]).split_whitespace().collect::<Vec<_>>().join(" ");
    for part in ["0 when nothing went wrong", "1 when it did", "2 when it could not be run"] {
        assert!(help.contains(part), "{part}: {help}");
    }
    let help = said(&["capacity", "--help"]);
    let offered = ["ping", "p2p", "room", "slow", "storm", "idle"].map(|name| help.contains(&format!("- {name}:")));
    assert_eq!(offered, [true, true, true, false, false, false], "{help}");
}

/// A run that would take an hour, once its messages flow.
fn long_run(gateway: &Gateway) -> Process {
    let url = gateway.url(Transport::Plain);
    let run = ["p2p", "--url", &url, "--dev", "--connections", "4", "--rate", "20", "--duration", "1h", "--plain"];
    let mut process = Process::start(Command::new(PROGRAM), &[&run[..], &ON_A_BUSY_MACHINE].concat());
    process.wait_for_line("delivered/s");
    process
}

#[test]
fn run_is_asked_to_end_once_then_it_reports() {
    let gateway = Gateway::start();
    for signal in ["-INT", "-TERM"] {
        let process = long_run(&gateway);
        process.signal(signal);
        let (code, table, said) = process.end();
        assert_eq!(code, Some(1), "{signal}: {table} {said}");
        assert!(table.contains("! ended early") && table.contains("messages published"), "{signal}: {table}");
        assert!(!said.contains("without a report"), "{signal}: {said}");
    }
}

#[test]
fn run_is_asked_to_end_twice_then_it_ends_at_once_and_says_so() {
    let gateway = Gateway::start();
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let mut process = long_run(&gateway);
        let id = rustix::process::Pid::from_raw(process.id() as i32).unwrap();
        // Signals that come before an earlier one was taken are one: some of these are the second.
        while process.is_alive() {
            rustix::process::kill_process(id, signal).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let (code, table, said) = process.end();
        assert_eq!((code, table.as_str()), (Some(130), ""), "{said}");
        assert!(said.ends_with("ended at once, without a report: it was asked to a second time\n"), "{said}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_error_and_hides_none() {
    let gateway = Gateway::start();
    let folder = Folder::new("unread");
    let (url, json) = (gateway.url(Transport::Plain), folder.path("result.json"));
    let run = [&["p2p", "--url", &url], &SHORT[..]].concat();
    let good = [&run[..], &["--json", &json]].concat();
    let quiet: [(&[&str], i32); 6] = [
        (&good, 0),
        (&["compare", &json, &json], 0),
        (&["mixed-example"], 0),
        (&["--help"], 0),
        (&[&run[..], &MISSED].concat(), 1),
        (&[&run[..], &MISSED, &["--json", "-"]].concat(), 1),
    ];
    for (arguments, code) in quiet {
        let Output { status, stderr, .. } = unread(arguments);
        let said = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(code), "{arguments:?}: {said}");
        assert!(!said.contains("panicked") && !said.contains("pipe"), "{arguments:?}: {said}");
    }
    // Nobody reads what goes on, either.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(PROGRAM);
    command.args(&run[..run.len() - 1]).stdout(writer.try_clone().unwrap()).stderr(writer);
    assert_eq!(command.status().unwrap().code(), Some(0));
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let gateway = Gateway::start();
    let url = gateway.url(Transport::Plain);
    for (more, code) in [(&[][..], 2), (&MISSED[..], 1)] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let arguments = [&["p2p", "--url", &url], &SHORT[..], more].concat();
        let output = Command::new(PROGRAM).args(&arguments).stdout(full).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(code) && said.contains("standard output: No space left"),
            "{code}: {said}"
        );
    }
}
