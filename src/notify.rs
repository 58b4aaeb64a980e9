//! What the service manager is told, as sd_notify(3) defines it: ready, reloading, stopping, and that the shards move.
//!
//! A datagram for each state, to the socket that NOTIFY_SOCKET names. Where nobody wants to be told, nothing happens.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::readiness::Readiness;

/// How long the service manager may leave a datagram waiting.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// A service manager that wants to be told.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    address: SocketAddr,
    /// It kills this process when it hears nothing for so long.
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID say; none where there is no NOTIFY_SOCKET. The error names the variable.
    pub fn from_environment() -> Result<Option<Notifier>, String> {
        Notifier::from_variables(|name| std::env::var_os(name), std::process::id())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>, own_pid: u32) -> Result<Option<Notifier>, String> {
        let Some(name) = variable("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Ok(None) };
        let wrong = |error: &dyn std::fmt::Display| format!("NOTIFY_SOCKET {}: {error}", name.display());
        let address = match name.as_bytes() {
            [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name),
            [b'/', ..] => SocketAddr::from_pathname(&name),
            _ => return Err(wrong(&"must be a path from / on, or an abstract name after @")),
        };
        let address = address.map_err(|error| wrong(&error))?;
        let number = |name: &str| -> Result<Option<u64>, String> {
            let Some(text) = variable(name) else { return Ok(None) };
            let number = text.to_str().and_then(|text| text.parse().ok());
            number.map(Some).ok_or_else(|| format!("{name} {}: must be a whole number", text.display()))
        };
        // The variables may be those of a parent that has a watchdog of its own.
        let is_ours = number("WATCHDOG_PID")?.is_none_or(|pid| pid == u64::from(own_pid));
        let watchdog = number("WATCHDOG_USEC")?.filter(|us| is_ours && *us > 0).map(Duration::from_micros);
        let socket = UnixDatagram::unbound().and_then(|socket| {
            socket.set_write_timeout(Some(SEND_TIMEOUT))?;
            Ok(socket)
        });
        Ok(Some(Notifier { socket: socket.map_err(|error| wrong(&error))?, address, watchdog }))
    }

    /// Clients can connect, or the configuration was read again.
    pub fn ready(&self) {
        self.tell("READY=1\nSTATUS=ready");
    }

    /// The configuration is being read again; [`Self::ready`] ends it.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let us = now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={us}\nSTATUS=reading the configuration again"));
    }

    /// Clients are sent away; the process ends.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=draining");
    }

    fn tell(&self, state: &str) {
        if let Err(error) = self.send(state) {
            let state = state.split('\n').next();
            tracing::warn!(%error, state, "the service manager (NOTIFY_SOCKET) was not told");
        }
    }

    fn send(&self, state: &str) -> io::Result<()> {
        self.socket.send_to_addr(state.as_bytes(), &self.address).map(|_| ())
    }

    /// Says that the process is alive, unless a shard stands still. True if it was said.
    fn beat(&self, readiness: &Readiness) -> io::Result<bool> {
        let is_healthy = readiness.illnesses().is_empty();
        if is_healthy {
            self.send("WATCHDOG=1")?;
        }
        Ok(is_healthy)
    }

    /// From now on says that the process is alive, twice in the time that WATCHDOG_USEC allows, for as long as no shard stands
    /// still; nothing where that is not set. Goes on during a drain. The error is that of the thread.
    pub fn start_watchdog(self: &Arc<Self>, readiness: Arc<Readiness>) -> io::Result<()> {
        let Some(timeout) = self.watchdog else { return Ok(()) };
        let notifier = self.clone();
        let beat = move || {
            // One warning for each time that it begins to fail.
            let mut failed = false;
            loop {
                match notifier.beat(&readiness) {
                    Err(error) if !failed => {
                        failed = true;
                        tracing::warn!(%error, "the service manager (NOTIFY_SOCKET) was not told that the node is alive");
                    }
                    Err(_) => {}
                    Ok(_) => failed = false,
                }
                std::thread::sleep(timeout / 2);
            }
        };
        std::thread::Builder::new().name("watchdog".to_owned()).spawn(beat).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notifier(variables: &[(&str, &str)]) -> Result<Option<Notifier>, String> {
        let value = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        Notifier::from_variables(value, 7)
    }

    #[test]
    fn no_socket_is_named_then_nobody_is_told() {
        assert!(notifier(&[]).unwrap().is_none());
        assert!(notifier(&[("NOTIFY_SOCKET", ""), ("WATCHDOG_USEC", "x")]).unwrap().is_none());
    }

    #[test]
    fn variable_is_wrong_then_the_error_names_it_and_what_would_be_right() {
        for (variables, wanted) in [
            (&[("NOTIFY_SOCKET", "run/notify")][..], "NOTIFY_SOCKET run/notify: must be a path from / on"),
            (&[("NOTIFY_SOCKET", "vsock:2:1234")], "NOTIFY_SOCKET vsock:2:1234: must be"),
            (&[("NOTIFY_SOCKET", "/x"), ("WATCHDOG_USEC", "3s")], "WATCHDOG_USEC 3s: must be a whole number"),
            (&[("NOTIFY_SOCKET", "/x"), ("WATCHDOG_PID", "-1")], "WATCHDOG_PID -1: must be a whole number"),
        ] {
            let error = notifier(variables).unwrap_err();
            assert!(error.starts_with(wanted), "{error}");
        }
        let long = format!("/{}", "x".repeat(200));
        assert!(notifier(&[("NOTIFY_SOCKET", &long)]).unwrap_err().starts_with("NOTIFY_SOCKET /xxx"));
    }

    #[test]
    fn watchdog_is_for_another_process_then_it_is_off() {
        let watchdog = |variables: &[(&str, &str)]| {
            notifier(&[variables, &[("NOTIFY_SOCKET", "/x")]].concat()).unwrap().unwrap().watchdog
        };
        assert_eq!(watchdog(&[]), None);
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "0")]), None);
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "3000000")]), Some(Duration::from_secs(3)));
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "7")]), Some(Duration::from_secs(3)));
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "8")]), None);
    }

    #[test]
    fn shard_stands_still_then_the_watchdog_is_not_fed_until_it_moves() {
        let name = format!("ringgate-notify-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        manager.set_nonblocking(true).unwrap();
        let notifier = notifier(&[("NOTIFY_SOCKET", &format!("@{name}"))]).unwrap().unwrap();
        let heard = || {
            let mut bytes = [0; 64];
            manager.recv(&mut bytes).map(|length| String::from_utf8_lossy(&bytes[..length]).into_owned())
        };
        let readiness = Readiness::default();
        assert!(notifier.beat(&readiness).unwrap());
        assert_eq!(heard().unwrap(), "WATCHDOG=1");
        readiness.stalled.set(0, true);
        assert!(!notifier.beat(&readiness).unwrap());
        assert_eq!(heard().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        readiness.stalled.set(0, false);
        assert!(notifier.beat(&readiness).unwrap());
        assert_eq!(heard().unwrap(), "WATCHDOG=1");
        drop(manager);
        assert!(notifier.beat(&readiness).is_err());
    }
}
