//! Guards the layout of `src/` and its vocabulary.
//!
//! A folder imports only the folders below it. A name says one thing: the words of earlier drafts,
//! which had several meanings each, do not come back.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

/// Each folder with the folders that it may import, besides itself.
const LAYERS: [(&str, &[&str]); 11] = [
    ("domain", &[]),
    ("wire", &["domain"]),
    ("store", &["domain", "wire"]),
    ("api", &["domain", "wire", "store"]),
    ("bus", &["domain", "wire", "store", "api"]),
    ("worker", &["domain", "wire", "store", "api", "bus"]),
    (
        "operate",
        &["domain", "wire", "store", "api", "bus", "worker"],
    ),
    ("adapters", &["domain", "wire", "store", "api"]),
    ("otel", &["domain", "api"]),
    (
        "container",
        &[
            "domain", "wire", "store", "api", "bus", "worker", "operate", "adapters",
        ],
    ),
    (
        "console",
        &["domain", "store", "api", "operate", "container"],
    ),
];

/// Words that no item and no file is named by.
const FORMER_WORDS: [&str; 32] = [
    "anew",
    "buried",
    "buries",
    "bury",
    "chosen",
    "forget",
    "forgets",
    "grave",
    "graves",
    "graveyard",
    "hasten",
    "hastened",
    "held",
    "holdings",
    "onward",
    "parcel",
    "parcels",
    "redo",
    "room",
    "rooms",
    "span",
    "spans",
    "survey",
    "surveyed",
    "swept",
    "tallies",
    "tally",
    "touch",
    "touched",
    "trail",
    "trouble",
    "troubles",
];

/// Whole names that no item has.
const FORMER_NAMES: [&str; 5] = ["Ended", "Left", "Receipt", "Redriven", "retain"];

/// Names that stay: the key of a stored stream, and a method named like the one of `Vec`.
const KEPT: [(&str, &str); 2] = [
    ("adapters/redis/keys.rs", "redo"),
    ("store/commit.rs", "retain"),
];

static IMPORT: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\bcrate::(\{|[A-Za-z_]\w*)").unwrap());

static ITEM: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\b(?:const|enum|fn|mod|static|struct|trait|type)\s+([A-Za-z_]\w*)").unwrap()
});

struct Source {
    /// Relative to `src`, with `/`.
    path: String,
    /// Without comments and without the unit tests at the end.
    code: String,
}

impl Source {
    fn read(path: &Path, root: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let lines = code.lines().map(|line| match line.find("//") {
            // A URL in a text is not a comment.
            Some(at) if !line[..at].ends_with(':') => &line[..at],
            _ => line,
        });
        let path = path.strip_prefix(root).unwrap();
        Self {
            path: path.to_str().unwrap().replace('\\', "/"),
            code: lines.collect::<Vec<_>>().join("\n"),
        }
    }

    fn layer(&self) -> &str {
        let end = self.path.find(['/', '.']).unwrap();
        &self.path[..end]
    }

    /// The first segment of each path that begins with `crate`.
    fn imports(&self) -> Vec<String> {
        let mut found = Vec::new();
        for matched in IMPORT.captures_iter(&self.code) {
            // Paths of a macro are those of its users.
            if self.code[..matched.get(0).unwrap().start()].ends_with('$') {
                continue;
            }
            match &matched[1] {
                "{" => found.extend(heads(&self.code[matched.get(0).unwrap().end()..])),
                name => found.push(name.to_owned()),
            }
        }
        found
    }

    /// Names of the items that the file declares.
    fn items(&self) -> Vec<String> {
        ITEM.captures_iter(&self.code)
            .map(|matched| matched[1].to_owned())
            .collect()
    }
}

/// The first segments of the paths in a group, whose text begins after its opening brace.
fn heads(group: &str) -> Vec<String> {
    let (mut depth, mut found, mut head) = (0, Vec::new(), Some(String::new()));
    for symbol in group.chars() {
        match symbol {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => found.extend(head.replace(String::new())),
            _ if depth > 0 => {}
            ':' | ' ' if head.as_ref().is_some_and(|head| !head.is_empty()) => {
                found.extend(head.take());
            }
            _ if symbol.is_whitespace() => {}
            _ => {
                if let Some(head) = &mut head {
                    head.push(symbol);
                }
            }
        }
    }
    found.extend(head);
    found.retain(|head| !head.is_empty());
    found
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut files) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(Source::read(&path, &root));
            }
        }
    }
    // Modules of unit tests may import anything.
    let test_module = Regex::new(r"#\[cfg\(test\)\]\s*(?:pub\(\w+\) )?mod (\w+);").unwrap();
    let of_tests: Vec<String> = files
        .iter()
        .flat_map(|source: &Source| {
            let folder = source
                .path
                .rsplit_once('/')
                .map_or("", |(folder, _)| folder);
            let names = test_module.captures_iter(&source.code);
            names.map(move |name| format!("{folder}/{}.rs", &name[1]))
        })
        .collect();
    files.retain(|source| !of_tests.contains(&source.path));
    files.sort_by(|one, two| one.path.cmp(&two.path));
    assert!(files.len() > 100, "the sources are found");
    files
}

/// The words of a name in snake case or camel case, in lower case.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut after_lower = false;
    for symbol in name.chars() {
        if !symbol.is_alphanumeric() || (symbol.is_uppercase() && after_lower) {
            words.push(String::new());
        }
        if symbol.is_alphanumeric() {
            words.last_mut().unwrap().extend(symbol.to_lowercase());
        }
        after_lower = symbol.is_lowercase();
    }
    words
}

#[test]
fn folders_import_only_the_folders_below_them() {
    let mut wrong = Vec::new();
    for source in sources() {
        // These stand on top: they may import every folder and the public names.
        if ["bin", "docs", "lib", "testing"].contains(&source.layer()) {
            continue;
        }
        let allowed = LAYERS.iter().find(|(name, _)| *name == source.layer());
        let (own, allowed) = allowed.unwrap_or_else(|| panic!("{}: no layer", source.path));
        for import in source.imports() {
            if import != *own && !allowed.contains(&&*import) {
                wrong.push(format!("{} imports crate::{import}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn names_keep_to_the_vocabulary() {
    let mut wrong = Vec::new();
    for source in sources() {
        let file = source.path.rsplit(['/', '.']).nth(1).unwrap().to_owned();
        for name in source.items().into_iter().chain([file]) {
            let former = FORMER_NAMES.contains(&&*name)
                || words(&name)
                    .iter()
                    .any(|word| FORMER_WORDS.contains(&&**word));
            let known = (&*source.path, &*name);
            if former && !KEPT.contains(&known) {
                wrong.push(format!("{}: {name}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn names_and_groups_are_taken_apart() {
    assert_eq!(words("DeadLetterStore"), ["dead", "letter", "store"]);
    assert_eq!(words("move_to_REDO"), ["move", "to", "redo"]);
    let group = "api::{Bus, Kv},\n    domain::Topic, store, wire as bytes};\nuse crate::bus;";
    assert_eq!(heads(group), ["api", "domain", "store", "wire"]);
}
