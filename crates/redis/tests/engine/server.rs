//! A real redis-server: a free port, a directory of its own, killed by its id when it is dropped.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub(crate) struct Redis {
    child: Option<Child>,
    directory: PathBuf,
    pub(crate) port: u16,
    arguments: Vec<String>,
}

impl Redis {
    /// With what its command line takes beside port and directory.
    pub(crate) fn start(arguments: &[&str]) -> Redis {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("redis-{}-{number}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut redis = Redis { child: None, directory, port: 0, arguments };
        // Another process may take the port before Redis does.
        for _ in 0..20 {
            redis.port =
                TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
            if redis.run() {
                return redis;
            }
        }
        panic!("redis-server does not start (Debian: apt-get install redis-server)");
    }

    /// Starts it at its port; false if it ends at once.
    pub(crate) fn run(&mut self) -> bool {
        let (port, directory) = (self.port.to_string(), self.directory.display().to_string());
        let plain = ["--port", &port, "--dir", &directory, "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"];
        let child = Command::new("redis-server")
            .args(plain)
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server (Debian: apt-get install redis-server)");
        self.child = Some(child);
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            if self.child.as_mut().is_some_and(|child| child.try_wait().expect("its state").is_some()) {
                return false;
            }
            if self.try_ask(&["PING"]).is_ok_and(|answer| answer == "+PONG") {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("it gets the signal");
    }

    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is killed");
            child.wait().expect("it has ended");
        }
    }

    /// Killed with -9, and started again with what it has on disk.
    pub(crate) fn crash(&mut self) {
        self.kill();
        assert!(self.run(), "it starts again");
    }

    /// The answer's lines, but for the lengths of strings; arrays one element a line.
    pub(crate) fn ask(&self, arguments: &[&str]) -> String {
        self.try_ask(arguments).expect("an answer")
    }

    fn try_ask(&self, arguments: &[&str]) -> io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut request = format!("*{}\r\n", arguments.len());
        arguments.iter().for_each(|text| request.push_str(&format!("${}\r\n{text}\r\n", text.len())));
        stream.write_all(request.as_bytes())?;
        let mut reader = BufReader::new(stream);
        let mut lines = Vec::new();
        answer(&mut reader, &mut lines)?;
        Ok(lines.join("\n"))
    }
}

fn answer(reader: &mut impl BufRead, lines: &mut Vec<String>) -> io::Result<()> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.trim_end();
    let length = || line[1..].parse::<i64>().expect("a length");
    match &line[..1] {
        "$" if length() >= 0 => {
            let mut bytes = vec![0; length() as usize + 2];
            reader.read_exact(&mut bytes)?;
            bytes.truncate(bytes.len() - 2);
            lines.push(String::from_utf8_lossy(&bytes).into_owned());
        }
        "*" => (0..length()).try_for_each(|_| answer(reader, lines))?,
        _ => lines.push(line.to_owned()),
    }
    Ok(())
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}
