//! The command line: tokens, the small client, the development gateway, and the log line of every connection.

use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::support::{Client, Gateway, Login, Process, TempFolder, dev_token, unix_seconds};

fn run(arguments: &[&str]) -> (Option<i32>, Vec<String>, Vec<String>) {
    let ended = Process::ringgate(arguments).ended();
    (ended.code, ended.out, ended.err)
}

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn token_is_signed_then_it_is_printed_alone() {
    let (code, out, err) = run(&[
        "token", "--dev", "--user", "alice", "--device", "phone", "--ttl", "30m", "--rooms", "chat:*", "--rooms", "a:b",
    ]);
    assert_eq!((code, out.len(), err.len()), (Some(0), 1, 0));
    let (header, claims) = (part(&out[0], 0), part(&out[0], 1));
    assert_eq!((&header["alg"], &header["kid"]), (&Value::from("HS256"), &Value::from("ringgate-dev")));
    assert_eq!((&claims["sub"], &claims["device"]), (&Value::from("alice"), &Value::from("phone")));
    assert_eq!(claims["rooms"], serde_json::json!(["chat:*", "a:b"]));
    let issued = claims["iat"].as_u64().unwrap();
    assert!(issued <= unix_seconds() && issued + 60 > unix_seconds());
    assert_eq!(claims["exp"].as_u64(), Some(issued + 1800));
    // The gateway takes it, for that device.
    let gateway = Gateway::start();
    gateway.sign_in_with(&Login::token(out[0].clone()).device("phone"));
    gateway.finish();
    // Without an end, and from a key file whose kind is found out.
    let folder = TempFolder::new();
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let key = folder.write("key.pem", pair.serialize_pem());
    let key = key.to_str().unwrap();
    let (code, out, _) = run(&["token", "--key", key, "--kid", "k1", "--user", "bob", "--ttl", "0s"]);
    assert_eq!(code, Some(0));
    let (header, claims) = (part(&out[0], 0), part(&out[0], 1));
    assert_eq!((&header["alg"], &header["kid"]), (&Value::from("EdDSA"), &Value::from("k1")));
    assert_eq!((claims.get("exp"), &claims["sub"]), (None, &Value::from("bob")));
    for wrong in [
        &["token", "--user", "alice"][..],
        &["token", "--dev", "--user", "@alice"],
        &["token", "--dev", "--user", "a b"],
        &["token", "--key", key, "--algorithm", "RS256", "--user", "alice"],
        &["token", "--key", "/no/such/key", "--user", "alice"],
    ] {
        let (code, out, err) = run(wrong);
        assert!(code != Some(0) && out.is_empty() && !err.is_empty(), "{wrong:?}");
    }
}

#[test]
fn version_is_asked_for_then_name_commit_and_features() {
    let (code, out, _) = run(&["version"]);
    assert_eq!(code, Some(0));
    assert!(out[0].starts_with(concat!("ringgate ", env!("CARGO_PKG_VERSION"), " (")), "{out:?}");
    assert!(out[1].starts_with("features: "), "{out:?}");
}

#[test]
fn reference_of_metrics_is_printed_then_docs_have_that_text() {
    let (code, out, _) = run(&["metrics"]);
    assert_eq!(code, Some(0));
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    let written = std::fs::read_to_string(file).unwrap();
    assert_eq!(written.lines().collect::<Vec<_>>(), out, "ringgate metrics > docs/metrics.md");
}

#[test]
fn user_is_written_with_an_at_then_it_is_the_inbox() {
    let gateway = Gateway::start();
    let url = format!("tcp://{}", gateway.tcp());
    let (alice, mut bob) = (dev_token("alice"), gateway.sign_in("bob"));
    let mut writer = Process::ringgate(&["client", "--url", &url, "--token", &alice, "--to", "@bob"]);
    writer.type_line("hello");
    assert_eq!(writer.ended().code, Some(0));
    assert_eq!(bob.texts(1), ["hello"]);
    gateway.finish();
}

#[test]
fn two_clients_have_pipes_then_their_lines_arrive() {
    let gateway = Gateway::start();
    let url = format!("tcp://{}", gateway.tcp());
    let (alice, bob) = (dev_token("alice"), dev_token("bob"));
    let mut reader = Process::ringgate(&["client", "--url", &url, "--token", &bob, "--json", "--count", "3"]);
    gateway.wait_for("sessions", 1, |m| &m.sessions_active);
    let mut writer = Process::ringgate(&["client", "--url", &url, "--token", &alice, "--to", "bob"]);
    for line in ["one", "two \"quoted\"", "drei \u{1f512}"] {
        writer.type_line(line);
    }
    // Its input ends; it ends when everything is answered.
    let wrote = writer.ended();
    assert_eq!((wrote.code, wrote.out.len(), wrote.err.len()), (Some(0), 0, 0), "{wrote:?}");
    let read = reader.ended();
    assert_eq!((read.code, read.err.len()), (Some(0), 0), "{read:?}");
    let messages: Vec<Value> = read.out.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let payloads: Vec<_> = messages.iter().map(|message| message["payload"].as_str().unwrap()).collect();
    assert_eq!(payloads, ["one", "two \"quoted\"", "drei \u{1f512}"]);
    for (message, offset) in messages.iter().zip(1..) {
        assert_eq!((&message["type"], &message["sender"]), (&Value::from("message"), &Value::from("alice")));
        assert_eq!((&message["topic"], &message["offset"]), (&Value::from("@bob"), &Value::from(offset)));
        assert!(message["message_id"].is_u64() && message["epoch"].is_u64() && message["timestamp_ms"].is_u64());
    }
    gateway.wait_for("acknowledged", 3, |m| &m.inbox_acked);
    gateway.finish();
}

#[test]
fn client_is_in_a_room_then_its_lines_name_room_and_sender() {
    let gateway = Gateway::start();
    let url = format!("tcp://{}", gateway.tcp());
    let token = dev_token("bob");
    let mut client =
        Process::ringgate(&["client", "--url", &url, "--token", &token, "--room", "chat:a", "--count", "3"]);
    let mut alice = gateway.sign_in("alice");
    alice.subscribe("chat:a");
    crate::support::wait_until("the client is in", || alice.try_presence("chat:a", 0).unwrap().count == 2);
    client.type_line("hello");
    assert_eq!(alice.texts(1), ["hello"]);
    // Text of others must not drive the terminal.
    alice.publish("chat:a", "\u{1b}[2Jboo");
    alice.publish("chat:a", "tab\tis fine");
    let ended = client.ended();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.out, ["chat:a bob> hello", "chat:a alice> \u{fffd}[2Jboo", "chat:a alice> tab\tis fine"]);
    gateway.finish();
}

#[test]
fn client_is_refused_then_it_ends_with_1() {
    let gateway = Gateway::with(|config| config.settings.client.message_bytes_max = 10);
    let url = format!("tcp://{}", gateway.tcp());
    let token = dev_token("alice");
    let mut client = Process::ringgate(&["client", "--url", &url, "--token", &token, "--to", "bob"]);
    client.type_line("much too long");
    let ended = client.ended();
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.err, ["ringgate: refused: limit exceeded (106)", "ringgate: a message was refused"]);
    let (code, _, err) = run(&["client", "--url", &url, "--token", &token, "--room", "nope:a"]);
    assert_eq!((code, err[0].as_str()), (Some(1), "ringgate: refused: unknown room (102)"), "{err:?}");
    let (code, _, err) = run(&["client", "--url", &url, "--token", "garbage"]);
    assert_eq!((code, err[0].as_str()), (Some(1), "ringgate: the gateway said goodbye: invalid token (3500)"));
    let (code, _, err) = run(&["client", "--url", "tls://localhost:1", "--token", &token]);
    assert_eq!(code, Some(1));
    assert!(err[0].contains("--ca FILE") && err[0].contains("--insecure"), "{err:?}");
    // Bound, so that nobody else gets it, and nobody listens.
    let nobody = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    nobody.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let nobody_at = nobody.local_addr().unwrap().as_socket().unwrap();
    let (code, _, err) = run(&["client", "--url", &format!("tcp://{nobody_at}"), "--token", &token]);
    assert_eq!(code, Some(1));
    assert!(err[0].contains(&nobody_at.to_string()), "{err:?}");
    gateway.finish();
}

#[test]
fn client_is_told_to_end_then_it_ends() {
    let gateway = Gateway::start();
    let token = dev_token("alice");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringgate"));
    command.args(["client", "--url", &format!("tcp://{}", gateway.tcp()), "--token", &token]);
    let mut client = Process::of(command);
    gateway.wait_for("sessions", 1, |m| &m.sessions_active);
    client.signal(libc::SIGTERM);
    assert_eq!(client.ended().code, Some(0));
    gateway.finish();
}

#[test]
fn development_gateway_starts_then_its_lines_are_enough_to_use_it() {
    let folder = TempFolder::new();
    let ca = folder.path("ca.pem");
    let gateway = Process::dev_gateway(&["--dev-ca", ca.to_str().unwrap()]);
    assert_eq!(gateway.line("ready", |line| line.starts_with("ready: ")), "ready: 2 shards");
    let admin = gateway.line("the admin listener", |line| line.starts_with("admin http://127.0.0.1:"));
    let admin = admin.trim_start_matches("admin http://").parse().unwrap();
    assert_eq!(crate::support::http(admin, "GET", "/readyz").status, 200);
    let start = "token of alice, good for an hour: ";
    let line = gateway.line("a token", |line| line.starts_with(start));
    let token = line.trim_start_matches(start);
    assert_eq!(part(token, 1)["sub"], "alice");
    let plain = gateway.url("tcp");
    assert!(plain.starts_with("tcp://127.0.0.1:"), "loopback only");
    let address = plain.trim_start_matches("tcp://").parse().unwrap();
    let mut alice = Client::tcp(address);
    alice.sign_in(&Login::token(token));
    // Over TLS with the certificate that was written, by name; and not without it.
    let secured = gateway.url("tls").replace("127.0.0.1", "localhost");
    let bob = dev_token("bob");
    let mut client = Process::ringgate(&[
        "client",
        "--url",
        &secured,
        "--token",
        &bob,
        "--ca",
        ca.to_str().unwrap(),
        "--to",
        "alice",
    ]);
    client.type_line("over TLS");
    let ended = client.ended();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(alice.texts(1), ["over TLS"]);
    let (other, _) = ringgate::config::dev_certificate().unwrap();
    let other = folder.write("other.pem", other);
    let (code, _, err) = run(&["client", "--url", &secured, "--token", &bob, "--ca", other.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(err[0].contains("certificate"), "{err:?}");
    let (code, out, _) = run(&["client", "--url", &secured, "--token", &bob, "--insecure", "--to", "alice"]);
    assert_eq!((code, out.len()), (Some(0), 0));
}

#[test]
fn command_line_is_wrong_then_exit_code_2() {
    for wrong in [&["serve"][..], &["serve", "--dev", "--config", "x"], &["serve", "--shards", "2"], &["nonsense"]] {
        let (code, out, err) = run(wrong);
        assert!(code == Some(2) && out.is_empty() && !err.is_empty(), "{wrong:?}");
    }
}

#[test]
fn log_level_misspelt_then_no_start() {
    let (code, out, err) = run(&["serve", "--dev", "--log-level", "inof"]);
    assert_eq!((code, out.len()), (Some(1), 0), "{err:?}");
    assert!(err[0].starts_with("ringgate: \"inof\" is not a log level; use error, warn, info"), "{err:?}");
}

#[test]
fn connection_ends_then_the_log_has_one_line() {
    let gateway = Process::dev_gateway(&["--log-format", "json"]);
    let address = gateway.tcp();
    let mut alice = Client::tcp(address);
    let session = alice.sign_in(&Login::token(dev_token("alice")).device("phone")).session;
    alice.send_empty(ringgate_core::wire::Kind::Disconnect);
    alice.expect_end();
    let mut stranger = Client::tcp(address);
    assert_eq!(stranger.try_sign_in(&Login::token("garbage")).unwrap_err().code, 3500);
    let mut broken = Client::tcp(address);
    broken.send_bytes(&[8, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    broken.expect_close(3501);
    let closed = |code: &str| {
        let code = format!("\"code\":{code},");
        let line = gateway.error_line(&code, |line| line.contains("connection closed\"") && line.contains(&code));
        serde_json::from_str::<Value>(&line).unwrap()
    };
    let line = closed("3000");
    assert_eq!((&line["user"], &line["device"]), (&Value::from("alice"), &Value::from("phone")));
    assert_eq!((&line["peer"], &line["transport"]), (&Value::from("127.0.0.1"), &Value::from("tcp")));
    assert_eq!(
        (&line["reason"], &line["message"]),
        (&Value::from("connection closed"), &Value::from("connection closed"))
    );
    // Shard, slot and generation, as in Connected.session.
    let parts = [session >> 54, session & 0x3fff_ffff, (session >> 30) & 0xff_ffff].map(|part| part.to_string());
    assert_eq!(line["connection"], Value::from(parts.join("-")));
    let line = closed("3500");
    assert_eq!((&line["user"], &line["reason"]), (&Value::from("-"), &Value::from("invalid token")));
    let line = closed("3501");
    assert_eq!(line["reason"], Value::from("flags or reserved bits are not zero"));
    let lines = gateway.errors().iter().filter(|line| line.contains("connection closed\"")).count();
    assert_eq!(lines, 3);
}
