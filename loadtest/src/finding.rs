//! The result of a search for a capacity.

use serde_json::{Map, Value};

use crate::record::Quantiles;

/// The limit of a run that missed its thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Limit {
    /// It refused, lost or damaged something, or was too slow for a load tester that had time.
    Gateway,
    /// This load tester was saturated, kept from running, or too late with its schedule.
    Driver,
}

impl Limit {
    /// For people.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Limit::Gateway => "the gateway",
            Limit::Driver => "this load tester, not the gateway",
        }
    }
}

/// One run of the search.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Trial {
    /// Per second.
    pub(crate) rate: f64,
    /// It met the thresholds, and nothing went wrong.
    pub(crate) met: bool,
    /// What the limit was, if the thresholds were missed.
    pub(crate) limit: Option<Limit>,
    /// Why it was missed; a note, if there is one, where it was met.
    pub(crate) why: String,
    /// How busy the load tester was in its busiest phase: 0 to 1.
    pub(crate) driver_busy: Option<f64>,
    /// What the load is about, in microseconds from the planned time.
    pub(crate) latency_us: Quantiles,
}

/// The result of a search.
pub(crate) struct Finding {
    /// What was driven, by the names of options, without the rate.
    pub(crate) load: Map<String, Value>,
    /// The highest rate that was met twice.
    pub(crate) found: Option<f64>,
    /// In words.
    pub(crate) answer: String,
    /// In their order.
    pub(crate) trials: Vec<Trial>,
}

impl Finding {
    /// Trials by their rate.
    pub(crate) fn sorted(&self) -> Vec<&Trial> {
        let mut sorted: Vec<&Trial> = self.trials.iter().collect();
        sorted.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        sorted
    }
}
