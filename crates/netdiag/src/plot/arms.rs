//! Arms of an experiment over each other: what happened to their links, what was recommended, and what came of it.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::Axis;
use super::canvas::{self, Area, BLUE, Chart, Drawn, GREEN, ORANGE, VERMILLION, draw_line};
use super::time::{self, Time};

/// As in the report. Told apart by the colour-blind as well; arms beyond these share the last.
const COLOURS: [RGBColor; 4] = [VERMILLION, BLUE, GREEN, ORANGE];

/// Of the edge where a phase begins: to be seen on the shade of a fault, and no line of anybody's.
const EDGE: RGBColor = RGBColor(190, 196, 205);

/// Share of the time axis below which a phase has no room for its name; the report has a table of all.
const NARROWEST: f64 = 0.03;

/// Arms that ran at the same time.
pub(crate) struct ArmsChart<'a> {
    /// What was run.
    pub(crate) title: String,
    /// Length of the time axis.
    pub(crate) seconds: f64,
    pub(crate) phases: Vec<PhaseMark<'a>>,
    pub(crate) arms: Vec<ArmLines<'a>>,
}

/// A stretch of the links' schedule.
pub(crate) struct PhaseMark<'a> {
    pub(crate) name: &'a str,
    pub(crate) from_seconds: f64,
    pub(crate) to_seconds: f64,
    /// Shaded.
    pub(crate) fault: bool,
}

/// One arm's intervals, a value each.
pub(crate) struct ArmLines<'a> {
    pub(crate) name: &'a str,
    pub(crate) seconds: Vec<f64>,
    pub(crate) p95_rtt_ms: Vec<Option<f64>>,
    pub(crate) retrans_segs: Vec<f64>,
    pub(crate) health: Vec<f64>,
    pub(crate) anomaly: Vec<bool>,
    pub(crate) current_tps: Vec<f64>,
    pub(crate) delivered_tps: Vec<f64>,
}

pub(super) fn draw(chart: &ArmsChart<'_>, area: &Area<'_>) -> Drawn {
    let (_, height) = area.dim_in_pixel();
    let share = |share: f64| (f64::from(height) * share) as u32;
    let (rtt, rest) = area.split_vertically(share(0.26));
    let (retrans, rest) = rest.split_vertically(share(0.14));
    let (health, rest) = rest.split_vertically(share(0.19));
    let (rate, delivered) = rest.split_vertically(share(0.18));
    let times: Vec<Time> =
        chart.arms.iter().map(|arm| Time::until(arm.seconds.clone(), chart.seconds)).collect();
    let panels = Panels { chart, times, axis: Time::until(Vec::new(), chart.seconds) };

    let p95 = |arm: &ArmLines<'_>| arm.p95_rtt_ms.clone();
    // Names of phases and the legend stand above the lines.
    let y = Axis::log(panels.values(p95)).with_headroom(0.5);
    let mut drawn = panels.panel(&rtt, y.clone(), "p95 RTT, ms", false, Some("fault"))?;
    panels.lines(&mut drawn, 2, p95)?;
    panels.names(&mut drawn, &y)?;
    canvas::legend(&mut drawn)?;

    let segments = |arm: &ArmLines<'_>| some(&arm.retrans_segs);
    let y = Axis::from_zero(panels.values(segments));
    let mut drawn = panels.panel(&retrans, y, "retrans.", false, None)?;
    panels.lines(&mut drawn, 1, segments)?;

    let y = Axis::linear(0.0..1.0, 0.0).with_headroom(0.12 + LIGHT * chart.arms.len() as f64);
    let mut drawn = panels.panel(&health, y, "health, light", false, None)?;
    panels.lines(&mut drawn, 2, |arm| some(&arm.health))?;
    panels.lights(&mut drawn)?;

    let tps = |arm: &ArmLines<'_>| some(&arm.current_tps);
    let y = Axis::from_zero(panels.values(tps));
    let mut drawn = panels.panel(&rate, y, "told, tok/s", false, None)?;
    panels.lines(&mut drawn, 2, tps)?;

    let came = |arm: &ArmLines<'_>| some(&arm.delivered_tps);
    let y = Axis::from_zero(panels.values(came));
    let mut drawn = panels.panel(&delivered, y, "came, tok/s", true, None)?;
    panels.lines(&mut drawn, 2, came)
}

/// Height of the strip that shows an arm's anomaly light, in units of health.
const LIGHT: f64 = 0.1;

struct Panels<'c> {
    chart: &'c ArmsChart<'c>,
    /// Of each arm's intervals.
    times: Vec<Time>,
    axis: Time,
}

impl Panels<'_> {
    /// A panel with the faults shaded.
    fn panel<'a, 'b>(
        &self,
        area: &'a Area<'b>,
        y: Axis,
        y_name: &str,
        lowest: bool,
        shade_name: Option<&str>,
    ) -> Result<Chart<'a, 'b>, Box<dyn std::error::Error>> {
        let panel = self.axis.panel(y, y_name, lowest);
        let mut drawn = panel.chart(area)?;
        let faults = self.chart.phases.iter().filter(|phase| phase.fault);
        let spans = faults
            .map(|phase| (self.axis.place(phase.from_seconds), self.axis.place(phase.to_seconds)));
        time::shade(&mut drawn, spans, &panel.y, shade_name)?;
        // Faults side by side are told apart by the edge between them.
        let (low, high) = (panel.y.bounds().start, panel.y.bounds().end);
        let beside = self.chart.phases.windows(2).filter(|pair| pair[0].fault && pair[1].fault);
        for pair in beside {
            let at = self.axis.place(pair[1].from_seconds);
            draw_line(&mut drawn, [(at, low), (at, high)], canvas::line(EDGE, 1), None)?;
        }
        Ok(drawn)
    }

    fn values(&self, of: impl Fn(&ArmLines<'_>) -> Vec<Option<f64>>) -> impl Iterator<Item = f64> {
        self.chart.arms.iter().flat_map(of).flatten().collect::<Vec<_>>().into_iter()
    }

    fn lines(
        &self,
        drawn: &mut Chart<'_, '_>,
        width: u32,
        of: impl Fn(&ArmLines<'_>) -> Vec<Option<f64>>,
    ) -> Drawn {
        for (number, (arm, time)) in self.chart.arms.iter().zip(&self.times).enumerate() {
            let values = of(arm);
            time.draw(drawn, &values, canvas::line(colour(number), width), arm.name)?;
            // A line through one point cannot be seen.
            let lone = time.runs(&values).into_iter().filter(|run| run.len() == 1).flatten();
            let radius = canvas::scaled(2);
            drawn.draw_series(lone.map(|at| Circle::new(at, radius, colour(number).filled())))?;
        }
        Ok(())
    }

    /// Above the lines of health, while each arm's light was on.
    fn lights(&self, drawn: &mut Chart<'_, '_>) -> Drawn {
        for (number, (arm, time)) in self.chart.arms.iter().zip(&self.times).enumerate() {
            let y = 1.0 + LIGHT * (number as f64 + 1.0);
            for (from, to) in time.spans(&arm.anomaly) {
                let style = canvas::line(colour(number), 5);
                draw_line(drawn, [(from, y), (to, y)], style, None)?;
            }
        }
        Ok(())
    }

    /// The phases' names at the top, every other one a line lower, because some phases are shorter than their names.
    fn names(&self, drawn: &mut Chart<'_, '_>, y: &Axis) -> Drawn {
        let top = y.bounds().end;
        let is_wide = |phase: &PhaseMark<'_>| {
            phase.to_seconds - phase.from_seconds >= NARROWEST * self.chart.seconds
        };
        let phases = self.chart.phases.iter().enumerate().filter(|(_, phase)| is_wide(phase));
        let names = phases.map(|(number, phase)| {
            let at = (self.axis.place(phase.from_seconds), top);
            let below = canvas::scaled(4 + 20 * (number as u32 % 2)) as i32;
            let style = canvas::text(16).pos(Pos::new(HPos::Left, VPos::Top));
            EmptyElement::at(at)
                + Text::new(phase.name.to_owned(), (canvas::scaled(4) as i32, below), style)
        });
        drawn.draw_series(names)?;
        Ok(())
    }
}

fn some(values: &[f64]) -> Vec<Option<f64>> {
    values.iter().copied().map(Some).collect()
}

fn colour(arm: usize) -> RGBColor {
    COLOURS[arm.min(COLOURS.len() - 1)]
}
