//! What the tests from outside share: a gateway in this process, clients, raw sockets, tokens, processes.
//!
//! Included by several test binaries, each of which uses a part of it. Nothing here waits for luck: whoever waits
//! names what for, and fails after [`DEADLINE`]. Every gateway ends with [`Gateway::finish`], which checks that
//! nothing was lost in the books and that every slot came back.
#![allow(dead_code, unused_imports, reason = "each test binary uses a part of this")]

mod client;
mod files;
mod frames;
mod gateway;
mod http;
mod process;
mod tokens;
mod websocket;

use std::time::{Duration, Instant};

pub(crate) use client::{Client, Login};
pub(crate) use files::TempFolder;
pub(crate) use frames::{Connected, Frame, Goodbye, History, Message, Presence, Refusal, Subscribed};
pub(crate) use gateway::{Gateway, LISTENERS, TlsMemory};
pub(crate) use http::{Answer, http, try_http};
pub(crate) use process::{Ended, Process};
pub(crate) use tokens::{claims_token, connect_frame, dev_token, dev_token_for, unix_seconds};
pub(crate) use websocket::{WsStream, upgrade_request};

/// How long anything may take before the test says that it never happened. Machines under load are slow.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Polls until the condition holds. `what` is shown, as it is then, when it never does.
pub(crate) fn wait_until(what: impl std::fmt::Display, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
