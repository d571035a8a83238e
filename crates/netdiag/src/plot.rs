//! Charts of a recording, of a model, of an experiment and of a simulation, as PNG: what a person looks at to see whether the link was
//! well, what a training made of it, and what pacing did.
//!
//! Drawn at twice the size and reduced, because the drawing library does not smooth lines; the font is built in, so a
//! machine without fonts draws the same picture. Invariant: a chart of any recording can be drawn, also of one without a
//! single round trip.

mod arms;
mod axis;
mod canvas;
mod distributions;
mod model;
mod policies;
mod time;
mod timeline;

use std::time::Duration;

use anyhow::Context as _;
use netdiag_telemetry::Row;

use crate::figures::{counted, span};
pub(crate) use arms::{ArmLines, ArmsChart, PhaseMark};
use canvas::{Area, Canvas, Drawn};
pub(crate) use model::{ChartRow, ModelChart, ScoreChart};

/// Width and height of the picture, pixels.
const SIZE: (u32, u32) = (1600, 1000);

/// What is drawn.
#[derive(Debug)]
pub(crate) struct Recording {
    /// In the order of time.
    pub(crate) rows: Vec<Row>,
    /// Per row, whether the anomaly light was on.
    pub(crate) anomalies: Vec<bool>,
    /// Where it comes from, for the title.
    pub(crate) name: String,
}

impl Recording {
    /// Time of each row since the first, seconds.
    fn seconds(&self) -> impl Iterator<Item = f64> {
        let start = self.rows.first().map_or(Duration::ZERO, |row| row.sample.timestamp);
        self.rows.iter().map(move |row| row.sample.timestamp.saturating_sub(start).as_secs_f64())
    }

    /// What is odd about the rows and no mistake.
    pub(crate) fn notes(&self) -> Vec<String> {
        let timestamps = self.rows.iter().map(|row| row.sample.timestamp);
        time_notes(&self.name, timestamps.collect())
    }
}

/// The distributions and the time line of a recording, as PNG.
pub(crate) fn draw(recording: &Recording) -> anyhow::Result<Vec<u8>> {
    picture(&headline(recording), |body| {
        let (above, below) = body.split_vertically(canvas::scaled(330));
        distributions::draw(recording, &above)?;
        timeline::draw(recording, &below)
    })
}

/// A trained model's scores and judgement, as PNG.
pub(crate) fn draw_model(chart: &ModelChart) -> anyhow::Result<Vec<u8>> {
    picture(&chart.title, |body| model::draw(chart, body))
}

/// The course of an experiment's arms, as PNG.
pub(crate) fn draw_arms(chart: &ArmsChart<'_>) -> anyhow::Result<Vec<u8>> {
    picture(&chart.title, |body| arms::draw(chart, body))
}

/// Policies over loads, as PNG.
pub(crate) fn draw_policies(report: &netdiag_lab::sim::Report) -> anyhow::Result<Vec<u8>> {
    let seeds = counted(report.seeds.len(), "seed", "seeds");
    picture(&format!("Simulated policies, {seeds}"), |body| policies::draw(report, body))
}

/// A picture under a title.
fn picture(title: &str, draw: impl FnOnce(&Area<'_>) -> Drawn) -> anyhow::Result<Vec<u8>> {
    let mut canvas = Canvas::new(SIZE);
    canvas
        .paint(|area| {
            let (above, body) = area.split_vertically(canvas::scaled(54));
            canvas::title(&above, title)?;
            draw(&body)
        })
        .map_err(|error| anyhow::anyhow!("cannot draw the chart: {error}"))?;
    canvas.encode().context("cannot encode the chart")
}

/// What is odd about rows of these times, in the order of the file.
pub(crate) fn time_notes(name: &str, timestamps: Vec<Duration>) -> Vec<String> {
    let mut notes = Vec::new();
    let pairs = || timestamps.windows(2).map(|pair| (pair[0], pair[1]));
    let backwards = pairs().filter(|(before, after)| after < before).count();
    if backwards > 0 {
        notes.push(format!(
            "{name}: {} back in time; rows were taken in the order of the file",
            counted(backwards, "row goes", "rows go"),
        ));
    }
    let longest = pairs().map(|(before, after)| after.saturating_sub(before)).max();
    let longest = longest.unwrap_or_default();
    let whole: Duration = pairs().map(|(before, after)| after.saturating_sub(before)).sum();
    // What is left beside it could not be made out in a picture.
    if timestamps.len() > 2 && longest * 10 > whole * 9 {
        notes.push(format!(
            "nearly all of the {} of {name} are one pause; give the parts before and after it files of their own to see them",
            span(whole.as_secs_f64()),
        ));
    }
    notes
}

fn headline(recording: &Recording) -> String {
    let flagged = recording.anomalies.iter().filter(|&&anomaly| anomaly).count();
    let intervals = recording.rows.len();
    format!(
        "{}: {intervals} intervals, {}, {:.1} % anomalous",
        recording.name,
        span(recording.seconds().fold(0.0, f64::max)),
        100.0 * flagged as f64 / intervals.max(1) as f64,
    )
}
