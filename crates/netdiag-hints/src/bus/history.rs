//! What each engine was asked for and gave in the last minutes, so that who looks at a fleet now sees where it comes from.
//!
//! Kept by the process that shares engines and not by whoever looks, because nobody may look when something happens. A time in which
//! nothing was known of an engine is a gap. Invariant: memory is bounded, by [`MOST`] engines of [`POINTS`] points each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};
use tokio::time::Instant;

use super::fleet::{EngineName, EngineView, OFTEN};

/// Time between two points: what is shared is brought to where it should be within a second.
const EVERY: Duration = Duration::from_secs(2);

/// Points of an engine: five minutes, a few pixels each in a picture of a table's width.
const POINTS: usize = 150;

/// Engines that have one: as many as metrics name.
const MOST: usize = 100;

/// One engine's past: what its streams asked for and had, tokens/s, the newest last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineHistory(Arc<Vec<Option<Point>>>);

/// A moment of it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    demand: f64,
    given: f64,
}

impl EngineHistory {
    /// A point more, in the place of the oldest if there are enough.
    fn push(&mut self, point: Option<Point>) {
        let points = Arc::make_mut(&mut self.0);
        if points.len() >= POINTS {
            points.remove(0);
        }
        points.push(point);
    }

    fn is_over(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

impl Serialize for EngineHistory {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // A tenth of a token per second is less than a pixel.
        let rounded = |value: f64| (value * 10.0).round() / 10.0;
        let column = |of: fn(Point) -> f64| -> Vec<Option<f64>> {
            self.0.iter().map(|point| point.map(|point| rounded(of(point)))).collect()
        };
        let mut history = serializer.serialize_struct("EngineHistory", 3)?;
        history.serialize_field("every_seconds", &EVERY.as_secs_f64())?;
        history.serialize_field("demand_tps", &column(|point| point.demand))?;
        history.serialize_field("given_tps", &column(|point| point.given))?;
        history.end()
    }
}

/// The past of all engines.
#[derive(Debug, Default)]
pub(crate) struct Histories {
    by_engine: BTreeMap<EngineName, EngineHistory>,
    last: Option<Instant>,
}

impl Histories {
    /// Takes in how engines are at `now`, and gives each its past.
    pub(crate) fn note<'a>(
        &mut self,
        engines: impl Iterator<Item = &'a mut EngineView>,
        now: Instant,
    ) {
        // It is asked every so often, a little more or less.
        let is_over = |last| now.saturating_duration_since(last) >= EVERY - OFTEN / 2;
        let views: Vec<&mut EngineView> = engines.collect();
        if self.last.is_none_or(is_over) {
            self.last = Some(now);
            let point =
                |view: &EngineView| Point { demand: view.demand_tps, given: view.given_tps };
            let mut points: BTreeMap<EngineName, Point> =
                views.iter().map(|view| (view.engine.clone(), point(view))).collect();
            for (engine, history) in &mut self.by_engine {
                history.push(points.remove(engine));
            }
            self.by_engine.retain(|_, history| !history.is_over());
            for (engine, point) in points {
                if self.by_engine.len() < MOST {
                    self.by_engine.entry(engine).or_default().push(Some(point));
                }
            }
        }
        for view in views {
            view.history = self.by_engine.get(&view.engine).cloned().unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(engine: &str, given_tps: f64) -> EngineView {
        EngineView {
            engine: EngineName::try_new(engine).expect("a name"),
            capacity_tps: None,
            level: None,
            is_busy: false,
            demand_tps: 80.04,
            given_tps,
            nodes: Vec::new(),
            history: EngineHistory::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_s_past_is_told_with_its_gaps_and_is_forgotten_when_it_is_over() {
        let start = Instant::now();
        let mut histories = Histories::default();
        let mut at = |second: u32, mut views: Vec<EngineView>| {
            histories.note(views.iter_mut(), start + Duration::from_secs(second.into()));
            let told = views.first().map(|view| serde_json::to_value(&view.history));
            (told.map(|told| told.expect("JSON")), histories.by_engine.len())
        };
        at(0, vec![view("e1", 40.0)]);
        // It is not noted more often than it says.
        at(1, vec![view("e1", 50.0)]);
        at(2, vec![]);
        let (told, _) = at(4, vec![view("e1", 60.0), view("e2", 1.0)]);
        let expected = serde_json::json!({
            "every_seconds": 2.0, "demand_tps": [80.0, null, 80.0], "given_tps": [40.0, null, 60.0]
        });
        assert_eq!(told, Some(expected));
        let mut engines = 0;
        for second in 0..2 * POINTS as u32 {
            engines = at(6 + 2 * second, vec![view("e2", 1.0)]).1;
        }
        let (told, _) = at(1000, vec![view("e2", 1.0)]);
        let points = told.expect("told")["given_tps"].as_array().map(Vec::len);
        assert_eq!((engines, points), (1, Some(POINTS)));
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_some_engines_nothing_is_kept() {
        let mut histories = Histories::default();
        let mut views: Vec<EngineView> = (0..300).map(|n| view(&format!("e{n}"), 1.0)).collect();
        histories.note(views.iter_mut(), Instant::now());
        assert_eq!(histories.by_engine.len(), MOST);
    }
}
