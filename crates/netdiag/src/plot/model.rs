//! A trained model at a glance: how scores are distributed on rows that a forest has seen and rows that it has not, which rows are
//! flagged, and the live judgement over time.
//!
//! Scores and judgement are those of the hold-out's model where there is one, so that what stands behind the line is judged by a
//! model that never saw it; what is flagged is the trained model's word.

use std::collections::BTreeMap;

use plotters::prelude::*;

use super::axis::Axis;
use super::canvas::{self, Area, BLUE, Chart, Drawn, GREEN, INK, ORANGE, Panel, VERMILLION};
use super::time::Time;
use crate::figures::counts;

/// Bars of the histogram.
const BARS: usize = 60;

/// Radius of a point, and the distance at which two cannot be told apart, pixels.
const POINT: u32 = 2;

/// What is drawn.
#[derive(Debug)]
pub(crate) struct ModelChart {
    /// What stands above.
    pub(crate) title: String,
    pub(crate) scores: ScoreChart,
    /// In the order of time.
    pub(crate) rows: Vec<ChartRow>,
}

/// The scores of one model.
#[derive(Debug)]
pub(crate) struct ScoreChart {
    /// Of the rows that it was trained from.
    pub(crate) trained: Vec<f64>,
    /// Of the rows that it has not seen, and the first of them in [`ModelChart::rows`].
    pub(crate) held_out: Option<(usize, Vec<f64>)>,
    /// Lower scores are flagged.
    pub(crate) offset: f64,
}

/// One interval.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChartRow {
    /// Since the first row.
    pub(crate) seconds: f64,
    pub(crate) p95_rtt_ms: Option<f64>,
    /// How many times its usual the recent p95 RTT is.
    pub(crate) rtt_ratio: f64,
    /// Retransmitted segments of those sent lately.
    pub(crate) retrans_percent: f64,
    /// Whether the trained forest calls it an outlier; `None` if it showed nothing to judge by.
    pub(crate) flagged: Option<bool>,
    /// 0..=1, live, by the model of the scores.
    pub(crate) health: f64,
    /// 0..=1, likewise.
    pub(crate) anomaly_score: f64,
    /// The anomaly light, likewise.
    pub(crate) anomaly: bool,
}

pub(super) fn draw(chart: &ModelChart, area: &Area<'_>) -> Drawn {
    let (_, height) = area.dim_in_pixel();
    let (above, below) = area.split_vertically(height * 9 / 20);
    let panels = above.split_evenly((1, 2));
    scores(&chart.scores, &panels[0])?;
    rows(&chart.rows, &panels[1])?;
    let held_out = chart.scores.held_out.as_ref().map(|(row, _)| *row);
    timeline(&chart.rows, held_out, &below)
}

/// The distribution of scores.
fn scores(scores: &ScoreChart, area: &Area<'_>) -> Drawn {
    let held_out = scores.held_out.as_ref().map(|(_, scores)| scores.as_slice());
    let all = || scores.trained.iter().chain(held_out.unwrap_or_default()).copied();
    let (low, high) = all().fold((scores.offset, scores.offset), |(low, high), score| {
        (low.min(score), high.max(score))
    });
    // A model that scores all rows alike has an axis, too.
    let margin = (0.04 * (high - low)).max(0.005);
    let x = Axis::linear(low - margin..high + margin, 0.0);
    let edges = x.cut(BARS);
    let percent = |scores: &[f64]| -> Vec<f64> {
        let all = scores.len().max(1) as f64;
        counts(scores, &edges).iter().map(|&count| 100.0 * f64::from(count) / all).collect()
    };
    let trained = percent(&scores.trained);
    let held_out = held_out.map(percent);
    let highest = trained.iter().chain(held_out.iter().flatten()).copied().fold(1.0, f64::max);
    let panel = Panel {
        title: Some("The forest's score of a row"),
        x,
        // The legend stands above the bars.
        y: Axis::linear(0.0..highest, 0.0).with_headroom(0.45),
        x_name: Some("score: the lower, the more unusual".to_owned()),
        y_name: "% of the rows",
    };
    let mut chart = panel.chart(area)?;
    let bars = edges.windows(2).zip(&trained).filter(|(_, percent)| **percent > 0.0);
    chart
        .draw_series(bars.map(|(edges, &percent)| {
            Rectangle::new([(edges[0], 0.0), (edges[1], percent)], BLUE.mix(0.5).filled())
        }))?
        .label(if held_out.is_some() { "rows it was trained on" } else { "rows" })
        .legend(|at| canvas::swatch(at, BLUE.mix(0.5).filled()));
    if let Some(held_out) = held_out {
        let steps = edges.windows(2).zip(held_out);
        let steps = steps.flat_map(|(edges, y)| [(edges[0], y), (edges[1], y)]);
        let name = Some("later rows, held out".to_owned());
        canvas::draw_line(&mut chart, steps, canvas::line(ORANGE, 2), name)?;
    }
    let offset = scores.offset;
    let of = if scores.held_out.is_some() { " by the model of the earlier rows" } else { "" };
    let name = Some(format!("flagged below {offset:.3}{of}"));
    let upright = [(offset, 0.0), (offset, highest * 1.1)];
    canvas::draw_line(&mut chart, upright, canvas::line(INK, 2), name)?;
    canvas::legend(&mut chart)
}

/// What is flagged, by the two features that people think in. Rows without a retransmission, which is most of them, would cover
/// each other on a line; they are spread out below it.
fn rows(rows: &[ChartRow], area: &Area<'_>) -> Drawn {
    let numbered = rows.iter().enumerate();
    let used = || numbered.clone().filter_map(|(number, row)| Some((number, row, row.flagged?)));
    let highest = used().map(|(_, row, _)| row.retrans_percent).fold(0.0, f64::max);
    // Without any, the space is theirs.
    let (top, depth) = if highest > 0.0 { (highest, 0.6 * highest) } else { (0.2, 1.0) };
    let panel = Panel {
        title: Some("Which rows it flags"),
        // From three quarters of the usual to twice that at least, so that a calm link looks calm.
        x: Axis::log(used().map(|(_, row, _)| row.rtt_ratio).chain([0.75, 2.0])),
        // The legend stands above the points.
        y: Axis::linear(-1.05 * depth..top, 0.0).labelled_from(0.0).with_headroom(0.3),
        x_name: Some("p95 RTT, times its usual".to_owned()),
        y_name: "retransmitted, %",
    };
    let mut chart = panel.chart(area)?;
    let place = |number: usize, row: &ChartRow| {
        let below = -depth * spread_out(number);
        (row.rtt_ratio, if row.retrans_percent > 0.0 { row.retrans_percent } else { below })
    };
    let points = used().map(|(number, row, flagged)| (place(number, row), flagged));
    let points = by_majority(&chart, points);
    for (flagged, colour, name) in [(false, BLUE, "inliers"), (true, VERMILLION, "flagged")] {
        let style = colour.mix(0.6).filled();
        let points = points.iter().filter(|point| point.1 == flagged);
        chart
            .draw_series(points.map(|point| Circle::new(point.0, canvas::scaled(POINT), style)))?
            .label(name)
            .legend(move |(x, y)| {
                let middle = (x + canvas::scaled(9) as i32, y);
                Circle::new(middle, canvas::scaled(2 * POINT), colour.filled())
            });
    }
    let corner = (panel.x.bounds().start * 1.02, -0.08 * depth);
    let none = Text::new("none, spread out", corner, canvas::text(17));
    chart.draw_series(std::iter::once(none))?;
    canvas::legend(&mut chart)
}

/// A place for the row of this number, 0.05..1: multiples of the golden ratio never come close to each other (Weyl's sequence).
fn spread_out(number: usize) -> f64 {
    const GOLDEN: f64 = 0.618_033_988_749_895;
    0.05 + 0.95 * (number as f64 * GOLDEN).fract()
}

/// Points, and whether each is flagged: one where several would cover each other, flagged if most of them are. So a million rows are
/// drawn as soon as a thousand, and as truly.
fn by_majority(
    chart: &Chart<'_, '_>,
    points: impl Iterator<Item = ((f64, f64), bool)>,
) -> Vec<((f64, f64), bool)> {
    // In the order of the cells, so that the same rows give the same picture.
    let mut cells = BTreeMap::new();
    for (point, flagged) in points {
        let (x, y) = chart.backend_coord(&point);
        let cell = cells.entry((x / POINT as i32, y / POINT as i32)).or_insert((point, 0_i64));
        cell.1 += if flagged { 1 } else { -1 };
    }
    cells.into_values().map(|(point, excess)| (point, excess > 0)).collect()
}

/// The live judgement.
fn timeline(rows: &[ChartRow], held_out: Option<usize>, area: &Area<'_>) -> Drawn {
    let (_, height) = area.dim_in_pixel();
    let (rtt, judgement) = area.split_vertically(height / 2 - canvas::scaled(20));
    let time = Time::of(rows.iter().map(|row| row.seconds));
    let lit: Vec<bool> = rows.iter().map(|row| row.anomaly).collect();
    let values = |of: fn(&ChartRow) -> Option<f64>| -> Vec<_> { rows.iter().map(of).collect() };

    let p95 = values(|row| row.p95_rtt_ms);
    let y = Axis::log(p95.iter().copied().flatten()).with_headroom(0.3);
    let panel = time.panel(y, "p95 RTT, ms", false);
    let mut chart = panel.chart(&rtt)?;
    time.shade(&mut chart, &lit, &panel.y, Some("anomaly light on"))?;
    time.draw(&mut chart, &p95, canvas::line(BLUE, 1), "95th percentile of the interval")?;
    if p95.iter().all(Option::is_none) {
        let at = (0.45 * panel.x.bounds().end, 10.0);
        let none = Text::new("none measured", at, canvas::text(19));
        chart.draw_series(std::iter::once(none))?;
    }
    canvas::legend(&mut chart)?;

    let panel = time.panel(Axis::linear(0.0..1.0, 0.0).with_headroom(0.6), "health, score", true);
    let mut chart = panel.chart(&judgement)?;
    time.shade(&mut chart, &lit, &panel.y, None)?;
    let health = values(|row| Some(row.health));
    time.draw(&mut chart, &health, canvas::line(GREEN, 2), "health")?;
    let score = values(|row| Some(row.anomaly_score));
    time.draw(&mut chart, &score, canvas::line(VERMILLION, 1), "anomaly score")?;
    if let Some(row) = held_out {
        let upright = [(time.at(row), 0.0), (time.at(row), panel.y.bounds().end)];
        let name = Some("held out from here".to_owned());
        canvas::draw_line(&mut chart, upright, canvas::line(INK, 2), name)?;
    }
    canvas::legend(&mut chart)
}
