//! The thread that asks a gateway for its metrics once a second.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::gather::Gather;
use super::openmetrics;
use super::{Live, Metrics};

/// Where metrics are: `http://HOST:PORT/metrics`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MetricsUrl(String);

impl std::str::FromStr for MetricsUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("http://").unwrap_or_default();
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if host.is_empty() || path.is_empty() || text.contains(char::is_whitespace) {
            return Err(format!("\"{text}\" is not of the form http://HOST:PORT/metrics (without TLS)"));
        }
        Ok(MetricsUrl(text.to_owned()))
    }
}

const INTERVAL: Duration = Duration::from_secs(1);
/// A scrape that takes longer has failed. A gateway under load has little time for them.
const TIMEOUT: Duration = Duration::from_secs(5);
const BODY_BYTES_MAX: u64 = 16 << 20;
/// Kinds of failures that are told apart.
const KINDS_MAX: usize = 20;

/// Asks until it is told to finish.
pub(crate) struct Scraper {
    live: Arc<Mutex<Live>>,
    finish: mpsc::Sender<()>,
    thread: JoinHandle<Metrics>,
}

impl Scraper {
    /// Asks once, to see whether metrics are there; from then on a thread asks. The error says what was wrong with the
    /// first answer.
    pub(crate) fn start(url: MetricsUrl) -> Result<Scraper, String> {
        let mut asking = Asking::new(url.0);
        asking.scrape();
        if let Some(error) = asking.failed.keys().next() {
            return Err(format!(
                "--metrics-url {}: {error}; it must be the gateway's metrics, for instance http://127.0.0.1:7480/metrics \
                 (admin.address of its configuration)",
                asking.url
            ));
        }
        let live = Arc::new(Mutex::new(asking.gather.live()));
        let (finish, finished) = mpsc::channel();
        let shown = live.clone();
        let thread = std::thread::Builder::new().name("metrics".to_owned()).spawn(move || {
            let mut next = Instant::now() + INTERVAL;
            // No message is ever sent: the wait ends early only when the sender is dropped.
            while finished.recv_timeout(next.saturating_duration_since(Instant::now()))
                == Err(mpsc::RecvTimeoutError::Timeout)
            {
                asking.scrape();
                if let Ok(mut shown) = shown.lock() {
                    *shown = asking.gather.live();
                }
                // A slow answer is not followed by a burst.
                next = (next + INTERVAL).max(Instant::now());
            }
            asking.scrape();
            asking.finish()
        });
        let thread = thread.map_err(|error| format!("the thread for --metrics-url: {error}"))?;
        Ok(Scraper { live, finish, thread })
    }

    /// What the newest scrape said.
    pub(crate) fn live(&self) -> Live {
        self.live.lock().map(|live| *live).unwrap_or_default()
    }

    /// Asks for the last time, and adds everything up.
    pub(crate) fn finish(self) -> Metrics {
        // A thread that has ended already is joined all the same.
        let _ = self.finish.send(());
        self.thread.join().unwrap_or_default()
    }
}

struct Asking {
    url: String,
    agent: ureq::Agent,
    gather: Gather,
    failed: BTreeMap<String, u64>,
    began: Option<Instant>,
}

/// Names of families are as in this format in reports.
const ACCEPT: &str = "application/openmetrics-text; version=1.0.0";

impl Asking {
    fn new(url: String) -> Asking {
        // A proxy of the environment is for the internet, and would be measured, too.
        let config = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).proxy(None).build();
        Asking { url, agent: config.into(), gather: Gather::default(), failed: BTreeMap::new(), began: None }
    }

    fn scrape(&mut self) {
        match self.ask() {
            Ok((families, at)) => {
                let began = *self.began.get_or_insert(at);
                self.gather.add(families, (at - began).as_secs_f64());
            }
            Err(error) => {
                let known = self.failed.len() < KINDS_MAX || self.failed.contains_key(&error);
                *self.failed.entry(if known { error } else { "other".to_owned() }).or_default() += 1;
            }
        }
    }

    fn ask(&self) -> Result<(Vec<openmetrics::Family>, Instant), String> {
        let mut response = self.agent.get(&self.url).header("Accept", ACCEPT).call().map_err(|error| match error {
            ureq::Error::StatusCode(status) => format!("answered with status {status}"),
            error => error.to_string(),
        })?;
        let at = Instant::now();
        let text = response.body_mut().with_config().limit(BODY_BYTES_MAX).read_to_string();
        let families = openmetrics::parse(&text.map_err(|error| error.to_string())?)?;
        if families.iter().all(|family| family.samples.is_empty()) {
            return Err("answered without any metric".to_owned());
        }
        Ok((families, at))
    }

    fn finish(self) -> Metrics {
        let (scrapes, seconds, series) = self.gather.finish();
        Metrics { url: self.url, seconds, scrapes, failed: self.failed, series }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_not_plain_http_then_it_is_refused() {
        assert!("http://127.0.0.1:7480/metrics".parse::<MetricsUrl>().is_ok());
        for bad in ["", "https://a/metrics", "127.0.0.1:7480/metrics", "http://a", "http:///metrics", "http://a b/c"] {
            assert!(bad.parse::<MetricsUrl>().unwrap_err().contains("http://HOST:PORT/metrics"), "{bad}");
        }
    }
}
