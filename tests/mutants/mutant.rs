//! A mutant: one small edit that breaks one rule, and the test that must notice it.

use std::path::Path;
use std::{fmt, fs};

/// The target of `cargo test` that contains a test.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Target {
    /// The unit tests.
    Lib,
    /// A file or folder of `tests/`.
    Test(&'static str),
}

impl Target {
    /// The arguments that select the target.
    pub(crate) fn arguments(self) -> Vec<&'static str> {
        match self {
            Self::Lib => vec!["--lib"],
            Self::Test(name) => vec!["--test", name],
        }
    }

    /// The name of the target in cargo's messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lib => "redstart",
            Self::Test(name) => name,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.arguments().join(" "))
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Mutant {
    pub(crate) name: &'static str,
    pub(crate) file: &'static str,
    /// Stands in the file exactly once.
    pub(crate) before: &'static str,
    pub(crate) after: &'static str,
    /// The rule that the edit breaks.
    pub(crate) breaks: &'static str,
    pub(crate) target: Target,
    /// The full name of the test that must fail.
    pub(crate) test: &'static str,
    /// Whether the gate runs it. One program then holds all of these mutants, and a variable chooses one of
    /// them. So it is an edit of a file with unit tests, and both texts are whole expressions or statements.
    pub(crate) quick: bool,
}

impl Mutant {
    /// The text of the file with the edit, or the number of places where the edit applies.
    pub(crate) fn apply(&self, text: &str) -> Result<String, usize> {
        self.replace(text, self.after)
    }

    /// The text of the file with a choice between the two texts, or the number of places where the edit
    /// applies.
    pub(crate) fn apply_as_choice(&self, text: &str) -> Result<String, usize> {
        let (name, before, after) = (self.name, self.before, self.after);
        let choice =
            format!("{{ if crate::is_mutant({name:?}) {{ {after} }} else {{ {before} }} }}");
        self.replace(text, &choice)
    }

    fn replace(&self, text: &str, by: &str) -> Result<String, usize> {
        match text.matches(self.before).count() {
            1 => Ok(text.replacen(self.before, by, 1)),
            places => Err(places),
        }
    }

    /// Whether the file that the name of a unit test leads to declares the test.
    ///
    /// Only a run finds the other tests: macros make most of their names.
    pub(crate) fn finds_its_test(&self) -> bool {
        let mut modules: Vec<&str> = self.test.split("::").collect();
        let name = modules.pop().unwrap_or_default();
        if self.target != Target::Lib {
            return true;
        }
        let mut file = Path::new("src").join(modules.join("/"));
        let mut inner = Vec::new();
        while let Some(module) = modules.pop() {
            for path in [file.with_extension("rs"), file.join("mod.rs")] {
                if let Ok(text) = fs::read_to_string(path) {
                    let opens = |module: &&str| text.contains(&format!("mod {module} {{"));
                    return inner.iter().all(opens) && text.contains(&format!("fn {name}("));
                }
            }
            inner.push(module);
            file.pop();
        }
        false
    }
}
