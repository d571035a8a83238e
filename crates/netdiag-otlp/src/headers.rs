//! What a collector is shown besides the metrics: keys, tenants. All of it is taken for secret.

use std::fmt;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

/// Headers of every export. Their values are in no log and no `Debug` output.
#[derive(Clone, Default)]
pub struct Headers(HeaderMap);

/// Why a text is no list of headers. It does not say the text, which may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHeaders {
    /// By its number, counted from one.
    #[error("line {0} is no header: write NAME: VALUE")]
    Line(usize),
    /// By its number, counted from one.
    #[error(
        "entry {0} is no header: write NAME=VALUE,NAME=VALUE, with %-codes for special characters"
    )]
    Entry(usize),
    /// What HTTP itself says.
    #[error("entry {0} is a header that is not yours to set: leave it out")]
    Ours(usize),
}

impl Headers {
    /// Those in a file: a line each, `NAME: VALUE`; lines that are empty or begin with `#` say nothing.
    pub fn of_lines(text: &str) -> Result<Self, InvalidHeaders> {
        let mut headers = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = InvalidHeaders::Line(index + 1);
            let (name, value) = line.split_once(':').ok_or(bad)?;
            headers.add(name, value, index + 1, bad)?;
        }
        Ok(headers)
    }

    /// Those in a variable as OpenTelemetry writes it (`OTEL_EXPORTER_OTLP_HEADERS`): `NAME=VALUE,NAME=VALUE` with %-codes.
    pub fn of_variable(text: &str) -> Result<Self, InvalidHeaders> {
        let mut headers = Self::default();
        for (index, pair) in pairs(text).enumerate() {
            let bad = InvalidHeaders::Entry(index + 1);
            let (name, value) = pair.ok_or(bad)?;
            headers.add(&name, &value, index + 1, bad)?;
        }
        Ok(headers)
    }

    fn add(
        &mut self,
        name: &str,
        value: &str,
        place: usize,
        bad: InvalidHeaders,
    ) -> Result<(), InvalidHeaders> {
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| bad)?;
        let ours = [
            header::HOST,
            header::CONTENT_LENGTH,
            header::CONTENT_TYPE,
            header::CONTENT_ENCODING,
            header::TRANSFER_ENCODING,
            header::CONNECTION,
        ];
        if ours.contains(&name) {
            return Err(InvalidHeaders::Ours(place));
        }
        let mut value = HeaderValue::from_str(value.trim()).map_err(|_| bad)?;
        value.set_sensitive(true);
        self.0.append(name, value);
        Ok(())
    }

    pub(crate) fn map(&self) -> &HeaderMap {
        &self.0
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// The entries of a list as OpenTelemetry's variables have it; `None` for one that is none.
pub fn pairs(text: &str) -> impl Iterator<Item = Option<(String, String)>> {
    let decoded =
        |text: &str| Some(percent_decode_str(text.trim()).decode_utf8().ok()?.into_owned());
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(move |entry| {
        let (name, value) = entry.split_once('=')?;
        let name = decoded(name)?;
        (!name.is_empty()).then_some((name, decoded(value)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(headers: &Headers) -> Vec<(&str, &str)> {
        let text = |value: &'_ HeaderValue| value.to_str().expect("text").to_owned();
        let all = headers.0.iter();
        all.map(|(name, value)| (name.as_str(), &*text(value).leak())).collect()
    }

    #[test]
    fn files_and_variables_have_headers() {
        let file =
            Headers::of_lines("# of the vendor\n\nAuthorization: Bearer a:b=\r\n x-tenant :7\n");
        let expected = [("authorization", "Bearer a:b="), ("x-tenant", "7")];
        assert_eq!(told(&file.expect("headers")), expected);
        let variable = Headers::of_variable("authorization=Bearer%20a:b%3D, x-tenant = 7,");
        assert_eq!(told(&variable.expect("headers")), expected);
        assert_eq!(told(&Headers::of_variable("").expect("headers")), []);
    }

    #[test]
    fn what_is_wrong_is_told_without_it() {
        let lines = |text: &str| Headers::of_lines(text).expect_err("wrong").to_string();
        for (text, place) in
            [("a: b\nsecret", "line 2"), ("se cret: x", "line 1"), ("a: b\u{7}", "line 1")]
        {
            let told = lines(text);
            assert!(told.contains(place) && !told.contains("secret"), "{told}");
        }
        assert_eq!(lines("x: y\nHost: c"), InvalidHeaders::Ours(2).to_string());
        let variable = |text: &str| Headers::of_variable(text).expect_err("wrong");
        assert_eq!(variable("a=b,secret"), InvalidHeaders::Entry(2));
        assert_eq!(variable("a=%ff"), InvalidHeaders::Entry(1));
        assert_eq!(variable("=b"), InvalidHeaders::Entry(1));
    }

    #[test]
    fn values_are_never_shown() {
        let headers = Headers::of_lines("authorization: Bearer secret").expect("headers");
        assert_eq!(format!("{headers:?}"), "[\"authorization\"]");
        assert!(!format!("{:?}", headers.map()).contains("secret"));
    }
}
