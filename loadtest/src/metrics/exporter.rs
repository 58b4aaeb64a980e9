//! `--metrics-listen`: what this load tester knows while it runs, as OpenMetrics text over HTTP.
//!
//! One request at a time, each with a deadline: there are few clients, and a slow one must not disturb the run.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::plan::Tally;
use crate::record::{Measure, Names, Record, Series};

/// How long a request may take to come, and its answer to be read.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Longest request: a line and a few headers.
const REQUEST_BYTES_MAX: usize = 8 << 10;
/// How often the thread looks for a request, and whether the run is over.
const PAUSE: Duration = Duration::from_millis(20);
const PERCENTILES: [f64; 5] = [0.5, 0.9, 0.95, 0.99, 0.999];
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers requests until it is dropped.
pub(crate) struct Exporter {
    text: Arc<Mutex<String>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Exporter {
    /// Opens the port, and says on standard error where that is. The error names it.
    pub(crate) fn listen(address: &str) -> Result<Exporter, String> {
        let error = |error: std::io::Error| {
            format!("--metrics-listen {address}: {error}; HOST:PORT of this machine is wanted, such as 127.0.0.1:9100")
        };
        let listener = TcpListener::bind(address).map_err(error)?;
        listener.set_nonblocking(true).map_err(error)?;
        let local = listener.local_addr().map_err(error)?;
        crate::console::note(&format!("metrics of this load tester: http://{local}/metrics"));
        let (text, stop) = (Arc::new(Mutex::new("# EOF\n".to_owned())), Arc::new(AtomicBool::new(false)));
        let (shown, stopped) = (text.clone(), stop.clone());
        let serve = move || serve(&listener, &shown, &stopped);
        let thread = std::thread::Builder::new().name("metrics-listen".to_owned()).spawn(serve).map_err(error)?;
        Ok(Exporter { text, stop, thread: Some(thread) })
    }

    /// What is answered from now on: the counts, and the latencies of the run so far.
    pub(crate) fn show(&self, phase: &str, tally: &Tally, record: &Record, names: &Names) {
        let text = render(phase, tally, record, names);
        if let Ok(mut shown) = self.text.lock() {
            *shown = text;
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(listener: &TcpListener, text: &Mutex<String>, stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        match listener.accept() {
            // A client that leaves early gets no answer, which concerns no other client.
            Ok((stream, _)) => drop(answer(stream, text)),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

fn answer(mut stream: TcpStream, text: &Mutex<String>) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    let deadline = Instant::now() + TIMEOUT;
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || request.len() > REQUEST_BYTES_MAX {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => request.extend(chunk.iter().take(count)),
        }
    }
    let (status, kind, body) = if request.starts_with(b"GET /metrics ") || request.starts_with(b"GET /metrics?") {
        ("200 OK", CONTENT_TYPE, text.lock().map(|text| text.clone()).unwrap_or_default())
    } else {
        ("404 Not Found", "text/plain", "GET /metrics\n".to_owned())
    };
    stream.set_write_timeout(Some(TIMEOUT))?;
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}

/// The text. Times are seconds, as OpenMetrics wants them; quantiles are those of the run so far, warm-ups left out.
fn render(phase: &str, tally: &Tally, record: &Record, names: &Names) -> String {
    let mut out = String::new();
    let mut family = |name: &str, kind: &str, help: &str, value: u64| {
        let total = if kind == "counter" { "_total" } else { "" };
        let _ = write!(
            out,
            "# TYPE ringgate_loadtest_{name} {kind}\n# HELP ringgate_loadtest_{name} {help}\nringgate_loadtest_{name}{total} {value}\n"
        );
    };
    family("connections", "gauge", "Signed in now.", tally.connections);
    family("connecting", "gauge", "Connects under way.", tally.connecting);
    family("published", "counter", "Messages sent.", tally.sent);
    family("accepted", "counter", "Messages answered with Published.", tally.accepted);
    family("delivered", "counter", "Messages that arrived, counted at each recipient.", tally.delivered);
    let answered = tally.accepted + tally.refused + tally.undecided;
    family("unanswered", "gauge", "Messages whose answer may still come.", tally.sent.saturating_sub(answered));
    let undelivered = tally.owed.saturating_sub(tally.delivered);
    family("undelivered", "gauge", "Deliveries of accepted messages that have not come.", undelivered);
    family("refused", "counter", "Messages answered with Error.", tally.refused);
    family("skipped", "counter", "Planned for clients that were not connected.", tally.skipped + tally.churns_skipped);
    family("pings", "counter", "Pings sent.", tally.pings);
    family("pongs", "counter", "Pongs.", tally.pongs);
    family("closed", "counter", "Connections that ended unasked, or were not made.", tally.closed);
    family("reconnects", "counter", "Clients that signed in again.", tally.reconnects);
    family("errors", "counter", "Everything that went wrong.", tally.errors);
    family("stall_us", "gauge", "Longest pause of a driver thread so far.", record.stall_us);
    out += "# TYPE ringgate_loadtest_phase info\n# HELP ringgate_loadtest_phase What the run is doing.\n";
    let _ = writeln!(out, "ringgate_loadtest_phase_info{{phase=\"{}\"}} 1", escape(phase));
    out += "# TYPE ringgate_loadtest_latency_seconds summary\n# UNIT ringgate_loadtest_latency_seconds seconds\n\
            # HELP ringgate_loadtest_latency_seconds From the planned time, by stream or population.\n";
    for measure in Measure::ALL {
        for name in names.all() {
            let series: Vec<Series> = names.of(name).collect();
            let latency = record.of_those(measure, |other| series.contains(&other));
            let histogram = &latency.planned;
            if histogram.is_empty() {
                continue;
            }
            let labels = format!("measure=\"{}\",name=\"{}\"", measure.label(), escape(name));
            for share in PERCENTILES {
                let seconds = histogram.value_at_quantile(share) as f64 / 1e6;
                let _ = writeln!(out, "ringgate_loadtest_latency_seconds{{{labels},quantile=\"{share}\"}} {seconds}");
            }
            let (count, sum) = (histogram.len(), histogram.mean() * histogram.len() as f64 / 1e6);
            let _ = writeln!(out, "ringgate_loadtest_latency_seconds_count{{{labels}}} {count}");
            let _ = writeln!(out, "ringgate_loadtest_latency_seconds_sum{{{labels}}} {sum}");
        }
    }
    out + "# EOF\n"
}

/// The value of a label.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::openmetrics::parse;
    use super::*;

    fn example() -> String {
        let mut record = Record::default();
        (1..=100).for_each(|ms| record.record(Measure::Deliver, Series::Stream(1), 0, 0, ms * 1000));
        let tally = Tally { sent: 7, accepted: 5, owed: 9, delivered: 8, ..Tally::default() };
        render("a \"b\"", &tally, &record, &Names::single("p2p", Some(false)))
    }

    #[test]
    fn run_has_counts_and_latencies_then_they_are_openmetrics_text() {
        let text = example();
        let families = parse(&text).unwrap();
        let sample = |family: &str, label: Option<(&str, &str)>| {
            let family = families.iter().find(|other| other.name == format!("ringgate_loadtest_{family}")).unwrap();
            let is_it = |labels: &[(String, String)]| {
                label.is_none_or(|(name, value)| labels.iter().any(|(own, of)| own == name && of == value))
            };
            family.samples.iter().find(|sample| is_it(&sample.labels)).unwrap().value
        };
        assert_eq!(
            (sample("published", None), sample("unanswered", None), sample("undelivered", None)),
            (7.0, 2.0, 1.0)
        );
        let p99 = sample("latency_seconds", Some(("quantile", "0.99")));
        assert!((p99 - 0.099).abs() < 0.001, "{p99}");
        assert_eq!(sample("phase", Some(("phase", "a \"b\""))), 1.0);
        assert!(
            text.contains("latency_seconds_count{measure=\"deliver\",name=\"p2p\"} 100\n") && text.ends_with("# EOF\n")
        );
    }

    #[test]
    fn requests_come_then_each_is_answered_and_the_port_is_free_afterwards() {
        let exporter = Exporter::listen("127.0.0.1:0");
        let error = Exporter::listen("nowhere").map(|_| ()).unwrap_err();
        assert!(error.contains("--metrics-listen nowhere: ") && error.contains("HOST:PORT"), "{error}");
        drop(exporter.unwrap());
        // Ended threads have given their ports back: the same one can be had again.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for _ in 0..2 {
            let exporter = Exporter::listen(&port.to_string()).unwrap();
            exporter.show("steady", &Tally::default(), &Record::default(), &Names::default());
            for (path, says) in [("/metrics", "phase=\"steady\""), ("/", "404 Not Found")] {
                let mut stream = TcpStream::connect(port).unwrap();
                write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                assert!(answer.contains(says), "{answer}");
            }
        }
    }
}
