//! The bare ring: multishot accept and receive on direct descriptors, provided buffers, one batch of sends a turn.
#![allow(unsafe_code, reason = "a ring without the safety that ringgate's own adds")]

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::register::Restriction;
use io_uring::types::{BufRingEntry, Fd, Fixed};
use io_uring::{IoUring, cqueue, opcode, squeue};

use rustls::{ServerConfig, ServerConnection};

use crate::exchange::{Exchange, Outgoing};
use crate::tls;

const ACCEPT: u64 = 1 << 32;
const RECV: u64 = 2 << 32;
const SEND: u64 = 3 << 32;
const CLOSE: u64 = 4 << 32;
const BUFFERS: u16 = 1024;
const BUFFER_BYTES: usize = 4096;

/// What is tried out beside the ring as ringgate uses it.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Variant {
    /// Send without copying (SEND_ZC) what has at least so many bytes.
    #[arg(long, value_name = "BYTES")]
    send_zc: Option<usize>,
    /// TCP_NOTSENT_LOWAT of all sockets.
    #[arg(long, value_name = "BYTES")]
    notsent_lowat: Option<i32>,
    /// A ring without the array of indices (IORING_SETUP_NO_SQARRAY).
    #[arg(long)]
    no_sqarray: bool,
    /// Completions are worked off on any way out of the kernel (COOP_TASKRUN) instead of when they are asked for.
    #[arg(long)]
    coop_taskrun: bool,
    /// One receive may fill several buffers (IORING_RECVSEND_BUNDLE).
    #[arg(long)]
    recv_bundles: bool,
    /// Send out of memory that is registered with the ring (WRITE_FIXED).
    #[arg(long)]
    registered_buffers: bool,
    /// A ring that takes the operations it needs and no others (restrictions).
    #[arg(long)]
    restricted: bool,
}

#[derive(Default)]
struct Socket {
    receiving: bool,
    ended: bool,
    sending: Option<Outgoing>,
    sent: usize,
    /// Result of a send without copying whose memory the kernel still uses.
    sent_zc: Option<i32>,
    tls: Option<Box<ServerConnection>>,
    /// Registered buffer that is being sent.
    registered: Option<usize>,
}

struct Server {
    ring: IoUring,
    sockets: Vec<Socket>,
    exchange: Exchange,
    tls: Option<Arc<ServerConfig>>,
    variant: Variant,
    buffers: *mut u8,
    /// For bundles: the buffers in the order in which the kernel takes them, and the place of each.
    order: Vec<u16>,
    places: Vec<u16>,
    registered: Option<Registered>,
    tail: u16,
}

/// Serves until the process is ended.
pub(super) fn serve(
    listener: &TcpListener,
    connections: u32,
    tls: Option<Arc<ServerConfig>>,
    variant: Variant,
) -> io::Result<()> {
    if let Some(bytes) = variant.notsent_lowat {
        // Accepted sockets inherit it.
        socket2::SockRef::from(listener).set_tcp_notsent_lowat(bytes as u32)?;
    }
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_submit_all().setup_cqsize(16_384);
    if variant.coop_taskrun {
        builder.setup_coop_taskrun();
    } else {
        builder.setup_defer_taskrun();
    }
    if variant.no_sqarray {
        builder.setup_no_sqarray();
    }
    if variant.restricted {
        builder.setup_r_disabled();
    }
    let ring = builder.build(4096)?;
    ring.submitter().register_files_sparse(connections)?;
    let map = allocate(usize::from(BUFFERS) * (BUFFER_BYTES + size_of::<BufRingEntry>()))?;
    // SAFETY: page-aligned, large enough for the entries, and never unmapped.
    unsafe { ring.submitter().register_buf_ring_with_flags(map as u64, BUFFERS, 0, 0) }?;
    let registered = variant.registered_buffers.then(|| Registered::new(&ring)).transpose()?;
    if variant.restricted {
        restrict(&ring)?;
    }
    let sockets = (0..connections).map(|_| Socket::default()).collect();
    let mut server = Server {
        ring,
        sockets,
        exchange: Exchange::new(),
        tls,
        variant,
        buffers: map,
        order: vec![0; usize::from(BUFFERS)],
        places: vec![0; usize::from(BUFFERS)],
        registered,
        tail: 0,
    };
    for buffer in 0..BUFFERS {
        server.give_back(buffer);
    }
    let accept = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).allocate_file_index(true);
    server.push(accept.build().user_data(ACCEPT));
    let mut completions: Vec<cqueue::Entry> = Vec::with_capacity(4096);
    loop {
        server.ring.submit_and_wait(1)?;
        completions.extend(server.ring.completion().take(4096));
        for completion in completions.drain(..) {
            server.on_completion(&completion)?;
        }
        server.send_all();
    }
}

/// Fresh memory that is never given back.
fn allocate(bytes: usize) -> io::Result<*mut u8> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
    // SAFETY: a fresh anonymous mapping; it is never unmapped.
    let map = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if map == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(map.cast()) }
}

/// From here on the ring takes these operations, and the flags that they are used with.
fn restrict(ring: &IoUring) -> io::Result<()> {
    let operations = [
        opcode::AcceptMulti::CODE,
        opcode::RecvMulti::CODE,
        opcode::Send::CODE,
        opcode::WriteFixed::CODE,
        opcode::Close::CODE,
    ];
    let mut restrictions = Vec::from(operations.map(Restriction::sqe_op));
    let flags = squeue::Flags::FIXED_FILE | squeue::Flags::BUFFER_SELECT;
    restrictions.push(Restriction::sqe_flags_allowed(flags.bits()));
    ring.submitter().register_restrictions(&mut restrictions)?;
    ring.submitter().register_enable_rings()
}

/// Memory that is registered with the ring, in buffers of one size.
struct Registered {
    memory: *mut u8,
    free: Vec<usize>,
}

const REGISTERED_BUFFERS: usize = 1024;
const REGISTERED_BUFFER_BYTES: usize = 16 * 1024;

impl Registered {
    fn new(ring: &IoUring) -> io::Result<Self> {
        let memory = allocate(REGISTERED_BUFFERS * REGISTERED_BUFFER_BYTES)?;
        let all = libc::iovec { iov_base: memory.cast(), iov_len: REGISTERED_BUFFERS * REGISTERED_BUFFER_BYTES };
        // SAFETY: the mapping is never unmapped.
        unsafe { ring.submitter().register_buffers(&[all]) }?;
        Ok(Registered { memory, free: (0..REGISTERED_BUFFERS).collect() })
    }

    /// Copies bytes into a free buffer: its number, and where it lies.
    fn take(&mut self, bytes: &[u8]) -> Option<(usize, *const u8)> {
        if bytes.len() > REGISTERED_BUFFER_BYTES {
            return None;
        }
        let index = self.free.pop()?;
        // SAFETY: inside the mapping; nobody uses a free buffer, and the bytes fit.
        let place = unsafe {
            let place = self.memory.add(index * REGISTERED_BUFFER_BYTES);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len());
            place
        };
        Some((index, place))
    }
}

impl Server {
    fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: sends point into `Socket::sending`, which stays until the completion; the rest points nowhere.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            let _ = self.ring.submit();
        }
    }

    fn give_back(&mut self, buffer: u16) {
        let index = usize::from(self.tail % BUFFERS);
        if self.variant.recv_bundles {
            self.order[index] = buffer;
            self.places[usize::from(buffer)] = index as u16;
        }
        // SAFETY: inside the mapping; entries and buffers do not overlap, and the kernel reads the tail only.
        unsafe {
            let entry = &mut *self.buffers.cast::<BufRingEntry>().add(index);
            entry.set_addr(self.buffer(buffer) as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(buffer);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(self.buffers.cast::<BufRingEntry>());
            (*tail.cast::<AtomicU16>()).store(self.tail, Ordering::Release);
        }
    }

    fn buffer(&self, buffer: u16) -> *mut u8 {
        let entries = usize::from(BUFFERS) * size_of::<BufRingEntry>();
        // SAFETY: buffers follow the entries in the mapping.
        unsafe { self.buffers.add(entries + usize::from(buffer) * BUFFER_BYTES) }
    }

    fn receive(&mut self, slot: u32) {
        self.sockets[slot as usize].receiving = true;
        let entry = if self.variant.recv_bundles {
            opcode::RecvMultiBundle::new(Fixed(slot), 0).build()
        } else {
            opcode::RecvMulti::new(Fixed(slot), 0).build()
        };
        self.push(entry.user_data(RECV | u64::from(slot)));
    }

    fn on_completion(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        let (operation, slot) = (completion.user_data() & !0xffff_ffff, completion.user_data() as u32);
        let result = completion.result();
        match operation {
            ACCEPT if result < 0 => return Err(io::Error::from_raw_os_error(-result)),
            ACCEPT => {
                let tls = self.tls.as_ref().map(tls::accept).transpose()?;
                self.sockets[result as usize] = Socket { tls, ..Socket::default() };
                self.exchange.opened(result as usize);
                self.receive(result as u32);
            }
            RECV => self.on_received(slot, completion),
            SEND if cqueue::notif(completion.flags()) => {
                let result = self.sockets[slot as usize].sent_zc.take().unwrap_or(result);
                self.on_sent(slot, result);
            }
            // Another follows when the kernel has done with the memory.
            SEND if cqueue::more(completion.flags()) => self.sockets[slot as usize].sent_zc = Some(result),
            SEND => self.on_sent(slot, result),
            _ => {}
        }
        Ok(())
    }

    fn on_received(&mut self, slot: u32, completion: &cqueue::Entry) {
        let result = completion.result();
        let mut rest = result.max(0) as usize;
        let mut next = cqueue::buffer_select(completion.flags());
        while let Some(buffer) = next {
            let length = rest.min(BUFFER_BYTES);
            rest -= length;
            // A bundle goes on in the buffers that come next in the ring.
            next = (rest > 0).then(|| {
                let place = usize::from(self.places[usize::from(buffer)]) + 1;
                self.order[place % usize::from(BUFFERS)]
            });
            self.on_bytes(slot, buffer, length);
            self.give_back(buffer);
        }
        if !cqueue::more(completion.flags()) {
            self.sockets[slot as usize].receiving = false;
            if result == 0 || (result < 0 && -result != libc::ENOBUFS) {
                self.sockets[slot as usize].ended = true;
                self.close(slot);
            } else {
                self.receive(slot);
            }
        }
    }

    fn on_bytes(&mut self, slot: u32, buffer: u16, length: usize) {
        // SAFETY: the kernel has filled so many bytes and does not touch them until they are given back.
        let bytes = unsafe { std::slice::from_raw_parts(self.buffer(buffer), length) };
        match &mut self.sockets[slot as usize].tls {
            None => self.exchange.received(slot as usize, bytes),
            Some(tls) => {
                // What is wrong with it shows in the driver's report.
                let plaintext = tls::open(tls, bytes).unwrap_or_default();
                self.exchange.received(slot as usize, &plaintext);
                self.exchange.mark(slot as usize);
            }
        }
    }

    fn on_sent(&mut self, slot: u32, result: i32) {
        let socket = &mut self.sockets[slot as usize];
        if let Some(registered) = &mut self.registered {
            registered.free.extend(socket.registered.take());
        }
        let Some(sending) = socket.sending.take() else { return };
        socket.sent += result.max(0) as usize;
        let wanted = sending.shared.as_ref().map_or(sending.bytes.len(), |shared| shared.len());
        if result > 0 && socket.sent < wanted {
            return self.send(slot, sending);
        }
        socket.sent = 0;
        if socket.ended {
            return self.close(slot);
        }
        if sending.shared.is_some() && !sending.bytes.is_empty() {
            return self.send(slot, Outgoing { shared: None, bytes: sending.bytes });
        }
        self.exchange.recycle(slot as usize, sending.bytes);
        let next = self.take(slot as usize);
        if next.shared.is_some() || !next.bytes.is_empty() {
            self.send(slot, next);
        } else {
            self.exchange.recycle(slot as usize, next.bytes);
        }
    }

    fn send_all(&mut self) {
        let mut dirty = std::mem::take(&mut self.exchange.dirty);
        for slot in dirty.drain(..) {
            let socket = &self.sockets[slot];
            if socket.sending.is_some() || socket.ended {
                continue;
            }
            let outgoing = self.take(slot);
            if outgoing.shared.is_some() || !outgoing.bytes.is_empty() {
                self.send(slot as u32, outgoing);
            }
        }
        self.exchange.dirty = dirty;
    }

    /// What is to be sent on a socket now, as it goes over the wire.
    fn take(&mut self, slot: usize) -> Outgoing {
        let outgoing = self.exchange.take(slot);
        match &mut self.sockets[slot].tls {
            None => outgoing,
            Some(tls) => tls::seal(tls, outgoing).unwrap_or_default(),
        }
    }

    fn send(&mut self, slot: u32, outgoing: Outgoing) {
        let sent = self.sockets[slot as usize].sent;
        let bytes: &[u8] = outgoing.shared.as_ref().map_or(&outgoing.bytes, |shared| shared);
        let rest = &bytes[sent..];
        let (pointer, length, flags) = (rest.as_ptr(), rest.len() as u32, libc::MSG_NOSIGNAL | libc::MSG_WAITALL);
        let registered = self.registered.as_mut().and_then(|registered| registered.take(rest));
        let entry = if let Some((index, place)) = registered {
            self.sockets[slot as usize].registered = Some(index);
            opcode::WriteFixed::new(Fixed(slot), place, length, 0).build()
        } else if self.variant.send_zc.is_some_and(|bytes| rest.len() >= bytes) {
            opcode::SendZc::new(Fixed(slot), pointer, length).flags(flags).build()
        } else {
            opcode::Send::new(Fixed(slot), pointer, length).flags(flags).build()
        };
        let entry = entry.user_data(SEND | u64::from(slot));
        self.sockets[slot as usize].sending = Some(outgoing);
        self.push(entry);
    }

    fn close(&mut self, slot: u32) {
        let socket = &self.sockets[slot as usize];
        if socket.receiving || socket.sending.is_some() {
            return;
        }
        self.exchange.closed(slot as usize);
        self.push(opcode::Close::new(Fixed(slot)).build().user_data(CLOSE | u64::from(slot)));
    }
}
