//! The command-line tool, as a user runs it.

#![cfg(feature = "cli")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{PATIENCE, Server, signal};

/// What a command has left.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    /// The last line of the output, as JSON.
    fn json(&self) -> Value {
        let last = self.out.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    fn failed(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }
}

/// The tool, on a server or on none.
fn redstart(url: Option<&str>, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redstart"));
    command.args(args);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("REDSTART_") {
            command.env_remove(name);
        }
    }
    if let Some(url) = url {
        command.env("REDSTART_REDIS_URL", url);
        command.env("REDSTART_NAMESPACE", "shop");
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs a command to its end, feeding it an input.
fn run_with(mut command: Command, input: impl Into<Vec<u8>>) -> Ran {
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.into();
    // A command that ends early leaves the rest unread.
    let feed = thread::spawn(move || drop(stdin.write_all(&input)));
    let out = read_all(child.stdout.take().unwrap());
    let err = read_all(child.stderr.take().unwrap());
    let status = wait(&mut child);
    feed.join().unwrap();
    Ran {
        code: status.code(),
        out: out.join().unwrap(),
        err: err.join().unwrap(),
    }
}

fn run(url: Option<&str>, args: &[&str]) -> Ran {
    run_with(redstart(url, args), "")
}

fn publish(url: &str, args: &[&str], input: &str) -> Ran {
    let mut all = vec!["publish", "orders"];
    all.extend(args);
    run_with(redstart(Some(url), &all), input)
}

fn read_all(mut from: impl std::io::Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        String::from_utf8(bytes).expect("output is UTF-8")
    })
}

fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("the command does not end");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Reads lines until one has a text in it.
fn line_with(lines: &mut impl Iterator<Item = std::io::Result<String>>, text: &str) -> String {
    lines
        .map(Result::unwrap)
        .find(|line| line.contains(text))
        .unwrap_or_else(|| panic!("no line with {text:?}"))
}

fn processes(format: &str) -> String {
    let listed = Command::new("ps").args(["-eo", format]).output().unwrap();
    String::from_utf8_lossy(&listed.stdout).into_owned()
}

/// Whether a process still does something; one that only waits to be buried does not.
fn is_running(pid: &str) -> bool {
    processes("pid=,stat=").lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(pid) && words.next().is_some_and(|stat| !stat.starts_with('Z'))
    })
}

fn adds_up(told: &Value, published: u64) {
    let count = |name: &str| {
        told[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name}: {told}"))
    };
    assert_eq!(count("published"), published, "{told}");
    assert_eq!(count("handled") + count("dead"), published, "{told}");
    assert_eq!(count("dead"), 3, "{told}");
    assert_eq!(count("lost"), 0, "{told}");
    assert_eq!(count("workers_killed"), 1, "{told}");
    assert!(told["duplicates"].is_u64(), "{told}");
    assert_eq!(told["backend"], "redis");
}

#[test]
fn the_demo_adds_up_on_a_server_of_its_own() {
    let ran = run(None, &["demo", "--json", "--messages", "120"]).ok();
    assert_eq!(ran.out.lines().count(), 1, "{ran:?}");
    assert_eq!(ran.err, "");
    adds_up(&ran.json(), 120);
}

#[test]
fn the_demo_on_a_given_server_keeps_to_a_namespace_of_its_own() {
    let server = Server::start();
    let ran = run(Some(&server.url()), &["demo", "--json", "--messages", "90"]).ok();
    let told = ran.json();
    adds_up(&told, 90);
    let namespace = told["namespace"].as_str().unwrap();
    assert!(namespace.starts_with("redstart-demo-"), "{namespace}");
    let keys: Vec<String> = server.command(&["KEYS", "*"]);
    assert!(keys.iter().all(|key| key.contains(namespace)), "{keys:?}");

    let told = run(
        Some(&server.url()),
        &["--namespace", namespace, "groups", "--json"],
    )
    .ok();
    assert_eq!(told.json()[0]["dead"], 3);
    assert_eq!(told.json()[0]["lag"], 0);
}

#[test]
fn the_demo_tells_its_story() {
    let ran = run(None, &["demo", "--messages", "60"]).ok();
    for part in [
        "Started a private redis-server",
        "Published 60 messages before any worker existed",
        "Started 3 worker processes",
        "Killed worker",
        "Every message was handled or is a dead letter",
        "lost",
    ] {
        assert!(ran.out.contains(part), "{part}: {}", ran.out);
    }
}

#[test]
fn an_interrupted_demo_ends_its_processes() {
    let mut child = redstart(None, &["demo", "--messages", "5000"])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let server = line_with(&mut lines, "redis-server (pid");
    let workers = line_with(&mut lines, "worker processes (pids");
    let numbers = |line: &str, after: &str| -> Vec<String> {
        let list = line.split_once(after).unwrap().1;
        let list = list.split([')', 'u']).next().unwrap();
        list.split(',').map(|pid| pid.trim().to_owned()).collect()
    };
    let mut pids = numbers(&workers, "(pids ");
    assert_eq!(pids.len(), 3, "{workers}");
    pids.extend(numbers(&server, "(pid "));
    signal(child.id(), "INT");
    assert_eq!(wait(&mut child).code(), Some(130));
    let deadline = Instant::now() + PATIENCE;
    while let Some(pid) = pids.iter().find(|pid| is_running(pid)) {
        assert!(Instant::now() < deadline, "process {pid} is left");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_demo_without_any_server_says_what_it_needs() {
    let nowhere = tempfile::tempdir().unwrap();
    let mut command = redstart(None, &["demo"]);
    command.env("PATH", nowhere.path());
    let ran = run_with(command, "").failed(1);
    assert!(ran.err.contains("redis-server"), "{ran:?}");
    assert!(ran.err.contains("REDSTART_REDIS_URL"), "{ran:?}");
    assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
}

#[test]
fn what_is_published_can_be_looked_at() {
    let server = Server::start();
    let url = server.url();
    let input = "{\"n\":1}\n\n\"two\"\nnull";
    let ran = publish(&url, &["--type", "t", "--key", "k", "--json"], input).ok();
    assert_eq!(
        ran.json(),
        json!({"published": 3, "failed": 0, "unknown": 0})
    );
    let id = "0190163d-8694-739b-aea5-966c26f8ad90";
    let envelope = json!({
        "type": "full", "payload": [1.5], "id": id, "corrId": "c", "tenantId": "x",
        "headers": {"traceparent": "00"},
    });
    publish(&url, &["--envelope"], &envelope.to_string()).ok();

    let ran = run(
        Some(&url),
        &["tail", "orders", "--from-beginning", "--json"],
    )
    .ok();
    let shown: Vec<Value> = ran
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let payloads: Vec<&Value> = shown
        .iter()
        .map(|one| &one["envelope"]["payload"])
        .collect();
    assert_eq!(
        payloads,
        [&json!({"n": 1}), &json!("two"), &Value::Null, &json!([1.5])]
    );
    assert_eq!(shown[0]["envelope"]["key"], "k");
    for (field, value) in envelope.as_object().unwrap() {
        assert_eq!(&shown[3]["envelope"][field], value, "{field}");
    }

    let last = run(Some(&url), &["tail", "orders", "--last", "1"]).ok();
    assert!(last.out.ends_with("  full  [1.5]  tenant=x\n"), "{last:?}");
    let first = run(
        Some(&url),
        &["tail", "orders", "--from-beginning", "--max", "2"],
    )
    .ok();
    assert_eq!(first.out.lines().count(), 2, "{first:?}");

    // What tail says of an envelope, publish understands.
    let again = format!("{}\n", shown[3]["envelope"]);
    assert_eq!(publish(&url, &["--envelope"], &again).ok().code, Some(0));

    let topics = run(Some(&url), &["topics", "--json"]).ok().json();
    assert_eq!(
        topics,
        json!([{"topic": "orders", "entries": 5, "retention": "settled",
                "backlog_limit": 1_000_000, "groups": []}])
    );
    let () = server.command(&["XGROUP", "CREATE", "{shop:orders}:log", "billing", "0"]);
    let groups = run(Some(&url), &["groups", "orders", "--json"]).ok().json();
    assert_eq!(
        groups,
        json!([{"topic": "orders", "group": "billing", "lag": 5, "in_flight": 0,
                "scheduled": 0, "dead": 0, "consumers": 0}])
    );
    assert_eq!(run(Some(&url), &["groups", "--json"]).ok().json(), groups);
    let table = run(Some(&url), &["groups"]).ok().out;
    assert!(table.starts_with("topic   group    lag"), "{table}");
    assert!(!table.contains('\u{1b}'), "{table:?}");
    run(Some(&url), &["groups", "nosuch"]).failed(1);
    run(Some(&url), &["tail", "nosuch"]).failed(1);
}

#[test]
fn a_tail_that_follows_sees_what_is_published_later() {
    let server = Server::start();
    let url = server.url();
    let args = ["tail", "orders", "--follow", "--last", "0", "--max", "2"];
    let mut child = redstart(Some(&url), &args).spawn().unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap()).lines();
    line_with(&mut err, "waiting for it");
    publish(&url, &["--type", "t"], "1\n").ok();
    publish(&url, &["--type", "t"], "2\n3\n").ok();
    assert_eq!(wait(&mut child).code(), Some(0));
    let out = read_all(child.stdout.take().unwrap()).join().unwrap();
    let payloads: Vec<&str> = out.lines().filter_map(|l| l.split("  ").last()).collect();
    assert_eq!(payloads, ["1", "2"]);
}

#[test]
fn bad_lines_are_named_and_do_not_lose_the_others() {
    let server = Server::start();
    let url = server.url();
    let input = "1\n{\"a\":\n2\n3 4\n5\n";
    let ran = publish(&url, &["--type", "t", "--json"], input).failed(1);
    assert_eq!(
        ran.json(),
        json!({"published": 3, "failed": 2, "unknown": 0})
    );
    let complaints: Vec<&str> = ran.err.lines().collect();
    assert_eq!(complaints.len(), 2, "{ran:?}");
    assert!(complaints[0].starts_with("line 2: is no JSON: "), "{ran:?}");
    assert!(complaints[1].starts_with("line 4: is no JSON: "), "{ran:?}");

    let ran = publish(&url, &["--type", "t", "--stop-on-error"], input).failed(1);
    assert_eq!(ran.out, "published 1 to orders, 1 failed\n");
    let ran = publish(&url, &["--envelope"], "{\"type\":\"t\"}\n[]\n").failed(1);
    assert!(
        ran.err.contains("line 1: field `payload` is missing"),
        "{ran:?}"
    );
    assert!(ran.err.contains("line 2: is no envelope"), "{ran:?}");

    // A rule of the library, not of the parser.
    let big = format!("1\n\"{}\"\n2\n", "x".repeat(2 * 1024 * 1024));
    let ran = publish(&url, &["--type", "t", "--json"], &big).failed(1);
    assert_eq!(
        ran.json(),
        json!({"published": 2, "failed": 1, "unknown": 0})
    );
    assert!(ran.err.starts_with("line 2: encode envelope"), "{ran:?}");
    publish(&url, &[], "1\n").failed(2);
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
        json!({"published": 0, "failed": 3000, "unknown": 0})
    );
    let told: Vec<&str> = ran.err.lines().collect();
    assert!(told.len() <= 2, "{ran:?}");
    assert!(told[0].starts_with("lines 1 to "), "{ran:?}");
    assert!(told[0].contains("OOM"), "{ran:?}");
    assert!(
        told.len() == 1 || told[1].ends_with(" to 3000: the same"),
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
    assert_eq!(out, "published 1 to orders\n");
}

#[test]
fn migrations_are_listed_and_applied_and_only_then() {
    let server = Server::start();
    let url = server.url();
    let state = || {
        run(Some(&url), &["migrate", "status", "--json"])
            .ok()
            .json()[0]
            .clone()
    };
    assert_eq!(state()["state"], "pending");
    assert_eq!(state()["applied_at"], Value::Null);
    assert_eq!(
        server.command::<u64>(&["DBSIZE"]),
        0,
        "looking changes nothing"
    );
    let up = || run(Some(&url), &["migrate", "up", "--json"]).ok().json();
    assert_eq!(up(), json!({"applied": [1]}));
    assert_eq!(up(), json!({"applied": []}));
    assert_eq!(state()["state"], "applied");
    assert!(state()["applied_at"].is_string());
    let table = run(Some(&url), &["migrate", "status"]).ok().out;
    assert!(table.contains("0001    layout  applied"), "{table}");
}

#[test]
fn health_says_what_does_not_work() {
    let mut server = Server::start();
    let url = server.url();
    assert_eq!(
        run(Some(&url), &["health"]).ok().out,
        "ok\nbus: ok\nkv: ok\n"
    );
    let told = run(Some(&url), &["health", "--json"]).ok().json();
    assert_eq!(
        told,
        json!({"ok": true, "bus": {"ok": true, "reasons": []}, "kv": {"ok": true, "reasons": []}})
    );
    server.kill();
    let ran = run(Some(&url), &["health"]).failed(1);
    assert!(ran.out.starts_with("not ok\nbus: not ok: "), "{ran:?}");
    let told = run(Some(&url), &["health", "--json"]).failed(1).json();
    assert_eq!(told["ok"], false);
    assert_eq!(told["bus"]["reasons"].as_array().unwrap().len(), 1);
    let ran = publish(&url, &["--type", "t"], "1\n").failed(1);
    assert!(ran.err.starts_with("error: "), "{ran:?}");
    run(Some("nonsense"), &["health"]).failed(2);
}

#[test]
fn entries_of_a_foreign_hand_reach_no_terminal_as_they_are() {
    let server = Server::start();
    let url = server.url();
    let log = "{shop:orders}:log";
    let foreign = "{ \"type\": \"evil\\u001b[31m\u{202e}\",\n \"payload\": {\"n\": 1.50,\t\"t\": \"\u{9b}2J\u{2028}\"} }";
    let _: String = server.command(&["XADD", log, "*", "json", foreign]);
    let _: String = server.command(&["XADD", log, "*", "other", "a\u{1b}]0;title\u{7}\nforged"]);
    let _: String = server.command(&["XADD", log, "*", "json", "{\"type\":\"\u{1b}[2J"]);
    let ran = run(Some(&url), &["tail", "orders", "--from-beginning"]).ok();
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines.len(), 3, "{ran:?}");
    assert!(lines[0].contains("evil\\u{1b}[31m\\u{202e}"), "{ran:?}");
    assert!(
        lines[0].contains(r#"{"n":1.50,"t":"\u009b2J\u2028"}"#),
        "{ran:?}"
    );
    assert!(lines[1].contains("undecodable: no field named"), "{ran:?}");
    assert!(lines[1].contains("\\nforged"), "{ran:?}");
    assert!(lines[2].contains("undecodable: "), "{ran:?}");
    let told = run(
        Some(&url),
        &["tail", "orders", "--from-beginning", "--json"],
    )
    .ok();
    for text in [&ran.out, &told.out] {
        let is_bad =
            |c: &char| *c != '\n' && (c.is_control() || ('\u{2028}'..='\u{202e}').contains(c));
        assert_eq!(text.chars().find(is_bad), None, "{text:?}");
    }
    let shown: Vec<Value> = told
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(shown[0]["envelope"]["payload"]["t"], "\u{9b}2J\u{2028}");
    assert_eq!(
        shown[1]["fields"][0]["value"],
        "a\u{1b}]0;title\u{7}\nforged"
    );
    assert!(shown[2]["error"].is_string());
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let server = Server::start();
    let url = server.url();
    let many: String = (0..5000).map(|n| format!("{n}\n")).collect();
    publish(&url, &["--type", "t"], &many).ok();
    let args = ["tail", "orders", "--from-beginning"];
    let mut child = redstart(Some(&url), &args).spawn().unwrap();
    let mut out: ChildStdout = child.stdout.take().unwrap();
    out.read_exact(&mut [0; 10]).unwrap();
    drop(out);
    let err: ChildStderr = child.stderr.take().unwrap();
    assert_eq!(wait(&mut child).code(), Some(0));
    assert_eq!(read_all(err).join().unwrap(), "");
}

#[test]
fn a_password_is_never_told() {
    const CANARY: &str = "canary-7f3a";
    let server = Server::start();
    let () = server.command(&["CONFIG", "SET", "requirepass", CANARY]);
    let good = server
        .url()
        .replace("redis://", &format!("redis://:{CANARY}@"));
    let wrong = server
        .url()
        .replace("redis://", &format!("redis://:{CANARY}-no@"));
    let nowhere = format!("redis://:{CANARY}@127.0.0.1:1/");
    let nonsense = format!("redis//{CANARY}");
    let commands: [&[&str]; 9] = [
        &["topics"],
        &["groups"],
        &["health"],
        &["health", "--json"],
        &["migrate", "status"],
        &["tail", "orders"],
        &["publish", "orders", "--type", "t"],
        &["demo", "--messages", "x"],
        &["--help"],
    ];
    let mut told = String::new();
    for url in [&good, &wrong, &nowhere, &nonsense] {
        for args in commands {
            let mut all = vec!["--log", "trace"];
            all.extend(args);
            let ran = run(Some(url), &all);
            told.push_str(&ran.out);
            told.push_str(&ran.err);
        }
    }
    run(Some(&good), &["topics"]).ok();
    for args in [&[&good, "topics"][..], &["topics", &good], &["tail", &good]] {
        let ran = run(None, args).failed(2);
        told.push_str(&ran.err);
    }
    let ran = run(None, &["demo", "--redis-url", &nonsense]).failed(2);
    told.push_str(&ran.err);
    assert!(!told.contains(CANARY), "{told}");

    // Nor does it stand in the arguments of a process.
    let mut demo = redstart(Some(&good), &["demo", "--messages", "60"])
        .spawn()
        .unwrap();
    let out = read_all(demo.stdout.take().unwrap());
    let err = read_all(demo.stderr.take().unwrap());
    let mut seen = false;
    let deadline = Instant::now() + PATIENCE;
    while demo.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the demo does not end");
        let all = processes("args=");
        seen |= all.contains("demo-worker");
        assert!(!all.contains(CANARY), "{all}");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(seen, "no worker was seen");
    let told = out.join().unwrap() + &err.join().unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(0), "{told}");
    assert!(!told.contains(CANARY), "{told}");
}
