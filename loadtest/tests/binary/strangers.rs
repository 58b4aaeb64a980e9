//! What answers is no ringgate gateway, or not the one that was meant; or the gateway does not want these clients.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringgate_core::transport::Transport;

use crate::support::{Folder, Gateway, LOOPBACK, PROGRAM, Process, loadtest};

/// A server that handles every connection like this, for as long as this process lives; `HOST:PORT`.
fn stranger(answer: fn(TcpStream)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    address
}

/// Reads until the other one is gone.
fn silent(mut stream: TcpStream) {
    let mut bytes = [0; 1024];
    while stream.read(&mut bytes).is_ok_and(|count| count > 0) {}
}

fn web_server(mut stream: TcpStream) {
    let mut bytes = [0; 1024];
    let _ = stream.read(&mut bytes);
    let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
}

fn ssh_server(mut stream: TcpStream) {
    let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
    silent(stream);
}

/// What a run of a few connections says, which must not take long.
fn said(url: &str, more: &[&str]) -> String {
    let began = Instant::now();
    let output = loadtest(&[&["connect", "--url", url, "--connections", "4", "--quiet"], more].concat());
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}: {said}", began.elapsed());
    said
}

#[test]
fn server_accepts_and_never_answers_then_the_run_says_so_soon() {
    let address = stranger(silent);
    for (scheme, wanted) in [
        ("tcp", "but no answer within 400 ms: is that a ringgate listener?"),
        ("tls", "but no TLS handshake within 400 ms: is that a ringgate listener for tls://?"),
    ] {
        let said = said(&format!("{scheme}://{address}"), &["--dev", "--connect-timeout", "400ms"]);
        assert!(said.contains(&format!("connected to {address}, {wanted}")), "{said}");
    }
    let said = said(&format!("tcp://{address}"), &["--dev"]);
    assert!(said.contains(&format!("connected to {address}, but no answer within 10 s:")), "{said}");
}

#[test]
fn server_accepts_and_never_answers_then_a_line_says_what_is_waited_for() {
    let url = format!("tcp://{}", stranger(silent));
    let run = ["connect", "--url", &url, "--dev", "--connections", "2", "--connect-timeout", "1m"];
    let mut process = Process::start(Command::new(PROGRAM), &run);
    let line = process.wait_for_line("connected, waiting for the gateway's answer");
    assert!(line.contains("0 of 2 connections"), "{line}");
    // A run that is ended then says that no client was signed in.
    process.signal("-INT");
    let (code, table, said) = process.end();
    assert_eq!(code, Some(1), "{table} {said}");
    assert!(table.contains("ended early, while clients were connecting: 0 of 2 were signed in"), "{table}");
}

#[test]
fn no_client_was_signed_in_then_the_reason_comes_first_and_there_is_no_table() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", other.local_addr().unwrap());
    drop(other);
    for load in [&["p2p"][..], &["connect", "--until-refused"], &["storm"]] {
        let output = loadtest(&[load, &["--url", &url, "--dev", "--connections", "4", "--quiet"]].concat());
        let table = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{table}");
        let mut lines = table.lines();
        let first = lines.next().unwrap_or_default();
        assert!(first.starts_with("  ! ") && table.contains("Connection refused"), "{table}");
        let last = lines.next_back().unwrap_or_default();
        assert_eq!(last, "  none of 4 clients was signed in, so that there are no figures");
        for row in ["messages published", "lost (not", "p99", "TCP / TLS", "Pings"] {
            assert!(!table.contains(row), "{row}: {table}");
        }
    }
}

#[test]
fn clients_try_again_in_vain_then_the_run_ends_and_says_why() {
    let address = stranger(silent);
    let url = format!("tcp://{address}");
    let began = Instant::now();
    let storm = ["storm", "--url", &url, "--dev", "--connections", "3", "--connect-timeout", "300ms", "--quiet"];
    let output = loadtest(&storm);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("nobody could sign in; the last attempt: connected to ") && said.contains("within 300 ms"),
        "{said}"
    );
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn another_server_answers_then_it_is_recognised_by_its_first_bytes() {
    let (web, ssh) = (stranger(web_server), stranger(ssh_server));
    let plain = said(&format!("tcp://{web}"), &["--dev"]);
    assert!(
        plain.contains(&format!(
            "{web} is a web server, not a ringgate listener: it said \"HTTP/1.1 400 Bad Request\\r\\n"
        )),
        "{plain}"
    );
    let secured = said(&format!("tls://{web}"), &["--dev"]);
    assert!(secured.contains(&format!("{web} does not speak TLS. {web} is a web server")), "{secured}");
    for scheme in ["tcp", "tls"] {
        let said = said(&format!("{scheme}://{ssh}"), &["--dev"]);
        assert!(
            said.contains("is an SSH server, not a ringgate listener: it said \"SSH-2.0-OpenSSH_9.2\\r\\n"),
            "{said}"
        );
    }
}

#[test]
fn scheme_is_that_of_the_other_port_then_the_right_one_is_named() {
    let gateway = Gateway::start();
    let (tcp, tls) = (gateway.url(Transport::Plain), gateway.url(Transport::Tls));
    let plain = said(&tls.replace("tls://", "tcp://"), &["--dev"]);
    assert!(plain.contains("speaks TLS: try tls://"), "{plain}");
    let secured = said(&tcp.replace("tcp://", "tls://"), &["--dev"]);
    assert!(secured.contains("try tcp://"), "{secured}");
}

/// A certificate that signs itself, by this name: its PEM and that of its key.
fn certificate(name: &str, ends: Option<(i32, u8, u8)>) -> (String, String) {
    let mut parameters = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
    if let Some((year, month, day)) = ends {
        parameters.not_after = rcgen::date_time_ymd(year, month, day);
    }
    let key = rcgen::KeyPair::generate().unwrap();
    (parameters.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn certificate_is_not_accepted_then_the_cause_is_named() {
    let folder = Folder::new("certificates");
    let trusted = folder.path("trusted.pem");
    let with = |gateway: &Gateway, pem: &str| {
        std::fs::write(&trusted, pem).unwrap();
        said(&gateway.url(Transport::Tls), &["--dev", "--ca", &trusted])
    };
    let gateway = Gateway::start();
    let said = with(&gateway, &certificate("somebody else", None).0);
    assert!(
        said.contains("is signed by nobody who is trusted: give the certificate of its issuer with --ca FILE"),
        "{said}"
    );
    // Another gateway's, or this one's before it was started again: the issuer is called the same.
    let said = with(&gateway, Gateway::start().certificate());
    assert!(said.contains("is not signed with the key of --ca, though by the same name"), "{said}");

    let elsewhere = Gateway::start_at(Ipv4Addr::new(127, 0, 0, 9).into());
    let said = with(&elsewhere, elsewhere.certificate());
    assert!(said.contains("is not for 127.0.0.9 but for ") && said.contains("localhost"), "{said}");

    let old = Gateway::start_with(LOOPBACK, Some(certificate("old", Some((2020, 1, 1)))));
    let said = with(&old, old.certificate());
    assert!(said.contains("has expired: the gateway needs a new one"), "{said}");
}

#[test]
fn token_of_another_key_is_refused_by_the_gateway_then_the_run_says_what_to_look_at() {
    let gateway = Gateway::start();
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let token =
        format!("{}.{}.{}", part("{\"alg\":\"HS256\"}"), part("{\"sub\":\"a\",\"exp\":99999999999}"), part("x"));
    let output = loadtest(&[
        "idle",
        "--url",
        &gateway.url(Transport::Plain),
        "--token",
        &token,
        "--connections",
        "1",
        "--quiet",
    ]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("invalid token (3500); is the key (--key, --kid, --dev) one of this gateway"), "{said}");
}

#[test]
fn source_is_of_another_kind_than_the_gateway_then_nothing_is_tried() {
    for (url, source, wanted) in [
        ("tcp://127.0.0.1:1", "::1", "--source is IPv6, and 127.0.0.1 has only IPv4 addresses (127.0.0.1)"),
        ("tcp://[::1]:1", "127.0.0.0/8", "--source is IPv4, and ::1 has only IPv6 addresses (::1)"),
        ("tcp://127.0.0.1:1", "127.0.0.2,::1", "--source has IPv4 and IPv6 addresses (127.0.0.2, ::1)"),
    ] {
        let said = said(url, &["--dev", "--source", source]);
        assert!(said.contains(wanted) && !said.contains("refused"), "{said}");
    }
}

#[test]
fn payload_is_longer_than_the_gateway_takes_then_no_message_is_sent() {
    let gateway = Gateway::start();
    let folder = Folder::new("payload");
    let (url, file) = (gateway.url(Transport::Plain), folder.path("mixed.toml"));
    let wanted =
        "payloads of 100000 bytes are longer than the gateway takes: at most 65536 (its client.message_size_max)";
    let mixture = "[[populations]]\nname='a'\nconnections=2\n[[streams]]\npopulation='a'\nkind='pairs'\nrate=5\n\
                   payload_bytes='100k'\n[[phases]]\nname='p'\nduration='1h'\n";
    std::fs::write(&file, mixture).unwrap();
    let p2p = ["p2p", "--connections", "2", "--duration", "1h", "--payload-bytes", "100k"];
    for load in [&p2p[..], &["mixed", &file]] {
        let output = loadtest(&[load, &["--url", &url, "--dev", "--quiet"]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(wanted), "{said}");
    }
    let (controller, address) = Process::controller(LOOPBACK, "1", &[&p2p[..], &["--url", &url]].concat());
    let worker = Process::worker(&address);
    let (code, _, said) = controller.end();
    assert!(code == Some(2) && said.contains(wanted), "{said}");
    worker.end();
    assert_eq!(gateway.counter("ringgate_messages_published_total"), 0.0);
    // As long as it may be.
    let (code, _) = gateway.drive(
        "p2p",
        &["--connections", "2", "--rate", "5", "--duration", "1s", "--payload-bytes", "65536", "--allow", "driver"],
    );
    assert_eq!(code, 0);
}
