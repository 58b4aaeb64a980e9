//! The bare epoll loop: level-triggered, one read a ready socket, writes at the end of the turn.
#![allow(unsafe_code, reason = "epoll has no safe wrapper in std")]

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};

use crate::exchange::Exchange;

/// Serves until the process is ended.
pub(super) fn serve(listener: &TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    // SAFETY: takes no pointers; the result is checked.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if epoll < 0 {
        return Err(io::Error::last_os_error());
    }
    let own = listener.as_raw_fd();
    watch(epoll, own, libc::EPOLLIN)?;
    let mut sockets: HashMap<RawFd, (TcpStream, Vec<u8>)> = HashMap::new();
    let mut exchange = Exchange::new();
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 4096];
    let mut buffer = vec![0; 64 * 1024];
    loop {
        // SAFETY: the array is live and as long as it says.
        let count = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), events.len() as i32, -1) };
        for event in events.iter().take(count.max(0) as usize) {
            let fd = event.u64 as RawFd;
            if fd == own {
                while let Ok((socket, _)) = listener.accept() {
                    socket.set_nonblocking(true)?;
                    exchange.opened(socket.as_raw_fd() as usize);
                    watch(epoll, socket.as_raw_fd(), libc::EPOLLIN)?;
                    sockets.insert(socket.as_raw_fd(), (socket, Vec::new()));
                }
                continue;
            }
            let Some((socket, _)) = sockets.get_mut(&fd) else { continue };
            match socket.read(&mut buffer) {
                Ok(length) if length > 0 => exchange.received(fd as usize, &buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => {
                    exchange.closed(fd as usize);
                    sockets.remove(&fd);
                }
            }
        }
        let mut dirty = std::mem::take(&mut exchange.dirty);
        for index in dirty.drain(..) {
            let outgoing = exchange.take(index);
            let Some((socket, unsent)) = sockets.get_mut(&(index as RawFd)) else { continue };
            if let Some(shared) = &outgoing.shared {
                write(socket, unsent, shared);
            }
            write(socket, unsent, &outgoing.bytes);
            exchange.recycle(index, outgoing.bytes);
        }
        exchange.dirty = dirty;
    }
}

/// What the kernel does not take now waits for the next write to this socket: enough for a closed loop.
fn write(socket: &mut TcpStream, unsent: &mut Vec<u8>, bytes: &[u8]) {
    if !unsent.is_empty() {
        unsent.extend_from_slice(bytes);
        let written = socket.write(unsent).unwrap_or(0);
        unsent.drain(..written);
    } else if !bytes.is_empty() {
        let written = socket.write(bytes).unwrap_or(0);
        unsent.extend_from_slice(&bytes[written..]);
    }
}

fn watch(epoll: RawFd, fd: RawFd, events: i32) -> io::Result<()> {
    let mut event = libc::epoll_event { events: events as u32, u64: fd as u64 };
    // SAFETY: the event is live for the call.
    match unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
