//! Requests to an engine: a bounded number is with it at once, the others stand in line. What the engine could not do is asked for
//! again, after a pause that doubles each time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// See the module. `K` names a request.
#[derive(Debug)]
pub struct Requests<K> {
    line: VecDeque<K>,
    /// Requests that are asked for again, by when.
    paused: BinaryHeap<Reverse<(u64, K)>>,
    with_engine: usize,
    with_engine_max: usize,
}

/// Milliseconds before a request that failed is asked for again: at first, and at most.
const PAUSE_MS_MIN: u64 = 100;
const PAUSE_MS_MAX: u64 = 5_000;

impl<K: Ord> Requests<K> {
    /// At most so many are with the engine at once.
    pub fn new(with_engine_max: usize) -> Self {
        Requests { line: VecDeque::new(), paused: BinaryHeap::new(), with_engine: 0, with_engine_max }
    }

    /// A new request, at the end of the line.
    pub fn push(&mut self, request: K) {
        self.line.push_back(request);
    }

    /// The next request that is to be given to the engine.
    pub fn take_next(&mut self) -> Option<K> {
        if self.with_engine >= self.with_engine_max {
            return None;
        }
        let next = self.line.pop_front()?;
        self.with_engine += 1;
        Some(next)
    }

    /// Requests that are not with the engine.
    pub fn waiting(&self) -> usize {
        self.line.len() + self.paused.len()
    }

    /// Forgets requests that are not with the engine.
    pub fn retain(&mut self, is_wanted: impl Fn(&K) -> bool) {
        self.line.retain(&is_wanted);
        self.paused.retain(|Reverse((_, request))| is_wanted(request));
    }

    /// The engine has answered one, or need not answer it.
    pub fn answered(&mut self) {
        self.with_engine = self.with_engine.saturating_sub(1);
    }

    /// The engine could not do it: it is asked for again, having failed so many times in a row.
    pub fn pause(&mut self, request: K, failures: u32, now_ms: u64) {
        let pause_ms = (PAUSE_MS_MIN << failures.saturating_sub(1).min(16)).min(PAUSE_MS_MAX);
        self.paused.push(Reverse((now_ms + pause_ms, request)));
    }

    /// Those whose pause is over stand in line again.
    pub fn end_pauses(&mut self, now_ms: u64) {
        while self.paused.peek().is_some_and(|Reverse((until_ms, _))| *until_ms <= now_ms)
            && let Some(Reverse((_, request))) = self.paused.pop()
        {
            self.line.push_back(request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_requests_than_the_engine_may_have_then_they_stand_in_line() {
        let mut requests = Requests::new(2);
        (0..3).for_each(|request| requests.push(request));
        assert_eq!([requests.take_next(), requests.take_next(), requests.take_next()], [Some(0), Some(1), None]);
        requests.answered();
        assert_eq!([requests.take_next(), requests.take_next()], [Some(2), None]);
    }

    #[test]
    fn requests_are_not_wanted_any_more_then_those_that_wait_are_forgotten() {
        let mut requests = Requests::new(9);
        (0..4).for_each(|request| requests.push(request));
        requests.pause(4, 1, 0);
        requests.pause(5, 1, 0);
        requests.retain(|request| request % 2 == 0);
        assert_eq!(requests.waiting(), 3);
        requests.end_pauses(100);
        assert_eq!(std::iter::from_fn(|| requests.take_next()).collect::<Vec<_>>(), [0, 2, 4]);
    }

    #[test]
    fn request_fails_again_and_again_then_its_pause_doubles_up_to_a_bound() {
        let mut requests = Requests::new(1);
        for (failures, pause_ms) in [(1, 100), (2, 200), (5, 1_600), (7, 5_000), (u32::MAX, 5_000)] {
            requests.pause(7, failures, 1_000);
            requests.end_pauses(1_000 + pause_ms - 1);
            assert_eq!(requests.take_next(), None);
            requests.end_pauses(1_000 + pause_ms);
            assert_eq!(requests.take_next(), Some(7));
            requests.answered();
        }
    }
}
