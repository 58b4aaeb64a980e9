//! Where log lines go: through a bounded queue to a thread of its own, which writes them to standard error.
//!
//! A thread that logs never waits and never fails: a line that finds the queue full is dropped, a line that cannot be written (a
//! full disk, a pipe that nobody reads any more) is lost, and both are counted. Neither ends the gateway.
//!
//! Characters that change how a terminal or a log viewer shows the rest of a line are escaped here, in one place for every
//! field: names come from clients and may hold them.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait to be written; a line has a few hundred bytes.
pub const LINES_WAITING_MAX: usize = 16_384;

/// How long the end of the process waits for lines that are still queued.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// What became of log lines.
#[derive(Debug, Default)]
pub struct Counts {
    written: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

impl Counts {
    /// None yet.
    pub const fn new() -> Counts {
        Counts { written: AtomicU64::new(0), failed: AtomicU64::new(0), dropped: AtomicU64::new(0) }
    }

    /// A line of this process could not be written.
    pub fn count_failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    /// Outcomes as metric labels, and how many lines each had.
    pub fn read(&self) -> [(&'static str, u64); 3] {
        [
            ("written", self.written.load(Relaxed)),
            ("failed", self.failed.load(Relaxed)),
            ("dropped", self.dropped.load(Relaxed)),
        ]
    }
}

/// Those of this process, which has one log.
pub static COUNTS: Counts = Counts::new();

enum Job {
    Line(Vec<u8>),
    /// Everything before it was written, or could not be.
    Flush(Sender<()>),
}

/// The way into the queue, for `tracing_subscriber`.
#[derive(Clone)]
pub struct Lines {
    jobs: Sender<Job>,
    counts: &'static Counts,
}

/// Waits for the lines that are still queued when it is dropped, a second at most.
pub struct Guard(Sender<Job>);

/// Starts the thread. `json` says how a character is escaped: as JSON, or as Rust does.
pub fn start(out: impl Write + Send + 'static, json: bool, counts: &'static Counts) -> io::Result<(Lines, Guard)> {
    let (jobs, queue) = bounded(LINES_WAITING_MAX);
    std::thread::Builder::new().name("log".to_owned()).spawn(move || write_all(&queue, out, json, counts))?;
    Ok((Lines { jobs: jobs.clone(), counts }, Guard(jobs)))
}

fn write_all(queue: &Receiver<Job>, mut out: impl Write, json: bool, counts: &Counts) {
    for job in queue {
        match job {
            Job::Line(line) => {
                let written = out.write_all(&escape(&line, json));
                if written.is_ok() { &counts.written } else { &counts.failed }.fetch_add(1, Relaxed);
            }
            Job::Flush(done) => {
                // A failure was counted with its line; the thread that waits may have gone.
                let _ = out.flush();
                let _ = done.send(());
            }
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (done, flushed) = bounded(1);
        if self.0.send_timeout(Job::Flush(done), FLUSH_TIMEOUT).is_ok() {
            // What is not written by then is lost: the process ends.
            let _ = flushed.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { to: self, bytes: Vec::new() }
    }
}

/// One line, queued when it is dropped.
pub struct Line<'a> {
    to: &'a Lines,
    bytes: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        // The queue is full, or its thread has ended: neither may hold a shard up.
        if self.to.jobs.try_send(Job::Line(core::mem::take(&mut self.bytes))).is_err() {
            self.to.counts.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// Whether a character changes how what stands around it is shown: controls above ASCII, marks and overrides of direction,
/// separators of lines that are no line feed, and what is not seen at all.
pub fn is_disguise(c: char) -> bool {
    matches!(c, '\u{80}'..='\u{9f}' | '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The line with those characters escaped. JSON stays JSON, and its values what they were.
fn escape(line: &[u8], json: bool) -> Cow<'_, [u8]> {
    if line.is_ascii() {
        return Cow::Borrowed(line);
    }
    let Ok(text) = core::str::from_utf8(line) else { return Cow::Borrowed(line) };
    if !text.contains(is_disguise) {
        return Cow::Borrowed(line);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        // Writing into a String cannot fail. All of these have four digits: JSON needs no pairs for them.
        let _ = match c {
            c if !is_disguise(c) => escaped.write_char(c),
            c if json => write!(escaped, "\\u{:04x}", u32::from(c)),
            c => write!(escaped, "\\u{{{:x}}}", u32::from(c)),
        };
    }
    Cow::Owned(escaped.into_bytes())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver as Told, Sender as Tell, channel};
    use std::time::Instant;

    use super::*;

    /// What the log writes to: each write asks the test what becomes of it.
    struct Sink {
        wrote: Tell<Vec<u8>>,
        may: Told<io::Result<()>>,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.wrote.send(bytes.to_vec());
            self.may.recv().unwrap_or(Ok(())).map(|()| bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The test's end of it.
    struct Test {
        /// What becomes of the next write; anything goes once it is dropped.
        tell: Tell<io::Result<()>>,
        written: Told<Vec<u8>>,
    }

    fn log() -> (Lines, Guard, &'static Counts, Test) {
        let counts: &'static Counts = Box::leak(Box::default());
        let ((wrote, written), (tell, may)) = (channel(), channel());
        let (lines, guard) = start(Sink { wrote, may }, false, counts).unwrap();
        (lines, guard, counts, Test { tell, written })
    }

    fn say(lines: &Lines, text: &str) {
        lines.make_writer().write_all(text.as_bytes()).unwrap();
    }

    fn wait_for(counts: &Counts, wanted: [u64; 3]) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while counts.read().map(|(_, count)| count) != wanted {
            assert!(Instant::now() < deadline, "{:?} instead of {wanted:?}", counts.read());
            std::thread::yield_now();
        }
    }

    #[test]
    fn writing_fails_then_lines_are_counted_and_later_ones_written() {
        let (lines, guard, counts, Test { tell, written }) = log();
        for result in [Err(io::ErrorKind::StorageFull.into()), Err(io::ErrorKind::BrokenPipe.into()), Ok(())] {
            tell.send(result).unwrap();
            say(&lines, "a line\n");
        }
        drop(tell);
        drop(guard);
        wait_for(counts, [1, 2, 0]);
        assert_eq!(written.try_iter().count(), 3);
    }

    #[test]
    fn sink_stands_still_then_nobody_waits_and_lines_are_dropped() {
        let (lines, guard, counts, Test { tell, written }) = log();
        say(&lines, "first\n");
        // From here on the thread waits inside of a write.
        written.recv().unwrap();
        for _ in 0..LINES_WAITING_MAX + 5 {
            say(&lines, "next\n");
        }
        wait_for(counts, [0, 0, 5]);
        drop(tell);
        wait_for(counts, [LINES_WAITING_MAX as u64 + 1, 0, 5]);
        drop(guard);
    }

    #[test]
    fn log_thread_has_ended_then_lines_are_dropped() {
        let counts: &'static Counts = Box::leak(Box::default());
        let (jobs, queue) = bounded(4);
        drop(queue);
        let lines = Lines { jobs: jobs.clone(), counts };
        say(&lines, "nobody writes this\n");
        assert_eq!(counts.read(), [("written", 0), ("failed", 0), ("dropped", 1)]);
        // Nothing to wait for, either.
        let began = Instant::now();
        drop(Guard(jobs));
        assert!(began.elapsed() < FLUSH_TIMEOUT);
    }

    #[test]
    fn text_has_disguises_then_they_are_escaped_and_other_scripts_are_not() {
        let text = "{\"user\":\"a\u{202e}b\u{2066}c\u{200f}\u{85}\u{2028}\",\"device\":\"\u{645}\u{6cc}\u{200c}\u{62e} \u{1f468}\u{200d}\u{1f467}\"}\n";
        let escaped = escape(text.as_bytes(), true);
        assert_eq!(
            core::str::from_utf8(&escaped).unwrap(),
            "{\"user\":\"a\\u202eb\\u2066c\\u200f\\u0085\\u2028\",\"device\":\"\u{645}\u{6cc}\u{200c}\u{62e} \u{1f468}\u{200d}\u{1f467}\"}\n"
        );
        let (was, is): (serde_json::Value, serde_json::Value) =
            (serde_json::from_str(text).unwrap(), serde_json::from_slice(&escaped).unwrap());
        assert_eq!(was, is, "the value is what it was");
        assert_eq!(&*escape("user=\u{202d}x".as_bytes(), false), b"user=\\u{202d}x");
        assert!(matches!(escape("grüße 日本".as_bytes(), true), Cow::Borrowed(_)));
        // Bytes that are no text are written as they are.
        assert_eq!(&*escape(&[0xff, 0xfe], true), [0xff, 0xfe]);
    }
}
