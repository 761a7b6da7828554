//! `publish`.

use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::run::{publish, read_all, redstart, run, run_with, wait};
use crate::support::{PATIENCE, Server, signal};

#[test]
fn bad_lines_are_named_and_do_not_lose_the_others() {
    let server = Server::start();
    let url = server.url();
    let input = "1\n{\"a\":\n2\n3 4\n5\n";
    let ran = publish(&url, &["--type", "t", "--json"], input).failed(1);
    assert_eq!(
        ran.json(),
        json!({"published": 3, "duplicates": 0, "failed": 2, "unknown": 0})
    );
    let complaints: Vec<&str> = ran.err.lines().collect();
    assert_eq!(complaints.len(), 2, "{ran:?}");
    assert!(
        complaints[0].starts_with("line 2: is not JSON: "),
        "{ran:?}"
    );
    assert!(
        complaints[1].starts_with("line 4: is not JSON: "),
        "{ran:?}"
    );

    let ran = publish(&url, &["--type", "t", "--stop-on-error"], input).failed(1);
    assert_eq!(ran.out, "1 published to orders, 1 failed\n");
    let ran = publish(&url, &["--envelope"], "{\"type\":\"t\"}\n[]\n").failed(1);
    assert!(
        ran.err.contains("line 1: field `payload` is missing"),
        "{ran:?}"
    );
    assert!(ran.err.contains("line 2: is not an envelope"), "{ran:?}");

    // A rule of the library, not of the parser.
    let big = format!("1\n\"{}\"\n2\n", "x".repeat(2 * 1024 * 1024));
    let ran = publish(&url, &["--type", "t", "--json"], &big).failed(1);
    assert_eq!(
        ran.json(),
        json!({"published": 2, "duplicates": 0, "failed": 1, "unknown": 0})
    );
    assert!(ran.err.starts_with("line 2: encode envelope"), "{ran:?}");
    publish(&url, &[], "1\n").failed(2);
}

#[test]
fn what_was_published_before_is_counted_apart() {
    let server = Server::start();
    let url = server.url();
    let id = "01a2184e-5b92-77b5-9fd9-f58b7127b4f5";
    let send = |lines: &str, rest: &[&str]| {
        let args = [&["publish", "orders", "--envelope"], rest].concat();
        let mut command = redstart(Some(&url), &args);
        command.env("REDSTART_DEDUPLICATION", "10m");
        run_with(command, lines)
    };
    let one = format!("{{\"id\":\"{id}\",\"type\":\"t\",\"payload\":1}}\n");
    let two = format!("{one}{{\"type\":\"t\",\"payload\":2}}\n");
    assert_eq!(send(&one, &[]).ok().out, "1 published to orders\n");
    let told = send(&two, &["--json"]).ok().json();
    assert_eq!(
        told,
        json!({"published": 1, "duplicates": 1, "failed": 0, "unknown": 0})
    );
    let ran = send(&one, &[]).ok();
    assert_eq!(ran.out, "0 published to orders, 1 already published\n");
    assert_eq!(server.command::<u64>(&["XLEN", "{shop:orders}:log"]), 2);
}

#[test]
fn a_copy_of_a_topic_loses_no_field() {
    let server = Server::start();
    let url = server.url();
    let foreign = r#"{"type":"t","payload":1,"trace":{"n":100000000000000000000001}}"#;
    let _: String = server.command(&["XADD", "{shop:orders}:log", "*", "json", foreign]);
    let tail = ["tail", "orders", "--from-beginning", "--envelope"];
    let line = run(Some(&url), &tail).ok().out + "null\n";
    let copy = |rest: &[&str]| {
        let args = [&["publish", "copy", "--envelope"], rest].concat();
        let mut command = redstart(Some(&url), &args);
        command.env("REDSTART_CODEC", "json");
        run_with(command, &*line)
    };
    let ran = copy(&[]).failed(1);
    assert_eq!(ran.out, "0 published to copy, 2 failed\n");
    for rule in [
        "line 1: unknown field `trace`; --keep-unknown publishes it as it is\n",
        "line 2: is not an envelope: invalid type: null, expected an object with `type`",
    ] {
        assert!(ran.err.contains(rule), "{ran:?}");
    }
    let ran = copy(&["--keep-unknown"]).failed(1);
    assert_eq!(ran.out, "1 published to copy, 1 failed\n");
    let copied = run(Some(&url), &["tail", "copy", "--json"]).ok().out;
    assert!(
        copied.contains(r#""trace":{"n":100000000000000000000001}"#),
        "{copied}"
    );
    run(
        Some(&url),
        &["publish", "copy", "--type", "t", "--keep-unknown"],
    )
    .failed(2);

    // An entry without an envelope cannot be copied so: it is named, and the others come.
    let odd: String = server.command(&["XADD", "{shop:orders}:log", "*", "other", "x"]);
    let _: String = server.command(&["XADD", "{shop:orders}:log", "*", "json", foreign]);
    let ran = run(Some(&url), &tail).failed(1);
    assert_eq!(ran.out.lines().count(), 2, "{ran:?}");
    assert!(
        ran.err
            .starts_with(&format!("{odd}: undecodable: no field")),
        "{ran:?}"
    );
}

#[test]
fn a_trouble_of_many_lines_is_told_once() {
    let server = Server::start();
    let url = server.url();
    publish(&url, &["--type", "t"], "1\n").ok();
    // With no memory left every batch is refused for the same reason.
    let () = server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let many: String = (0..3000).map(|n| format!("{n}\n")).collect();
    let ran = publish(&url, &["--type", "t", "--json"], &many).failed(1);
    assert_eq!(
        ran.json(),
        json!({"published": 0, "duplicates": 0, "failed": 3000, "unknown": 0})
    );
    let told: Vec<&str> = ran.err.lines().collect();
    assert!(told.len() <= 2, "{ran:?}");
    // How many lines have arrived when the first batch is made up is not for the test to say.
    let from_first = ["line 1: ", "lines 1 to "];
    assert!(
        from_first.iter().any(|start| told[0].starts_with(start)),
        "{ran:?}"
    );
    assert!(told[0].contains("OOM"), "{ran:?}");
    assert!(
        told.len() == 1 || told[1].ends_with(" to 3000: as before"),
        "{ran:?}"
    );
}

#[test]
fn a_line_is_published_before_the_input_ends() {
    let server = Server::start();
    let url = server.url();
    let args = ["publish", "orders", "--type", "t"];
    let mut child = redstart(Some(&url), &args).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "1").unwrap();
    let deadline = Instant::now() + PATIENCE;
    while server.command::<u64>(&["XLEN", "{shop:orders}:log"]) < 1 {
        assert!(Instant::now() < deadline, "the line waits for others");
        thread::sleep(Duration::from_millis(10));
    }
    // Interrupted, it still tells the account.
    signal(child.id(), "INT");
    assert_eq!(wait(&mut child).code(), Some(130));
    let out = read_all(child.stdout.take().unwrap()).join().unwrap();
    assert_eq!(out, "1 published to orders\n");
}

#[test]
fn a_level_of_durability_that_the_server_cannot_give_is_refused_and_says_why() {
    let server = Server::start();
    let url = server.url();
    let at = |level: &str| {
        let args = ["--type", "t", "--json", "--durability", level];
        publish(&url, &args, "1\n")
    };
    // The server has no replica, so it is asked and nothing is published.
    let refused = at("replicated:1:50ms").failed(1);
    assert!(refused.err.contains("0 connected replicas"), "{refused:?}");
    assert_eq!(refused.json()["published"], 0);
    let length = || server.command::<u32>(&["XLEN", "{shop:orders}:log"]);
    assert_eq!(length(), 0);

    let port = server.port().to_string();
    let replica = Server::start();
    replica.command::<()>(&["REPLICAOF", "127.0.0.1", &port]);
    let deadline = Instant::now() + PATIENCE;
    let follows = || {
        let links: String = server.command(&["INFO", "replication"]);
        links.contains("state=online")
    };
    while !follows() {
        assert!(Instant::now() < deadline, "the replica does not follow");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(at("replicated:1:4s").ok().json()["published"], 1);
    assert_eq!(length(), 1);
    // It stays connected and acknowledges nothing.
    signal(replica.pid(), "STOP");
    // What it has acknowledged by then must not be all that there is.
    server.command::<()>(&["SET", "more", "1"]);
    at("replicated:1:50ms").failed(1);
    assert_eq!(length(), 1);
    assert_eq!(at("accepted").ok().json()["published"], 1);
    // A usage error names the levels.
    let wrong = at("twice").failed(2);
    assert!(wrong.err.contains("accepted, fsynced"), "{wrong:?}");
}
