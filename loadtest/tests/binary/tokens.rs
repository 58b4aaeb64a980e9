//! Clients with tokens and keys from files.

use ringgate_auth::{Signer, TokenSpec};
use ringgate_core::transport::Transport;
use serde_json::Value;

use crate::support::{Folder, Gateway, LOOPBACK, ON_A_BUSY_MACHINE, PROGRAM, Process, assert_clean, count, loadtest};

fn token(user: &str) -> String {
    token_for(user, 3600)
}

fn token_for(user: &str, ttl_seconds: u64) -> String {
    let issued_at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let spec = TokenSpec { user: user.to_owned(), issued_at, ttl_seconds, ..TokenSpec::default() };
    Signer::dev().sign(&spec).unwrap()
}

fn lines(clients: &[(&str, &str)]) -> String {
    let line = |(user, device): &(&str, &str)| format!("{user},{device},{}\n", token(user));
    "# user,device,token\n\n".to_owned() + &clients.iter().map(line).collect::<String>()
}

const PEOPLE: [(&str, &str); 6] =
    [("alice", "phone"), ("bob", "phone"), ("carol", "tablet"), ("dan", "x"), ("eve", "x"), ("frank", "x")];

#[test]
fn tokens_are_in_a_file_then_clients_take_its_lines_in_order_and_write_to_these_users() {
    let gateway = Gateway::start();
    let folder = Folder::new("tokens");
    let file = folder.path("tokens.csv");
    std::fs::write(&file, lines(&PEOPLE)).unwrap();
    let url = gateway.url(Transport::Plain);
    let link = ["--url", &url, "--tokens", &file, "--json", "-", "--quiet"];
    for load in [
        &["p2p", "--connections", "6", "--rate", "30", "--duration", "1s"][..],
        &["room", "--connections", "5", "--publishers", "2", "--rate", "10", "--duration", "1s"],
        &["offline", "--connections", "4", "--rate", "20", "--duration", "500ms"],
    ] {
        let output = loadtest(&[load, &link, &ON_A_BUSY_MACHINE].concat());
        let result: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        assert_clean(output.status.code().unwrap(), &result);
        assert!(count(&result, "delivered") > 0, "{result:#}");
    }
    // Nobody else has signed in: the inboxes that there are now are theirs.
    let output = loadtest(&["idle", "--url", &url, "--tokens", &file, "--connections", "7", "--duration", "1s"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("has 6 lines with a token, and there are 7 connections"), "{said}");
}

#[test]
fn load_has_workers_then_they_share_the_lines_of_the_file() {
    let gateway = Gateway::start();
    let folder = Folder::new("tokens-crew");
    let (file, json, url) = (folder.path("tokens.csv"), folder.path("result.json"), gateway.url(Transport::Plain));
    std::fs::write(&file, lines(&PEOPLE)).unwrap();
    let load = ["p2p", "--url", &url, "--connections", "6", "--rate", "30", "--duration", "1s", "--json", &json];
    let (controller, address) = Process::controller(LOOPBACK, "2", &[&load[..], &ON_A_BUSY_MACHINE].concat());
    let worker = || Process::start(std::process::Command::new(PROGRAM), &["worker", &address, "--tokens", &file]);
    let workers = [worker(), worker()];
    let (code, _, said) = controller.end();
    let result: Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap_or(said)).unwrap();
    assert_clean(code.unwrap(), &result);
    assert_eq!(count(&result, "delivered"), 30);
    for worker in workers {
        assert_eq!(worker.end().0, Some(0));
    }
}

#[test]
fn user_has_several_devices_then_it_may_not_be_in_pairs() {
    let gateway = Gateway::start();
    let folder = Folder::new("devices");
    let (file, url) = (folder.path("tokens.csv"), gateway.url(Transport::Plain));
    std::fs::write(&file, lines(&[("alice", "phone"), ("alice", "tablet")])).unwrap();
    let run = |load: &str, more: &[&str]| {
        let link = [load, "--url", &url, "--tokens", &file, "--connections", "2", "--duration", "500ms", "--quiet"];
        let output = loadtest(&[&link[..], more, &ON_A_BUSY_MACHINE].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(run("idle", &[]).0, Some(0), "no session is taken over");
    let (code, said) = run("p2p", &["--rate", "5"]);
    assert!(code == Some(2) && said.contains("user \"alice\" has several lines"), "{said}");
}

#[test]
fn line_is_wrong_then_it_is_named_and_no_token_is_shown() {
    let folder = Folder::new("bad-tokens");
    let (file, good) = (folder.path("tokens.csv"), token("alice"));
    for (text, wanted) in [
        (format!("alice,phone,{good}\nbob,phone\n"), "line 2: a line is user,device,token"),
        (format!("# {good}\n\nalice,phone,{good}.x\n"), "line 3: that is no token"),
        (format!("bob,phone,{good}\n"), "line 1: it is for user \"bob\", and its token for \"alice\""),
        (
            format!("alice,phone,{good}\nalice,phone,{good}\n"),
            "line 2: user \"alice\" with device \"phone\" is in line 1, too",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = loadtest(&["idle", "--url", "tcp://127.0.0.1:1", "--tokens", &file, "--connections", "1"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.starts_with(&format!("ringgate-loadtest: --tokens {file}: {wanted}")), "{said}");
        assert!(!said.contains("eyJ"), "{said}");
    }
}

#[test]
fn token_of_a_file_ends_within_the_run_then_its_client_does_not_come_back_with_it() {
    let gateway = Gateway::start();
    let folder = Folder::new("short-token");
    let (file, url) = (folder.path("tokens.csv"), gateway.url(Transport::Plain));
    std::fs::write(&file, format!("alice,phone,{}\n", token_for("alice", 3))).unwrap();
    // The gateway gives it 5 s more.
    let output = loadtest(
        &[
            &["idle", "--url", &url, "--tokens", &file, "--connections", "1", "--reconnect"][..],
            &["--duration", "11s", "--json", "-", "--quiet"],
        ]
        .concat(),
    );
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &result["closed_by_code"]), (Some(1), &serde_json::json!({"3005": 1})));
    let errors = result["errors_by_kind"].to_string();
    assert!(errors.contains("goodbye: expired (3005); the time of its token (exp) is over: make new ones"), "{errors}");
}

#[test]
fn token_is_for_several_connections_then_the_error_says_first_what_to_do() {
    let good = token("alice");
    let output = loadtest(&["idle", "--url", "tcp://127.0.0.1:1", "--token", &good, "--connections", "2"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.starts_with(
            "ringgate-loadtest: give --tokens FILE, with a line user,device,token for each of the 2 connections"
        ) && said.contains("--token is for one connection"),
        "{said}"
    );
}

#[test]
fn key_file_cannot_sign_then_it_is_named_with_what_would_be_right_before_anybody_connects() {
    let gateway = Gateway::start();
    let folder = Folder::new("bad-keys");
    let (file, url) = (folder.path("key"), gateway.url(Transport::Plain));
    let certificate = gateway.certificate().to_owned();
    for (content, wanted) in [
        ("short\n".to_owned(), "the secret has 5 bytes; at least 32 are needed"),
        (String::new(), "the secret has 0 bytes; at least 32 are needed"),
        (certificate, "holds no private key in PEM form, but CERTIFICATE"),
        ("{\"kty\":\"oct\",\"k\":\"c2VjcmV0\"}".to_owned(), "is a JSON Web Key"),
    ] {
        std::fs::write(&file, content).unwrap();
        let output = loadtest(&["p2p", "--url", &url, "--key", &file, "--connections", "2", "--quiet"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.starts_with(&format!("ringgate-loadtest: --key {file}: {wanted}")), "{said}");
        assert!(said.contains("--key is the file with the secret that the gateway has (32 bytes or more)"), "{said}");
    }
    assert_eq!(gateway.counter("ringgate_connections_accepted_total"), 0.0);
}

#[test]
fn token_is_on_the_command_line_then_no_report_shows_it() {
    let gateway = Gateway::start();
    let folder = Folder::new("redacted");
    let (json, page, token) = (folder.path("result.json"), folder.path("report.html"), token("alice"));
    let joined = format!("--token={token}");
    for token_options in [&["--token", &token][..], &[&joined]] {
        let run =
            ["room", "--url", &gateway.url(Transport::Plain), "--connections", "1", "--publishers", "1", "--rate", "5"];
        let files = ["--duration", "1s", "--json", &json, "--html", &page, "--quiet"];
        let output = loadtest(&[&run[..], token_options, &files, &ON_A_BUSY_MACHINE].concat());
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
        for file in [&json, &page] {
            let text = std::fs::read_to_string(file).unwrap();
            assert!(!text.contains(&token) && text.contains("[redacted]"), "{file}: {text}");
        }
    }
}
