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
use std::path::{Path, PathBuf};
use std::process::exit;
use std::time::Instant;
use std::{env, fs, io};

use mutant::{Mutant, Target};
use tree::{Ran, Tree};

const HELP: &str = "\
tests/mutants/run [--quick] [--any] [--table] [NAME]...

Builds the mutants of the core in a copy of the source tree and runs the tests that must fail.
Exits with 1 if a mutant survives, does not compile or does not apply.

  --quick  only the mutants that the gate runs: one program holds all of them
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
        match run(chosen, has("--any")) {
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
    let quick: Vec<Mutant> = mutants.iter().filter(|one| one.quick).copied().collect();
    if let Err(fault) = with_choices(&quick, |file| fs::read_to_string(file)) {
        faults.push(fault.to_string());
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

/// Runs mutants, and returns those that were not caught.
fn run(mutants: Vec<Mutant>, any: bool) -> io::Result<Vec<String>> {
    let (began, count) = (Instant::now(), mutants.len());
    let tree = Tree::copy()?;
    let (quick, others): (Vec<Mutant>, Vec<Mutant>) =
        mutants.into_iter().partition(|one| one.quick);
    let mut escaped = Vec::new();
    if !quick.is_empty() {
        escaped.extend(run_together(&tree, &quick, any)?);
    }
    if !others.is_empty() {
        escaped.extend(run_in_turn(&tree, &others, any)?);
    }
    let (caught, seconds) = (count - escaped.len(), began.elapsed().as_secs());
    println!("mutants: {caught} of {count} caught in {seconds} s");
    Ok(escaped)
}

/// The files that these mutants edit, each with a choice for each mutant of it.
fn with_choices(
    mutants: &[Mutant],
    read: impl Fn(&str) -> io::Result<String>,
) -> io::Result<BTreeMap<&'static str, String>> {
    let root = "src/lib.rs";
    let mut files = BTreeMap::from([(root, read(root)? + tree::CHOICE)]);
    for one in mutants {
        if one.target != Target::Lib {
            let rule = "the gate runs only mutants of unit tests";
            return Err(io::Error::other(format!("{}: {rule}", one.name)));
        }
        let text = match files.remove(one.file) {
            Some(text) => text,
            None => read(one.file)?,
        };
        let text = one.apply_as_choice(&text).map_err(|places| {
            let rule =
                "the text before the edit must be there once beside the other mutants of the gate";
            io::Error::other(format!("{}: {rule}, not {places} times", one.name))
        })?;
        files.insert(one.file, text);
    }
    Ok(files)
}

/// Builds one program that holds all of these mutants, and chooses one after the other.
fn run_together(tree: &Tree, mutants: &[Mutant], any: bool) -> io::Result<Vec<String>> {
    let files = with_choices(mutants, |file| tree.read(file))?;
    let mut originals = BTreeMap::new();
    for (file, text) in &files {
        originals.insert(file, tree.read(file)?);
        tree.write(file, text)?;
    }
    let program = program(tree, Target::Lib)?;
    if !any {
        pass(tree, (Target::Lib, &program), mutants)?;
    }
    let mut escaped = Vec::new();
    for one in mutants {
        let since = Instant::now();
        let found = test(tree, &program, one, any)?;
        report(one, found, since, &mut escaped);
    }
    for (file, text) in &originals {
        tree.write(file, text)?;
    }
    Ok(escaped)
}

/// Edits, builds and tests one mutant after the other.
fn run_in_turn(tree: &Tree, mutants: &[Mutant], any: bool) -> io::Result<Vec<String>> {
    if !any {
        let mut targets: BTreeMap<Target, Vec<Mutant>> = BTreeMap::new();
        for one in mutants {
            targets.entry(one.target).or_default().push(*one);
        }
        for (target, mutants) in targets {
            pass(tree, (target, &program(tree, target)?), &mutants)?;
        }
    }
    let mut escaped = Vec::new();
    for one in mutants {
        let since = Instant::now();
        let found = edit_and_test(tree, one, any)?;
        report(one, found, since, &mut escaped);
    }
    Ok(escaped)
}

/// Builds the tests of a target, which must compile.
fn program(tree: &Tree, target: Target) -> io::Result<PathBuf> {
    let built = tree.build(target)?;
    built.map_err(|told| io::Error::other(format!("{target} does not build:\n{told}")))
}

/// Checks that the tests of mutants exist and pass without them: only then does a failure say something.
fn pass(tree: &Tree, (target, program): (Target, &Path), mutants: &[Mutant]) -> io::Result<()> {
    let since = Instant::now();
    let tests: BTreeSet<&str> = mutants.iter().map(|one| one.test).collect();
    let passed = match tree.run(program, &tests, None)? {
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
    let (count, seconds) = (tests.len(), since.elapsed().as_secs());
    println!("mutants: {count} tests pass without a mutant, in {seconds} s");
    Ok(())
}

fn report(one: &Mutant, found: &str, since: Instant, escaped: &mut Vec<String>) {
    let seconds = since.elapsed().as_secs_f64();
    println!("{found:17} {seconds:5.1} s  {}", one.name);
    if !found.starts_with("caught") {
        escaped.push(format!("{}: {found}", one.name));
    }
}

fn edit_and_test(tree: &Tree, one: &Mutant, any: bool) -> io::Result<&'static str> {
    let original = tree.read(one.file)?;
    let Ok(edited) = one.apply(&original) else {
        return Ok("does not apply");
    };
    tree.write(one.file, &edited)?;
    let found = match tree.build(one.target) {
        Ok(Ok(program)) => test(tree, &program, one, any),
        Ok(Err(told)) => {
            eprintln!("{told}");
            Ok("does not compile")
        }
        Err(error) => Err(error),
    };
    tree.write(one.file, &original)?;
    found
}

fn test(tree: &Tree, program: &Path, one: &Mutant, any: bool) -> io::Result<&'static str> {
    let mut tests = BTreeSet::from([one.test]);
    if any {
        tests.clear();
    }
    Ok(match tree.run(program, &tests, Some(one.name))? {
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
