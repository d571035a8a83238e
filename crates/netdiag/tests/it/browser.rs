//! Pages as a browser shows them.

use std::path::Path;
use std::process::Command;

use crate::support::png_size;

/// Opens a page in headless Chromium, `width` pixels wide and without any network, and takes its picture. Whatever the page writes to
/// the console is a complaint.
pub(crate) fn check_page(page: &Path, width: u32, picture: &Path) {
    const HEIGHT: u32 = 2400;
    let profile = tempfile::tempdir().expect("folder");
    let output = Command::new("unshare")
        .args(["--net", "--", "chromium", "--headless", "--no-sandbox", "--disable-gpu"])
        .args(["--no-first-run", "--disable-background-networking", "--disable-component-update"])
        .args(["--hide-scrollbars", "--enable-logging=stderr", "--log-level=0"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--window-size={width},{HEIGHT}"))
        .arg(format!("--screenshot={}", picture.display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("unshare runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    // The browser's own pages have a console, too.
    let is_ours = |line: &&str| line.contains(":CONSOLE") && line.contains("source: file://");
    let complaints: Vec<&str> = told.lines().filter(is_ours).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    let png = std::fs::read(picture).expect("a picture");
    assert_eq!(png_size(&png), (width, HEIGHT), "{told}");
    // A page that shows nothing compresses to next to nothing.
    assert!(png.len() > 20_000, "{} bytes: {told}", png.len());
}

/// Whether there is a browser.
pub(crate) fn is_installed() -> bool {
    Command::new("chromium").arg("--version").output().is_ok_and(|output| output.status.success())
}
