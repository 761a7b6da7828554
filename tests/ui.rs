//! Compiles the programs of `tests/ui`, each with one mistake, and compares the compiler's error with the
//! one that the head of the program states.
//!
//! Compared are the texts that this crate gives to the compiler, not those around them, which change
//! from one compiler to the next: a headline, the label at the mistake and the beginnings of notes.

#[path = "support/built.rs"]
mod built;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The error of a program, or the one that its head states.
#[derive(Debug, Default)]
struct Mistake {
    headline: String,
    labels: Vec<String>,
    notes: Vec<String>,
}

#[test]
fn each_mistake_gives_the_one_error_that_names_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui");
    let mut programs: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the folder of programs can be read")
        .map(|file| file.expect("a file of the folder").path())
        .collect();
    programs.sort();
    assert!(!programs.is_empty(), "there are no programs");
    let crates = crates();
    let mut failures = Vec::new();
    for program in &programs {
        let name = program.file_stem().expect("a name").to_string_lossy();
        let source = fs::read_to_string(program).expect("a program can be read");
        if source.contains("//! feature: tower") && !cfg!(feature = "tower") {
            continue;
        }
        let stated = stated(&source);
        match errors(program, &crates).as_slice() {
            [found] => {
                let missing = missing(&stated, found);
                failures.extend(missing.map(|missing| format!("{name}: {missing}\nin {found:#?}")));
            }
            several => failures.push(format!("{name}: not one error: {several:#?}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The error that the head of a program states.
fn stated(source: &str) -> Mistake {
    let mut mistake = Mistake::default();
    for line in source
        .lines()
        .map_while(|line| line.strip_prefix("//! ").or(line.strip_prefix("//!")))
    {
        if let Some(headline) = line.strip_prefix("error: ") {
            mistake.headline = headline.to_owned();
        } else if let Some(label) = line.strip_prefix("label: ") {
            mistake.labels.push(label.to_owned());
        } else if let Some(note) = line.strip_prefix("note: ") {
            mistake.notes.push(note.to_owned());
        }
    }
    assert!(!mistake.headline.is_empty(), "a head states no error");
    mistake
}

/// What an error lacks of the stated one.
fn missing(stated: &Mistake, found: &Mistake) -> Option<String> {
    // Before it stand the place of a closure, or words of the compiler.
    if !found.headline.ends_with(&stated.headline) {
        return Some(format!("another headline: {:?}", found.headline));
    }
    let lacks = |texts: &[String], wanted: &String| !texts.iter().any(|text| text.contains(wanted));
    let labels = stated
        .labels
        .iter()
        .find(|label| lacks(&found.labels, label));
    let notes = stated.notes.iter().find(|note| lacks(&found.notes, note));
    labels.or(notes).map(|text| format!("lacks {text:?}"))
}

/// The compiled crates that the programs use, by name.
fn crates() -> BTreeMap<String, PathBuf> {
    let found: BTreeMap<String, PathBuf> = built::examples()
        .iter()
        .filter_map(|message| {
            let name = message["target"]["name"].as_str()?.to_owned();
            let files = message["filenames"].as_array()?.iter();
            let library = files
                .filter_map(Value::as_str)
                .find(|file| file.ends_with(".rlib"))?;
            ["redstart", "serde", "tower"]
                .contains(&&*name)
                .then(|| (name, PathBuf::from(library)))
        })
        .collect();
    assert_eq!(found.len(), 3, "{found:?}");
    found
}

/// Compiles a program and returns its errors.
fn errors(program: &Path, crates: &BTreeMap<String, PathBuf>) -> Vec<Mistake> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut compile = Command::new(rustc);
    compile
        .args(["--edition=2024", "--crate-type=lib", "--emit=metadata"])
        .args(["--error-format=json", "--cap-lints=allow"])
        .arg("--out-dir")
        .arg(env!("CARGO_TARGET_TMPDIR"));
    for (name, library) in crates {
        let folder = library.parent().expect("a folder");
        compile
            .arg("--extern")
            .arg(format!("{name}={}", library.display()))
            .arg("-L")
            .arg(format!("dependency={}", folder.display()))
            .arg("-L")
            .arg(format!("dependency={}", folder.join("deps").display()));
    }
    let output = compile.arg(program).output().expect("rustc can be started");
    let texts = |spans: &Value, key: &str| -> Vec<String> {
        let spans = spans.as_array().map_or(&[][..], Vec::as_slice).iter();
        let texts = spans.filter_map(|span| span[key].as_str());
        texts.map(str::to_owned).collect()
    };
    // One compiler prints more of a path than another.
    String::from_utf8_lossy(&output.stderr)
        .replace("std::option::", "")
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["level"] == "error")
        .filter(|message| {
            message["spans"]
                .as_array()
                .is_some_and(|spans| !spans.is_empty())
        })
        .map(|message| Mistake {
            headline: message["message"].as_str().unwrap_or_default().to_owned(),
            labels: texts(&message["spans"], "label"),
            notes: texts(&message["children"], "message"),
        })
        .collect()
}
