//! Scales of charts: where a value lies between the ends of an axis, and which values are written beside it.

/// How an axis is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// Evenly, from 0 to a round number.
    Linear,
    /// Evenly, from 0 to exactly the last value: time.
    Exact,
    /// By factors, between round numbers.
    Log,
    /// Of shares below 1: 0, 90 %, 99 %, 99.9 % are equally far apart, as in plots of HdrHistogram.
    Percentile,
}

/// A scale with its ends.
#[derive(Debug)]
pub(super) struct Span {
    scale: Scale,
    low: f64,
    high: f64,
    /// Values to be written, ascending, all between the ends.
    pub(super) ticks: Vec<f64>,
}

/// More ticks than this crowd an axis.
const TICKS_MAX: f64 = 8.0;

impl Scale {
    /// Ends and ticks for these values. Values that the scale cannot show (not finite; 0 and below on a scale of
    /// factors) are left out; without any, the span is from 0 (or 1) to the next tick.
    pub(super) fn fit(self, values: impl Iterator<Item = f64>) -> Span {
        let shown = values.filter(|value| value.is_finite() && (self != Scale::Log || *value > 0.0));
        let ends = shown.fold(None, |ends: Option<(f64, f64)>, value| {
            Some(ends.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
        });
        match self {
            Scale::Linear | Scale::Exact => self.fit_linear(ends.map_or(1.0, |(_, high)| high)),
            Scale::Log => fit_log(ends.unwrap_or((1.0, 10.0))),
            Scale::Percentile => fit_percentile(ends.map_or(0.9, |(_, high)| high)),
        }
    }

    fn fit_linear(self, high: f64) -> Span {
        let high = if high > 0.0 { high } else { 1.0 };
        let step = round_up(high / TICKS_MAX);
        let high = if self == Scale::Exact { high } else { (high / step).ceil() * step };
        // A little more than the end, for what rounding has lost.
        let count = (high / step * (1.0 + 1e-9)) as usize;
        Span { scale: self, low: 0.0, high, ticks: (0..=count).map(|tick| tick as f64 * step).collect() }
    }
}

/// The next of 1, 2, 5, 10, 20, 50, ...
fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= value * 0.999).unwrap_or(power)
}

fn fit_log((low, high): (f64, f64)) -> Span {
    let floor = low.log10().floor() as i32;
    let ceiling = (high.log10().floor() as i32 + 1).max(floor + 1);
    let factors: &[f64] = if ceiling - floor <= 3 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let all: Vec<f64> = (floor..=ceiling)
        .flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power)))
        .filter(|tick| *tick <= 10f64.powi(ceiling) * 1.001)
        .collect();
    // From the last tick that is not above anything to the first that is not below.
    let first = all.iter().rposition(|tick| *tick <= low * 1.001).unwrap_or(0);
    let last = all.iter().position(|tick| *tick >= high * 0.999).unwrap_or(all.len() - 1).max(first + 1);
    let ticks = all[first..=last.min(all.len() - 1)].to_vec();
    Span { scale: Scale::Log, low: ticks[0].log10(), high: ticks[ticks.len() - 1].log10(), ticks }
}

fn fit_percentile(high: f64) -> Span {
    let end = nines(high).max(1.0);
    let ticks = std::iter::once(0.0).chain([0.5]).chain((1..=9).map(|nines| 1.0 - 0.1f64.powi(nines)));
    let ticks = ticks.filter(|share| nines(*share) <= end * 1.001).collect();
    Span { scale: Scale::Percentile, low: 0.0, high: end, ticks }
}

/// 0 for 0, 1 for 90 %, 2 for 99 %, ...; a share of 1 has no end and is not shown.
fn nines(share: f64) -> f64 {
    -(1.0 - share).log10()
}

impl Span {
    /// Where a value lies, 0 at the low end and 1 at the high one; none if the scale cannot show it.
    pub(super) fn place(&self, value: f64) -> Option<f64> {
        let at = match self.scale {
            Scale::Linear | Scale::Exact => value,
            Scale::Log => value.log10(),
            Scale::Percentile => nines(value),
        };
        let place = (at - self.low) / (self.high - self.low);
        place.is_finite().then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(scale: Scale, values: &[f64]) -> Span {
        scale.fit(values.iter().copied())
    }

    #[test]
    fn axis_is_linear_then_it_ends_at_a_round_number_or_the_last_value() {
        let ends = |scale, high: f64| {
            let span = span(scale, &[0.0, high]);
            (span.high, span.ticks[1], span.ticks.len())
        };
        assert_eq!(ends(Scale::Linear, 7_300.0), (8_000.0, 1_000.0, 9));
        assert_eq!(ends(Scale::Linear, 1.0), (1.0, 0.2, 6));
        assert_eq!(ends(Scale::Exact, 7_300.0), (7_300.0, 1_000.0, 8));
        assert_eq!(ends(Scale::Linear, 0.0), (1.0, 0.2, 6));
        assert_eq!(span(Scale::Linear, &[]).high, 1.0);
        assert_eq!(span(Scale::Linear, &[0.0, 100.0]).place(25.0), Some(0.25));
    }

    #[test]
    fn axis_is_logarithmic_then_equal_factors_are_equally_far_apart() {
        let wide = span(Scale::Log, &[35.0, 0.0, 2_000_000.0]);
        assert_eq!(wide.ticks, [10.0, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7]);
        assert_eq!(wide.place(10.0), Some(0.0));
        assert!((wide.place(1e4).unwrap() - 0.5).abs() < 1e-9);
        assert_eq!(wide.place(0.0), None, "0 is infinitely far away");
        assert_eq!(span(Scale::Log, &[120.0, 1_900.0]).ticks, [100.0, 200.0, 500.0, 1_000.0, 2_000.0]);
        assert_eq!(span(Scale::Log, &[100.0]).ticks, [100.0, 200.0], "one point");
        assert_eq!(span(Scale::Log, &[]).ticks, [1.0, 2.0, 5.0, 10.0]);
    }

    #[test]
    fn axis_shows_percentiles_then_each_nine_is_one_step() {
        let span = span(Scale::Percentile, &[0.0, 0.999]);
        assert_eq!(span.ticks.len(), 5, "{:?}", span.ticks);
        assert!((span.place(0.99).unwrap() - 2.0 / 3.0).abs() < 1e-9);
        assert_eq!(span.place(1.0), None);
    }
}
