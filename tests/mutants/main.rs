//! Mutants: small edits of the core, each of which must turn a named test red.
//!
//! Without arguments, as the suite runs it, only checks that every edit still applies, that the unit
//! tests exist, and that the table in `README.md` is the list. `tests/mutants/run` builds and tests the mutants.

#[path = "../support/cargo.rs"]
mod cargo;
mod list;
mod mutant;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::exit;
use std::time::Instant;
use std::{env, fs, io};

use mutant::{Mutant, Target};
use tree::{Ran, Tree};

const HELP: &str = "\
tests/mutants/run [--quick] [--any] [--table] [NAME]...

Builds each mutant of the core in a copy of the source tree and runs the test that must fail.
Exits with 1 if a mutant survives, does not compile or does not apply.

  --quick  only the mutants that the gate runs
  --any    run every test of the target, and name those that fail
  --table  print the table of README.md
  NAME     only mutants whose name contains it
";

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let mutants = list::all();
    if has("--help") {
        print!("{HELP}");
        return;
    }
    if has("--table") {
        print!("{}", table(&mutants));
        return;
    }
    let mut faults = check(&mutants);
    if has("--run") {
        let names: Vec<&String> = arguments
            .iter()
            .filter(|one| !one.starts_with('-'))
            .collect();
        let wanted = |one: &Mutant| {
            let named = names.is_empty() || names.iter().any(|name| one.name.contains(*name));
            named && (one.quick || !has("--quick"))
        };
        let chosen: Vec<Mutant> = mutants.into_iter().filter(wanted).collect();
        match run(&chosen, has("--any")) {
            Ok(escaped) => faults.extend(escaped),
            Err(error) => faults.push(error.to_string()),
        }
    }
    for fault in &faults {
        eprintln!("mutants: {fault}");
    }
    if !faults.is_empty() {
        exit(1);
    }
}

/// The list as a table.
fn table(mutants: &[Mutant]) -> String {
    let mut text =
        String::from("| Mutant | Breaks | File | Test | Gate |\n|---|---|---|---|---|\n");
    for one in mutants {
        let gate = if one.quick { "yes" } else { "" };
        let _ = writeln!(
            text,
            "| `{}` | {} | `{}` | `{} {}` | {gate} |",
            one.name, one.breaks, one.file, one.target, one.test
        );
    }
    text
}

/// Checks the list, and returns what is wrong with it.
fn check(mutants: &[Mutant]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut names = BTreeSet::new();
    for one in mutants {
        if !names.insert(one.name) {
            faults.push(format!("{}: two mutants have this name", one.name));
        }
        match fs::read_to_string(one.file).map(|text| one.apply(&text)) {
            Ok(Ok(_)) => {}
            Ok(Err(places)) => {
                let rule = "does not apply: the text before the edit must be there once";
                faults.push(format!(
                    "{}: {rule}, not {places} times, in {}",
                    one.name, one.file
                ));
            }
            Err(error) => faults.push(format!("{}: {}: {error}", one.name, one.file)),
        }
        if !one.finds_its_test() {
            faults.push(format!(
                "{}: {} has no test {}",
                one.name, one.target, one.test
            ));
        }
    }
    let readme = fs::read_to_string("tests/mutants/README.md").unwrap_or_default();
    if !readme.ends_with(&table(mutants)) {
        faults.push("tests/mutants/README.md does not end with the output of --table".to_owned());
    }
    println!(
        "mutants: {} in the list, {} faults",
        mutants.len(),
        faults.len()
    );
    faults
}

/// Runs mutants one after the other. Returns those that were not caught.
fn run(mutants: &[Mutant], any: bool) -> io::Result<Vec<String>> {
    let began = Instant::now();
    let tree = Tree::copy()?;
    if !any {
        pass_without_mutants(&tree, mutants)?;
        let seconds = began.elapsed().as_secs();
        println!("mutants: the tests pass without a mutant, after {seconds} s");
    }
    let mut escaped = Vec::new();
    for one in mutants {
        let since = Instant::now();
        let found = try_one(&tree, one, any)?;
        println!(
            "{found:17} {:5.1} s  {}",
            since.elapsed().as_secs_f64(),
            one.name
        );
        if !found.starts_with("caught") {
            escaped.push(format!("{}: {found}", one.name));
        }
    }
    let (caught, seconds) = (mutants.len() - escaped.len(), began.elapsed().as_secs());
    println!(
        "mutants: {caught} of {} caught in {seconds} s",
        mutants.len()
    );
    Ok(escaped)
}

/// Checks that the named tests exist and pass: only then does a failure say something.
fn pass_without_mutants(tree: &Tree, mutants: &[Mutant]) -> io::Result<()> {
    let mut targets: BTreeMap<Target, BTreeSet<&str>> = BTreeMap::new();
    for one in mutants {
        targets.entry(one.target).or_default().insert(one.test);
    }
    for (target, tests) in targets {
        let program = match tree.build(target)? {
            Ok(program) => program,
            Err(told) => {
                return Err(io::Error::other(format!(
                    "{target} does not build:\n{told}"
                )));
            }
        };
        let passed = match tree.run(&program, &tests)? {
            Ran::Passed(passed) => passed,
            ran => {
                return Err(io::Error::other(format!(
                    "{target} without a mutant: {ran:?}"
                )));
            }
        };
        if let Some(missing) = tests
            .iter()
            .find(|test| !passed.iter().any(|one| one == *test))
        {
            return Err(io::Error::other(format!("{target} has no test {missing}")));
        }
    }
    Ok(())
}

fn try_one(tree: &Tree, one: &Mutant, any: bool) -> io::Result<&'static str> {
    let original = tree.read(one.file)?;
    let Ok(edited) = one.apply(&original) else {
        return Ok("does not apply");
    };
    tree.write(one.file, &edited)?;
    let found = test(tree, one, any);
    tree.write(one.file, &original)?;
    found
}

fn test(tree: &Tree, one: &Mutant, any: bool) -> io::Result<&'static str> {
    let program = match tree.build(one.target)? {
        Ok(program) => program,
        Err(told) => {
            eprintln!("{told}");
            return Ok("does not compile");
        }
    };
    let mut tests = BTreeSet::from([one.test]);
    if any {
        tests.clear();
    }
    Ok(match tree.run(&program, &tests)? {
        Ran::Passed(_) => "SURVIVED",
        Ran::Failed(failed) => {
            if any {
                println!("{}", failed.join("\n"));
            }
            "caught"
        }
        Ran::TimedOut => "caught by time",
    })
}
