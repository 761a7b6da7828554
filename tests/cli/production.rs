//! The guide *Running in production*: every block of it runs or parses.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::dead::bury;
use crate::run::{Ran, redstart, run, run_with};
use crate::support::Server;

const PAGE: &str = include_str!("../../src/docs/production.md");

/// The blocks of a language, in their order.
fn blocks(language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = PAGE.lines();
    while let Some(line) = lines.next() {
        if let Some(of) = line.strip_prefix("```") {
            let text: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            let of = of.split(',').next().unwrap_or_default();
            // Documentation tests compile the blocks of Rust.
            assert!(
                ["conf", "rust", "sh", "yaml"].contains(&of),
                "untested: {of}"
            );
            if of == language {
                blocks.push(text.join("\n"));
            }
        }
    }
    assert!(!blocks.is_empty(), "no block of {language}");
    blocks
}

/// The server's settings of the guide, as arguments of redis-server.
fn settings() -> Vec<String> {
    let text = blocks("conf").join("\n");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.flat_map(|line| {
        let (name, value) = line.split_once(' ').expect("a name and a value");
        [format!("--{name}"), value.to_owned()]
    });
    pairs.collect()
}

#[test]
fn the_doctor_finds_no_fault_in_the_settings_of_the_guide() {
    let settings = settings();
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let server = Server::start_with(&settings);
    let ran = run(Some(&server.url()), &["doctor", "--json"]);
    let report = ran.json();
    for check in ["memory", "persistence", "eviction"] {
        let findings = report["findings"].as_array().expect("findings");
        let mut of = findings.iter().filter(|one| one["check"] == check);
        let finding = of.next().unwrap_or_else(|| panic!("{check}: {report:#}"));
        assert_eq!(finding["severity"], "ok", "{finding:#}");
    }
}

#[test]
fn the_commands_of_the_guide_run() {
    let server = Server::start();
    bury(&server, 20);
    let folder = tempfile::tempdir().unwrap();
    let mut commands = 0;
    for line in blocks("sh").iter().flat_map(|block| block.lines()) {
        let mut words = line.split_whitespace();
        assert_eq!(words.next(), Some("redstart"), "{line}");
        let words: Vec<&str> = words.collect();
        let mut command = redstart(Some(&server.url()), &words);
        command.current_dir(folder.path());
        let ran: Ran = run_with(command, "");
        assert_eq!(ran.code, Some(0), "{line}: {ran:?}");
        assert!(
            !ran.out.is_empty() || !ran.err.is_empty(),
            "{line} said nothing"
        );
        commands += 1;
    }
    assert!(commands > 10, "{commands}");
    // The redrive took the exhausted half, the purge the rejected half.
    let left = run(Some(&server.url()), &["dead", "summary", "--json"]).ok();
    assert!(!left.out.contains("rejected"), "{left:?}");
    let exported = std::fs::read_to_string(folder.path().join("rejected.ndjson")).unwrap();
    assert_eq!(exported.lines().count(), 10);
}

#[test]
fn the_deployment_of_the_guide_gives_the_shutdown_its_time() {
    let text = blocks("yaml").join("\n---\n");
    let documents = parse(&text);
    let [billing, metrics] = documents.as_array().unwrap().as_slice() else {
        panic!("{documents:#}");
    };
    let pod = &billing["spec"]["template"]["spec"];
    // The program of the guide has a grace of 30 seconds.
    assert!(PAGE.contains("run_until_signal(Duration::from_secs(30))"));
    assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() > 30);
    let container = &pod["containers"][0];
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/ready");
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/live");
    for deployment in [billing, metrics] {
        let (labels, wanted) = (
            &deployment["spec"]["template"]["metadata"]["labels"],
            &deployment["spec"]["selector"]["matchLabels"],
        );
        assert_eq!(labels, wanted);
    }
    let args = &metrics["spec"]["template"]["spec"]["containers"][0]["args"];
    assert_eq!(
        args,
        &json!(["redstart", "metrics", "--listen", "0.0.0.0:9464"])
    );
}

/// Parses documents of YAML.
pub(crate) fn parse(text: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node");
    assert!(folder.join("node_modules").is_dir(), "run tests/install");
    let mut node = Command::new("node");
    node.arg("yaml.mjs").current_dir(folder);
    node.stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    run_with(node, text).ok().json()
}
