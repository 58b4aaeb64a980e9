//! A connect until its client is signed in: how far it is, what was said meanwhile, and what people are told when it fails.
//!
//! Texts name no client and no time, so that the same failure of many clients is one line of a report.

use std::net::SocketAddr;
use std::time::Duration;

use ringgate_core::close::CloseReason;
use ringgate_core::wire::{ServerFrame, Split, split};
use ringgate_net::tls::{FIRST_BYTES_MAX, TlsError};
use rustls::CertificateError;

use super::without_number;

/// See the module.
pub(super) struct Attempt {
    address: SocketAddr,
    stage: Stage,
    /// What came first, at most [`FIRST_BYTES_MAX`].
    first: Vec<u8>,
    /// Why TLS failed.
    tls: Option<String>,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing has answered yet.
    Calling,
    /// There is a connection.
    Connected,
    /// Its TLS handshake is over.
    Secured,
}

/// Longest body of the frame that is looked for in the first bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;

impl Attempt {
    pub(super) fn to(address: SocketAddr) -> Attempt {
        Attempt { address, stage: Stage::Calling, first: Vec::new(), tls: None }
    }

    /// The address that does not answer, if it has not yet.
    pub(super) fn calling(&self) -> Option<SocketAddr> {
        (self.stage == Stage::Calling).then_some(self.address)
    }

    pub(super) fn connected(&mut self) {
        self.stage = Stage::Connected;
    }

    pub(super) fn secured(&mut self) {
        self.stage = Stage::Secured;
    }

    /// Keeps the first of what comes.
    pub(super) fn received(&mut self, bytes: &[u8]) {
        let room = FIRST_BYTES_MAX - self.first.len().min(FIRST_BYTES_MAX);
        self.first.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    /// It is about to be closed, with so much of an unfinished TLS handshake that nobody has looked at.
    pub(super) fn leaving(&mut self, held_back: &[u8]) {
        if self.first.is_empty() {
            self.received(held_back);
        }
    }

    pub(super) fn tls_failed(&mut self, error: &TlsError, host: &str) {
        self.tls = Some(tls_failure(error, self.address, host));
    }

    /// Why it was closed before the client was signed in.
    pub(super) fn closed(self, tls: bool) -> String {
        let address = self.address;
        match (self.tls, tls, self.stage) {
            (Some(failure), ..) => failure,
            // What begins with the content type of a record is a handshake that has broken off.
            (None, true, Stage::Calling | Stage::Connected) if !matches!(self.first[..], [] | [20..=24, ..]) => {
                not_tls(&self.first, address)
            }
            (None, true, Stage::Calling | Stage::Connected) => {
                format!(
                    "{address} closed the connection during the TLS handshake: is that a port for tls://? If not, try tcp://"
                )
            }
            _ if !self.first.is_empty() => stranger(&self.first, address),
            (None, true, Stage::Secured) => {
                format!("{address} closed the connection before it was signed in: is that a ringgate listener?")
            }
            (None, false, _) => {
                format!(
                    "{address} closed the connection before it was signed in: is that a port for tcp://? If not, try tls://"
                )
            }
        }
    }

    /// Why it was given up after so long.
    pub(super) fn timed_out(self, after: Duration, tls: bool) -> String {
        let (address, after) = (self.address, human(after));
        match self.stage {
            _ if !self.first.is_empty() => stranger(&self.first, address),
            Stage::Calling => not_made(address, libc::ETIMEDOUT, &[]),
            Stage::Connected if tls => {
                format!(
                    "connected to {address}, but no TLS handshake within {after}: is that a ringgate listener for tls://?"
                )
            }
            _ => format!("connected to {address}, but no answer within {after}: is that a ringgate listener?"),
        }
    }
}

fn human(time: Duration) -> String {
    if time.subsec_millis() == 0 { format!("{} s", time.as_secs()) } else { format!("{} ms", time.as_millis()) }
}

/// What kind of server answers instead of a gateway, by its first bytes.
fn stranger(first: &[u8], address: SocketAddr) -> String {
    let said = format!("it said \"{}\"", first.escape_ascii());
    match first {
        // An alert, or a handshake message, of any version of TLS.
        [21 | 22, 3, ..] => format!("{address} speaks TLS: try tls://"),
        _ if first.starts_with(b"HTTP/") => format!("{address} is a web server, not a ringgate listener: {said}"),
        _ if first.starts_with(b"SSH-") => format!("{address} is an SSH server, not a ringgate listener: {said}"),
        _ => format!("{address} does not speak ringgate's protocol, is the port right? {said}"),
    }
}

fn tls_failure(error: &TlsError, address: SocketAddr, host: &str) -> String {
    match error {
        TlsError::NotTls(first) => not_tls(first, address),
        TlsError::Rustls(rustls::Error::InvalidCertificate(error)) => certificate_failure(error, address, host),
        TlsError::Rustls(rustls::Error::AlertReceived(alert)) => {
            format!("{address} refused the TLS handshake, with the alert {alert:?}")
        }
        error => format!("the TLS handshake with {address} failed: {error}"),
    }
}

/// What kind of server answers a TLS handshake with something else.
fn not_tls(first: &[u8], address: SocketAddr) -> String {
    match is_gateway(first) {
        true => format!("{address} is a ringgate listener without TLS: try tcp://"),
        false => format!("{address} does not speak TLS. {}", stranger(first, address)),
    }
}

fn certificate_failure(error: &CertificateError, address: SocketAddr, host: &str) -> String {
    let what = match error {
        CertificateError::UnknownIssuer => {
            "has an issuer that is not trusted: give the certificate of its issuer with --ca FILE".to_owned()
        }
        CertificateError::BadSignature => {
            "is not signed with the key of --ca, though by the same name: is that file the present one?".to_owned()
        }
        CertificateError::NotValidForName => {
            format!("is not for {host}: use a name in --url that it is for, or a certificate that is for this one")
        }
        CertificateError::NotValidForNameContext { presented, .. } => format!(
            "is not for {host} but for {}: use one of these in --url, or a certificate that is for {host}",
            presented.join(", ")
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "has expired: the gateway needs a new one (or the clock of this host is wrong)".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet: is the clock of this host right?".to_owned()
        }
        error => format!("was not accepted: {error}"),
    };
    format!("the certificate of {address} {what}")
}

/// Whether the first bytes are a frame of a gateway.
fn is_gateway(first: &[u8]) -> bool {
    match split(first, BODY_BYTES_MAX) {
        Ok(Split::Frame(frame, _)) => ServerFrame::parse(frame).is_ok(),
        Ok(Split::Incomplete(_)) => first.len() >= 8,
        Err(_) => false,
    }
}

/// Why a connection was not made, with what that most often means. Where its host has several addresses, all of them
/// were tried.
pub(super) fn not_made(address: SocketAddr, error: i32, addresses: &[SocketAddr]) -> String {
    let hint = match error {
        libc::ECONNREFUSED => "; is the gateway running there?",
        libc::ETIMEDOUT => "; is there such a host, and no firewall before it?",
        libc::EADDRNOTAVAIL => "; more --source addresses, or a wider net.ipv4.ip_local_port_range, have more ports",
        libc::ENETUNREACH | libc::EHOSTUNREACH => "; has this host a route there?",
        _ => "",
    };
    let text = without_number(&std::io::Error::from_raw_os_error(error));
    let who = if is_own(error) { "this load tester could not connect" } else { "connect" };
    let tried = match addresses {
        [] | [_] => String::new(),
        all => {
            let all: Vec<_> = all.iter().map(SocketAddr::to_string).collect();
            format!(" (the last of {} addresses that were tried: {})", all.len(), all.join(", "))
        }
    };
    format!("{who} to {address}: {text}{hint}{tried}")
}

/// Whether a connect fails with this before anything was sent: for lack of a port, a descriptor, memory, a route or the
/// right to. No gateway has refused anything then.
pub(super) fn is_own(error: i32) -> bool {
    use libc::{EACCES, EADDRINUSE, EADDRNOTAVAIL, EMFILE, ENETUNREACH, ENFILE, ENOBUFS, ENOMEM, EPERM};
    [EACCES, EADDRINUSE, EADDRNOTAVAIL, EMFILE, ENETUNREACH, ENFILE, ENOBUFS, ENOMEM, EPERM].contains(&error)
}

/// A close code with its name, and what to do about it.
pub(super) fn name_of(code: u16) -> String {
    let reason = CloseReason::from_code(code);
    let advice = match reason {
        Some(CloseReason::Expired) => {
            "; the time of its token (exp) is over: make new ones, and compare the clocks of both hosts"
        }
        Some(CloseReason::NotYetValid) => {
            "; the time of its token (nbf) has not come: compare the clocks of both hosts"
        }
        Some(CloseReason::InvalidToken) => {
            "; is the key (--key, --kid, --dev) one of this gateway, and is the token meant for it (aud, iss)?"
        }
        Some(CloseReason::TakenOver) => {
            "; another connection signed in as the same user and device: does another run use these tokens, too?"
        }
        Some(CloseReason::ConnectionLimit) => "; the gateway allows fewer sessions of one user",
        Some(CloseReason::Busy) => {
            "; the gateway takes no more, from this address or at all, or not so fast: see --ramp-rate and --source"
        }
        Some(CloseReason::InappropriateProtocol) => "; the load tester and the gateway are of different versions",
        _ => "",
    };
    format!("{} ({code}){advice}", reason.map_or("unknown", |reason| reason.label()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 7400))
    }

    #[test]
    fn certificate_is_refused_then_the_cause_and_the_remedy_are_named() {
        let said =
            |error| tls_failure(&TlsError::Rustls(rustls::Error::InvalidCertificate(error)), address(), "a.test");
        assert!(said(CertificateError::UnknownIssuer).contains("--ca FILE"));
        assert!(said(CertificateError::Expired).contains("has expired"));
        assert!(said(CertificateError::NotValidYet).contains("clock"));
        let error = CertificateError::NotValidForNameContext {
            expected: "a.test".try_into().unwrap(),
            presented: vec!["b.test".to_owned(), "c.test".to_owned()],
        };
        assert!(said(error).contains("is not for a.test but for b.test, c.test"));
        assert!(said(CertificateError::NotValidForName).contains("is not for a.test"));
        assert!(said(CertificateError::BadSignature).contains("is that file the present one?"));
        assert!(said(CertificateError::BadEncoding).contains("was not accepted"));
    }

    #[test]
    fn first_bytes_tell_who_answers() {
        for (first, part) in [
            (&b"HTTP/1.1 400 Bad\r\n"[..], "a web server, not a ringgate listener: it said \"HTTP/1.1 400 Bad\\r\\n\""),
            (b"SSH-2.0-x\r\n", "an SSH server"),
            (&[21, 3, 3, 0, 2, 2, 10], "speaks TLS: try tls://"),
            (b"-ERR\r\n", "does not speak ringgate's protocol, is the port right? it said \"-ERR"),
        ] {
            let mut attempt = Attempt::to(address());
            attempt.connected();
            attempt.received(first);
            let said = attempt.closed(false);
            assert!(said.starts_with("192.0.2.1:7400 ") && said.contains(part), "{said}");
        }
    }

    #[test]
    fn only_the_first_bytes_are_kept() {
        let mut attempt = Attempt::to(address());
        attempt.received(&[b'a'; 40]);
        attempt.received(&[b'b'; 40]);
        attempt.received(&[b'c'; 40]);
        assert_eq!(attempt.first, [&[b'a'; 40][..], &[b'b'; 8]].concat());
    }
}
