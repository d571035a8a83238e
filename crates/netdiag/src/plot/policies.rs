//! Policies over loads: what readers had of them, and what was generated for nobody.
//!
//! A row of panels for each mix of clients; the bars of a point are its interval of 95 %. At each load the policies stand side by
//! side, or markers that mean the same would hide each other. Of few seeds Student's intervals are wide; what lies beyond the
//! values that a figure can have is not drawn.

use netdiag_lab::sim::{Cell, Estimate, Mix, Policy, Report, Row};
use plotters::prelude::*;

use super::axis::Axis;
use super::canvas::{self, Area, BLUE, Drawn, GREEN, ORANGE, Panel, VERMILLION, draw_line};

/// Okabe and Ito's two that the other charts have no use for.
const PURPLE: RGBColor = RGBColor(204, 121, 167);
const SKY: RGBColor = RGBColor(86, 180, 233);

/// Part of the gap between two loads that the policies of one stand in, so that it is plain to whose load they belong.
const SPREAD: f64 = 0.35;

/// Radius of a marker, pixels of the picture.
const MARKER: u32 = 4;

/// A figure of a row, and the most that it can be.
struct Figure {
    of: fn(&Row) -> Estimate,
    most: f64,
}

impl Figure {
    /// The interval of a row, as far as it can be true.
    fn range(&self, row: &Row) -> [f64; 2] {
        (self.of)(row).range().map(|end| end.clamp(0.0, self.most))
    }
}

pub(super) fn draw(report: &Report, area: &Area<'_>) -> Drawn {
    let mut mixes: Vec<Mix> = report.cells.iter().map(|cell| cell.mix).collect();
    mixes.dedup();
    let rows = area.split_evenly((mixes.len().max(1), 3));
    for (number, mix) in mixes.iter().enumerate() {
        let cells: Vec<&Cell> = report.cells.iter().filter(|cell| cell.mix == *mix).collect();
        let who = format!(
            "{:.0} % cellular, {:.0} % vanish",
            100.0 * mix.cellular,
            100.0 * mix.vanishing
        );
        let panels = &rows[3 * number..];
        let qoe = Figure { of: |row| row.qoe, most: 1.0 };
        panel(&panels[0], &format!("QoE; {who}"), "QoE", &cells, &qoe, true)?;
        let percent = |row: &Row| Estimate {
            mean: 100.0 * row.waste_ratio.mean,
            within: row.waste_ratio.within.map(|within| 100.0 * within),
        };
        let waste = Figure { of: percent, most: 100.0 };
        panel(&panels[1], "Generated for nobody", "waste, %", &cells, &waste, false)?;
        let worth = Figure { of: |row| row.effective_tps, most: f64::INFINITY };
        panel(&panels[2], "Effective throughput", "tok/s", &cells, &worth, false)?;
    }
    Ok(())
}

fn panel(
    area: &Area<'_>,
    title: &str,
    y_name: &str,
    cells: &[&Cell],
    figure: &Figure,
    legend: bool,
) -> Drawn {
    let rows = cells.iter().flat_map(|cell| &cell.rows);
    let highest = rows.clone().map(|row| figure.range(row)[1]);
    let policies: Vec<Policy> = Policy::ALL
        .into_iter()
        .filter(|policy| rows.clone().any(|r| r.policy == *policy))
        .collect();
    let places = Places::of(cells, policies.len());
    let panel = Panel {
        title: Some(title),
        x: Axis::linear(places.axis(), 0.0),
        y: Axis::from_zero(highest),
        x_name: Some("load (policies side by side)".to_owned()),
        y_name,
    };
    let mut chart = panel.chart(area)?;
    for (number, &policy) in policies.iter().enumerate() {
        let style = canvas::line(colour(policy), 2);
        let mut means = Vec::with_capacity(cells.len());
        for cell in cells {
            let Some(row) = cell.rows.iter().find(|row| row.policy == policy) else { continue };
            let (x, [from, to]) = (places.at(cell.load, number), figure.range(row));
            draw_line(&mut chart, [(x, from), (x, to)], style, None)?;
            means.push((x, (figure.of)(row).mean));
        }
        let marker =
            |&at: &(f64, f64)| Circle::new(at, canvas::scaled(MARKER), colour(policy).filled());
        chart.draw_series(means.iter().map(marker))?;
        draw_line(&mut chart, means, style, Some(policy.as_str().to_owned()))?;
    }
    if legend { canvas::legend(&mut chart) } else { Ok(()) }
}

/// Where the policies of a load stand.
struct Places {
    lowest: f64,
    highest: f64,
    /// From one policy to the next.
    step: f64,
    count: usize,
}

impl Places {
    fn of(cells: &[&Cell], count: usize) -> Self {
        let mut loads: Vec<f64> = cells.iter().map(|cell| cell.load).collect();
        loads.sort_unstable_by(f64::total_cmp);
        loads.dedup();
        let gap = loads.windows(2).map(|pair| pair[1] - pair[0]).reduce(f64::min);
        let [lowest, highest] =
            [loads.first(), loads.last()].map(|load| load.copied().unwrap_or(1.0));
        // One load alone has all the room.
        let step = gap.unwrap_or(lowest) * SPREAD / count.max(1) as f64;
        Self { lowest, highest, step, count }
    }

    /// The policy of this number, in the order in which they are drawn.
    fn at(&self, load: f64, number: usize) -> f64 {
        load + (number as f64 - (self.count as f64 - 1.0) / 2.0) * self.step
    }

    /// All of them, with some air.
    fn axis(&self) -> std::ops::Range<f64> {
        let air = (self.step * self.count as f64).max((self.highest - self.lowest) * 0.05);
        self.lowest - air..self.highest + air
    }
}

fn colour(policy: Policy) -> RGBColor {
    match policy {
        Policy::None => VERMILLION,
        Policy::Classic => ORANGE,
        Policy::Proteus => PURPLE,
        Policy::Buffer => SKY,
        Policy::Carry => BLUE,
        Policy::Oracle => GREEN,
    }
}

#[cfg(test)]
mod tests {
    use netdiag_lab::sim::Mix;

    use super::*;

    fn estimate(mean: f64, within: f64) -> Estimate {
        Estimate { mean, within: Some(within) }
    }

    #[test]
    fn policies_of_a_load_stand_apart_and_nearer_to_it_than_to_the_next() {
        let mix = Mix { cellular: 0.3, vanishing: 0.15 };
        let cells = [0.7, 1.0, 1.2, 2.0].map(|load| Cell { mix, load, rows: Vec::new() });
        let cells: Vec<&Cell> = cells.iter().collect();
        let places = Places::of(&cells, 6);
        let at: Vec<f64> = (0..6).map(|number| places.at(1.0, number)).collect();
        assert!(at.windows(2).all(|pair| pair[1] - pair[0] > 0.01), "{at:?}");
        assert!(at[0] > 1.0 - 0.1 && at[5] < 1.0 + 0.1, "{at:?}");
        let axis = places.axis();
        assert!(axis.contains(&places.at(0.7, 0)) && axis.contains(&places.at(2.0, 5)));
        // One load, one policy: there is a picture all the same.
        let alone = Places::of(&cells[..1], 1);
        assert!(alone.axis().contains(&alone.at(0.7, 0)) && alone.at(0.7, 0) == 0.7);
    }

    #[test]
    fn intervals_end_where_a_figure_can_be_no_more() {
        let row = Row {
            policy: Policy::Carry,
            qoe: estimate(0.9, 0.4),
            qoe_gain: None,
            waste_ratio: estimate(0.25, 0.5),
            unread_tokens: estimate(0.0, 0.0),
            effective_tps: estimate(0.0, 0.0),
            delivered_tps: estimate(0.0, 0.0),
            stall_ratio: estimate(0.0, 0.0),
            ttft_seconds: estimate(0.0, 0.0),
        };
        assert_eq!(Figure { of: |row| row.qoe, most: 1.0 }.range(&row), [0.5, 1.0]);
        assert_eq!(Figure { of: |row| row.waste_ratio, most: 1.0 }.range(&row), [0.0, 0.75]);
    }
}
