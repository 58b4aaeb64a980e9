//! Real Redis and Valkey servers for tests: alone, with replicas, watched by Sentinels, or as a Cluster.
//!
//! Every server is a process of its own on the loopback interface, with free ports and a folder below the target folder.
//! It ends with the value that stands for it, also when the test panics, and with the process that started it, however
//! that one ends. Whatever waits names what for, and panics after [`DEADLINE`]: these are tools of tests, which have
//! nobody to hand an error to.
//!
//! | module | what |
//! |---|---|
//! | `port` | ports that no other test has |
//! | `process` | a child that does not outlive its parent |
//! | `resp` | a small client, so that tests need neither redis-cli nor a library |
//! | `server` | one server: start, kill, restart, pause, ask |
//! | `sentinels` | one primary, two replicas, three Sentinels |
//! | `cluster` | three masters, with replicas or without |

mod cluster;
mod port;
mod process;
mod resp;
mod sentinels;
mod server;
mod tls;

use std::time::{Duration, Instant};

pub use cluster::{Cluster, SLOTS};
pub use port::Port;
pub use resp::{Client, Value};
pub use sentinels::{PRIMARY_NAME, Sentinels};
pub use server::{Append, ClientKind, Memory, Options, Program, Server, User};

/// How long anything may take before the test says that it never happened. Machines under load are slow.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Polls until the condition holds.
///
/// # Panics
/// With `what`, as it is shown then, when the condition does not hold within [`DEADLINE`].
pub fn wait_until(what: impl std::fmt::Display, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
