//! A run of the load tester through the proxy, and its report beside the proxy's book.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use ringgate_core::transport::Transport;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::load::Load;
use crate::proxy::{Book, Fault, Place, Points, Proxy};
use crate::support::{Folder, Gateway, LOOPBACK, PROGRAM, Process};

/// Every figure that a report has of what became of messages and Pings: each is compared in each run.
const FIGURES: [&str; 25] = [
    "planned",
    "sent",
    "published",
    "pings",
    "pongs",
    "accepted",
    "delivered",
    "lost",
    "uncertain",
    "duplicated",
    "reordered",
    "corrupted",
    "misdelivered",
    "delivered_undecided",
    "delivered_refused",
    "answered_twice",
    "answered_wrong",
    "unanswered",
    "undecided",
    "pings_unanswered",
    "heartbeats_unanswered",
    "away",
    "skipped",
    "skipped_by_churn",
    "never_sent",
];

/// Figures that fail a run when they are not 0, whatever was allowed.
pub(super) const PROMISES: [&str; 10] = [
    "lost",
    "duplicated",
    "reordered",
    "corrupted",
    "misdelivered",
    "delivered_refused",
    "answered_twice",
    "answered_wrong",
    "unanswered",
    "uncertain",
];
/// Figures that do unless the kind is allowed, and its name.
pub(super) const ALLOWABLE: [(&str, &str); 6] = [
    ("undecided", "undecided"),
    ("pings_unanswered", "pings-unanswered"),
    ("heartbeats_unanswered", "pings-unanswered"),
    ("away", "away"),
    ("skipped", "skipped"),
    ("never_sent", "never-sent"),
];

/// A run of the load tester through a proxy.
pub(super) struct Run<'a> {
    pub(super) load: Load,
    pub(super) seconds: u64,
    pub(super) plan: &'a [(Fault, Points)],
    /// Two workers drive the clients, told by a controller.
    pub(super) crew: bool,
    /// Load tester, proxy and gateway talk over TLS.
    pub(super) tls: bool,
    /// How long what is under way may take to arrive after the end.
    pub(super) settle: &'a str,
    /// Between two heartbeats of a client. Where they are not what is tested, only a client's first one falls into the run.
    pub(super) ping_interval: &'a str,
    /// Besides those of the load.
    pub(super) options: &'a [&'a str],
    /// Kinds of failures that are allowed. Where the load tester itself is not what is tested, it may be late: cores are busy.
    pub(super) allow: &'a [&'a str],
}

/// What a run has come to.
pub(super) struct Outcome {
    pub(super) load: Load,
    pub(super) what: String,
    pub(super) planned: u64,
    few_heartbeats: bool,
    pub(super) allow: Vec<String>,
    pub(super) code: i32,
    pub(super) result: Value,
    /// What was said to people.
    pub(super) said: String,
    pub(super) book: Book,
}

impl Run<'_> {
    pub(super) const fn of(load: Load, plan: &[(Fault, Points)]) -> Run<'_> {
        Run {
            load,
            seconds: 1,
            plan,
            crew: false,
            tls: false,
            settle: "1s",
            ping_interval: "10m",
            options: &[],
            allow: &["driver"],
        }
    }

    /// Runs it through a proxy before this gateway. `meanwhile` is given the process id of who drives clients, of one of two
    /// workers.
    pub(super) fn run(&self, gateway: Place, meanwhile: impl FnOnce(&Proxy, u32)) -> Outcome {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let name = format!("faults-{}", RUNS.fetch_add(1, Relaxed));
        let folder = Folder::new(&name);
        let proxy = Proxy::start(gateway, self.tls, self.plan);
        let url = proxy.url();
        let load = self.load.arguments(&name, self.seconds, self.tls, &folder);
        let common = ["--url", &url, "--quiet", "--json", "-", "--settle", self.settle];
        let common = [&common[..], &["--ping-interval", self.ping_interval]].concat();
        let allow = self.allow.join(",");
        let allow = if allow.is_empty() { vec![] } else { vec!["--allow", &*allow] };
        let load: Vec<_> = load.iter().map(String::as_str).chain(common).chain(allow).collect();
        let load = [&load[..], self.options].concat();
        let (process, workers) = if self.crew {
            let (controller, listens) = Process::controller(LOOPBACK, "2", &load);
            (controller, vec![Process::worker(&listens), Process::worker(&listens)])
        } else {
            (Process::start(Command::new(PROGRAM), &[&load[..], &["--dev"]].concat()), Vec::new())
        };
        meanwhile(&proxy, workers.last().unwrap_or(&process).id());
        let (code, stdout, stderr) = process.end();
        let result = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout} {stderr}"));
        for worker in workers {
            let (code, _, stderr) = worker.end();
            assert_eq!(code, Some(0), "{stderr}");
        }
        Outcome {
            load: self.load,
            what: format!(
                "{:?}{}{} {:?} {:?}",
                self.load,
                if self.crew { " of two workers" } else { "" },
                if self.tls { " over TLS" } else { "" },
                self.plan,
                self.options
            ),
            planned: self.load.rate() * self.seconds,
            few_heartbeats: self.ping_interval == "10m",
            allow: self.allow.iter().map(|kind| (*kind).to_owned()).collect(),
            code: code.unwrap(),
            result,
            said: stderr,
            book: proxy.finish(),
        }
    }

    /// How often its first fault is done when every connection lives to the end.
    pub(super) fn injections(&self) -> u64 {
        self.injections_of(self.plan[0])
    }

    /// How often this fault is done when every connection lives to the end.
    pub(super) fn injections_of(&self, (fault, points): (Fault, Points)) -> u64 {
        let flows = self.load.flows(fault.subject());
        flows.into_iter().map(|length| points.within(length * self.seconds)).sum()
    }
}

impl Outcome {
    pub(super) fn figure(&self, name: &str) -> Option<u64> {
        self.result[name].as_u64()
    }

    /// What must be in the report.
    pub(super) fn expected(&self) -> BTreeMap<&'static str, u64> {
        let mut expected = self.book.figures();
        // On the wire Pings that only keep a connection alive are like others: the first client sends one whenever it comes.
        let [published, pings, sent] = ["published", "pings", "sent"].map(|name| self.figure(name).unwrap_or(0));
        let heartbeats = (published + pings).saturating_sub(sent);
        let (seconds, failure) = (&self.result["seconds"], &self.result["failure"]);
        // At the end each connection is asked once more.
        let few = !self.few_heartbeats || heartbeats <= 1 + self.book.sign_ins;
        assert!(few, "{}: {heartbeats} heartbeats in {seconds} s, failure {failure}", self.what);
        let without_pong = expected["pings_unanswered"];
        let (of_load, others) = match self.load.has_pings() {
            true => (without_pong, 0),
            // That the load itself has a client leave is no fault.
            false => (0, without_pong - self.book.pings_left),
        };
        expected.extend([("pings_unanswered", of_load), ("heartbeats_unanswered", others)]);
        expected.insert("sent", expected["published"] + expected["pings"] - heartbeats);
        expected.insert("planned", self.planned);
        expected.extend(["skipped", "skipped_by_churn", "never_sent", "uncertain"].map(|name| (name, 0)));
        expected
    }

    /// Whether a Pong that the proxy has passed on may have come when its client had just left, as the load wants it: once for
    /// each client.
    fn may_miss_a_pong(&self, passed: u64) -> bool {
        let leaves = matches!(self.load, Load::Offline | Load::Storm | Load::Churn | Load::Guests | Load::MixedChurn);
        let missed = passed.checked_sub(self.figure("pongs").unwrap_or(0));
        leaves && missed.is_some_and(|missed| missed <= self.load.clients())
    }

    /// Where the report differs from what happened, and from what these figures are to be.
    pub(super) fn differences(
        &self,
        mut expected: BTreeMap<&'static str, u64>,
        more: &[(&'static str, u64)],
    ) -> Vec<String> {
        for (name, count) in more {
            let booked = expected.insert(name, *count).unwrap_or_default();
            assert_eq!(booked, *count, "{}: {name} by the book and by the plan", self.what);
        }
        let mut differences: Vec<_> = FIGURES
            .iter()
            .filter(|name| self.figure(name) != expected.get(*name).copied())
            .filter(|name| **name != "pongs" || !self.may_miss_a_pong(expected["pongs"]))
            .map(|name| format!("{name} is {}, not {}", self.result[*name], expected[name]))
            .collect();
        let is_wrong = |name: &str| expected.get(name).is_some_and(|count| *count > 0);
        let is_allowed = |kind: &str| self.allow.iter().any(|allowed| allowed == kind);
        let fails = PROMISES.into_iter().any(is_wrong)
            || ALLOWABLE.into_iter().any(|(name, kind)| is_wrong(name) && !is_allowed(kind))
            || self.book.refused > 0
            || (!self.book.cut.is_empty() && !self.reconnects());
        if (self.code, &self.result["clean"]) != (i32::from(fails), &Value::Bool(!fails)) {
            differences.push(format!("the exit code is {}, and clean {}", self.code, self.result["clean"]));
        }
        let (share, sent) = (self.result["sent_share"].as_f64(), self.figure("sent").unwrap_or(0));
        let right = (self.planned > 0).then(|| sent as f64 / self.planned as f64);
        if share.zip(right).map_or(share != right, |(share, right)| (share - right).abs() > 1e-9) {
            differences.push(format!("sent_share is {share:?}: {sent} of {}", self.planned));
        }
        if self.book.wrong_acks > 0 {
            differences.push(format!("{} Acks of what is in another inbox", self.book.wrong_acks));
        }
        let kinds = self.result["errors_by_kind"].as_object().into_iter().flatten();
        let errors = kinds.filter_map(|(_, count)| count.as_u64()).sum();
        if self.figure("errors") != Some(errors) {
            differences.push(format!("errors are {}, and by kind {errors}", self.result["errors"]));
        }
        let (failure, errors) = (&self.result["failure"], &self.result["errors_by_kind"]);
        if !differences.is_empty() {
            differences.push(format!("[{}] failure {failure}, errors {errors}", self.what));
        }
        differences
    }

    /// Whether clients that lose their connection come back.
    pub(super) fn reconnects(&self) -> bool {
        self.load.always_reconnects() || self.result["load"]["reconnect"] == true
    }

    /// The longest latency of what the load is about, by its plan, in microseconds.
    pub(super) fn slowest_us(&self) -> u64 {
        self.result["latency_us"]["max"].as_u64().unwrap()
    }
}

/// Everything in the report is as the book has it, and what was planned and not sent is `skipped`.
pub(super) fn skipped_the_rest(outcome: &Outcome, more: &[(&'static str, u64)]) -> Vec<String> {
    let mut expected = outcome.expected();
    expected.insert("skipped", outcome.planned - expected["sent"]);
    outcome.differences(expected, more)
}

/// Everything in the report is as the book has it, what was planned and not sent is `skipped`, and `away` clients are not
/// connected at the end. They closed their connections because no Pong came, so the book has no cut for them.
pub(super) fn skipped_the_rest_with_away(outcome: &Outcome, away: u64, more: &[(&'static str, u64)]) -> Vec<String> {
    let mut expected = outcome.expected();
    expected.extend([("skipped", outcome.planned - expected["sent"]), ("away", away)]);
    outcome.differences(expected, more)
}

/// Runs at once: most of their time they wait.
const RUNS_MAX: usize = 12;

/// Does a test with each of these, some at once; panics with everything that was wrong.
pub(super) fn with_each<T: Copy + Sync>(cases: &[T], test: impl Fn(T) -> Vec<String> + Sync) {
    let next = AtomicUsize::new(0);
    let take_turns = || {
        let mut wrong = Vec::new();
        while let Some(case) = cases.get(next.fetch_add(1, Relaxed)) {
            wrong.extend(test(*case));
        }
        wrong
    };
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cases.len().min(RUNS_MAX)).map(|_| scope.spawn(take_turns)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Runs `test` with each of `cases`, several at once, against one gateway, whose addresses `test` is given.
pub(super) fn on_one_gateway<T: Copy + Sync>(cases: &[T], test: impl Fn(T, Place) -> Vec<String> + Sync) {
    let gateway = Gateway::start();
    let place = Place { plain: gateway.address(Transport::Plain), tls: gateway.address(Transport::Tls) };
    with_each(cases, |case| test(case, place));
}

/// What is allowed, and the exit code that follows.
pub(super) type Verdict = (&'static [&'static str], i32);

/// Each of these loads with each of these.
pub(super) fn judged(loads: &[Load], verdicts: &[Verdict]) -> Vec<(Load, Verdict)> {
    loads.iter().flat_map(|load| verdicts.iter().map(|verdict| (*load, *verdict))).collect()
}

/// Each of these over TLS and without.
pub(super) fn with_and_without_tls(loads: &[Load]) -> Vec<(Load, bool)> {
    loads.iter().flat_map(|load| [(*load, false), (*load, true)]).collect()
}

/// Each of these, every second one over TLS.
pub(super) fn half_over_tls(loads: &[Load]) -> Vec<(Load, bool)> {
    loads.iter().copied().zip([false, true].into_iter().cycle()).collect()
}

/// Sends a signal at once: a program that does it may have to wait for a core until the run is over.
pub(super) fn signal(process: u32, which: Signal) {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw).unwrap();
    kill_process(process, which).unwrap();
}
