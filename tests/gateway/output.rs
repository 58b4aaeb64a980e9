//! Standard output and standard error that cannot be written: a gateway starts and serves nevertheless and counts what was
//! lost, and a command that has something to print ends with an exit code that says it did not.

use std::fs::OpenOptions;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use crate::support::{Client, Login, TempFolder, dev_token, http, try_http, wait_until};

/// Every write to it fails with ENOSPC.
fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringgate"));
    command.args(arguments).env_remove("RINGGATE_TOKEN").stdin(Stdio::null());
    command
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A child that is killed at the end of the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a gateway with these streams and returns it, with its client and admin addresses, once it is ready.
fn gateway(streams: impl Fn(&mut Command)) -> (Running, SocketAddr, SocketAddr) {
    let folder = TempFolder::new();
    let mut ready = None;
    // A port that was free when it was looked for may be taken by another test when it is bound.
    wait_until("a gateway with such streams is ready", || {
        let (address, admin) = (free_address(), free_address());
        let text = format!(
            "[[listeners]]\naddress = \"{address}\"\n[admin]\naddress = \"{admin}\"\n[runtime]\nshards = 1\n\
             [[token.keys]]\nalgorithm = \"HS256\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n"
        );
        let file = folder.write("ringgate.toml", text);
        let mut command = command(&["serve", "--config", file.to_str().unwrap(), "--log-level", "debug"]);
        streams(&mut command);
        let mut child = Running(command.spawn().unwrap());
        // The ends of pipes that this process has: nobody reads.
        drop((child.0.stdout.take(), child.0.stderr.take()));
        let mut code = None;
        wait_until("it is ready or ends", || {
            code = child.0.try_wait().unwrap().map(|status| status.code());
            code.is_some() || try_http(admin, "GET", "/readyz").is_ok_and(|answer| answer.status == 200)
        });
        // 1 is how it ends when an address is taken.
        assert!(matches!(code, None | Some(Some(1))), "it ended with {code:?}");
        ready = code.is_none().then_some((child, address, admin));
        ready.is_some()
    });
    ready.unwrap()
}

/// A client is refused, which leaves a line in the log; the gateway lives, counts the line, and drains when it is told to.
fn serves_counts_and_drains((mut child, address, admin): (Running, SocketAddr, SocketAddr), failed: bool) {
    let refused = Client::tcp(address).try_sign_in(&Login::token(dev_token("alice")));
    assert_eq!(refused.unwrap_err().code, 3500);
    let (outcome, other) = if failed { ("failed", "written") } else { ("written", "failed") };
    let lines = |outcome: &str| {
        http(admin, "GET", "/metrics").sample(&format!("ringgate_log_lines_total{{outcome=\"{outcome}\"}}"))
    };
    wait_until("the line is counted", || lines(outcome) > 0.0);
    assert_eq!(lines(other), 0.0, "{other}");
    assert_eq!(http(admin, "GET", "/readyz").status, 200);
    let pid = child.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let mut status = None;
    wait_until("it has drained", || {
        status = child.0.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(0));
}

#[test]
fn both_streams_full_then_the_gateway_serves_and_counts_lines() {
    serves_counts_and_drains(
        gateway(|command| {
            command.stdout(full()).stderr(full());
        }),
        true,
    );
}

#[test]
fn both_pipes_closed_then_the_gateway_serves_and_counts_lines() {
    serves_counts_and_drains(
        gateway(|command| {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }),
        true,
    );
}

#[test]
fn streams_good_then_lines_are_written_and_none_fails() {
    serves_counts_and_drains(
        gateway(|command| {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }),
        false,
    );
}

#[test]
fn descriptors_of_both_streams_closed_then_the_gateway_serves() {
    let gateway = gateway(|command| {
        let program = command.get_program().to_owned();
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        *command = Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$@\" >&- 2>&-"]).arg(program).args(arguments).stdin(Stdio::null());
    });
    // Rust opens /dev/null in their place, so that no socket gets their numbers.
    serves_counts_and_drains(gateway, false);
}

#[test]
fn standard_output_full_then_commands_end_with_1_and_say_why() {
    let folder = TempFolder::new();
    let text = format!(
        "{}[[token.keys]]\nalgorithm = \"HS256\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n",
        crate::support::LISTENERS
    );
    let file = folder.write("ringgate.toml", text);
    for arguments in [
        &["version"][..],
        &["config"],
        &["check", file.to_str().unwrap()],
        &["token", "--dev", "--user", "alice"],
        &["doctor", "--connections", "1"],
        &["doctor", "--connections", "1", "--json"],
        &["--help"],
        &["--version"],
        &["serve", "--help"],
    ] {
        let output = command(arguments).stdout(full()).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert_eq!(
            said, "ringgate: standard output cannot be written: No space left on device (os error 28)\n",
            "{arguments:?}"
        );
        let status = command(arguments).stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(1), "{arguments:?} with both full");
        // `| head` is no mistake of anybody.
        let mut child = command(arguments).stdout(Stdio::piped()).stderr(full()).spawn().unwrap();
        drop(child.stdout.take());
        let code = child.wait().unwrap().code();
        assert!(
            code == Some(0) || (arguments[0] == "doctor" && code == Some(1)),
            "{arguments:?} into a closed pipe: {code:?}"
        );
    }
}

#[test]
fn standard_error_full_then_a_mistake_keeps_its_exit_code() {
    for (arguments, code) in [
        (&["check", "/no/such/file.toml"][..], 1),
        (&["serve", "--config", "/no/such/file.toml"], 1),
        (&["token", "--dev", "--user", "@alice"], 1),
        (&["client", "--url", "tcp://127.0.0.1:1", "--token", "x"], 1),
        (&["nonsense"], 2),
        (&["serve"], 2),
    ] {
        let status = command(arguments).stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn client_cannot_print_then_it_ends_with_1() {
    let gateway = crate::support::Gateway::start();
    let url = format!("tcp://{}", gateway.tcp());
    let arguments = ["client", "--url", &url, "--token", &dev_token("bob")];
    let mut child = Running(command(&arguments).stdout(full()).stderr(full()).spawn().unwrap());
    let mut alice = gateway.sign_in("alice");
    alice.publish("@bob", "hello");
    let mut status = None;
    wait_until("the client has ended", || {
        status = child.0.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(1));
    // A refusal that cannot be said leaves the exit code.
    let mut refused = command(&["client", "--url", &url, "--token", &dev_token("eve"), "--room", "nope:a"]);
    assert_eq!(refused.stdout(full()).stderr(full()).status().unwrap().code(), Some(1));
    gateway.finish();
}
