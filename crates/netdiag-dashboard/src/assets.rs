//! The page's files, embedded, under names that change with their content.
//!
//! A name with a hash in it can be kept by the browser for ever, and a new version is never mixed with an old one. There is no
//! build step: names are made when the program starts, by replacing references in `index.html` (`"assets/NAME"`) and in modules
//! (`"./NAME.js"`) from the leaves up.
//!
//! Invariant: what refers to a file has that file's very content in its own hash.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

/// Hexadecimal digits of a hash in a name: 64 bits tell versions of a file apart.
const DIGITS: usize = 16;

macro_rules! embed {
    ($($name:literal: $path:literal,)*) => {
        [$(($name, include_str!(concat!("../assets/", $path)))),*]
    };
}

/// The files by the name that others refer to them by.
const FILES: &[(&str, &str)] = &embed! {
    "app.js": "app.js",
    "chart.js": "chart.js",
    "colours.js": "colours.js",
    "connection.js": "connection.js",
    "csv.js": "csv.js",
    "dom.js": "dom.js",
    "downsample.js": "downsample.js",
    "experiment.js": "experiment.js",
    "feed.js": "feed.js",
    "fleet.js": "fleet.js",
    "format.js": "format.js",
    "gateway.js": "gateway.js",
    "i18n.js": "i18n.js",
    "icon.svg": "icon.svg",
    "machine.js": "machine.js",
    "messages.js": "messages.js",
    "overview.js": "overview.js",
    "panel.js": "panel.js",
    "phases.js": "phases.js",
    "png.js": "png.js",
    "preferences.js": "preferences.js",
    "rows.js": "rows.js",
    "scales.js": "scales.js",
    "shares.js": "shares.js",
    "shortcuts.js": "shortcuts.js",
    "streams.js": "streams.js",
    "style.css": "style.css",
    "table.js": "table.js",
    "uplot.css": "vendor/uplot.css",
    "uplot.js": "vendor/uplot.js",
    "view.js": "view.js",
};

const INDEX: &str = include_str!("../assets/index.html");
const LOGIN: &str = include_str!("../assets/login.html");

/// Where the login page says what was wrong.
const PROBLEM: &str = "<!--problem-->";

/// All files, ready to be sent.
static ASSETS: LazyLock<Assets> = LazyLock::new(Assets::new);

struct Assets {
    /// By name with hash.
    files: BTreeMap<String, File>,
    index: File,
    /// Referring to files as they are called now.
    login: String,
}

/// A file in both forms.
struct File {
    kind: &'static str,
    plain: Bytes,
    gzip: Bytes,
}

impl Assets {
    fn new() -> Self {
        let mut names = Names::default();
        let index = names.rewritten(INDEX, "assets/");
        let login = names.rewritten(LOGIN, "assets/");
        let files = names.done.into_values();
        Self {
            files: files.map(|(name, text)| (name.clone(), File::new(kind(&name), text))).collect(),
            index: File::new("text/html; charset=utf-8", index),
            login,
        }
    }
}

/// Files that have their names already: by the name without, the name with hash and the text.
#[derive(Default)]
struct Names {
    done: BTreeMap<&'static str, (String, String)>,
}

impl Names {
    /// `text` with every reference `"{prefix}NAME"` to one of our files as that file is really called.
    fn rewritten(&mut self, text: &str, prefix: &str) -> String {
        let mut text = text.to_owned();
        for &(name, content) in FILES {
            let reference = format!("\"{prefix}{name}\"");
            if text.contains(&reference) {
                let hashed = self.name(name, content);
                text = text.replace(&reference, &format!("\"{prefix}{hashed}\""));
            }
        }
        text
    }

    /// The name with hash of a file, which itself may refer to others. Modules import in one direction, so this ends.
    fn name(&mut self, name: &'static str, content: &str) -> String {
        if let Some((hashed, _)) = self.done.get(name) {
            return hashed.clone();
        }
        let text = self.rewritten(content, "./");
        let digest = Sha256::digest(text.as_bytes());
        let hash: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let (stem, ending) = name.split_once('.').unwrap_or((name, ""));
        let hashed = format!("{stem}.{}.{ending}", &hash[..DIGITS]);
        self.done.insert(name, (hashed.clone(), text));
        hashed
    }
}

impl File {
    fn new(kind: &'static str, text: String) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        // Writing into memory cannot fail.
        let _ = encoder.write_all(text.as_bytes());
        let gzip = encoder.finish().unwrap_or_default();
        Self { kind, plain: text.into(), gzip: gzip.into() }
    }

    fn respond(&self, headers: &HeaderMap, cache: &'static str) -> Response {
        let gzip = headers
            .get(header::ACCEPT_ENCODING)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.split(',').any(|coding| coding.trim().starts_with("gzip")));
        let body = if gzip { &self.gzip } else { &self.plain };
        let mut response = body.clone().into_response();
        let fields = response.headers_mut();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.kind));
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
        fields.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        if gzip {
            fields.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

fn kind(name: &str) -> &'static str {
    match name.rsplit_once('.') {
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}

/// The page. Never kept, or an old one would ask for files that are gone.
pub(crate) fn index(headers: &HeaderMap) -> Response {
    ASSETS.index.respond(headers, "no-cache")
}

/// A file of the page by its name with hash, if there is one.
pub(crate) fn file(name: &str, headers: &HeaderMap) -> Option<Response> {
    Some(ASSETS.files.get(name)?.respond(headers, "public, max-age=31536000, immutable"))
}

/// The page that asks for the token. `wrong` if what was given was none.
pub(crate) fn login(wrong: bool) -> Response {
    let problem = if wrong {
        "<p class=\"problem\" role=\"alert\">That is not the token. <span lang=\"zh-CN\">令牌不正确。</span></p>"
    } else {
        ""
    };
    let html = ASSETS.login.replace(PROBLEM, problem);
    let headers =
        [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (StatusCode::UNAUTHORIZED, headers, html).into_response()
}

#[cfg(test)]
mod tests;
