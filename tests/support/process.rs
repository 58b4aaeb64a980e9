//! The program `ringgate` as a process of its own: its lines, its signals, its end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::{TempFolder, wait_until};

type Lines = Arc<Mutex<Vec<String>>>;

/// A running `ringgate`; killed when dropped.
pub(crate) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    out: Lines,
    err: Lines,
    readers: Vec<JoinHandle<()>>,
}

/// A process that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// None when it was killed by a signal.
    pub(crate) code: Option<i32>,
    pub(crate) out: Vec<String>,
    pub(crate) err: Vec<String>,
}

impl Process {
    /// Runs the program with these arguments.
    pub(crate) fn ringgate(arguments: &[&str]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringgate"));
        command.args(arguments);
        Process::of(command)
    }

    /// Runs a command that the caller has prepared further.
    pub(crate) fn of(mut command: Command) -> Process {
        // The caller's own settings must not change what is tested.
        command.env_remove("RINGGATE_TOKEN").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (out, err) = (Lines::default(), Lines::default());
        let readers = vec![
            collect(child.stdout.take().unwrap(), out.clone()),
            collect(child.stderr.take().unwrap(), err.clone()),
        ];
        Process { input: child.stdin.take(), child, out, err, readers }
    }

    /// A gateway with `--dev` and these further arguments; returned once it is ready.
    pub(crate) fn dev_gateway(arguments: &[&str]) -> Process {
        let mut process = None;
        // A port that was free when it looked may be taken by another gateway when it binds.
        wait_until("a development gateway finds free ports", || {
            let mut started = Process::ringgate(&[&["serve", "--dev", "--shards", "2"], arguments].concat());
            let ready = started.is_ready();
            process = ready.then_some(started);
            ready
        });
        process.unwrap()
    }

    /// A gateway with this configuration; returned once it is ready.
    pub(crate) fn gateway(text: &str) -> Process {
        let folder = TempFolder::new();
        let file = folder.write("ringgate.toml", text);
        let gateway = Process::ringgate(&["serve", "--config", file.to_str().unwrap()]);
        gateway.line("ready", |line| line.starts_with("ready: "));
        gateway
    }

    /// Waits until it says that it is ready; false when it ended because an address was taken.
    fn is_ready(&mut self) -> bool {
        let says = |lines: &Lines, start: &str| lines.lock().unwrap().iter().any(|line| line.contains(start));
        let Process { child, out, err, .. } = self;
        let mut ended = false;
        wait_until(Said("ready", out, err), || {
            ended = child.try_wait().unwrap().is_some();
            ended || says(out, "ready: ")
        });
        if ended {
            self.ended();
            assert!(says(&self.err, "Address already in use"), "{}", Said("ended", &self.out, &self.err));
        }
        !ended
    }

    /// The first line on standard output that fits; waits for it.
    pub(crate) fn line(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        self.find(&self.out, what, fits)
    }

    /// The first line on standard error that fits; waits for it.
    pub(crate) fn error_line(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        self.find(&self.err, what, fits)
    }

    fn find(&self, lines: &Lines, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let mut found = None;
        wait_until(Said(what, &self.out, &self.err), || {
            found = lines.lock().unwrap().iter().find(|line| fits(line)).cloned();
            found.is_some()
        });
        found.unwrap()
    }

    /// The URL of a gateway's listener: `tcp` or `tls`.
    pub(crate) fn url(&self, scheme: &str) -> String {
        let start = format!("{scheme}://");
        self.line(&start, |line| line.starts_with(&start))
    }

    /// The address of a gateway's plain listener.
    pub(crate) fn tcp(&self) -> SocketAddr {
        self.url("tcp").trim_start_matches("tcp://").parse().unwrap()
    }

    /// Types a line.
    pub(crate) fn type_line(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Ends its standard input.
    pub(crate) fn end_input(&mut self) {
        self.input = None;
    }

    /// Sends a signal.
    #[allow(unsafe_code, reason = "std only knows SIGKILL")]
    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: takes no pointers; the child has not been waited for, so its id is still its own.
        let result = unsafe { libc::kill(self.child.id().cast_signed(), signal) };
        assert_eq!(result, 0, "kill: {}", std::io::Error::last_os_error());
    }

    /// As the kernel numbers it.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end, with everything that it said.
    pub(crate) fn ended(&mut self) -> Ended {
        self.end_input();
        let mut status = None;
        let Process { child, out, err, .. } = self;
        wait_until(Said("the end of the process", out, err), || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        Ended {
            code: status.and_then(|status| status.code()),
            out: self.out.lock().unwrap().clone(),
            err: self.err.lock().unwrap().clone(),
        }
    }

    /// Everything on standard error so far.
    pub(crate) fn errors(&self) -> Vec<String> {
        self.err.lock().unwrap().clone()
    }
}

/// What was waited for, and what the process has said so far.
struct Said<'a>(&'a str, &'a Lines, &'a Lines);

impl std::fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; so far {:?}, errors {:?}", self.0, self.1.lock().unwrap(), self.2.lock().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(source: impl Read + Send + 'static, lines: Lines) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            lines.lock().unwrap().push(line);
        }
    })
}
