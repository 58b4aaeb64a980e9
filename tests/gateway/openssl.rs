//! OpenSSL's own client, another implementation of TLS, against both modes: every suite, keys updated by the client and
//! at its request.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use ringgate_core::wire::Encoder;
use ringgate_core::wire::encode::{ConnectRequest, PublishRequest};

use crate::support::{Gateway, TempFolder, TlsMemory, dev_token, wait_until};

type Bytes = Arc<Mutex<Vec<u8>>>;

/// `openssl s_client`, its input and everything it has printed.
struct Client {
    child: Child,
    out: Bytes,
    err: Bytes,
}

impl Client {
    fn start(gateway: &Gateway, ca: &str, arguments: &[&str]) -> Client {
        let address = gateway.tls().to_string();
        let mut child = Command::new("openssl")
            .args(["s_client", "-connect", &address, "-CAfile", ca, "-verify_return_error", "-brief"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("openssl: {error}; tests/run installs it"));
        let (out, err) = (Bytes::default(), Bytes::default());
        collect(child.stdout.take().unwrap(), out.clone());
        collect(child.stderr.take().unwrap(), err.clone());
        Client { child, out, err }
    }

    /// One write of ours is one read of s_client's, since the next comes only when this one was acted on. A first
    /// letter of K, k, Q or R would be a command; frames begin with their length.
    fn write(&mut self, bytes: &[u8]) {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(bytes).and_then(|()| input.flush()).unwrap();
    }

    fn wait_for(&self, heard: &Bytes, text: &str, times: usize) {
        wait_until(Heard(format_args!("s_client prints {text:?} {times} times"), &self.err), || {
            let heard = heard.lock().unwrap();
            heard.windows(text.len()).filter(|window| *window == text.as_bytes()).count() >= times
        });
    }
}

/// Shown with what s_client has said when time is up.
struct Heard<'a>(std::fmt::Arguments<'a>, &'a Bytes);

impl std::fmt::Display for Heard<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; it says:\n{}", self.0, String::from_utf8_lossy(&self.1.lock().unwrap()))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut from: impl Read + Send + 'static, into: Bytes) {
    std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(read @ 1..) = from.read(&mut chunk) {
            into.lock().unwrap().extend_from_slice(&chunk[..read]);
        }
    });
}

fn publish(text: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    let publish = PublishRequest { request: 2, topic: "@bob", payload: text.as_bytes(), ..Default::default() };
    Encoder::default().publish(&mut frame, &publish);
    frame
}

/// Signs in, then sends and receives between key updates. Returns what s_client has said about the connection.
fn talk(gateway: &Gateway, ca: &str, arguments: &[&str], commands: &[&str]) -> String {
    let mut bob = gateway.sign_in("bob");
    let mut alice = Client::start(gateway, ca, arguments);
    alice.wait_for(&alice.err, "CONNECTION ESTABLISHED", 1);
    let (mut connect, token) = (Vec::new(), dev_token("alice"));
    Encoder::default().connect(&mut connect, &ConnectRequest { request: 1, token: &token, ..Default::default() });
    assert!(!b"KkQR".contains(&connect[0]), "s_client would take this frame for a command");
    alice.write(&connect);
    // Connected names the user.
    alice.wait_for(&alice.out, "alice", 1);
    for (round, command) in commands.iter().enumerate() {
        if !command.is_empty() {
            alice.write(command.as_bytes());
            let updates = commands[..=round].iter().filter(|command| !command.is_empty()).count();
            alice.wait_for(&alice.err, "KEYUPDATE", updates);
        }
        let text = format!("round {round} of {arguments:?}");
        alice.write(&publish(&text));
        let message = bob.message();
        assert_eq!(message.text(), text);
        bob.ack(message.stamp.position);
        // What earlier connections have not acknowledged comes again: this one's answers must differ from theirs.
        let answer = format!("answer {round} of {arguments:?}, {}", "x".repeat(30_000));
        bob.publish("@alice", &answer);
        alice.wait_for(&alice.out, &answer, 1);
    }
    String::from_utf8_lossy(&alice.err.lock().unwrap()).into_owned()
}

#[test]
fn openssl_updates_keys_then_both_directions_go_on() {
    for (gateway, memory) in Gateway::of_each_tls_memory() {
        let folder = TempFolder::new();
        let ca = folder.write("ca.pem", &gateway.certificate).display().to_string();
        for suite in ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"] {
            // k: the client's keys; K: the gateway's as well.
            let commands = ["", "k\n", "K\n", "", "K\n", "K\n", "k\n", "k\n"];
            let said = talk(&gateway, &ca, &["-tls1_3", "-ciphersuites", suite], &commands);
            assert!(said.contains("TLSv1.3") && said.contains(suite), "{said}");
        }
        assert_eq!(gateway.sum(|m| &m.tls_compacted), if memory == TlsMemory::Compact { 3 } else { 0 });
        gateway.finish();
    }
}

#[test]
fn openssl_speaks_tls_1_2_then_it_is_served_in_the_ordinary_mode() {
    let gateway = Gateway::with_tls(TlsMemory::Compact);
    let folder = TempFolder::new();
    let ca = folder.write("ca.pem", &gateway.certificate).display().to_string();
    let said = talk(&gateway, &ca, &["-tls1_2"], &["", ""]);
    assert!(said.contains("TLSv1.2"), "{said}");
    assert_eq!(gateway.handshakes(), [1, 0]);
    assert_eq!(gateway.sum(|m| &m.tls_compacted), 0);
    gateway.finish();
}

#[test]
fn openssl_has_a_ticket_then_its_session_is_resumed() {
    for (gateway, memory) in Gateway::of_each_tls_memory() {
        let folder = TempFolder::new();
        let ca = folder.write("ca.pem", &gateway.certificate).display().to_string();
        let session = folder.write("session.pem", "").display().to_string();
        let first = talk(&gateway, &ca, &["-tls1_3", "-sess_out", &session], &[""]);
        assert!(first.contains("Verification: OK"), "{first}");
        wait_until("the session is written", || {
            std::fs::read_to_string(&session).is_ok_and(|text| text.contains("END"))
        });
        talk(&gateway, &ca, &["-tls1_3", "-sess_in", &session], &["", "K\n"]);
        assert_eq!(gateway.handshakes(), [1, 1]);
        assert_eq!(gateway.sum(|m| &m.tls_compacted), if memory == TlsMemory::Compact { 2 } else { 0 });
        gateway.finish();
    }
}
