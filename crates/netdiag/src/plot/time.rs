//! Time along a chart: the axis that panels over each other share, lines that break at pauses, and the anomaly light as a shade.

use plotters::prelude::*;

use super::axis::Axis;
use super::canvas::{self, Chart, Drawn, Panel};

/// What stands behind anomalous intervals.
const SHADE: RGBColor = RGBColor(253, 228, 214);

/// A pause this many times as long as the usual interval breaks a line.
const GAP: f64 = 5.0;

/// Columns of points that are told apart: about the pixels that the axis is drawn with.
const COLUMNS: f64 = 3000.0;

/// Shortest axis, seconds: the usual interval.
const SHORTEST: f64 = 0.5;

/// The axis of a recording.
pub(super) struct Time {
    /// Of each row, in units of the axis.
    at: Vec<f64>,
    end: f64,
    unit: &'static str,
    unit_seconds: f64,
    /// What is zero.
    origin: &'static str,
    /// The usual distance of rows.
    usual: f64,
}

impl Time {
    /// Of rows that came so many seconds after the first.
    pub(super) fn of(seconds: impl Iterator<Item = f64>) -> Self {
        let at: Vec<f64> = seconds.collect();
        let length = at.iter().copied().fold(0.0, f64::max);
        Self { origin: "the first row", ..Self::until(at, length) }
    }

    /// Of rows at so many seconds, on an axis of `length` seconds.
    pub(super) fn until(mut at: Vec<f64>, length: f64) -> Self {
        let length = length.max(SHORTEST);
        let (unit, seconds) = match length {
            length if length < 300.0 => ("s", 1.0),
            length if length < 18_000.0 => ("min", 60.0),
            _ => ("h", 3600.0),
        };
        at.iter_mut().for_each(|at| *at /= seconds);
        let mut steps: Vec<f64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        steps.sort_by(f64::total_cmp);
        let usual = steps.get(steps.len() / 2).copied().unwrap_or(0.0).max(1e-9);
        let end = length / seconds;
        Self { at, end, unit, unit_seconds: seconds, origin: "the start", usual }
    }

    /// A panel over this time; the lowest one names it.
    pub(super) fn panel<'p>(&self, y: Axis, y_name: &'p str, lowest: bool) -> Panel<'p> {
        Panel {
            title: None,
            x: Axis::linear(0.0..self.end, 0.0),
            y,
            x_name: lowest.then(|| format!("time since {}, {}", self.origin, self.unit)),
            y_name,
        }
    }

    /// Where a moment stands on the axis, seconds.
    pub(super) fn place(&self, seconds: f64) -> f64 {
        seconds / self.unit_seconds
    }

    /// Where a row stands on the axis.
    pub(super) fn at(&self, row: usize) -> f64 {
        self.at.get(row).copied().unwrap_or(self.end)
    }

    /// Shades the intervals in which the light was on.
    pub(super) fn shade(
        &self,
        chart: &mut Chart<'_, '_>,
        lit: &[bool],
        y: &Axis,
        name: Option<&str>,
    ) -> Drawn {
        shade(chart, self.spans(lit), y, name)
    }

    /// Where the light was on. A row speaks for the time since the one before, as far as that is no pause.
    pub(super) fn spans(&self, lit: &[bool]) -> Vec<(f64, f64)> {
        let mut spans: Vec<(f64, f64)> = Vec::new();
        for (row, _) in lit.iter().enumerate().filter(|(_, lit)| **lit) {
            let to = self.at[row];
            let before = if row > 0 { self.at[row - 1] } else { 0.0 };
            let from = before.max(to - GAP * self.usual);
            match spans.last_mut() {
                Some(last) if last.1 >= from => last.1 = to,
                _ => spans.push((from, to)),
            }
        }
        spans
    }

    /// Lines through the values that there are, one per row, broken at pauses.
    pub(super) fn runs(&self, values: &[Option<f64>]) -> Vec<Vec<(f64, f64)>> {
        let mut runs: Vec<Vec<(f64, f64)>> = Vec::new();
        let points = self.at.iter().zip(values).filter_map(|(&at, &value)| Some((at, value?)));
        for point in points {
            match runs.last_mut() {
                Some(run)
                    if run.last().is_some_and(|last| point.0 - last.0 <= GAP * self.usual) =>
                {
                    run.push(point);
                }
                _ => runs.push(vec![point]),
            }
        }
        runs.iter().map(|run| extremes(run, COLUMNS / self.end)).collect()
    }

    /// Draws these lines under one name.
    pub(super) fn draw(
        &self,
        chart: &mut Chart<'_, '_>,
        values: &[Option<f64>],
        style: ShapeStyle,
        name: &str,
    ) -> Drawn {
        for (number, run) in self.runs(values).into_iter().enumerate() {
            let name = (number == 0).then(|| name.to_owned());
            canvas::draw_line(chart, run, style, name)?;
        }
        Ok(())
    }
}

/// Shades stretches of the axis.
pub(super) fn shade(
    chart: &mut Chart<'_, '_>,
    spans: impl IntoIterator<Item = (f64, f64)>,
    y: &Axis,
    name: Option<&str>,
) -> Drawn {
    let (low, high) = (y.bounds().start, y.bounds().end);
    let spans = spans.into_iter();
    let series = chart.draw_series(
        spans.map(|(from, to)| Rectangle::new([(from, low), (to, high)], SHADE.filled())),
    )?;
    if let Some(name) = name {
        series.label(name).legend(|at| canvas::swatch(at, SHADE.filled()));
    }
    Ok(())
}

/// Of the points in each column the first, the lowest, the highest and the last: a line that looks the same, without the time
/// that a million points take.
fn extremes(line: &[(f64, f64)], columns: f64) -> Vec<(f64, f64)> {
    let column = |point: &(f64, f64)| (point.0 * columns) as i64;
    let of_column = |points: &[(f64, f64)]| {
        let by_height = |a: &usize, b: &usize| points[*a].1.total_cmp(&points[*b].1);
        let all = || 0..points.len();
        let mut kept = [Some(0), all().min_by(by_height), all().max_by(by_height), all().last()];
        kept.sort();
        kept.into_iter().flatten().map(|at| points[at]).collect::<Vec<_>>()
    };
    let mut kept: Vec<_> =
        line.chunk_by(|a, b| column(a) == column(b)).flat_map(of_column).collect();
    kept.dedup();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_keeps_what_can_be_seen_of_it() {
        let points = [(1.0, 5.0), (1.1, 9.0), (1.2, 6.0), (1.3, 2.0), (1.4, 4.0), (2.0, 7.0)];
        let kept = [(1.0, 5.0), (1.1, 9.0), (1.3, 2.0), (1.4, 4.0), (2.0, 7.0)];
        assert_eq!(extremes(&points, 1.0), kept);
        assert_eq!(extremes(&points, 1000.0), points);
        assert_eq!(extremes(&[], 1.0), []);
    }

    #[test]
    fn lines_break_at_pauses() {
        let time = Time::of([0.0, 1.0, 2.0, 60.0, 61.0].into_iter());
        let value = Some(1.0);
        let runs = time.runs(&[value, value, None, value, value]);
        assert_eq!(runs, [[(0.0, 1.0), (1.0, 1.0)], [(60.0, 1.0), (61.0, 1.0)]]);
        assert_eq!(time.spans(&[false, true, true, true, false]), [(0.0, 2.0), (55.0, 60.0)]);
    }
}
