//! A copy of the source tree, in which mutants are built and tested.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use serde_json::Value;

use crate::cargo::cargo;
use crate::mutant::Target;

/// How long a test may run. A mutant that hangs its test is caught.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// Folders that are not copied.
const SKIPPED: [&str; 2] = ["target", ".git"];

/// What the root of a program with several mutants gets: the function by which an edit asks whether its
/// mutant is the chosen one.
pub(crate) const CHOICE: &str = r#"
fn is_mutant(name: &str) -> bool {
    static CHOSEN: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("REDSTART_MUTANT").ok());
    CHOSEN.as_deref() == Some(name)
}
"#;

pub(crate) struct Tree {
    root: PathBuf,
    target: PathBuf,
}

/// How a run of tests ended.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Ran {
    /// The names of the tests that passed.
    Passed(Vec<String>),
    /// The names of the tests that failed.
    Failed(Vec<String>),
    TimedOut,
}

impl Tree {
    /// Copies the package into the build folder. A file that has not changed is left alone, so that
    /// cargo builds only what a mutant changes.
    pub(crate) fn copy() -> io::Result<Self> {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let target = env::var_os("CARGO_TARGET_DIR").map_or(package.join("target"), PathBuf::from);
        let root = target.join("mutants");
        synchronise(package, &root)?;
        Ok(Self { root, target })
    }

    pub(crate) fn read(&self, file: &str) -> io::Result<String> {
        fs::read_to_string(self.root.join(file))
    }

    pub(crate) fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.root.join(file), text)
    }

    /// Builds the tests of a target. Returns the path of the program, or what the compiler said.
    pub(crate) fn build(&self, target: Target) -> io::Result<Result<PathBuf, String>> {
        let output = cargo()
            .args([
                "test",
                "--no-run",
                "--all-features",
                "--message-format=json",
            ])
            .args(target.arguments())
            .current_dir(&self.root)
            // The dependencies are built here already.
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_INCREMENTAL", "1")
            .stdin(Stdio::null())
            .output()?;
        let messages = String::from_utf8_lossy(&output.stdout);
        let messages = messages
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let messages: Vec<Value> = messages.collect();
        if !output.status.success() {
            let rendered =
                |message: &Value| message["message"]["rendered"].as_str().map(str::to_owned);
            let mut told: Vec<String> = messages.iter().filter_map(rendered).collect();
            told.push(String::from_utf8_lossy(&output.stderr).into_owned());
            return Ok(Err(told.join("\n")));
        }
        let program = messages.iter().find_map(|message| {
            let is_it =
                message["target"]["name"] == target.name() && message["profile"]["test"] == true;
            message["executable"].as_str().filter(|_| is_it)
        });
        Ok(program
            .map(PathBuf::from)
            .ok_or("cargo named no program".to_owned()))
    }

    /// Runs the named tests of a program, with one of the mutants that the program holds.
    pub(crate) fn run(
        &self,
        program: &Path,
        tests: &BTreeSet<&str>,
        chosen: Option<&str>,
    ) -> io::Result<Ran> {
        let log = self.target.join("mutants.log");
        let mut child = Command::new(program)
            .env("REDSTART_MUTANT", chosen.unwrap_or_default())
            .arg("--exact")
            .args(tests)
            .current_dir(&self.root)
            .env("CARGO_MANIFEST_DIR", &self.root)
            .stdin(Stdio::null())
            .stdout(fs::File::create(&log)?)
            .stderr(Stdio::null())
            .spawn()?;
        let deadline = Instant::now() + TIME_LIMIT;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                return Ok(Ran::TimedOut);
            }
            thread::sleep(Duration::from_millis(10));
        };
        let text = fs::read_to_string(&log)?;
        let ended = |how: &str| {
            let lines = text.lines();
            let names = lines.filter_map(|line| line.strip_prefix("test ")?.strip_suffix(how));
            names.map(str::to_owned).collect()
        };
        Ok(match status.success() {
            true => Ran::Passed(ended(" ... ok")),
            false => Ran::Failed(ended(" ... FAILED")),
        })
    }
}

/// The contents of a file in the copy. The copied package has another version: both packages are
/// built in one folder, so that the dependencies are built once, and cargo would otherwise take the
/// programs of the one for those of the other.
fn copied(file: &Path) -> io::Result<Vec<u8>> {
    let bytes = fs::read(file)?;
    if !file.ends_with("Cargo.toml") && !file.ends_with("Cargo.lock") {
        return Ok(bytes);
    }
    let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    let own = format!("name = \"{name}\"\nversion = \"{version}");
    let text = String::from_utf8_lossy(&bytes);
    Ok(text
        .replacen(&own, &format!("{own}-mutant"), 1)
        .into_bytes())
}

/// Makes `to` a copy of `from`.
fn synchronise(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        if SKIPPED.iter().any(|skipped| name == *skipped) {
            continue;
        }
        let target = to.join(&name);
        if kind.is_dir() {
            synchronise(&entry.path(), &target)?;
        } else if kind.is_file() {
            let bytes = copied(&entry.path())?;
            if fs::read(&target).ok().as_ref() != Some(&bytes) {
                fs::write(&target, bytes)?;
            }
        }
        names.insert(name);
    }
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if names.contains(&entry.file_name()) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
