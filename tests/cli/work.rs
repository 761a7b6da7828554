//! `work`: handlers in other languages.

use std::io::{BufRead as _, BufReader};
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::dead::{counts, dead, id, list};
use crate::run::{is_running, line_with, publish, read_all, redstart, run, run_with, wait};
use crate::support::{PATIENCE, Server, signal};

/// A worker that has begun to work.
fn worker(url: &str, exec: &str, rest: &[&str], variables: &[(&str, &str)]) -> Child {
    started(url, &[&["--exec", exec], rest].concat(), variables)
}

/// The same, of any kind.
pub(crate) fn started(url: &str, rest: &[&str], variables: &[(&str, &str)]) -> Child {
    let args = [&["work", "orders", "billing"], rest].concat();
    let mut command = redstart(Some(url), &args);
    command.envs(variables.iter().copied());
    let mut child = command.spawn().unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut first = String::new();
    while !first.contains("working on orders/billing") {
        first.clear();
        assert!(err.read_line(&mut first).unwrap() > 0, "it ended");
    }
    // Nothing reads the rest: a worker must not stop for that.
    std::thread::spawn(move || std::io::copy(&mut err, &mut std::io::sink()));
    child
}

/// Lag, in flight and scheduled retries of the group.
pub(crate) fn waiting(url: &str) -> u64 {
    let groups = run(Some(url), &["groups", "orders", "--json"]).ok().json();
    let count = |name: &str| groups[0][name].as_u64().unwrap();
    count("lag") + count("inFlight") + count("scheduled")
}

pub(crate) fn until(what: &str, mut look: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !look() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn stop(mut child: Child) -> String {
    let out = read_all(child.stdout.take().unwrap());
    signal(child.id(), "TERM");
    assert_eq!(wait(&mut child).code(), Some(0));
    out.join().unwrap()
}

#[test]
fn a_worker_whose_standard_error_nobody_reads_goes_on() {
    let server = Server::start();
    let url = server.url();
    let script = "cat > /dev/null; head -c 300000 /dev/zero | tr '\\0' x >&2";
    let args = ["work", "orders", "billing", "--exec", script];
    let mut child = redstart(Some(&url), &args).spawn().unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut first = String::new();
    err.read_line(&mut first).unwrap();
    assert!(first.contains("working on"), "{first}");
    publish(&url, &["--type", "t"], "1\n2\n3\n4\n").ok();
    until("the messages to be handled", || waiting(&url) == 0);
    assert_eq!(counts(&url), (0, 0));
    signal(child.id(), "TERM");
    assert_eq!(wait(&mut child).code(), Some(0));
    drop(err);
}

#[test]
fn a_command_gets_the_message_and_its_exit_code_ends_the_attempt() {
    let server = Server::start();
    let url = server.url();
    let folder = tempfile::tempdir().unwrap();
    let seen = folder.path().join("seen");
    let script = r#"
        payload=$(cat)
        echo "$payload|$REDSTART_TOPIC/$REDSTART_GROUP|$REDSTART_ATTEMPT|$REDSTART_MESSAGE_TYPE|$REDSTART_MESSAGE_KEY|$REDSTART_MESSAGE_TENANT_ID|$REDSTART_MESSAGE_HEADERS|$TRACEPARENT" >> "$SEEN"
        case $payload in
            1) exit 0 ;;
            2) echo "no price" >&2; exit 65 ;;
            3) [ "$REDSTART_ATTEMPT" = 2 ] || { echo "not yet" >&2; exit 75; } ;;
            4) echo "a bug" >&2; exit 1 ;;
            5) kill -9 $$ ;;
        esac
    "#;
    let variables = [
        ("SEEN", seen.to_str().unwrap()),
        ("REDSTART_MESSAGE_KEY", "of the worker"),
    ];
    let rest = ["--max-attempts", "2", "--concurrency", "3"];
    let worker = worker(&url, script, &rest, &variables);
    let args = [
        "--type",
        "t",
        "--tenant",
        "acme",
        "--header",
        "traceparent=00-1-2-01",
    ];
    publish(&url, &args, "1\n2\n3\n4\n5\n").ok();
    until("three to be dead", || {
        counts(&url) == (3, 0) && waiting(&url) == 0
    });
    stop(worker);
    let seen = std::fs::read_to_string(seen).unwrap();
    let mut lines: Vec<&str> = seen.lines().collect();
    lines.sort_unstable();
    let rest = r#"|t||acme|{"traceparent":"00-1-2-01"}|00-1-2-01"#;
    let attempts = ["1|", "2|", "3|1", "3|2", "4|1", "4|2", "5|1", "5|2"];
    assert_eq!(lines.len(), attempts.len(), "{lines:?}");
    for (line, attempt) in lines.iter().zip(attempts) {
        let (payload, number) = attempt.split_once('|').unwrap();
        let number = if number.is_empty() { "1" } else { number };
        assert_eq!(*line, format!("{payload}|orders/billing|{number}{rest}"));
    }
    let mut dead: Vec<(Value, Value)> = list(&url, &[])
        .into_iter()
        .map(|one| (one["reason"].clone(), one["error"].clone()))
        .collect();
    dead.sort_by_key(|(_, error)| error.to_string());
    assert_eq!(dead[0], (json!("exhausted"), json!("exit code 1: a bug")));
    assert_eq!(
        dead[1],
        (json!("rejected"), json!("exit code 65: no price"))
    );
    assert_eq!(dead[2].0, "exhausted");
    assert!(
        dead[2].1.as_str().unwrap().contains("signal: 9"),
        "{dead:?}"
    );
}

#[test]
fn a_command_that_cannot_run_stops_the_worker_and_costs_no_attempt() {
    let server = Server::start();
    let url = server.url();
    publish(&url, &["--type", "t"], "1\n2\n").ok();
    let args = ["work", "orders", "billing", "--exec", "/nowhere/at-all"];
    let ran = run(Some(&url), &args).failed(1);
    assert!(
        ran.err
            .contains("\"/nowhere/at-all\" cannot run: exit code 127: "),
        "{ran:?}"
    );
    assert_eq!((counts(&url).0, waiting(&url)), (0, 2));
    let worker = worker(&url, "exit 65", &[], &[]);
    until("both to be handled", || counts(&url).0 == 2);
    stop(worker);
    for letter in list(&url, &[]) {
        assert_eq!(letter["attempts"], 1, "{letter}");
    }
}

#[test]
fn a_service_that_is_away_costs_no_attempt() {
    let server = Server::start();
    let url = server.url();
    publish(&url, &["--type", "t"], "1\n").ok();
    let folder = tempfile::tempdir().unwrap();
    let open = folder.path().join("open");
    let script = r#"[ -e "$OPEN" ] && exit 65; echo "closed" >&2; exit 69"#;
    let variables = [("OPEN", open.to_str().unwrap())];
    let worker = worker(&url, script, &["--max-attempts", "1"], &variables);
    until("the message to wait", || counts(&url).1 == 1);
    std::fs::write(open, "").unwrap();
    until("the message to be handled", || counts(&url).0 == 1);
    stop(worker);
    assert_eq!(list(&url, &[])[0]["attempts"], 1);
}

#[test]
fn a_command_that_takes_too_long_ends_with_all_its_processes() {
    let server = Server::start();
    let url = server.url();
    let folder = tempfile::tempdir().unwrap();
    let pids = folder.path().join("pids");
    // It ignores SIGTERM, and so does its child.
    let script = r#"trap '' TERM; sleep 1000 & echo "$$ $!" > "$PIDS"; wait"#;
    let rest = ["--timeout", "3s", "--max-attempts", "1"];
    let worker = worker(&url, script, &rest, &[("PIDS", pids.to_str().unwrap())]);
    publish(&url, &["--type", "t"], "1\n").ok();
    until("the message to be dead", || counts(&url).0 == 1);
    let letter = &list(&url, &[])[0];
    assert_eq!(letter["error"], "timed out after 3s", "{letter}");
    for pid in std::fs::read_to_string(pids).unwrap().split_whitespace() {
        until("its processes to end", || !is_running(pid));
    }
    stop(worker);
}

#[test]
fn a_process_that_a_command_leaves_behind_does_not_hold_its_message() {
    let server = Server::start();
    let url = server.url();
    let folder = tempfile::tempdir().unwrap();
    let left = folder.path().join("left");
    // It keeps the input open and reads nothing of it.
    let script = r#"exec 3<&0; sleep 1000 <&3 & echo $! > "$LEFT"; exit 0"#;
    let rest = ["--timeout", "1h", "--grace", "1s"];
    let worker = worker(&url, script, &rest, &[("LEFT", left.to_str().unwrap())]);
    let long = "x".repeat(300_000);
    publish(&url, &["--type", "t"], &format!("{long:?}\n")).ok();
    until("the end", || waiting(&url) == 0);
    assert_eq!(counts(&url), (0, 0));
    signal(
        std::fs::read_to_string(left)
            .unwrap()
            .trim()
            .parse()
            .unwrap(),
        "KILL",
    );
    stop(worker);
}

#[test]
fn a_message_whose_headers_no_environment_can_hold_is_a_dead_letter() {
    let server = Server::start();
    let url = server.url();
    let worker = worker(&url, "exit 0", &[], &[]);
    let headers = json!({ "h": "x".repeat(200_000) });
    let envelope = json!({ "type": "t", "payload": 1, "headers": headers });
    publish(&url, &["--envelope"], &format!("{envelope}\n")).ok();
    until("it to be dead", || counts(&url).0 == 1);
    let letter = &list(&url, &[])[0];
    assert_eq!(letter["reason"], "rejected", "{letter}");
    assert!(
        letter["error"].as_str().unwrap().contains("headers"),
        "{letter}"
    );
    stop(worker);
}

/// Starts a worker whose command runs until it is killed, and returns it with the command's process.
fn busy(url: &str, folder: &std::path::Path, rest: &[&str]) -> (Child, String) {
    let pid = folder.join("pid");
    let script = r#"echo $$ > "$PID.part"; mv "$PID.part" "$PID"; exec sleep 1000"#;
    let worker = worker(url, script, rest, &[("PID", pid.to_str().unwrap())]);
    publish(url, &["--type", "t"], "1\n").ok();
    until("the command to run", || pid.exists());
    (
        worker,
        std::fs::read_to_string(pid).unwrap().trim().to_owned(),
    )
}

#[test]
fn a_worker_that_stops_kills_a_command_at_the_end_of_the_grace_and_gives_its_message_back() {
    let server = Server::start();
    let url = server.url();
    let folder = tempfile::tempdir().unwrap();
    let (mut worker, pid) = busy(&url, folder.path(), &["--grace", "100ms"]);
    signal(worker.id(), "TERM");
    assert_eq!(wait(&mut worker).code(), Some(1));
    until("the command to end", || !is_running(&pid));
    let next = self::worker(&url, "exit 65", &[], &[]);
    until("the message to come back", || counts(&url).0 == 1);
    stop(next);
    assert_eq!(
        list(&url, &[])[0]["attempts"],
        1,
        "the first run does not count"
    );
}

#[test]
fn a_worker_lets_its_command_finish_and_a_second_signal_does_not_wait() {
    let server = Server::start();
    let url = server.url();
    let folder = tempfile::tempdir().unwrap();
    let (mut worker, pid) = busy(&url, folder.path(), &[]);
    signal(worker.id(), "INT");
    std::thread::sleep(Duration::from_millis(50));
    assert!(is_running(&pid), "it has the grace");
    // The kernel may merge two signals of one kind into one: go on until the worker ends.
    until("the worker to end", || {
        signal(worker.id(), "INT");
        worker.try_wait().unwrap().is_some()
    });
    assert_eq!(wait(&mut worker).code(), Some(130));
    until("the command to end", || !is_running(&pid));

    let done = folder.path().join("done");
    let script = r#"echo > "$BEGUN"; sleep 0.3; echo > "$DONE""#;
    let begun = folder.path().join("begun");
    let variables = [
        ("DONE", done.to_str().unwrap()),
        ("BEGUN", begun.to_str().unwrap()),
    ];
    let worker = self::worker(&url, script, &[], &variables);
    publish(&url, &["--type", "t"], "2\n").ok();
    until("the command to run", || begun.exists());
    stop(worker);
    assert!(done.exists());
}

#[test]
fn the_examples_in_other_languages_handle_each_kind_of_message() {
    for (interpreter, file) in [("python3", "charge.py"), ("node", "charge.mjs")] {
        let server = Server::start();
        let url = server.url();
        let exec = format!(
            "{interpreter} {}/examples/work/{file}",
            env!("CARGO_MANIFEST_DIR")
        );
        let mut worker = worker(&url, &exec, &["--concurrency", "2"], &[]);
        let mut out = BufReader::new(worker.stdout.take().unwrap()).lines();
        let input = "{\"cents\":1250}\n{}\n{\"cents\":7,\"flaky\":true}\n";
        publish(&url, &["--type", "order.placed"], input).ok();
        line_with(&mut out, "charged 1250 cents for ");
        line_with(&mut out, "charged 7 cents for ");
        until("the order without a price to be dead", || {
            counts(&url).0 == 1
        });
        let letter = &list(&url, &[])[0];
        assert_eq!(letter["error"], "exit code 65: an order without a price");
        signal(worker.id(), "TERM");
        assert_eq!(wait(&mut worker).code(), Some(0), "{interpreter}");

        // The bank is closed, and then it opens.
        let closed = self::worker(&url, &exec, &[], &[("BANK", "closed")]);
        dead(&url, "redrive", &[&id(letter)]).ok();
        publish(&url, &["--type", "order.placed"], "{\"cents\":3}\n").ok();
        until("both to be out of the log", || {
            counts(&url).0 == 1 && counts(&url).1 == 1
        });
        stop(closed);
        let mut open = self::worker(&url, &exec, &[], &[]);
        let mut out = BufReader::new(open.stdout.take().unwrap()).lines();
        line_with(&mut out, "charged 3 cents for ");
        signal(open.id(), "TERM");
        wait(&mut open);
    }
}

#[test]
fn a_worker_refuses_what_makes_no_sense() {
    for (args, rule) in [
        (&["--concurrency", "0"][..], "must be a whole number from 1"),
        (&["--timeout", "0s"], "--timeout must be longer than 0"),
        (&["--grace", "-1s"], "without a sign"),
        (&["--max-attempts", "0"], "must be a whole number from 1"),
    ] {
        let all = [&["work", "orders", "billing", "--exec", "true"], args].concat();
        let ran = run_with(redstart(Some("redis://127.0.0.1:1"), &all), "").failed(2);
        assert!(ran.err.contains(rule), "{ran:?}");
    }
    run(None, &["work", "orders", "billing"]).failed(2);
}

#[test]
fn an_operators_variable_wins_over_the_arguments_and_is_logged_with_its_name() {
    let server = Server::start();
    let url = server.url();
    let args = [
        "work",
        "orders",
        "billing",
        "--exec",
        "true",
        "--concurrency",
        "2",
    ];
    let mut command = redstart(Some(&url), &args);
    command.envs([
        ("REDSTART_LOG", "info"),
        ("REDSTART_SUB_ORDERS_CONCURRENCY", "3"),
    ]);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let logged = lines.find(|line| line.as_ref().unwrap().contains("operator's setting"));
    let logged = logged.expect("a line of the log").unwrap();
    for part in [
        "orders",
        "billing",
        "concurrency",
        "\"3\"",
        "REDSTART_SUB_ORDERS_CONCURRENCY",
    ] {
        assert!(logged.contains(part), "{part}: {logged}");
    }
    let rest = std::thread::spawn(move || lines.count());
    stop(child);
    rest.join().unwrap();

    let mut bad = redstart(Some(&url), &args);
    bad.env("REDSTART_SUB_ORDERS_LEASE", "30");
    let output = bad.output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    let rule = r#"environment "REDSTART_SUB_ORDERS_LEASE": must be a time such as 30s"#;
    assert!(
        !output.status.success() && errors.contains(rule),
        "{errors}"
    );
}
