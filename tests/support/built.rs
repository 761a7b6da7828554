//! The examples and the crates that they use, as `cargo test` has built them.

#[path = "cargo.rs"]
mod cargo;

use std::path::Path;

use serde_json::Value;

/// Every feature of the package, and whether this test has it.
const FEATURES: [(&str, bool); 7] = [
    ("cli", cfg!(feature = "cli")),
    ("console", cfg!(feature = "console")),
    ("otel", cfg!(feature = "otel")),
    ("schema", cfg!(feature = "schema")),
    ("testing", cfg!(feature = "testing")),
    ("tls", cfg!(feature = "tls")),
    ("tower", cfg!(feature = "tower")),
];

/// Builds the examples with the features of this test, and returns cargo's messages. Nothing is left to
/// compile where `cargo test` has built all targets.
pub(crate) fn examples() -> Vec<Value> {
    let features: Vec<&str> = FEATURES
        .iter()
        .filter_map(|(name, on)| on.then_some(*name))
        .collect();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("a folder of targets");
    let mut cargo = cargo::cargo();
    cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--quiet", "--examples", "--message-format=json"])
        .arg("--features")
        .arg(features.join(","))
        .arg("--target-dir")
        .arg(target);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.output().expect("cargo can be started");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "the examples cannot be built: {errors}"
    );
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}
