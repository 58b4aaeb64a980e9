//! Whether this kernel does what `net` asks of it, found out by asking: one small ring, made as a shard makes its own.
//!
//! Nothing outside this process is touched but a loopback listener that lives for a moment.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use io_uring::types::{DestinationSlot, Fd, Fixed};
use io_uring::{cqueue, opcode, register, squeue};

use super::Bell;
use super::buffers::{self, Buffers, Bundle};
use super::ring::Ring;
use crate::kernel;
use ringgate_core::mesh::Wake;
use ringgate_core::metrics::ShardMetrics;

/// One thing that was tried.
#[derive(Clone, Debug)]
pub struct Probe {
    /// What.
    pub name: &'static str,
    /// What the gateway needs it for.
    pub why: &'static str,
    /// Needed only for direct descriptors.
    pub direct: bool,
    /// How it went.
    pub outcome: Outcome,
}

/// How a probe went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It works; what was seen.
    Works(String),
    /// It does not; what failed.
    Fails(String),
    /// It could not be tried, for a reason that says nothing about the ring.
    Untried(String),
}

/// How long a completion may take that should be there at once.
const PATIENCE: Duration = Duration::from_secs(10);
const SLOTS: u32 = 16;
const BUFFERS: usize = 8;
const BUFFER_BYTES: usize = 256;

/// The ring goes first, and then the memory that it knows.
struct Probed {
    ring: Ring,
    buffers: Option<Buffers>,
    /// Those that were not looked at yet.
    completions: VecDeque<cqueue::Entry>,
    metrics: ShardMetrics,
}

/// Tries everything, in the order in which one needs the other.
pub fn probe() -> Vec<Probe> {
    let (setup, mut probed) = match Bell::new().and_then(|bell| Ring::new(64, 256, &bell)) {
        Ok(ring) => {
            let made = "single issuer, deferred task work and its flag, submit all, clamp, eventfd".to_owned();
            let metrics = ShardMetrics::default();
            (Outcome::Works(made), Some(Probed { ring, buffers: None, completions: VecDeque::new(), metrics }))
        }
        Err(error) => (Outcome::Fails(error.to_string()), None),
    };
    let mut tried = |step: fn(&mut Probed) -> Result<String, Outcome>| match &mut probed {
        None => Outcome::Untried("not tried: there is no ring".to_owned()),
        Some(probed) => step(probed).map_or_else(|outcome| outcome, Outcome::Works),
    };
    let probe = |name, why, direct, outcome| Probe { name, why, direct, outcome };
    vec![
        probe("ring setup", "Every shard has a ring of its own, made like this one.", false, setup),
        probe("ring operations", "All that the gateway does with sockets.", false, tried(operations)),
        probe("direct descriptors", "Sockets live in the ring's own table.", true, tried(table)),
        probe("buffer ring", "An idle connection owns no receive buffer.", false, tried(buffer_ring)),
        probe("multishot receive", "One receive stays armed for good.", false, tried(multishot_receive)),
        probe("receive bundles", "Long messages come in fewer completions.", false, tried(receive_bundles)),
        probe("doorbell", "A shard that sleeps in its ring is woken by others.", false, tried(doorbell)),
        probe("ordinary accept", "Sockets in the process's table.", false, tried(ordinary_accept)),
        probe("direct accept", "Accepted sockets go straight into the ring's table.", true, tried(direct_accept)),
    ]
}

fn operations(probed: &mut Probed) -> Result<String, Outcome> {
    let mut known = register::Probe::new();
    probed.ring.submitter().register_probe(&mut known).map_err(|error| failed("io_uring_register(PROBE)", &error))?;
    let used = [
        ("accept", opcode::Accept::CODE),
        ("connect", opcode::Connect::CODE),
        ("recv", opcode::RecvMulti::CODE),
        ("send", opcode::Send::CODE),
        ("shutdown", opcode::Shutdown::CODE),
        ("close", opcode::Close::CODE),
        ("cancel", opcode::AsyncCancel::CODE),
    ];
    let (there, missing): (Vec<_>, Vec<_>) = used.iter().partition(|(_, code)| known.is_supported(*code));
    let names = |list: Vec<&(&str, u8)>| list.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    if missing.is_empty() { Ok(names(there)) } else { Err(Outcome::Fails(format!("missing: {}", names(missing)))) }
}

fn table(probed: &mut Probed) -> Result<String, Outcome> {
    probed.ring.register_slots(SLOTS).map_err(|error| Outcome::Fails(error.to_string()))?;
    Ok("a sparse table was registered".to_owned())
}

fn buffer_ring(probed: &mut Probed) -> Result<String, Outcome> {
    let buffers = Buffers::register(&probed.ring.submitter(), BUFFERS as u16, BUFFER_BYTES);
    probed.buffers = Some(buffers.map_err(|error| Outcome::Fails(error.to_string()))?);
    Ok("provided buffers were registered".to_owned())
}

/// Two writes must come back from one receive, each in a buffer that the kernel chose.
fn multishot_receive(probed: &mut Probed) -> Result<String, Outcome> {
    probed.needs_buffers()?;
    let (mut ours, theirs) = UnixStream::pair().map_err(|error| hindered("socketpair", &error))?;
    let receive = opcode::RecvMulti::new(Fd(theirs.as_raw_fd()), buffers::GROUP).build();
    probed.push(receive, RECEIVE);
    for word in ["one", "three"] {
        ours.write_all(word.as_bytes()).map_err(|error| hindered("write", &error))?;
        let completion = probed.wait_for(RECEIVE)?;
        let buffer = cqueue::buffer_select(completion.flags());
        match (usize::try_from(completion.result()), buffer, cqueue::more(completion.flags())) {
            (Ok(length), Some(buffer), true) if length == word.len() => {
                let buffers = probed.needs_buffers()?;
                if buffers.bytes_mut(buffer, length) != word.as_bytes() {
                    return Err(other_bytes());
                }
                buffers.give_back(buffer);
            }
            (Ok(_), _, false) => return Err(Outcome::Fails("the receive did not stay armed".to_owned())),
            (Ok(_), ..) => return Err(Outcome::Fails("the kernel took no provided buffer".to_owned())),
            (Err(_), ..) => return Err(refused("recv", completion.result())),
        }
    }
    probed.cancel(RECEIVE)?;
    Ok("stayed armed over two messages, and was cancelled".to_owned())
}

/// All that the buffers hold must come back whole, also when they were given back in another order.
fn receive_bundles(probed: &mut Probed) -> Result<String, Outcome> {
    probed.needs_buffers()?;
    if !probed.ring.receives_bundles() {
        return Ok("not used on this kernel: one buffer a completion".to_owned());
    }
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| hindered("listen on 127.0.0.1", &error))?;
    let address = listener.local_addr().map_err(|error| hindered("getsockname", &error))?;
    let mut ours = TcpStream::connect(address).map_err(|error| hindered("connect to 127.0.0.1", &error))?;
    let (theirs, _) = listener.accept().map_err(|error| hindered("accept", &error))?;
    let receive = opcode::RecvMultiBundle::new(Fd(theirs.as_raw_fd()), buffers::GROUP).build();
    // A receive that finds no buffer left ends: one is left.
    let sent: Vec<u8> = (0..(BUFFERS - 1) * BUFFER_BYTES).map(|at| (at / 3) as u8).collect();
    let (mut buffers_used, mut completions) = (0, 0);
    for _ in 0..2 {
        ours.write_all(&sent).map_err(|error| hindered("write", &error))?;
        probed.push(receive.clone(), RECEIVE);
        let (mut heard, mut used) = (Vec::new(), Vec::new());
        while heard.len() < sent.len() {
            let completion = probed.wait_for(RECEIVE)?;
            if completion.result() < 0 {
                return Err(refused("recv", completion.result()));
            }
            completions += 1;
            let buffers = probed.needs_buffers()?;
            let mut bundle = Bundle::of(&completion);
            while let Some((buffer, length)) = bundle.next(buffers) {
                heard.extend_from_slice(buffers.bytes_mut(buffer, length));
                used.push(buffer);
            }
        }
        if heard != sent {
            return Err(other_bytes());
        }
        probed.cancel(RECEIVE)?;
        buffers_used += used.len();
        let buffers = probed.needs_buffers()?;
        used.iter().rev().for_each(|buffer| buffers.give_back(*buffer));
    }
    Ok(format!("{buffers_used} buffers in {completions} completions"))
}

/// All that is done with a connection in the process's table; its descriptor is closed by the ring, as the gateway does it.
fn ordinary_accept(probed: &mut Probed) -> Result<String, Outcome> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| hindered("listen on 127.0.0.1", &error))?;
    let address = listener.local_addr().map_err(|error| hindered("getsockname", &error))?;
    let nowhere = std::ptr::null_mut();
    let accept = opcode::Accept::new(Fd(listener.as_raw_fd()), nowhere, std::ptr::null_mut());
    probed.push(accept.flags(libc::SOCK_CLOEXEC).build(), ACCEPT);
    let mut client = TcpStream::connect(address).map_err(|error| hindered("connect to 127.0.0.1", &error))?;
    let accepted = probed.wait_for(ACCEPT)?.result();
    if accepted < 0 {
        return Err(refused("accept", accepted));
    }
    if probed.buffers.is_some() {
        let receive = opcode::Recv::new(Fd(accepted), std::ptr::null_mut(), BUFFER_BYTES as u32);
        let receive = receive.buf_group(buffers::GROUP).build().flags(squeue::Flags::BUFFER_SELECT);
        probed.push(receive, RECEIVE);
        client.write_all(b"hello").map_err(|error| hindered("write", &error))?;
        let completion = probed.wait_for(RECEIVE)?;
        let Some(buffer) = cqueue::buffer_select(completion.flags()).filter(|_| completion.result() == 5) else {
            return Err(refused("recv", completion.result().min(0)));
        };
        let buffers = probed.needs_buffers()?;
        let same = buffers.bytes_mut(buffer, 5) == b"hello";
        buffers.give_back(buffer);
        if !same {
            return Err(other_bytes());
        }
    }
    let send = opcode::Send::new(Fd(accepted), FAREWELL.as_ptr(), FAREWELL.len() as u32).flags(libc::MSG_NOSIGNAL);
    farewell(probed, client, send.build(), opcode::Close::new(Fd(accepted)).build())?;
    Ok("accepted, received, sent and closed as linked operations".to_owned())
}

const FAREWELL: &[u8] = b"bye";

/// Sends [`FAREWELL`] and closes as linked operations, and looks whether it has come at the other end.
fn farewell(
    probed: &mut Probed,
    mut client: TcpStream,
    send: squeue::Entry,
    close: squeue::Entry,
) -> Result<(), Outcome> {
    probed.push(send.flags(squeue::Flags::IO_HARDLINK), SEND);
    probed.push(close, CLOSE);
    match probed.wait_for(CLOSE)?.result() {
        0 => {}
        error => return Err(refused("close", error)),
    }
    let mut heard = Vec::new();
    let read = client.set_read_timeout(Some(PATIENCE)).and_then(|()| client.read_to_end(&mut heard));
    read.map_err(|error| failed("a linked send and close: read at the other end", &error))?;
    if heard != FAREWELL {
        return Err(Outcome::Fails("a linked send and close: nothing was sent before the close".to_owned()));
    }
    Ok(())
}

fn direct_accept(probed: &mut Probed) -> Result<String, Outcome> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| hindered("listen on 127.0.0.1", &error))?;
    let address = listener.local_addr().map_err(|error| hindered("getsockname", &error))?;
    let nowhere = std::ptr::null_mut();
    let accept = opcode::Accept::new(Fd(listener.as_raw_fd()), nowhere, std::ptr::null_mut())
        .file_index(Some(DestinationSlot::auto_target()))
        .build();
    probed.push(accept, ACCEPT);
    let mut client = TcpStream::connect(address).map_err(|error| hindered("connect to 127.0.0.1", &error))?;
    let slot = probed.wait_for(ACCEPT)?.result();
    let slot = u32::try_from(slot).map_err(|_| refused("accept", slot))?;
    if probed.buffers.is_some() {
        let receive = opcode::RecvMulti::new(Fixed(slot), buffers::GROUP).build();
        probed.push(receive, RECEIVE);
        client.write_all(b"hello").map_err(|error| hindered("write", &error))?;
        match probed.wait_for(RECEIVE)?.result() {
            5 => probed.cancel(RECEIVE)?,
            result => return Err(refused("recv on a slot", result.min(0))),
        }
    }
    // As connections beyond a limit are told so: nobody waits for the send before the close.
    let send = opcode::Send::new(Fixed(slot), FAREWELL.as_ptr(), FAREWELL.len() as u32).flags(libc::MSG_NOSIGNAL);
    farewell(probed, client, send.build(), opcode::Close::new(Fixed(slot)).build())?;
    Ok("accepted into a slot, received, sent and closed as linked operations".to_owned())
}

/// Two rings of the bell must be two completions of one poll.
fn doorbell(probed: &mut Probed) -> Result<String, Outcome> {
    let bell = Bell::new().map_err(|error| Outcome::Untried(format!("not tried: {error}")))?;
    let poll = opcode::PollAdd::new(Fd(bell.as_fd().as_raw_fd()), libc::POLLIN as u32).multi(true).build();
    probed.push(poll, BELL);
    for _ in 0..2 {
        bell.wake();
        let completion = probed.wait_for(BELL)?;
        if completion.result() < 0 {
            return Err(refused("poll", completion.result()));
        }
        if !cqueue::more(completion.flags()) {
            return Err(Outcome::Fails("the poll did not stay armed".to_owned()));
        }
    }
    probed.cancel(BELL)?;
    Ok("woke twice from one poll".to_owned())
}

const RECEIVE: u64 = 1;
const CANCEL: u64 = 2;
const ACCEPT: u64 = 3;
const CLOSE: u64 = 4;
const SEND: u64 = 5;
const BELL: u64 = 6;

impl Probed {
    fn push(&mut self, entry: squeue::Entry, operation: u64) {
        self.ring.push(&entry.user_data(operation), &self.metrics);
    }

    /// Ends an armed operation, and has seen the last of it.
    fn cancel(&mut self, operation: u64) -> Result<(), Outcome> {
        self.push(opcode::AsyncCancel::new(operation).build(), CANCEL);
        let (mut cancelled, mut ended) = (false, false);
        while !(cancelled && ended) {
            let completion = self.next_completion()?;
            match completion.user_data() {
                CANCEL if completion.result() < 0 => return Err(refused("cancel", completion.result())),
                CANCEL => cancelled = true,
                data => ended |= data == operation && !cqueue::more(completion.flags()),
            }
        }
        Ok(())
    }

    /// The next completion of an operation; those of others are of no interest by then.
    fn wait_for(&mut self, operation: u64) -> Result<cqueue::Entry, Outcome> {
        loop {
            let completion = self.next_completion()?;
            if completion.user_data() == operation {
                return Ok(completion);
            }
        }
    }

    fn next_completion(&mut self) -> Result<cqueue::Entry, Outcome> {
        let deadline = Instant::now() + PATIENCE;
        let mut completions = Vec::with_capacity(16);
        loop {
            if let Some(next) = self.completions.pop_front() {
                return Ok(next);
            }
            if Instant::now() >= deadline {
                return Err(Outcome::Fails(format!("no completion within {} s", PATIENCE.as_secs())));
            }
            self.ring.enter_and_wait(Duration::from_millis(100), &self.metrics);
            self.ring.completions(&mut completions, &self.metrics);
            self.completions.extend(completions.drain(..));
        }
    }

    /// Provided buffers, for who cannot do without.
    fn needs_buffers(&mut self) -> Result<&mut Buffers, Outcome> {
        self.buffers.as_mut().ok_or_else(|| Outcome::Untried("not tried: there is no buffer ring".to_owned()))
    }
}

/// The ring did not do it.
fn failed(call: &str, error: &io::Error) -> Outcome {
    Outcome::Fails(kernel::explain(call, error))
}

/// The same, by the result of a completion.
fn refused(call: &str, result: i32) -> Outcome {
    failed(call, &io::Error::from_raw_os_error(-result))
}

fn other_bytes() -> Outcome {
    Outcome::Fails("other bytes came back than were sent".to_owned())
}

/// Something else stood in the way: no loopback in this namespace, no descriptor left.
fn hindered(call: &str, error: &io::Error) -> Outcome {
    Outcome::Untried(format!("not tried: {call}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_does_what_the_gateway_needs() {
        let probes = probe();
        // Where direct descriptors are not used, an accept is tried, too.
        assert!(probes.iter().any(|probe| probe.name == "ordinary accept" && !probe.direct));
        for probe in probes {
            assert!(matches!(probe.outcome, Outcome::Works(_)), "{probe:?}");
        }
    }
}
