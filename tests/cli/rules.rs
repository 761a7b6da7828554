//! Wrong input, output that nobody reads, and texts copied from the screen: each has a rule that the
//! tool tells.

use std::process::Command;

use serde_json::{Value, json};

use crate::dead::{bury, dead, id, lines, list};
use crate::run::{Ran, redstart, run, run_with};
use crate::support::Server;

/// Nothing listens there: a usage error comes before a connection.
const NOWHERE: &str = "redis://127.0.0.1:1";

#[test]
fn a_number_or_a_time_out_of_range_is_named_with_its_rule() {
    let from_one = "must be a whole number from 1";
    let sign = "without a sign";
    for (line, option, value, rule) in [
        ("dead list o g", "--max", "0", from_one),
        ("dead list o g", "--max", "-1", from_one),
        ("dead summary", "--max", "0", from_one),
        ("dead watch o g", "--max", "0", from_one),
        ("dead watch o g", "--max", "1.5", from_one),
        ("retries list o g", "--max", "-2", from_one),
        ("tail o", "--max", "0", from_one),
        ("tail o", "--last", "-1", "must be a whole number from 0"),
        ("dead list o g", "--min-attempts", "0", from_one),
        (
            "dead list o g",
            "--since",
            "-2h",
            "an age has no sign: write 2h",
        ),
        ("dead export o g", "--until", "-1", "must be a time"),
        ("dead redrive o g --all", "--rate", "0", from_one),
        ("dead redrive o g --all", "--rate", "-5", from_one),
        ("dead purge o g --all --rate 5", "--ramp", "-2s", sign),
        (
            "dead redrive o g --all --rate 5",
            "--failure-limit",
            "-1%",
            "from 0% to 100%",
        ),
        ("kv set k 1", "--ttl", "-5s", sign),
        ("doctor", "--stuck-after", "-5m", sign),
        ("dead purge o g", "--error", "", "must not be empty"),
        ("dead purge o g", "--error-pattern", "", "must not be empty"),
    ] {
        let args: Vec<&str> = line.split(' ').chain([option, value]).collect();
        let ran = run(Some(NOWHERE), &args).failed(2);
        for part in [option, value, rule] {
            assert!(ran.err.contains(part), "{part}: {args:?}: {ran:?}");
        }
        assert_eq!(ran.out, "", "{args:?}");
    }
    for conditions in [
        ["--since", "1h", "--until", "2h"],
        ["--min-attempts", "3", "--max-attempts", "2"],
    ] {
        for command in ["list", "watch", "export", "redrive", "purge"] {
            let ran = dead(NOWHERE, command, &conditions).failed(2);
            assert!(ran.err.contains(conditions[0]), "{ran:?}");
            assert!(ran.err.contains("no dead letter can match"), "{ran:?}");
        }
    }
}

/// Runs the tool by a shell that redirects its output.
fn shell(url: &str, args: &str, redirection: &str) -> Ran {
    let tool = redstart(Some(url), &[]);
    let mut command = Command::new("sh");
    let line = format!("exec \"$0\" \"$@\" {args} {redirection}");
    command.arg("-c").arg(line).arg(tool.get_program());
    command.args(tool.get_args());
    for (name, value) in tool.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let done = command.output().unwrap();
    Ran {
        code: done.status.code(),
        out: String::from_utf8(done.stdout).unwrap(),
        err: String::from_utf8(done.stderr).unwrap(),
    }
}

#[test]
fn what_nobody_can_read_is_a_failure() {
    let server = Server::start();
    let url = server.url();
    bury(&server, 2);
    for args in [
        "dead export orders billing",
        "dead list orders billing",
        "dead summary",
        "dead journal orders billing",
        "retries list orders billing",
        "tail orders",
        "topics",
        "groups",
        "migrate status",
    ] {
        let ran = shell(&url, args, ">&-").failed(1);
        let rule = "error: the standard output is closed, so that nothing can be shown\n";
        assert_eq!(ran.err, rule, "{args}");
        shell(&url, args, ">/dev/null").ok();
    }
    #[cfg(target_os = "linux")]
    {
        let ran = shell(&url, "dead export orders billing", ">/dev/full").failed(1);
        assert!(
            ran.err.starts_with("error: the standard output: "),
            "{ran:?}"
        );
    }
    // Their answer is the exit code.
    for args in ["health", "kv set a 1", "dead redrive orders billing --all"] {
        shell(&url, args, ">&-").ok();
    }
}

#[test]
fn a_reader_that_has_gone_turns_no_failure_into_a_success() {
    let server = Server::start();
    let url = server.url();
    bury(&server, 1);
    let unread = |args: &[&str], input: &str, url: &str| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = redstart(Some(url), args);
        command.stdout(writer);
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let _ = std::io::Write::write_all(&mut stdin, input.as_bytes());
        drop(stdin);
        crate::run::wait(&mut child).code()
    };
    let publish = ["publish", "orders", "--type", "t"];
    assert_eq!(unread(&publish, "1\nnonsense\n", &url), Some(1));
    assert_eq!(unread(&publish, "1\n", &url), Some(0));
    let of_group = |words: &[&'static str]| [words, &["orders", "billing"]].concat();
    for args in [
        of_group(&["dead", "import"]),
        [&of_group(&["dead", "redrive"])[..], &["1-1"]].concat(),
        [&of_group(&["dead", "redrive"])[..], &["1-1", "--dry-run"]].concat(),
        [&of_group(&["retries", "run-now"])[..], &["1-1"]].concat(),
        of_group(&["groups", "remove"]),
        vec!["kv", "delete", "absent", "--json"],
        vec!["kv", "cas", "absent", "1", "--expect", "2", "--json"],
    ] {
        assert_eq!(unread(&args, "nonsense\n", &url), Some(1), "{args:?}");
    }
    for args in [&["health"][..], &["doctor"]] {
        assert_eq!(unread(args, "", NOWHERE), Some(1), "{args:?}");
    }
}

/// Errors that do not look on the screen as they are.
fn odd_errors() -> Vec<String> {
    let long: String = (0..40).map(|n| format!("reason {n}; ")).collect();
    vec![
        "refused\ncaused by: timeout".to_owned(),
        "a\ttab\r\n\u{1b}[31m and a mark \u{202e}".to_owned(),
        r"the path c:\new\table (x86)".to_owned(),
        format!("first line\n{long}"),
        format!("{}\n…", "é".repeat(119)),
        "a.*[b] is no pattern".to_owned(),
        "\u{e0041}tagged \"text\"".to_owned(),
    ]
}

#[test]
fn an_error_and_a_cause_are_found_as_they_are_shown() {
    let server = Server::start();
    let url = server.url();
    bury(&server, 1);
    let mut letter = lines(&dead(&url, "export", &[]).ok()).remove(0);
    let errors = odd_errors();
    let input: Vec<String> = errors
        .iter()
        .enumerate()
        .map(|(at, error)| {
            letter["id"] = format!("{}-0", at + 1).into();
            letter["error"] = error.as_str().into();
            letter["fingerprint"] = format!("cause {at} {error}").trim().into();
            letter["type"] = format!("type\n{at}").into();
            letter.to_string()
        })
        .collect();
    let args = ["dead", "import", "orders", "billing"];
    run_with(redstart(Some(&url), &args), input.join("\n")).ok();
    let all = list(&url, &[]);
    assert_eq!(all.len(), errors.len() + 1);
    let table = dead(&url, "list", &[]).ok().out;
    let summary = run(Some(&url), &["dead", "summary"]).ok().out;
    for (at, letter) in all.iter().skip(1).enumerate() {
        let only = |option: &str, text: &str| {
            let found = list(&url, &[option, text]);
            let ids: Vec<String> = found.iter().map(id).collect();
            assert_eq!(ids, [id(letter)], "{option} {text:?}");
        };
        let row = table.lines().find(|row| row.starts_with(&id(letter)));
        let (_, shown) = row.unwrap().split_once("  1  ").unwrap();
        only("--error", shown);
        only("--error", &errors[at]);
        let cause = summary
            .lines()
            .find(|row| row.contains(&format!("cause {at} ")));
        let cause = cause.unwrap();
        let cause = &cause[cause.find("cause ").unwrap()..];
        only("--fingerprint", cause);
        only("--fingerprint", letter["fingerprint"].as_str().unwrap());
        only("--type", &format!("type\\n{at}"));
        // As the JSON of `list` has it between the quotes.
        let json = serde_json::to_string(&letter["error"]).unwrap();
        only("--error", &json[1..json.len() - 1]);
    }
    let over_lines = list(&url, &["--error-pattern", "refused.+timeout"]);
    assert_eq!(over_lines.len(), 1);

    // An operation remembers the text as the operator gave it.
    let ran = dead(&url, "redrive", &["--error", r"refused\ncaused", "--json"]).ok();
    assert_eq!(ran.json()["taken"], 1, "{ran:?}");
    let journal = lines(&dead(&url, "journal", &["--json"]).ok());
    assert_eq!(
        journal.last().unwrap()["selection"],
        json!(r#"error contains "refused\\ncaused""#)
    );
}

#[test]
fn a_line_that_an_import_would_not_keep_whole_is_refused() {
    let server = Server::start();
    let url = server.url();
    bury(&server, 1);
    let mut letter = lines(&dead(&url, "export", &[]).ok()).remove(0);
    letter["id"] = "1-1".into();
    let mut newer = letter.clone();
    newer["expires"] = json!("2030-01-01T00:00:00Z");
    let mut inner = letter.clone();
    inner["history"] = json!([{"number": 1, "at": "2026-01-01T00:00:00Z", "consumer": "c",
        "error": "e", "span": "s"}]);
    let input: Vec<String> = [newer, inner, letter]
        .iter()
        .map(Value::to_string)
        .collect();
    let args = ["dead", "import", "orders", "billing"];
    let ran = run_with(redstart(Some(&url), &args), input.join("\n")).failed(1);
    assert_eq!(ran.out, "1 imported, 2 failed\n");
    for (line, name) in [("line 1: ", "`expires`"), ("line 2: ", "`span`")] {
        let told = ran.err.lines().find(|told| told.starts_with(line));
        assert!(
            told.unwrap().contains(&format!("unknown field {name}")),
            "{ran:?}"
        );
    }
}
