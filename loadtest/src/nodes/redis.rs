//! A Redis of the demo's own: found on the search path, started in a folder, ended with the demo.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::interrupt;

/// Killed when dropped.
pub(super) struct Redis {
    child: Child,
    pub(super) address: SocketAddr,
    /// Of the server, as it says itself.
    pub(super) version: String,
}

const PROGRAM: &str = "redis-server";
const READY_WITHIN: Duration = Duration::from_secs(10);
/// One question and its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Another program may take a port between the look at it and the server's start.
const ATTEMPTS: usize = 5;

impl Redis {
    /// Starts a server that writes every message down in `folder`, and waits until it answers.
    pub(super) fn start(folder: &Path) -> Result<Redis, String> {
        let program = find()?;
        let mut failure = String::new();
        for _ in 0..ATTEMPTS {
            match Redis::start_at(&program, folder, free_port()?) {
                Ok(redis) => return Ok(redis),
                Err(error) => failure = error,
            }
            super::check_interrupt()?;
        }
        Err(failure)
    }

    fn start_at(program: &Path, folder: &Path, port: u16) -> Result<Redis, String> {
        let named = |error: std::io::Error| format!("{}: {error}", program.display());
        let log = folder.join("redis.log");
        let output = std::fs::File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let mut command = Command::new(program);
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(folder)
            .args(["--appendonly", "yes", "--appendfsync", "everysec"])
            .stdin(Stdio::null())
            .stderr(output.try_clone().map_err(named)?)
            .stdout(output)
            // Ctrl-C in the terminal is for the demo, which ends its servers in order.
            .process_group(0);
        let child = command.spawn().map_err(named)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut redis = Redis { child, address, version: String::new() };
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            // An answer without a version is that of a server that still reads its files.
            if let Some(version) = ask(address, "INFO server").ok().as_deref().and_then(version) {
                version.clone_into(&mut redis.version);
                return Ok(redis);
            }
            let ended = redis.child.try_wait().map_err(named)?;
            if ended.is_some() || Instant::now() > deadline || interrupt::asked() {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                let last = said.lines().last().unwrap_or("it said nothing");
                return Err(format!("{} did not get ready: {last}", program.display()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Does nothing to a process that has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server's program; the error says how to get it.
fn find() -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    find_in(std::env::split_paths(&path)).ok_or_else(|| {
        format!(
            "{PROGRAM} is not on the search path, and nodes meet through Redis: install it (on Debian and Ubuntu \
             `apt-get install {PROGRAM}`) and run this again"
        )
    })
}

fn find_in(mut folders: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    folders.find_map(|folder| Some(folder.join(PROGRAM)).filter(|program| program.is_file()))
}

/// A port of 127.0.0.1 that nobody listens on, below those that Linux gives to connections: none of those takes it while what
/// listens there is started again.
pub(super) fn free_port() -> Result<u16, String> {
    let mut candidates = std::iter::repeat_with(|| fastrand::u16(20_000..32_000)).take(1_000);
    let found = candidates.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
    found.ok_or_else(|| "no port of 127.0.0.1 from 20000 to 31999 could be had".to_owned())
}

/// The answer to a command, as it comes on the wire.
fn ask(address: SocketAddr, command: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    socket.set_read_timeout(Some(ANSWER_WITHIN))?;
    socket.write_all(format!("{command}\r\nQUIT\r\n").as_bytes())?;
    let mut answer = String::new();
    socket.take(64 * 1024).read_to_string(&mut answer)?;
    Ok(answer)
}

fn version(info: &str) -> Option<&str> {
    info.lines().find_map(|line| line.strip_prefix("redis_version:")).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_is_in_a_folder_of_the_path_then_the_first_of_these_is_taken() {
        let folder = std::env::temp_dir().join(format!("ringgate-demo-path-{}", std::process::id()));
        let [empty, good] = ["empty", "good"].map(|name| folder.join(name));
        for each in [&empty, &good] {
            std::fs::create_dir_all(each).unwrap();
        }
        std::fs::write(good.join(PROGRAM), "").unwrap();
        let find = |folders: &[&PathBuf]| find_in(folders.iter().map(|folder| (*folder).clone()));
        assert_eq!(find(&[&empty, &good]), Some(good.join(PROGRAM)));
        assert_eq!(find(&[&empty]), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn server_says_its_version_then_it_is_read() {
        assert_eq!(version("$99\r\n# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n"), Some("7.0.15"));
        assert_eq!(version("-LOADING Redis is loading the dataset in memory\r\n"), None);
    }
}
