//! A child that does not outlive its parent, however that one ends.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::sync::{LazyLock, Mutex};

use rustix::process::{Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal};

use crate::wait_until;

/// A running child; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

type Order = (Command, Sender<io::Result<Child>>);

/// The kernel kills the children of a thread when that thread ends, not when its process does; the thread of a test ends
/// before those that share its server. So one thread, which never ends, starts all of them.
static SPAWNER: LazyLock<Mutex<Sender<Order>>> = LazyLock::new(|| {
    let (orders, received) = channel::<Order>();
    std::thread::Builder::new()
        .name("servers".to_owned())
        .spawn(move || {
            for (mut command, answer) in received {
                // Nobody waits for the answer when the test has panicked; its child ends with the process.
                let _ = answer.send(command.spawn());
            }
        })
        .expect("a thread");
    Mutex::new(orders)
});

impl Process {
    /// Starts it, with nothing on its standard input.
    pub(crate) fn start(mut command: Command) -> io::Result<Process> {
        let parent = getpid();
        let end_with_parent = move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent has ended before the line above.
            if getppid() != Some(parent) {
                return Err(io::Error::other("the parent has ended"));
            }
            Ok(())
        };
        #[allow(unsafe_code, reason = "what a child does before exec is its own to set")]
        // SAFETY: the closure makes two system calls and allocates nothing in the case that goes on to exec.
        unsafe {
            command.pre_exec(end_with_parent);
        }
        let (answer, answered) = channel();
        let orders = SPAWNER.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        orders.send((command, answer)).expect("the thread never ends");
        let child = answered.recv().expect("the thread answers")?;
        Ok(Process { child })
    }

    /// As the kernel numbers it.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// Kills it and waits for its end.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// SIGTERM, and waits for its end.
    pub(crate) fn terminate(mut self) {
        self.signal(Signal::TERM);
        wait_until(format_args!("process {} ends after SIGTERM", self.id()), || self.has_ended());
    }

    /// SIGSTOP, and waits until it stands still.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
        wait_until(format_args!("process {} is stopped", self.id()), || self.state() == Some('T'));
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
        wait_until(format_args!("process {} goes on", self.id()), || self.state() != Some('T'));
    }

    fn signal(&self, signal: Signal) {
        // It has not been waited for, so the id is still its own.
        let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw).expect("an id");
        kill_process(id, signal).expect("a child");
    }

    /// The letter of proc_pid_stat(5), behind the name in brackets.
    fn state(&self) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    fn end(&mut self) {
        // Fails when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
