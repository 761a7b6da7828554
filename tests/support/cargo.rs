//! Cargo, started by a test.

use std::process::Command;

/// A command that starts cargo without the variables that the test's own cargo has set for the test. The
/// build script of `ring` reads one of them: with it, `ring` and everything that uses it would be built
/// again, and once more by the next cargo without it.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_MANIFEST_") || text.starts_with("CARGO_PKG_") {
            command.env_remove(&name);
        }
    }
    command
}
