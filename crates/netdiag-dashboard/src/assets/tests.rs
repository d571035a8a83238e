//! That the page has all its files, is light, and asks nobody else for anything.

use super::*;

/// What the whole page may weigh, compressed, bytes.
const BUDGET: usize = 150 * 1024;

#[test]
fn every_file_is_referred_to_and_every_reference_leads_to_one() {
    assert_eq!(ASSETS.files.len(), FILES.len(), "a file that nothing refers to");
    let texts = ASSETS.files.values().map(|file| &file.plain).chain([&ASSETS.index.plain]);
    for text in texts {
        let text = std::str::from_utf8(text).expect("text");
        for reference in references(text) {
            let name = reference.trim_start_matches("./").trim_start_matches("assets/");
            assert!(ASSETS.files.contains_key(name), "{reference}");
        }
    }
    let login = &ASSETS.login;
    assert!(login.contains("/login") && LOGIN.contains(PROBLEM), "{login}");
}

/// What stands between quotes and begins like a reference of ours.
fn references(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2).filter(|quoted| {
        let is_path = quoted.starts_with("./") || quoted.starts_with("assets/");
        is_path && !quoted.contains(char::is_whitespace)
    })
}

#[test]
fn names_follow_the_content() {
    let stem = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    for (name, file) in &ASSETS.files {
        let hash = name.split('.').nth(1).expect("a hash");
        let digest = Sha256::digest(&file.plain);
        let expected: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, &expected[..DIGITS], "{name}");
        assert!(FILES.iter().any(|(plain, _)| stem(plain) == stem(name)));
    }
}

#[test]
fn the_page_is_light() {
    let files = ASSETS.files.values().chain([&ASSETS.index]);
    let weight: usize = files.map(|file| file.gzip.len()).sum();
    assert!(weight <= BUDGET, "{weight} bytes compressed");
}

#[test]
fn nothing_comes_from_elsewhere() {
    for (name, text) in FILES.iter().chain(&[("index.html", INDEX), ("login.html", LOGIN)]) {
        for marker in ["src=\"http", "href=\"http", "url(http", "@import", "<style", " style=\""] {
            assert!(!text.contains(marker), "{name} has {marker}");
        }
        assert!(!text.contains("<script>"), "{name} has a script in it");
    }
}

#[test]
fn compressed_is_the_same() {
    use std::io::Read as _;
    for file in ASSETS.files.values() {
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&file.gzip[..]).read_to_end(&mut text).expect("gzip");
        assert_eq!(text, file.plain);
    }
}
