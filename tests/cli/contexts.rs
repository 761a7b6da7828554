//! Contexts, the settings in force, and the completion of names.

use std::path::Path;

use serde_json::{Value, json};

use crate::run::{Ran, publish, redstart, run_with};
use crate::support::Server;

/// Runs the tool with a file of contexts and no other settings.
fn with(file: &Path, variables: &[(&str, &str)], args: &[&str]) -> Ran {
    let mut command = redstart(None, args);
    command.env("REDSTART_CONTEXTS", file);
    for (name, value) in variables {
        command.env(name, value);
    }
    run_with(command, "")
}

#[test]
fn a_context_names_a_server_a_namespace_and_a_password_command() {
    let server = Server::start();
    let () = server.command(&[
        "ACL", "SETUSER", "ann", "on", ">p@ss:1", "~*", "&*", "+@all",
    ]);
    publish(&server.url(), &["--type", "t"], "1\n").ok();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("contexts.toml");
    let tool = |args: &[&str]| with(&file, &[], args);
    let url = format!("redis://ann@127.0.0.1:{}", server.port());
    let add = [
        "context", "add", "here", "--server", &url, "--prefix", "shop",
    ];
    let command = ["--password-command", "printf 'p@ss:1\\n'"];
    tool(&[&add[..], &command].concat()).ok();
    tool(&["context", "add", "away", "--server", "redis://127.0.0.1:1"]).ok();
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("[contexts.here]"), "{text}");

    let topics = |args: &[&str]| tool(&[&["topics", "--json"], args].concat());
    assert_eq!(
        topics(&["--context", "here"]).ok().json()[0]["topic"],
        "orders"
    );
    topics(&["--context", "away"]).failed(1);
    topics(&["--context", "nowhere"]).failed(2);
    topics(&["--context", "here", "--redis-url", "redis://127.0.0.1:1"]).failed(2);
    tool(&["context", "use", "here"]).ok();
    assert_eq!(topics(&[]).ok().json()[0]["topic"], "orders");
    assert_eq!(topics(&["--namespace", "empty"]).ok().json(), json!([]));
    let both = ["--context", "here", "--namespace", "empty"];
    assert_eq!(topics(&both).ok().json(), json!([]), "an option wins");

    // A server of the environment or an option is used without the context, and its password.
    let elsewhere = ("REDSTART_REDIS_URL", "redis://127.0.0.1:1");
    with(&file, &[elsewhere], &["topics"]).failed(1);
    let here = ["topics", "--json", "--context", "here"];
    with(&file, &[elsewhere], &here).ok();
    let named = with(&file, &[("REDSTART_CONTEXT", "away")], &["topics"]).failed(1);
    assert!(named.err.contains("127.0.0.1:1"), "{named:?}");

    let listed = tool(&["context", "list", "--json"]).ok().json();
    let current = |of: &Value| of["current"].as_bool().unwrap();
    assert_eq!(
        (listed[0]["name"].as_str(), current(&listed[0])),
        (Some("away"), false)
    );
    assert_eq!(
        (listed[1]["name"].as_str(), current(&listed[1])),
        (Some("here"), true)
    );
    let shown = tool(&["settings"]).ok().out;
    for part in [
        "here",
        &url,
        "printf",
        "shop",
        "context here",
        "current context",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert!(!shown.contains("p@ss:1 "), "{shown}");

    let secret = ["context", "add", "x", "--server", "redis://:pw@h"];
    assert!(tool(&secret).failed(2).err.contains("keeps no password"));
    tool(&["context", "use", "nowhere"]).failed(2);
    tool(&["context", "use", "--none"]).ok();
    tool(&["context", "remove", "here"]).ok();
    tool(&["context", "remove", "here"]).failed(2);
    assert_eq!(
        tool(&["context", "list", "--json"])
            .ok()
            .json()
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn a_shell_completes_the_names_of_topics_groups_and_contexts() {
    let server = Server::start();
    let url = server.url();
    publish(&url, &["--type", "t"], "1\n").ok();
    for group in ["billing", "shipping"] {
        let () = server.command(&["XGROUP", "CREATE", "{shop:orders}:log", group, "0"]);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("contexts.toml");
    with(
        &file,
        &[],
        &["context", "add", "staging", "--server", "redis://h"],
    )
    .ok();
    let complete = |url: &str, words: &[&str]| {
        let mut command = redstart(Some(url), &[&["--", "redstart"], words].concat());
        command
            .env("COMPLETE", "fish")
            .env("REDSTART_CONTEXTS", &file);
        let out = run_with(command, "").ok().out;
        let names = out
            .lines()
            .map(|line| line.split('\t').next().unwrap().to_owned());
        names.collect::<Vec<String>>()
    };
    assert_eq!(complete(&url, &["tail", "or"]), ["orders"]);
    assert_eq!(
        complete(&url, &["dead", "list", "orders", "b"]),
        ["billing"]
    );
    let groups = complete(&url, &["groups", "show", "orders", ""]);
    assert!(
        ["billing", "shipping"]
            .iter()
            .all(|one| groups.contains(&(*one).to_owned())),
        "{groups:?}"
    );
    for id in ["order-7", "order-8", "mail-7"] {
        publish(&url, &["--type", "t", "--after", "1d", "--id", id], "1\n").ok();
    }
    assert_eq!(complete(&url, &["schedules", "list", "or"]), ["orders"]);
    let ids = |words: &[&str]| {
        let mut ids = complete(&url, &[&["schedules"], words].concat());
        ids.sort();
        ids
    };
    assert_eq!(ids(&["cancel", "orders", "order"]), ["order-7", "order-8"]);
    assert_eq!(ids(&["cancel", "orders", "order-7", "m"]), ["mail-7"]);
    assert_eq!(ids(&["reschedule", "orders", "mail"]), ["mail-7"]);
    assert_eq!(ids(&["reschedule", "nowhere", "mail"]), [""; 0]);
    assert_eq!(complete(&url, &["context", "use", "s"]), ["staging"]);
    assert!(complete(&url, &["dea"]).contains(&"dead".to_owned()));
    // Without a server there are no names, and no error.
    assert_eq!(complete("redis://127.0.0.1:1", &["tail", "or"]), [""; 0]);
    let script = with(&file, &[], &["completions", "bash"]).ok().out;
    assert!(
        script.contains("COMPLETE=") || script.contains("COMPLETE"),
        "{script}"
    );
    let fixed = with(&file, &[], &["completions", "bash", "--static"])
        .ok()
        .out;
    assert!(
        fixed.contains("run-now") && !fixed.contains("demo-worker"),
        "{fixed}"
    );
}
