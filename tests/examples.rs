//! Runs every example and compares what it prints with the output that its head comment states.

#[path = "support/built.rs"]
mod built;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// No example takes a second; a busy machine may need longer.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn every_example_prints_the_output_that_its_head_states() {
    let sources = sources();
    assert!(!sources.is_empty(), "there are no examples");
    let executables = executables();
    let mut failures = Vec::new();
    for (name, source) in &sources {
        let check = match (stated(source), executables.get(name)) {
            (None, _) => Err("its head comment states no output".to_owned()),
            (_, None) => Err("cargo did not build it".to_owned()),
            (Some(stated), Some(executable)) => compare(executable, &stated),
        };
        if let Err(failure) = check {
            failures.push(format!("{name}: {failure}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The sources of all examples, by name.
fn sources() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = std::fs::read_dir(folder).expect("the folder of examples can be read");
    files
        .map(|file| file.expect("a file of the folder").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy();
            let source = std::fs::read_to_string(&path).expect("an example can be read");
            (name.into_owned(), source)
        })
        .collect()
}

/// The programs of the examples, by name.
fn executables() -> BTreeMap<String, PathBuf> {
    built::examples()
        .iter()
        .filter_map(|message| {
            let target = message.get("target")?;
            if !target["kind"].as_array()?.contains(&"example".into()) {
                return None;
            }
            let name = target["name"].as_str()?.to_owned();
            let executable = message.get("executable")?.as_str()?;
            Some((name, PathBuf::from(executable)))
        })
        .collect()
}

/// The block after `Output:` in an example's head comment.
fn stated(source: &str) -> Option<String> {
    let head: Vec<&str> = source
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect();
    let label = head.iter().position(|line| *line == "Output:")?;
    let mut rest = head[label..].iter();
    rest.find(|line| **line == "```text")?;
    let lines: Vec<&str> = rest
        .map_while(|line| (*line != "```").then_some(*line))
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn compare(executable: &Path, stated: &str) -> Result<(), String> {
    let mut child = Command::new(executable)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot be started: {error}"))?;
    let until = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("did not end within {PATIENCE:?}"));
            }
            Err(error) => return Err(format!("cannot be awaited: {error}")),
        }
    };
    let (mut printed, mut errors) = (String::new(), String::new());
    if let Some(mut stdout) = child.stdout.take() {
        stdout
            .read_to_string(&mut printed)
            .map_err(|e| e.to_string())?;
    }
    if let Some(mut stderr) = child.stderr.take() {
        stderr
            .read_to_string(&mut errors)
            .map_err(|e| e.to_string())?;
    }
    if !status.success() {
        return Err(format!("ended with {status}: {errors}"));
    }
    if printed.trim_end() != stated {
        return Err(format!("printed\n{printed}\nin place of\n{stated}"));
    }
    Ok(())
}

#[test]
fn a_head_without_output_states_none() {
    assert_eq!(stated("//! Shows something.\n\nfn main() {}\n"), None);
    assert_eq!(stated("//! Output:\n//!\n//! ```text\n//! ```\n"), None);
    let two = "//! Output:\n//!\n//! ```text\n//! a\n//!   b\n//! ```\n//!\n//! More.\n";
    assert_eq!(stated(two).as_deref(), Some("a\n  b"));
}
