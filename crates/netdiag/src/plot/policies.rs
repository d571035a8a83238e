//! Policies over loads: what readers had of them, and what was generated for nobody.
//!
//! A row of panels for each mix of clients; the bars of a point are its interval of 95 %.

use netdiag_lab::sim::{Cell, Estimate, Mix, Policy, Report, Row};
use plotters::prelude::*;

use super::axis::Axis;
use super::canvas::{self, Area, BLUE, Drawn, GREEN, ORANGE, Panel, VERMILLION, draw_line};

/// Okabe and Ito's two that the other charts have no use for.
const PURPLE: RGBColor = RGBColor(204, 121, 167);
const SKY: RGBColor = RGBColor(86, 180, 233);

/// A figure of a row.
type Figure = fn(&Row) -> Estimate;

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
        let qoe: Figure = |row| row.qoe;
        panel(&panels[0], &format!("QoE; {who}"), "QoE", &cells, qoe, true)?;
        let waste: Figure = |row| Estimate {
            mean: 100.0 * row.waste_ratio.mean,
            within: row.waste_ratio.within.map(|within| 100.0 * within),
        };
        panel(&panels[1], "Generated for nobody", "waste, %", &cells, waste, false)?;
        let worth: Figure = |row| row.effective_tps;
        panel(&panels[2], "Effective throughput", "tok/s", &cells, worth, false)?;
    }
    Ok(())
}

fn panel(
    area: &Area<'_>,
    title: &str,
    y_name: &str,
    cells: &[&Cell],
    figure: Figure,
    legend: bool,
) -> Drawn {
    let highest = cells.iter().flat_map(|cell| &cell.rows).map(|row| figure(row).range()[1]);
    let loads: Vec<f64> = cells.iter().map(|cell| cell.load).collect();
    let (low, high) = loads.iter().fold((f64::MAX, 0f64), |(l, h), &x| (l.min(x), h.max(x)));
    let air = ((high - low) * 0.05).max(0.05);
    let panel = Panel {
        title: Some(title),
        x: Axis::linear(low - air..high + air, 0.0),
        y: Axis::from_zero(highest),
        x_name: Some("load".to_owned()),
        y_name,
    };
    let mut chart = panel.chart(area)?;
    for policy in Policy::ALL {
        let points: Vec<(f64, Estimate)> = cells
            .iter()
            .filter_map(|cell| {
                let row = cell.rows.iter().find(|row| row.policy == policy)?;
                Some((cell.load, figure(row)))
            })
            .collect();
        if points.is_empty() {
            continue;
        }
        let style = canvas::line(colour(policy), 2);
        for (load, estimate) in &points {
            let [from, to] = estimate.range();
            // The axis begins at zero.
            draw_line(&mut chart, [(*load, from.max(0.0)), (*load, to)], style, None)?;
        }
        let means = points.iter().map(|(load, estimate)| (*load, estimate.mean));
        draw_line(&mut chart, means, style, Some(policy.as_str().to_owned()))?;
    }
    if legend { canvas::legend(&mut chart) } else { Ok(()) }
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
