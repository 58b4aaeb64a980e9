//! What the threads of one run count together.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use ringgate_core::close::{CloseReason, ErrorCode};
use ringgate_core::wire::{Kind, RawFrame, ServerFrame};

/// Counted since the clients came.
#[derive(Default)]
pub(super) struct Tally {
    /// Messages that reached a reader.
    pub(super) deliveries: AtomicU64,
    /// Requests that were answered with what they asked for.
    pub(super) answers: AtomicU64,
    /// Sign-ins that were answered with Connected, in a storm.
    pub(super) sign_ins: AtomicU64,
    /// Requests that were answered with Error.
    pub(super) refused: AtomicU64,
    /// Clients that are signed in and in their rooms.
    pub(super) ready: AtomicUsize,
    /// Refusals by code.
    refusals: Mutex<BTreeMap<u16, u64>>,
    /// Connections that ended although their client read and did not leave: by close code, 0 without a Goodbye.
    closes: Mutex<BTreeMap<u16, u64>>,
    /// What the driver itself could not do.
    faults: Mutex<Vec<String>>,
    stop: AtomicBool,
}

/// Faults that are kept; more of them say nothing new.
const FAULTS_MAX: usize = 8;

impl Tally {
    pub(super) fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// An Error, whose body this is.
    pub(super) fn refuse(&self, body: &[u8]) {
        self.refused.fetch_add(1, Relaxed);
        let code = match ServerFrame::parse(RawFrame { kind: Kind::Error, body }) {
            Ok(ServerFrame::Error(error)) => error.code(),
            _ => 0,
        };
        if let Ok(mut refusals) = self.refusals.lock() {
            *refusals.entry(code).or_default() += 1;
        }
    }

    /// A connection has ended that was not meant to.
    pub(super) fn close(&self, code: u16) {
        if let Ok(mut closes) = self.closes.lock() {
            *closes.entry(code).or_default() += 1;
        }
    }

    pub(super) fn fault(&self, text: String) {
        if let Ok(mut faults) = self.faults.lock()
            && faults.len() < FAULTS_MAX
        {
            faults.push(text);
        }
    }

    /// Refusals by name.
    pub(super) fn refusals(&self) -> BTreeMap<String, u64> {
        let name = |code: u16| ErrorCode::from_code(code).map(ErrorCode::label);
        named(&self.refusals, name)
    }

    /// Closes by name.
    pub(super) fn closes(&self) -> BTreeMap<String, u64> {
        let name = |code: u16| CloseReason::from_code(code).map(CloseReason::label);
        named(&self.closes, name)
    }

    pub(super) fn faults(&self) -> Vec<String> {
        self.faults.lock().map(|faults| faults.clone()).unwrap_or_default()
    }
}

fn named(counts: &Mutex<BTreeMap<u16, u64>>, name: impl Fn(u16) -> Option<&'static str>) -> BTreeMap<String, u64> {
    let Ok(counts) = counts.lock() else { return BTreeMap::new() };
    let label = |code: u16| match (code, name(code)) {
        (0, _) => "without a code".to_owned(),
        (code, Some(name)) => format!("{code} {name}"),
        (code, None) => code.to_string(),
    };
    counts.iter().map(|(code, count)| (label(*code), *count)).collect()
}

/// The code of a Goodbye, whose body this is; 0 if it cannot be read.
pub(super) fn goodbye_code(body: &[u8]) -> u16 {
    match ServerFrame::parse(RawFrame { kind: Kind::Goodbye, body }) {
        Ok(ServerFrame::Goodbye(goodbye)) => goodbye.code(),
        _ => 0,
    }
}
