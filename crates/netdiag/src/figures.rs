//! Figures that charts and tables share: how often values occur, and how long something took.

/// How many values lie between each edge and the next. Edges ascend, two or more; what lies beyond the ends counts at them.
pub(crate) fn counts(values: &[f64], edges: &[f64]) -> Vec<u32> {
    let mut counts = vec![0; edges.len().saturating_sub(1)];
    let last = counts.len().saturating_sub(1);
    for value in values {
        // The number of edges at or below the value; the first bar is behind the first edge.
        let bar = edges.partition_point(|edge| edge <= value).saturating_sub(1);
        if let Some(count) = counts.get_mut(bar.min(last)) {
            *count += 1;
        }
    }
    counts
}

/// A number of things for a person: `1 row`, `2 rows`.
pub(crate) fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A length of time for a person: `90 s`, `60 min`, `2.5 h`.
pub(crate) fn span(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_its_bar() {
        let edges = [0.0, 1.0, 2.0];
        assert_eq!(counts(&[0.0, 0.5, 1.0, 2.0], &edges), [2, 2]);
        assert_eq!(counts(&[-7.0, 7.0], &edges), [1, 1]);
        assert!(counts(&[1.0], &[]).is_empty());
    }

    #[test]
    fn spans_have_the_unit_that_fits() {
        assert_eq!([90.0, 3600.0, 9000.0].map(span), ["90 s", "60 min", "2.5 h"]);
    }
}
