//! Charts inside a page: lines that stretch with the page, labels that do not.
//!
//! A picture scaled down to a phone has labels nobody can read. Here only the lines are drawn (SVG, stretched to whatever
//! width there is, with strokes that keep theirs); every word and number is HTML, placed in per cent. No script is needed.
//!
//! Invariant: whatever the values, the markup is well-formed, and what is not finite is left out.

use std::fmt::Write as _;

/// Width and height of a drawing's own coordinates. Only their precision matters.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 200.0;

/// Share of the width below which a phase has no room for its number on a phone, per cent.
const NARROWEST: f64 = 4.0;

/// What a chart shows.
#[derive(Clone, Debug)]
pub(crate) struct Chart<'a> {
    pub(crate) title: &'a str,
    /// What is said about it, behind the title.
    pub(crate) note: &'a str,
    /// Length of the time axis, seconds.
    pub(crate) seconds: f64,
    pub(crate) scale: Scale,
    pub(crate) series: Vec<Series<'a>>,
    /// Shaded stretches of time.
    pub(crate) bands: Vec<Band<'a>>,
}

/// The vertical axis.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scale {
    /// From zero to the largest value, or at least to this one.
    FromZero(f64),
    /// Logarithmic, around the values.
    Log,
}

/// A line, or several where values are missing.
#[derive(Clone, Debug)]
pub(crate) struct Series<'a> {
    pub(crate) name: &'a str,
    /// Of the style sheet: colour and kind of line.
    pub(crate) class: &'a str,
    /// Seconds and value, in the order of time; `None` breaks the line.
    pub(crate) points: Vec<(f64, Option<f64>)>,
}

/// A stretch of time, in the background.
#[derive(Clone, Debug)]
pub(crate) struct Band<'a> {
    pub(crate) from: f64,
    pub(crate) to: f64,
    /// Of the style sheet.
    pub(crate) class: &'a str,
    /// Written at its top where there is room, its number before it.
    pub(crate) label: &'a str,
    pub(crate) number: usize,
}

impl Chart<'_> {
    /// The chart as a `figure` element.
    pub(crate) fn render(&self) -> String {
        let axis = Axis::of(self);
        let mut html = format!(
            "<figure><figcaption><b>{}</b> <span>{}</span>{}</figcaption><div class=\"plot\">",
            escape(self.title),
            escape(self.note),
            self.legend(),
        );
        self.labels(&axis, &mut html);
        // Writing to a String cannot fail, here and below.
        let _ = write!(
            html,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">",
            escape(self.title),
        );
        for band in &self.bands {
            let (from, to) = (self.x(band.from), self.x(band.to));
            let _ = write!(
                html,
                "<rect class=\"{}\" x=\"{from:.1}\" y=\"0\" width=\"{:.1}\" height=\"{HEIGHT}\"/>",
                band.class,
                (to - from).max(0.0),
            );
        }
        for tick in &axis.ticks {
            let y = HEIGHT * (1.0 - axis.place(*tick));
            let _ = write!(html, "<path class=\"grid\" d=\"M0 {y:.1}H{WIDTH}\"/>");
        }
        // Bands of one colour side by side are told apart by the edge between them.
        for band in self.bands.iter().skip(1) {
            let _ =
                write!(html, "<path class=\"edge\" d=\"M{:.1} 0V{HEIGHT}\"/>", self.x(band.from));
        }
        for series in &self.series {
            let (lines, dots) = self.paths(series, &axis);
            let _ = write!(html, "<path class=\"line {}\" d=\"{lines}\"/>", series.class);
            if !dots.is_empty() {
                let _ = write!(html, "<path class=\"dot {}\" d=\"{dots}\"/>", series.class);
            }
        }
        html.push_str("</svg></div></figure>\n");
        html
    }

    fn legend(&self) -> String {
        let entry = |series: &Series<'_>| {
            format!("<i class=\"key {}\"></i>{} ", series.class, escape(series.name))
        };
        format!(
            "<span class=\"legend\">{}</span>",
            self.series.iter().map(entry).collect::<String>()
        )
    }

    fn labels(&self, axis: &Axis, html: &mut String) {
        for tick in &axis.ticks {
            let bottom = 100.0 * axis.place(*tick);
            let _ = write!(
                html,
                "<span class=\"y\" style=\"bottom:{bottom:.2}%\">{}</span>",
                number(*tick)
            );
        }
        for second in time_ticks(self.seconds) {
            let left = 100.0 * second / self.seconds;
            let _ = write!(
                html,
                "<span class=\"x\" style=\"left:{left:.2}%\">{} s</span>",
                number(second)
            );
        }
        for band in self.bands.iter().filter(|band| !band.label.is_empty()) {
            let left = self.x(band.from) / WIDTH * 100.0;
            let width = self.x(band.to) / WIDTH * 100.0 - left;
            if width < NARROWEST {
                continue;
            }
            let _ = write!(
                html,
                "<span class=\"phase\" style=\"left:{left:.2}%;width:{width:.2}%\"><b>{}</b> <i>{}</i></span>",
                band.number,
                escape(band.label),
            );
        }
    }

    fn x(&self, seconds: f64) -> f64 {
        (seconds / self.seconds).clamp(0.0, 1.0) * WIDTH
    }

    /// The lines through a series, and dots where a value has no neighbour to draw a line to.
    fn paths(&self, series: &Series<'_>, axis: &Axis) -> (String, String) {
        let (mut lines, mut dots) = (String::new(), String::new());
        let is_value = |point: &(f64, Option<f64>)| point.1.is_some_and(f64::is_finite);
        for run in series.points.chunk_by(|a, b| is_value(a) == is_value(b)) {
            let points =
                run.iter().filter(|point| is_value(point)).filter_map(|(seconds, value)| {
                    Some((self.x(*seconds), HEIGHT * (1.0 - axis.place((*value)?))))
                });
            let is_lone = run.len() == 1;
            for (number, (x, y)) in points.enumerate() {
                let _ = match is_lone {
                    true => write!(dots, "M{x:.1} {y:.1}h0"),
                    false => write!(lines, "{}{x:.1} {y:.1}", if number == 0 { 'M' } else { 'L' }),
                };
            }
        }
        (lines, dots)
    }
}

/// Where values stand, 0..=1 from the bottom.
struct Axis {
    low: f64,
    high: f64,
    log: bool,
    ticks: Vec<f64>,
}

impl Axis {
    fn of(chart: &Chart<'_>) -> Self {
        let points = chart.series.iter().flat_map(|series| &series.points);
        let values = points.filter_map(|(_, value)| value.filter(|value| value.is_finite()));
        let (low, high) = values
            .filter(|&value| value > 0.0)
            .fold((f64::MAX, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        match chart.scale {
            Scale::FromZero(least) => {
                let high = (high * 1.08).max(least);
                Self { low: 0.0, high, log: false, ticks: round_steps(high) }
            }
            Scale::Log => {
                let (low, high) = if low > high { (1.0, 100.0) } else { (low, high) };
                // Wide enough for two round numbers, the farthest apart of which are 2 and 5.
                let air = (6.25 * low / high).sqrt().max(1.3);
                let (low, high) = (low / air, high * air);
                let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
                let ticks = |steps: &[f64]| -> Vec<f64> {
                    let decade = |decade| steps.iter().map(move |step| step * 10f64.powi(decade));
                    let all = decades.clone().flat_map(decade);
                    all.filter(|tick| (low..=high).contains(tick)).collect()
                };
                let powers = ticks(&[1.0]);
                let ticks = if powers.len() > 1 { powers } else { ticks(&[1.0, 2.0, 5.0]) };
                Self { low, high, log: true, ticks }
            }
        }
    }

    fn place(&self, value: f64) -> f64 {
        let share = match self.log {
            true => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        share.clamp(0.0, 1.0)
    }
}

/// Three to six round numbers from zero to `high`.
fn round_steps(high: f64) -> Vec<f64> {
    let power = 10f64.powf((high / 3.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    let step = step.into_iter().find(|step| high / step <= 5.0).unwrap_or(power * 10.0);
    (0..).map(|number| f64::from(number) * step).take_while(|tick| *tick <= high).collect()
}

/// Where the time axis is labelled: at most seven places, few enough for a phone.
fn time_ticks(seconds: f64) -> Vec<f64> {
    let steps = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];
    let step = steps.into_iter().find(|step| seconds / step <= 6.0).unwrap_or(21_600.0);
    (0..).map(|number| f64::from(number) * step).take_while(|tick| *tick <= seconds).collect()
}

/// A number with no more digits than it needs.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Text for HTML and for attributes.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: &[(f64, Option<f64>)], scale: Scale) -> String {
        let series = Series { name: "a <b>", class: "a", points: points.to_vec() };
        let band = Band { from: 2.0, to: 4.0, class: "fault", label: "lossy & slow", number: 2 };
        let chart = Chart {
            title: "RTT",
            note: "ms",
            seconds: 10.0,
            scale,
            series: vec![series],
            bands: vec![band],
        };
        chart.render()
    }

    #[test]
    fn lines_break_where_values_are_missing() {
        let html = chart(
            &[
                (0.0, Some(1.0)),
                (5.0, Some(2.0)),
                (6.0, None),
                (7.0, Some(f64::NAN)),
                (10.0, Some(0.0)),
            ],
            Scale::FromZero(4.0),
        );
        assert!(html.contains("d=\"M0.0 150.0L500.0 100.0\""), "{html}");
        assert!(html.contains("class=\"dot a\" d=\"M1000.0 200.0h0\""), "{html}");
        let label = "left:20.00%;width:20.00%\"><b>2</b> <i>lossy &amp; slow</i></span>";
        assert!(html.contains(label), "{html}");
        assert!(html.contains("a &lt;b&gt;") && !html.contains("NaN"), "{html}");
    }

    #[test]
    fn any_values_have_an_axis() {
        for scale in [Scale::FromZero(1.0), Scale::Log] {
            for values in [vec![], vec![0.0], vec![5.0], vec![1e-3, 1e6], vec![-3.0]] {
                let points: Vec<_> = values.iter().map(|&value| (1.0, Some(value))).collect();
                let html = chart(&points, scale);
                assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
                assert!(html.matches("class=\"y\"").count() >= 2, "{html}");
            }
        }
        assert_eq!(round_steps(86.4), [0.0, 20.0, 40.0, 60.0, 80.0]);
        assert_eq!(round_steps(80.0), [0.0, 20.0, 40.0, 60.0, 80.0]);
        assert_eq!(time_ticks(60.0).len(), 7);
    }
}
