//! Counts the instructions that a thread of a running process executes in user space.
//!
//! Counters of the processor where the system lends them (`perf_event_open`); elsewhere, as on most virtual machines,
//! the thread is stepped one instruction at a time (`ptrace`), which takes some microseconds each. A stepped thread has
//! more waiting for it in every turn than one at full speed; other threads are not touched.
//!
//!     ringgate-instructions TID
//!
//! says how it counts as soon as it does, counts until it is interrupted (SIGINT), and then prints the number.
#![allow(unsafe_code, reason = "none of these system calls has a safe wrapper in std")]

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Parser;

/// Counts the instructions that a thread executes in user space.
#[derive(Parser)]
#[command(name = "ringgate-instructions", version, about)]
struct Options {
    /// The thread: a number in /proc/PID/task.
    thread: i32,
    /// Step, even where the processor could count.
    #[arg(long)]
    step: bool,
    /// Write how often each instruction was executed, a line each: its address in the program's file and the number.
    /// Steps.
    #[arg(long, value_name = "FILE")]
    addresses: Option<PathBuf>,
}

/// The end has been asked for.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn interrupt(_: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

fn main() -> ExitCode {
    let options = Options::parse();
    // SAFETY: all zeros is a valid structure; the handler only stores. Without SA_RESTART, waits end with EINTR.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = interrupt as *const () as usize;
        libc::sigaction(libc::SIGINT, &raw const action, std::ptr::null_mut());
    }
    let counted = if options.step || options.addresses.is_some() {
        Err(io::ErrorKind::Unsupported.into())
    } else {
        by_counter(&options)
    };
    match counted.or_else(|_| by_steps(&options)) {
        Ok(count) => {
            println!("{count}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("ringgate-instructions: thread {}: {error}", options.thread);
            ExitCode::FAILURE
        }
    }
}

/// With the processor's own counter; the error is the system's where it lends none.
fn by_counter(options: &Options) -> io::Result<u64> {
    // Only what is not zero: `struct perf_event_attr`, version 0 (64 bytes).
    let mut attributes = [0u64; 8];
    const TYPE_HARDWARE: u64 = 0;
    attributes[0] = TYPE_HARDWARE | 64 << 32;
    const COUNT_INSTRUCTIONS: u64 = 1;
    attributes[1] = COUNT_INSTRUCTIONS;
    const EXCLUDE_KERNEL_AND_HYPERVISOR: u64 = 0b11 << 5;
    attributes[5] = EXCLUDE_KERNEL_AND_HYPERVISOR;
    // SAFETY: the structure is as large as it says, and live for the call.
    let counter = unsafe { libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), options.thread, -1, -1, 0) };
    if counter < 0 {
        return Err(io::Error::last_os_error());
    }
    println!("counting by the processor's counter");
    loop {
        std::thread::sleep(Duration::from_millis(10));
        if !INTERRUPTED.load(Ordering::Relaxed) {
            continue;
        }
        let mut count = 0u64;
        // SAFETY: the counter is eight bytes, and so is the place for it.
        let length = unsafe { libc::read(counter as i32, (&raw mut count).cast(), 8) };
        return if length == 8 { Ok(count) } else { Err(io::Error::last_os_error()) };
    }
}

/// One instruction at a time. A system call is one.
fn by_steps(options: &Options) -> io::Result<u64> {
    let thread = options.thread;
    trace(libc::PTRACE_SEIZE, thread, 0)?;
    trace(libc::PTRACE_INTERRUPT, thread, 0)?;
    stopped(thread)?;
    println!("counting by steps");
    let (mut count, mut signal) = (0, 0);
    let mut executed = HashMap::<u64, u64>::new();
    while !INTERRUPTED.load(Ordering::Relaxed) {
        if options.addresses.is_some() {
            *executed.entry(next_instruction(thread)?).or_default() += 1;
        }
        trace(libc::PTRACE_SINGLESTEP, thread, signal)?;
        let stop = match stopped(thread) {
            // It sleeps in a system call.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                trace(libc::PTRACE_INTERRUPT, thread, 0)?;
                stopped(thread)?
            }
            stop => stop?,
        };
        // A signal that is not of our making is passed on with the next step.
        (count, signal) = if stop == libc::SIGTRAP { (count + 1, 0) } else { (count, stop) };
    }
    trace(libc::PTRACE_DETACH, thread, signal)?;
    if let Some(file) = &options.addresses {
        write_addresses(file, thread, &executed)?;
    }
    Ok(count)
}

/// The address of the instruction that a stopped thread executes next.
#[cfg(target_arch = "x86_64")]
fn next_instruction(thread: i32) -> io::Result<u64> {
    let mut registers = std::mem::MaybeUninit::<libc::user_regs_struct>::uninit();
    // SAFETY: the structure is what this request writes.
    match unsafe {
        libc::ptrace(libc::PTRACE_GETREGS, thread, std::ptr::null_mut::<libc::c_void>(), registers.as_mut_ptr())
    } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the request succeeded, so that every field is written.
        _ => Ok(unsafe { registers.assume_init() }.rip),
    }
}

/// Registers have other names elsewhere.
#[cfg(not(target_arch = "x86_64"))]
fn next_instruction(_: i32) -> io::Result<u64> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "--addresses is for x86_64"))
}

/// `FILE ADDRESS COUNT`, a line for each address: the mapped file, and where in its image.
fn write_addresses(path: &Path, thread: i32, executed: &HashMap<u64, u64>) -> io::Result<()> {
    let maps = fs::read_to_string(format!("/proc/{thread}/maps"))?;
    let mut images: Vec<(u64, u64, &str)> = Vec::new();
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let range = fields.next().and_then(|range| range.split_once('-'));
        let Some((start, end)) = range
            .and_then(|(start, end)| Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?)))
        else {
            continue;
        };
        let Some(file) = fields.nth(4) else { continue };
        match images.last_mut() {
            Some(last) if last.2 == file => last.1 = end,
            _ => images.push((start, end, file)),
        }
    }
    let mut out = io::BufWriter::new(fs::File::create(path)?);
    for (address, count) in executed {
        match images.iter().find(|(start, end, _)| (*start..*end).contains(address)) {
            Some((start, _, file)) => writeln!(out, "{file} {:#x} {count}", address - start)?,
            None => writeln!(out, "? {address:#x} {count}")?,
        }
    }
    out.flush()
}

fn trace(request: libc::c_uint, thread: i32, data: i32) -> io::Result<()> {
    // SAFETY: none of the requests that are made reads or writes memory of this process.
    match unsafe { libc::ptrace(request, thread, std::ptr::null_mut::<libc::c_void>(), data as usize) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Waits until the thread stops; the signal that stopped it.
fn stopped(thread: i32) -> io::Result<i32> {
    let mut status = 0;
    // SAFETY: the status is live for the call.
    if unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL) } < 0 {
        return Err(io::Error::last_os_error());
    }
    if libc::WIFSTOPPED(status) {
        return Ok(libc::WSTOPSIG(status));
    }
    Err(io::Error::other("the thread has ended"))
}
