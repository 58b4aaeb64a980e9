//! How the traffic secrets come out of rustls.
//!
//! It hands out the keys of a connection, but not the secrets that the next keys are derived from, unless to a key log
//! (`SSLKEYLOGFILE`). This is such a log: it writes nothing, and keeps the two secrets of the handshake step that this
//! thread is in until [`take_captured`] takes them.

use std::cell::RefCell;

use rustls::KeyLog;

use super::traffic::Secret;

/// What a handshake has agreed on.
pub(in crate::tls) struct ApplicationSecrets {
    /// `client_application_traffic_secret_0`
    pub(in crate::tls) client: Secret,
    /// `server_application_traffic_secret_0`
    pub(in crate::tls) server: Secret,
}

/// See the module.
#[derive(Debug)]
pub(in crate::tls) struct Capture;

thread_local! {
    static CAPTURED: RefCell<[Option<Secret>; 2]> = const { RefCell::new([None, None]) };
}

/// Labels of the format that key logs have.
const LABELS: [&str; 2] = ["CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"];

impl KeyLog for Capture {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        if let Some(index) = LABELS.iter().position(|known| *known == label) {
            CAPTURED.with_borrow_mut(|captured| {
                if let Some(place) = captured.get_mut(index) {
                    *place = Secret::new(secret);
                }
            });
        }
    }

    fn will_log(&self, label: &str) -> bool {
        LABELS.contains(&label)
    }
}

/// The secrets that the call into rustls before this one has derived, if it has.
pub(in crate::tls) fn take_captured() -> Option<ApplicationSecrets> {
    match CAPTURED.take() {
        [Some(client), Some(server)] => Some(ApplicationSecrets { client, server }),
        _ => None,
    }
}
