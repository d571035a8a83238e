//! What Prometheus is answered: the OpenMetrics text format where it asks for that, and otherwise the older one, which every tool
//! reads.
//!
//! The library writes OpenMetrics. The older format (version 0.0.4) has the same samples; but counters are called there by the
//! names of their samples, and there are no units and no end.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A process' metrics as they are when it is asked, in the OpenMetrics text format.
#[derive(Clone)]
pub struct Scrape(Arc<dyn Fn() -> String + Send + Sync>);

impl Scrape {
    /// What `tell` tells.
    pub fn new(tell: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// All of it, now.
    pub fn now(&self) -> String {
        (self.0)()
    }
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").finish_non_exhaustive()
    }
}

/// Answers a scrape with `told`, which is in the OpenMetrics text format, as the asking one wants it.
pub fn respond(asked: &HeaderMap, told: String) -> Response {
    let wants = |value: &str| value.contains("application/openmetrics-text");
    let accepts = asked.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    if accepts.into_iter().any(wants) {
        ([(header::CONTENT_TYPE, OPENMETRICS)], told).into_response()
    } else {
        ([(header::CONTENT_TYPE, PLAIN)], plain(&told)).into_response()
    }
}

/// The same in the older format.
fn plain(openmetrics: &str) -> String {
    let mut told = String::with_capacity(openmetrics.len());
    let mut lines = openmetrics.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let mut line = Cow::Borrowed(line);
        if let Some((name, help)) = split(&line, "# HELP ") {
            // The type comes next.
            let kind = lines.peek().and_then(|next| split(next, "# TYPE "));
            if kind == Some((name, "counter")) {
                line = Cow::Owned(format!("# HELP {name}_total {help}"));
            }
        } else if let Some((name, "counter")) = split(&line, "# TYPE ") {
            line = Cow::Owned(format!("# TYPE {name}_total counter"));
        }
        told.push_str(&line);
        told.push('\n');
    }
    told
}

/// A name and what is said of it.
fn split<'a>(line: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    line.strip_prefix(keyword)?.split_once(' ')
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const TOLD: &str = "# HELP a_b Bs.\n# TYPE a_b counter\na_b_total{c=\"d\"} 3\n\
        # HELP age_seconds Age.\n# TYPE age_seconds gauge\n# UNIT age_seconds seconds\nage_seconds NaN\n# EOF\n";

    #[test]
    fn the_older_format_calls_counters_by_their_samples() {
        let expected = "# HELP a_b_total Bs.\n# TYPE a_b_total counter\na_b_total{c=\"d\"} 3\n\
            # HELP age_seconds Age.\n# TYPE age_seconds gauge\nage_seconds NaN\n";
        assert_eq!(plain(TOLD), expected);
    }

    #[test]
    fn who_asks_for_openmetrics_gets_it() {
        let kind = |accept: Option<&'static str>| {
            let mut asked = HeaderMap::new();
            if let Some(accept) = accept {
                asked.insert(header::ACCEPT, HeaderValue::from_static(accept));
            }
            respond(&asked, TOLD.to_owned()).headers()[header::CONTENT_TYPE].clone()
        };
        // Prometheus 2.49's own words.
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(kind(Some(prometheus)), OPENMETRICS);
        assert_eq!(kind(Some("*/*")), PLAIN);
        assert_eq!(kind(None), PLAIN);
    }
}
