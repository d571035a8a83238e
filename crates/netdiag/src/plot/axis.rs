//! Axes: where a value stands, which values are written beside it, and how.
//!
//! The drawing library's own axes cannot be told which values to write, and on a logarithmic scale write none but powers of
//! ten. Invariant: an axis has a length, whatever values it is made for.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};

/// One direction of a chart.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    range: Range<f64>,
    log: bool,
    ticks: Vec<f64>,
}

impl Axis {
    /// From `range.start` to `range.end`, with round numbers no closer than `least`.
    pub(super) fn linear(range: Range<f64>, least: f64) -> Self {
        Self { ticks: round_numbers(&range, least), range, log: false }
    }

    /// From zero to above the largest of `values`.
    pub(super) fn from_zero(values: impl Iterator<Item = f64>) -> Self {
        let high = values.fold(0.0, f64::max);
        Self::linear(0.0..if high > 0.0 { high * 1.08 } else { 1.0 }, 0.0)
    }

    /// From zero to above the largest of some counts, written in whole numbers.
    pub(super) fn counts(values: impl Iterator<Item = f64>) -> Self {
        let high = values.fold(1.0, f64::max);
        Self::linear(0.0..high * 1.08, 1.0)
    }

    /// A logarithmic axis that holds those of `values` that are above zero, with some air around them.
    pub(super) fn log(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = values
            .filter(|&value| value > 0.0)
            .fold((f64::MAX, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        let range = if low > high { 1.0..100.0 } else { low / 1.5..high * 1.5 };
        Self { ticks: powers(&range), range, log: true }
    }

    /// The same with more room at its end, a share of its length.
    pub(super) fn with_headroom(mut self, share: f64) -> Self {
        let (start, end) = (self.place(self.range.start), self.place(self.range.end));
        let end = end + (end - start) * share;
        self.range.end = if self.log { 10f64.powf(end) } else { end };
        self
    }

    /// The same with nothing written beside values below `low`.
    pub(super) fn labelled_from(mut self, low: f64) -> Self {
        self.ticks.retain(|&tick| tick >= low);
        self
    }

    pub(super) fn bounds(&self) -> Range<f64> {
        self.range.clone()
    }

    /// The axis cut into `parts` of equal width as drawn: their edges, one more than there are parts.
    pub(super) fn cut(&self, parts: usize) -> Vec<f64> {
        let (start, end) = (self.place(self.range.start), self.place(self.range.end));
        let edge = |part: usize| start + (end - start) * part as f64 / parts as f64;
        (0..=parts).map(edge).map(|at| if self.log { 10f64.powf(at) } else { at }).collect()
    }

    pub(super) fn label(&self, value: f64) -> String {
        number(value)
    }

    fn place(&self, value: f64) -> f64 {
        if self.log { value.max(f64::MIN_POSITIVE).log10() } else { value }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let (start, end) = (self.place(self.range.start), self.place(self.range.end));
        let share = (self.place(*value) - start) / (end - start);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.max_num_points() == 0 { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.bounds()
    }
}

/// About five round numbers within `range`, no closer than `least`.
fn round_numbers(range: &Range<f64>, least: f64) -> Vec<f64> {
    let wanted = ((range.end - range.start) / 5.0).max(least);
    let power = 10f64.powf(wanted.log10().floor());
    let step = [1.0, 2.0, 5.0].map(|step| step * power);
    let step = step.into_iter().find(|step| *step >= wanted).unwrap_or(10.0 * power);
    let first = (range.start / step).ceil() as i64;
    (first..).map(|number| number as f64 * step).take_while(|tick| *tick <= range.end).collect()
}

/// Powers of ten within `range`, or as many round numbers between them as it takes to have a few.
fn powers(range: &Range<f64>) -> Vec<f64> {
    let decades = range.start.log10().floor() as i32..=range.end.log10().ceil() as i32;
    let with = |steps: &[f64]| -> Vec<f64> {
        let decade = |decade| steps.iter().map(move |step| step * 10f64.powi(decade));
        decades.clone().flat_map(decade).filter(|tick| range.contains(tick)).collect()
    };
    let (powers, few) = (with(&[1.0]), with(&[1.0, 2.0, 5.0]));
    match (powers.len(), few.len()) {
        (4.., _) => powers,
        (_, 3..) => few,
        _ => with(&[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0]),
    }
}

/// A number without more digits than it needs.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        v if v >= 100.0 || (v - v.round()).abs() < 1e-9 => format!("{value:.0}"),
        v if v >= 1.0 => format!("{value:.1}"),
        v => format!("{value:.*}", (1.0 - v.log10().floor()).clamp(1.0, 4.0) as usize)
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        assert_eq!(round_numbers(&(0.0..1.08), 0.0), [0.0, 0.5, 1.0]);
        assert_eq!(round_numbers(&(-0.5..8.5), 1.0), [0.0, 2.0, 4.0, 6.0, 8.0]);
        assert_eq!(round_numbers(&(-0.5..1.5), 1.0), [0.0, 1.0]);
        assert_eq!(powers(&(14.0..300.0)), [20.0, 50.0, 100.0, 200.0]);
        assert_eq!(powers(&(0.5..20_000.0)), [1.0, 10.0, 100.0, 1000.0, 10_000.0]);
        assert_eq!(powers(&(18.0..55.0)), [20.0, 30.0, 40.0, 50.0]);
    }

    #[test]
    fn an_axis_has_a_length_whatever_it_is_made_for() {
        let none = std::iter::empty;
        for axis in [
            Axis::from_zero(none()),
            Axis::from_zero([0.0].into_iter()),
            Axis::log(none()),
            Axis::log([0.0, -3.0].into_iter()),
            Axis::log([5.0].into_iter()),
        ] {
            assert!(axis.bounds().start < axis.bounds().end, "{axis:?}");
            assert_eq!(axis.map(&axis.bounds().start, (0, 100)), 0);
            assert_eq!(axis.map(&axis.bounds().end, (0, 100)), 100);
        }
    }

    #[test]
    fn numbers_have_the_digits_they_need() {
        let check = |value, expected| assert_eq!(number(value), expected);
        check(0.0, "0");
        check(22.74, "22.7");
        check(224.0, "224");
        check(0.5, "0.5");
        check(0.05, "0.05");
        check(0.8421, "0.84");
        check(2.0, "2");
    }
}
