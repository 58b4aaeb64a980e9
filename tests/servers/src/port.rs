//! Ports that no other test has, also in other processes, for as long as a server may be started again on them.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports that Linux gives to sockets that ask for any, so that none of those takes the port of a server that is
/// down for a moment.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port, until it is dropped.
#[derive(Debug)]
pub struct Port {
    /// 20000 to 31999.
    pub number: u16,
    /// Locked. The kernel unlocks it when this process ends.
    _lock: File,
}

impl Port {
    /// One that is free on 127.0.0.1.
    ///
    /// # Panics
    /// When there is none.
    pub fn free() -> Port {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let folder = lock_folder();
        // Processes begin at different places, so that they seldom try the same port.
        let start = (std::process::id().wrapping_mul(97) % u32::from(COUNT)) as u16;
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
            let number = FIRST + ((u32::from(start) + u32::from(step)) % u32::from(COUNT)) as u16;
            let open =
                OpenOptions::new().write(true).create(true).truncate(false).open(folder.join(number.to_string()));
            let lock = open.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
            if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Port { number, _lock: lock };
            }
        }
        panic!("no port of 127.0.0.1 from {FIRST} on is free");
    }
}

/// A file for each port, of this user's processes, whichever source tree they are built from.
fn lock_folder() -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    let folder = std::env::temp_dir().join(format!("ringgate-test-ports-{user}"));
    std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    folder
}
