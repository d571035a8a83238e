//! Developer automation: `cargo xtask`.
fn main() {}
