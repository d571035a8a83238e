//! Points and other news as server-sent events (WHATWG HTML §9.2), written once for all viewers.

use std::fmt::Write as _;

use bytes::Bytes;
use serde::Serialize;

use crate::history::{Point, VALUES};

/// The page's name of each value of a point, and the decimals that say something: a microsecond of a round trip, a thousandth
/// of a health, a tenth of a bit per second.
const COLUMNS: [(&str, usize); VALUES] = [
    ("rtt_min", 3),
    ("rtt_avg", 3),
    ("rtt_p95", 3),
    ("retrans", 0),
    ("health", 4),
    ("anomaly", 0),
    ("current_tps", 3),
    ("target_tps", 3),
    ("throughput_bps", 1),
    ("flows", 0),
    ("stalled", 0),
];

/// Room for a number with what stands around it.
const NUMBER: usize = 9;

/// An event of this name. `data` is one line. It takes its length and no more: a history's are kept for as long as it is.
pub(crate) fn event(name: &str, data: &str) -> Bytes {
    ["event: ", name, "\ndata: ", data, "\n\n"].concat().into()
}

/// An event with `value` as JSON. What cannot be written as JSON is `null`, which no type of ours is.
pub(crate) fn json(name: &str, value: &impl Serialize) -> Bytes {
    event(name, &serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned()))
}

/// The event `rows`: points by columns, so that names are written once.
pub(crate) fn rows(points: &[Point]) -> Bytes {
    let mut data = String::with_capacity(points.len() * (VALUES + 2) * NUMBER + 256);
    data.push_str("{\"t\":[");
    list(&mut data, points, |data, point| number(data, point.t, 3));
    for (column, (name, decimals)) in COLUMNS.iter().enumerate() {
        // Writing to a String cannot fail, here and below.
        let _ = write!(data, "],\"{name}\":[");
        list(&mut data, points, |data, point| number(data, point.values[column], *decimals));
    }
    data.push_str("],\"state\":[");
    list(&mut data, points, |data, point| {
        let _ = write!(data, "\"{}\"", point.state.as_str());
    });
    data.push_str("]}");
    event("rows", &data)
}

fn list(data: &mut String, points: &[Point], mut one: impl FnMut(&mut String, &Point)) {
    for (index, point) in points.iter().enumerate() {
        if index > 0 {
            data.push(',');
        }
        one(data, point);
    }
}

/// A number without zeros that say nothing; `null` for what is none.
fn number(data: &mut String, value: f64, decimals: usize) {
    if !value.is_finite() {
        data.push_str("null");
        return;
    }
    let _ = write!(data, "{value:.decimals$}");
    if decimals > 0 {
        let kept = data.trim_end_matches('0').trim_end_matches('.').len();
        data.truncate(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netdiag_pacer::State;

    #[test]
    fn rows_are_columns_of_json() {
        let mut values = [20.0; VALUES];
        values[0] = f64::NAN;
        values[2] = 21.5;
        values[3] = 0.0;
        let point = Point { t: 1_700_000_000.25, values, state: State::Clear };
        let later = Point { t: 1_700_000_000.75, state: State::Stalled, ..point };
        let bytes = rows(&[point, later]);
        let text = std::str::from_utf8(&bytes).expect("text");
        let data = text.strip_prefix("event: rows\ndata: ").expect("an event");
        let data = data.strip_suffix("\n\n").expect("its end");
        let json: serde_json::Value = serde_json::from_str(data).expect("JSON");
        assert_eq!(json["t"], serde_json::json!([1_700_000_000.25, 1_700_000_000.75]));
        assert_eq!(json["rtt_min"], serde_json::json!([null, null]));
        assert_eq!(json["rtt_p95"], serde_json::json!([21.5, 21.5]));
        assert_eq!(json["retrans"], serde_json::json!([0, 0]));
        assert_eq!(json["state"], serde_json::json!(["clear", "stalled"]));
        assert_eq!(json.as_object().expect("object").len(), VALUES + 2);
    }

    #[test]
    fn numbers_are_short() {
        let check = |value, decimals, expected: &str| {
            let mut text = String::new();
            number(&mut text, value, decimals);
            assert_eq!(text, expected);
        };
        check(0.0, 3, "0");
        check(10.0, 3, "10");
        check(10.0, 0, "10");
        check(1.5, 3, "1.5");
        check(0.12345, 4, "0.1235");
        check(f64::INFINITY, 3, "null");
    }
}
