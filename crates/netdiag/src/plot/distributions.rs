//! How often each value occurred: round trips, retransmissions, throughput.

use netdiag_telemetry::Row;
use plotters::prelude::*;

use super::Recording;
use super::axis::Axis;
use super::canvas::{self, Area, BLUE, Drawn, GREEN, INK, ORANGE, Panel, VERMILLION};
use crate::figures::counts;

/// Bars of a histogram.
const BARS: usize = 48;

/// The three distributions, side by side.
pub(super) fn draw(recording: &Recording, area: &Area<'_>) -> Drawn {
    let panels = area.split_evenly((1, 3));
    let values = |of: fn(&Row) -> Option<f64>| -> Vec<f64> {
        let mut values: Vec<_> = recording.rows.iter().filter_map(of).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let rtt = values(|row| Some(row.sample.rtt?.avg.as_secs_f64() * 1e3));
    let axis = Axis::log(rtt.iter().copied());
    let bars = Bars::of(&rtt, axis.cut(BARS), axis);
    bars.draw(&panels[0], "Round trip, average per interval", "ms", BLUE, &rtt)?;

    let segments = values(|row| Some(row.sample.retrans_segs as f64));
    let bars = Bars::of_counts(&segments);
    let title = "Retransmitted segments per interval";
    bars.draw(&panels[1], title, "segments", VERMILLION, &segments)?;

    let mbit = values(|row| Some(row.sample.throughput_bps? / 1e6));
    let axis = Axis::from_zero(mbit.iter().copied());
    let bars = Bars::of(&mbit, axis.cut(BARS), axis);
    bars.draw(&panels[2], "Throughput, acknowledged", "Mbit/s", GREEN, &mbit)
}

/// How many values lie between each edge and the next.
struct Bars {
    axis: Axis,
    edges: Vec<f64>,
    counts: Vec<u32>,
}

impl Bars {
    fn of(values: &[f64], edges: Vec<f64>, axis: Axis) -> Self {
        let counts = counts(values, &edges);
        Self { axis, edges, counts }
    }

    /// Whole numbers, each in the middle of its bar, or several to a bar.
    fn of_counts(values: &[f64]) -> Self {
        let highest = values.last().copied().unwrap_or_default().max(1.0);
        let width = ((highest + 1.0) / BARS as f64).ceil();
        let bars = ((highest + 1.0) / width).ceil() as usize;
        let edges: Vec<f64> = (0..=bars).map(|bar| bar as f64 * width - 0.5).collect();
        let axis = Axis::linear(edges[0]..edges[bars], 1.0);
        Self::of(values, edges, axis)
    }

    /// `values` are those that were counted, sorted.
    fn draw(
        &self,
        area: &Area<'_>,
        title: &str,
        unit: &str,
        colour: RGBColor,
        values: &[f64],
    ) -> Drawn {
        let highest = self.counts.iter().copied().max().unwrap_or(0).max(3);
        let panel = Panel {
            title: Some(title),
            x: self.axis.clone(),
            // The legend stands above the bars.
            y: Axis::linear(0.0..f64::from(highest), 1.0).with_headroom(0.5),
            x_name: Some(unit.to_owned()),
            y_name: "intervals",
        };
        let mut chart = panel.chart(area)?;
        let edges = self.edges.windows(2).zip(&self.counts);
        chart.draw_series(edges.filter(|(_, count)| **count > 0).map(|(edges, &count)| {
            let corners = [(edges[0], 0.0), (edges[1], f64::from(count))];
            let mut bar = Rectangle::new(corners, colour.mix(0.75).filled());
            bar.set_margin(0, 0, canvas::scaled(1), canvas::scaled(1));
            bar
        }))?;
        if values.is_empty() {
            let at = (self.edges[self.edges.len() / 3], f64::from(highest) / 2.0);
            chart.draw_series(std::iter::once(Text::new("none measured", at, canvas::text(19))))?;
            return Ok(());
        }
        for (name, share, colour) in [("median", 0.5, INK), ("95th percentile", 0.95, ORANGE)] {
            let value = values[((values.len() - 1) as f64 * share).round() as usize];
            let upright = [(value, 0.0), (value, f64::from(highest) * 1.1)];
            let name = format!("{name} {} {unit}", self.axis.label(value));
            canvas::draw_line(&mut chart, upright, canvas::line(colour, 2), Some(name))?;
        }
        canvas::legend(&mut chart)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_its_bar() {
        let values = [1.0, 1.0, 2.0, 5.0];
        let bars = Bars::of_counts(&values);
        assert_eq!(bars.edges, [-0.5, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5]);
        assert_eq!(bars.counts, [0, 2, 1, 0, 0, 1]);
        let many: Vec<f64> = (0..1000).map(f64::from).collect();
        let bars = Bars::of_counts(&many);
        assert!(bars.counts.len() <= BARS && bars.counts.iter().sum::<u32>() == 1000);
        let axis = Axis::log(many.iter().copied());
        let bars = Bars::of(&many, axis.cut(BARS), axis);
        // Zero has no place on the axis, and is counted at its start.
        assert_eq!(bars.counts.iter().sum::<u32>(), 1000);
    }
}
