//! The course of a recording: round trips with their rolling 95th percentile, throughput and retransmissions, one time
//! axis, anomalies shaded through all three.

use netdiag_telemetry::Row;
use plotters::prelude::*;

use super::Recording;
use super::axis::Axis;
use super::canvas::{self, Area, BLUE, Drawn, GREEN, INK, ORANGE, VERMILLION, draw_line};
use super::time::Time;

pub(super) fn draw(recording: &Recording, area: &Area<'_>) -> Drawn {
    let (_, height) = area.dim_in_pixel();
    let (rtt, rest) = area.split_vertically(height / 2);
    let (throughput, losses) = rest.split_vertically(height / 4 - canvas::scaled(24));
    let time = Time::of(recording.seconds());
    let values =
        |of: &dyn Fn(&Row) -> Option<f64>| -> Vec<_> { recording.rows.iter().map(of).collect() };
    let lit = &recording.anomalies;
    round_trips(recording, &time, &rtt)?;

    let mbit = values(&|row| Some(row.sample.throughput_bps? / 1e6));
    let panel = time.panel(Axis::from_zero(mbit.iter().copied().flatten()), "acked, Mbit/s", false);
    let mut chart = panel.chart(&throughput)?;
    time.shade(&mut chart, lit, &panel.y, None)?;
    for run in time.runs(&mbit) {
        chart.draw_series(AreaSeries::new(run.iter().copied(), 0.0, GREEN.mix(0.25)))?;
        draw_line(&mut chart, run, canvas::line(GREEN, 1), None)?;
    }

    let segments = values(&|row| Some(row.sample.retrans_segs as f64));
    let rolling = values(&|row| Some(row.rolling.retrans_segs as f64));
    let all = segments.iter().chain(&rolling).copied().flatten();
    let panel = time.panel(Axis::counts(all).with_headroom(0.5), "retrans., segs", true);
    let mut chart = panel.chart(&losses)?;
    time.shade(&mut chart, lit, &panel.y, None)?;
    time.draw(&mut chart, &rolling, canvas::line(INK, 1), "in the window")?;
    for (at, count) in time.runs(&segments).concat() {
        draw_line(&mut chart, [(at, 0.0), (at, count)], canvas::line(VERMILLION, 1), None)?;
    }
    canvas::legend(&mut chart)
}

fn round_trips(recording: &Recording, time: &Time, area: &Area<'_>) -> Drawn {
    let ms = |rtt: std::time::Duration| rtt.as_secs_f64() * 1e3;
    let avg = move |row: &Row| Some(ms(row.sample.rtt?.avg));
    let p95 = move |row: &Row| Some(ms(row.sample.rtt?.p95));
    let rolling = move |row: &Row| Some(ms(row.rolling.p95_rtt?));
    let window = move |row: &Row| Some(ms(row.rolling.avg_rtt?));
    let deviation = move |row: &Row| Some(window(row)? + ms(row.rolling.std_rtt?));
    let shown = |row: &Row| [avg(row), p95(row), rolling(row), window(row), deviation(row)];
    let all = recording.rows.iter().flat_map(shown).flatten();
    // The legend stands above the lines.
    let panel = time.panel(Axis::log(all).with_headroom(0.7), "round trip, ms", false);
    let mut chart = panel.chart(area)?;
    time.shade(&mut chart, &recording.anomalies, &panel.y, Some("anomalous"))?;
    type Line<'a> = (&'a str, RGBColor, u32, &'a dyn Fn(&Row) -> Option<f64>);
    let lines: [Line<'_>; 5] = [
        ("95th percentile of the window", INK, 1, &rolling),
        ("average of the window and one deviation", GREEN, 1, &deviation),
        ("average of the window", GREEN, 2, &window),
        ("95th percentile of the interval", ORANGE, 1, &p95),
        ("average of the interval", BLUE, 2, &avg),
    ];
    for (name, colour, width, of) in lines {
        let values: Vec<_> = recording.rows.iter().map(of).collect();
        time.draw(&mut chart, &values, canvas::line(colour, width), name)?;
    }
    canvas::legend(&mut chart)
}
