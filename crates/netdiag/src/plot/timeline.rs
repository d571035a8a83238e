//! The course of a recording: round trips with their rolling 95th percentile, throughput and retransmissions, one time
//! axis, anomalies shaded through all three.

use netdiag_telemetry::Row;
use plotters::prelude::*;

use super::Recording;
use super::axis::Axis;
use super::canvas::{
    self, Area, BLUE, Chart, Drawn, GREEN, INK, ORANGE, Panel, VERMILLION, draw_line,
};

/// What stands behind anomalous intervals.
const SHADE: RGBColor = RGBColor(253, 228, 214);

/// A pause this many times as long as the usual interval breaks a line.
const GAP: f64 = 5.0;

pub(super) fn draw(recording: &Recording, area: &Area<'_>) -> Drawn {
    let (_, height) = area.dim_in_pixel();
    let (rtt, rest) = area.split_vertically(height / 2);
    let (throughput, losses) = rest.split_vertically(height / 4 - canvas::scaled(24));
    let time = Time::of(recording);
    round_trips(recording, &time, &rtt)?;

    let mbit = |row: &Row| Some(row.sample.throughput_bps? / 1e6);
    let panel = time.panel(Axis::from_zero(time.values(recording, mbit)), "Mbit/s", false);
    let mut chart = panel.chart(&throughput)?;
    time.shade(&mut chart, recording, &panel.y, None)?;
    for run in time.runs(recording, mbit) {
        let area = AreaSeries::new(run, 0.0, GREEN.mix(0.25));
        chart.draw_series(area.border_style(canvas::line(GREEN, 1)))?;
    }

    let segments = |row: &Row| Some(row.sample.retrans_segs as f64);
    let panel = time.panel(Axis::from_zero(time.values(recording, segments)), "retrans.", true);
    let mut chart = panel.chart(&losses)?;
    time.shade(&mut chart, recording, &panel.y, None)?;
    for (at, count) in time.points(recording, segments).filter(|&(_, count)| count > 0.0) {
        draw_line(&mut chart, [(at, 0.0), (at, count)], canvas::line(VERMILLION, 1), None)?;
    }
    Ok(())
}

fn round_trips(recording: &Recording, time: &Time, area: &Area<'_>) -> Drawn {
    let ms = |rtt: std::time::Duration| rtt.as_secs_f64() * 1e3;
    let avg = move |row: &Row| Some(ms(row.sample.rtt?.avg));
    let p95 = move |row: &Row| Some(ms(row.sample.rtt?.p95));
    let rolling = move |row: &Row| Some(ms(row.rolling.p95_rtt?));
    let all = recording.rows.iter().flat_map(|row| [avg(row), p95(row), rolling(row)]).flatten();
    // The legend stands above the lines.
    let panel = time.panel(Axis::log(all).with_headroom(0.4), "round trip, ms", false);
    let mut chart = panel.chart(area)?;
    time.shade(&mut chart, recording, &panel.y, Some("anomalous"))?;
    type Value<'a> = (&'a str, RGBColor, u32, &'a dyn Fn(&Row) -> Option<f64>);
    let values: [Value<'_>; 3] = [
        ("95th percentile of the interval", ORANGE, 1, &p95),
        ("average of the interval", BLUE, 2, &avg),
        ("95th percentile of the window", INK, 1, &rolling),
    ];
    for (name, colour, width, of) in values {
        for (number, run) in time.runs(recording, of).into_iter().enumerate() {
            let name = (number == 0).then(|| name.to_owned());
            draw_line(&mut chart, run, canvas::line(colour, width), name)?;
        }
    }
    canvas::legend(&mut chart)
}

/// The axis that all panels share.
struct Time {
    /// Of each row, in units of the axis.
    at: Vec<f64>,
    end: f64,
    unit: &'static str,
    /// The usual distance of rows.
    usual: f64,
}

impl Time {
    fn of(recording: &Recording) -> Self {
        let (unit, seconds) = match recording.length() {
            length if length < 300.0 => ("s", 1.0),
            length if length < 18_000.0 => ("min", 60.0),
            _ => ("h", 3600.0),
        };
        let at: Vec<f64> = recording.seconds().map(|second| second / seconds).collect();
        let mut steps: Vec<f64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        steps.sort_by(f64::total_cmp);
        let usual = steps.get(steps.len() / 2).copied().unwrap_or(0.0).max(1e-9);
        Self { at, end: recording.length() / seconds, unit, usual }
    }

    /// A panel over this time; the lowest one names it.
    fn panel<'p>(&self, y: Axis, y_name: &'p str, lowest: bool) -> Panel<'p> {
        Panel {
            title: None,
            x: Axis::linear(0.0..self.end, 0.0),
            y,
            x_name: lowest.then(|| format!("time since the first row, {}", self.unit)),
            y_name,
        }
    }

    fn shade(
        &self,
        chart: &mut Chart<'_, '_>,
        recording: &Recording,
        y: &Axis,
        name: Option<&str>,
    ) -> Drawn {
        let (low, high) = (y.bounds().start, y.bounds().end);
        let spans = self.anomalous(recording).into_iter();
        let series = chart.draw_series(
            spans.map(|(from, to)| Rectangle::new([(from, low), (to, high)], SHADE.filled())),
        )?;
        if let Some(name) = name {
            series.label(name).legend(|(x, y)| {
                let (half, width) = (canvas::scaled(5) as i32, canvas::scaled(18) as i32);
                Rectangle::new([(x, y - half), (x + width, y + half)], SHADE.filled())
            });
        }
        Ok(())
    }

    /// Where the anomaly light was on: a row speaks for the time since the one before.
    fn anomalous(&self, recording: &Recording) -> Vec<(f64, f64)> {
        let mut spans: Vec<(f64, f64)> = Vec::new();
        for (index, _) in recording.anomalies.iter().enumerate().filter(|(_, anomaly)| **anomaly) {
            let to = self.at[index];
            let from = if index > 0 { self.at[index - 1] } else { 0.0 };
            match spans.last_mut() {
                Some(last) if last.1 >= from => last.1 = to,
                _ => spans.push((from.max(to - GAP * self.usual), to)),
            }
        }
        spans
    }

    fn points<'a>(
        &'a self,
        recording: &'a Recording,
        value: impl Fn(&Row) -> Option<f64> + 'a,
    ) -> impl Iterator<Item = (f64, f64)> + 'a {
        self.at.iter().zip(&recording.rows).filter_map(move |(&at, row)| Some((at, value(row)?)))
    }

    fn values<'a>(
        &'a self,
        recording: &'a Recording,
        value: impl Fn(&Row) -> Option<f64> + 'a,
    ) -> impl Iterator<Item = f64> + 'a {
        self.points(recording, value).map(|(_, value)| value)
    }

    /// Lines that are not drawn across pauses.
    fn runs(
        &self,
        recording: &Recording,
        value: impl Fn(&Row) -> Option<f64>,
    ) -> Vec<Vec<(f64, f64)>> {
        let mut runs: Vec<Vec<(f64, f64)>> = Vec::new();
        for point in self.points(recording, value) {
            match runs.last_mut() {
                Some(run)
                    if run.last().is_some_and(|last| point.0 - last.0 <= GAP * self.usual) =>
                {
                    run.push(point);
                }
                _ => runs.push(vec![point]),
            }
        }
        runs
    }
}
