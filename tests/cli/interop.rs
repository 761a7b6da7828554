//! Other programs beside Redstart: producers and consumers in other languages, foreign entries,
//! CloudEvents, and the janitor.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::dead::{counts, dead, id, list};
use crate::run::{line_with, publish, redstart, run, run_with, wait};
use crate::support::{Server, signal};
use crate::work::{started, until, waiting};

const LOG: &str = "{shop:orders}:log";
/// Debian's packages of Node are there.
const NODE_PATH: &str =
    "/usr/share/nodejs:/usr/lib/nodejs:/usr/local/lib/node_modules:/opt/homebrew/lib/node_modules";

/// An interpreter that has a client library of Redis.
fn interpreter(all: &[&'static str], probe: &[&str]) -> Option<&'static str> {
    let works = |name: &&&str| {
        let mut command = Command::new(**name);
        let command = command.args(probe).env("NODE_PATH", NODE_PATH);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    all.iter().find(works).copied()
}

fn python() -> &'static str {
    let found = interpreter(&["python3", "/usr/bin/python3"], &["-c", "import redis"]);
    found.expect("python3 with its package redis: run tests/install")
}

fn node() -> &'static str {
    let found = interpreter(&["node", "/usr/bin/node"], &["-e", "require('redis')"]);
    found.expect("node with its package redis: run tests/install")
}

/// A program of the guide.
fn program(interpreter: &str, file: &str, args: &[&str], url: &str) -> Command {
    let mut command = Command::new(interpreter);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/interop/");
    command.arg(format!("{folder}{file}")).args(args);
    command.env("REDSTART_REDIS_URL", url);
    command.env("NODE_PATH", NODE_PATH);
    command
}

fn tail(url: &str, args: &[&str]) -> Vec<Value> {
    let all = [&["tail", "orders", "--from-beginning", "--json"], args].concat();
    let out = run(Some(url), &all).ok().out;
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn programs_in_other_languages_publish() {
    let mut all = vec![(python(), "publish.py"), (node(), "publish.js")];
    // The suite does not install Ruby.
    let ruby = interpreter(&["ruby"], &["-e", "require 'redis'"]);
    all.extend(ruby.map(|ruby| (ruby, "publish.rb")));
    let server = Server::start();
    let url = server.url();
    for (interpreter, file) in &all {
        let args = ["shop", "orders", r#"{"cents":1250}"#];
        let ran = program(interpreter, file, &args, &url).output().unwrap();
        assert!(ran.status.success(), "{file}: {ran:?}");
        let entry = String::from_utf8(ran.stdout).unwrap();
        let told = tail(&url, &[]).pop().unwrap();
        assert_eq!(told["id"], entry.trim(), "{file}");
        assert_eq!(told["envelope"]["type"], "order.placed", "{file}");
        assert_eq!(
            told["envelope"]["payload"],
            json!({"cents": 1250}),
            "{file}"
        );
    }
    assert_eq!(tail(&url, &[]).len(), all.len());
}

fn consumer(interpreter: &str, file: &str, group: &str, url: &str) -> Child {
    let mut command = program(interpreter, file, &["shop", "orders", group], url);
    command.stdout(Stdio::piped()).spawn().unwrap()
}

fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

#[test]
fn groups_of_other_languages_read_and_the_janitor_removes_what_they_settled() {
    let server = Server::start();
    let url = server.url();
    // Entries from long ago, so that they count as kept for long.
    for n in 1..=300 {
        let body = format!(r#"{{"type":"order.placed","payload":{n}}}"#);
        let _: String = server.command(&["XADD", LOG, &format!("{n}-0"), "json", &body]);
    }
    run(Some(&url), &["janitor", "orders", "--once"]).ok();
    let _: u64 = server.command(&["HDEL", "{shop:orders}:meta", "trimmed"]);
    let mut readers = Vec::new();
    for (interpreter, file, group) in [
        (python(), "consume.py", "mailer"),
        (node(), "consume.js", "search"),
    ] {
        let mut reader = consumer(interpreter, file, group, &url);
        let mut lines = BufReader::new(reader.stdout.take().unwrap()).lines();
        line_with(&mut lines, "order.placed 1");
        line_with(&mut lines, "order.placed 300");
        readers.push(reader);
    }
    until("both groups to settle", || waiting_of(&url) == 0);
    let of_trimming = |strict: &[&str]| {
        let all = [&["doctor", "--json"], strict].concat();
        let told = run(Some(&url), &all).json();
        let all = told["findings"].as_array().unwrap().clone();
        all.into_iter().find(|one| one["check"] == "trimming")
    };
    let found = of_trimming(&[]).expect("the doctor finds it");
    assert_eq!(found["severity"], "warning");
    assert!(
        found["advice"]
            .as_str()
            .unwrap()
            .contains("`redstart janitor orders`"),
        "{found}"
    );
    assert_eq!(server.command::<u64>(&["XLEN", LOG]), 300);
    let done = run(Some(&url), &["janitor", "--once", "--json"])
        .ok()
        .json();
    assert_eq!(done["topic"], "orders");
    assert!(done["removed"].as_u64().unwrap() >= 200, "{done}");
    assert_eq!(of_trimming(&[]), None);
    readers.into_iter().for_each(end);
}

/// The unsettled messages of all groups.
fn waiting_of(url: &str) -> u64 {
    let groups = run(Some(url), &["groups", "orders", "--json"]).ok().json();
    let groups = groups.as_array().unwrap().iter();
    let open = |one: &Value| one["lag"].as_u64().unwrap() + one["inFlight"].as_u64().unwrap();
    groups.map(open).sum()
}

#[test]
fn the_janitor_works_until_a_signal_with_the_rights_of_its_role() {
    let server = Server::start();
    let admin = server.url();
    publish(&admin, &["--type", "t"], "1\n").ok();
    let printed = redstart(None, &["print", "acl", "janitor", "--namespace", "shop"]);
    let printed = run_with(printed, "").ok().out;
    let rules = printed
        .trim()
        .strip_prefix("user redstart-janitor off ")
        .unwrap();
    let (rules, selectors) = rules.split_once(" (").unwrap();
    let selectors = selectors.trim_end_matches(')').split(") (");
    let selectors: Vec<String> = selectors.map(|one| format!("({one})")).collect();
    let words = ["ACL", "SETUSER", "janitor", "on", ">secret"];
    let words: Vec<&str> = words
        .into_iter()
        .chain(rules.split(' '))
        .chain(selectors.iter().map(String::as_str))
        .collect();
    let () = server.command(&words);
    let url = admin.replace("redis://", "redis://janitor:secret@");
    // A retry is due, and nobody is there to promote it.
    let worker = started(&admin, &["--exec", "exit 75"], &[]);
    until("a retry", || {
        run(Some(&admin), &["groups", "orders", "--json"])
            .ok()
            .json()[0]["scheduled"]
            == json!(1)
    });
    end(worker);
    let mut child = redstart(Some(&url), &["janitor", "--every", "100ms"])
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    line_with(&mut out, ", 1 retry promoted, ");
    signal(child.id(), "TERM");
    assert_eq!(wait(&mut child).code(), Some(0));
    let log: Vec<redis::Value> = server.command(&["ACL", "LOG"]);
    assert!(log.is_empty(), "{log:?}");
}

#[test]
fn a_signal_in_the_first_round_of_the_janitor_ends_it() {
    let server = Server::start();
    let url = server.url();
    publish(&url, &["--type", "t"], "1\n").ok();
    // The server answers reads only, so that the first round does not end.
    let () = server.command(&["CLIENT", "PAUSE", "600000", "WRITE"]);
    let connections = || {
        let all: String = server.command(&["CLIENT", "LIST"]);
        all.lines().count()
    };
    let before = connections();
    let mut child = redstart(Some(&url), &["janitor", "--every", "100ms"])
        .spawn()
        .unwrap();
    // It listens for signals before it connects.
    until("the janitor to connect", || connections() > before);
    signal(child.id(), "TERM");
    let () = server.command(&["CLIENT", "UNPAUSE"]);
    assert_eq!(wait(&mut child).code(), Some(0));
}

#[test]
fn the_janitor_refuses_what_makes_no_sense() {
    let server = Server::start();
    let url = server.url();
    let ran = run(Some(&url), &["janitor", "orders", "--once"]).failed(1);
    assert!(
        ran.err.contains("orders") && ran.err.contains("does not exist"),
        "{ran:?}"
    );
    assert_eq!(
        server.command::<u64>(&["DBSIZE"]),
        0,
        "a misspelt name creates nothing"
    );
    for args in [
        &["--every", "1ms"][..],
        &["--every", "-1s"],
        &["--once", "--every", "1s"],
    ] {
        run(Some(&url), &[&["janitor"], args].concat()).failed(2);
    }
}

#[test]
fn the_janitor_keeps_the_house_of_the_topics_after_one_that_fails() {
    let server = Server::start();
    let url = server.url();
    for topic in ["a", "b", "c"] {
        run(Some(&url), &["topics", "create", topic]).ok();
    }
    let () = server.command(&["SET", "{shop:b}:log", "a text"]);
    let ran = run(Some(&url), &["janitor", "--once"]).failed(1);
    let kept: Vec<&str> = ran
        .out
        .lines()
        .filter_map(|line| line.split(':').next())
        .collect();
    assert_eq!(kept, ["a", "c"], "{ran:?}");
    assert!(ran.err.contains("\"b\""), "{ran:?}");
}

#[test]
fn events_come_out_as_they_came_in() {
    let server = Server::start();
    let url = server.url();
    let events = [
        json!({"specversion": "1.0", "id": "a-1", "source": "/shop", "type": "order.placed",
            "time": "2026-01-02T03:04:05.123456Z", "subject": "order-7", "priority": 5,
            "data": {"cents": 1250}}),
        json!({"specversion": "1.0", "id": "a-2", "source": "/shop", "type": "order.scanned",
            "time": "2026-01-02T03:04:05Z", "datacontenttype": "image/png", "data_base64": "AP8="}),
    ];
    let old = r#"{"specversion":"0.3","id":"7","source":"/shop","type":"t"}"#;
    let input = format!("{}\n{old}\n{}\n", events[0], events[1]);
    let ran = publish(&url, &["--format", "cloudevents"], &input).failed(1);
    assert!(
        ran.err.contains("line 2: ") && ran.err.contains("specversion \"0.3\""),
        "{ran:?}"
    );
    let read = |topic: &str| {
        let args = ["tail", topic, "--from-beginning", "--format", "cloudevents"];
        run(Some(&url), &args).ok().out
    };
    let parse = |out: &str| -> Vec<Value> {
        out.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let out = read("orders");
    assert_eq!(parse(&out), events);
    let copy = ["publish", "copy", "--format", "cloudevents"];
    run_with(redstart(Some(&url), &copy), &*out).ok();
    assert_eq!(parse(&read("copy")), events);
    // An event that another program put into the field `cloudevents`.
    let event = events[0].to_string();
    let _: String = server.command(&["XADD", "{shop:direct}:log", "*", "cloudevents", &event]);
    assert_eq!(parse(&read("direct")), events[..1]);
    publish(&url, &["--type", "t"], "1\n").ok();
    let own = parse(&read("orders")).pop().unwrap();
    assert_eq!(own["source"], "urn:redstart:shop:orders");
    run(Some(&url), &["tail", "orders", "--source", "/x"]).failed(2);
    publish(&url, &["--format", "cloudevents", "--type", "t"], "").failed(2);
}

#[test]
fn entries_of_debezium_are_shown_handled_dead_lettered_and_redriven() {
    let server = Server::start();
    let url = server.url();
    let change =
        r#"{"before":null,"after":{"id":7},"source":{"table":"orders"},"op":"c","ts_ms":1}"#;
    let _: String = server.command(&["XADD", LOG, "*", r#"{"id":7}"#, change]);
    assert!(tail(&url, &[])[0]["undecodable"].is_string());
    let shown = tail(&url, &["--foreign", "debezium"]).remove(0);
    assert_eq!(shown["envelope"]["type"], "orders.create");
    assert_eq!(shown["envelope"]["key"], "7");
    let worker = started(&url, &["--exec", "exit 65", "--foreign", "debezium"], &[]);
    until("a dead letter", || counts(&url).0 == 1);
    end(worker);
    let letter = list(&url, &[]).remove(0);
    assert_eq!(letter["type"], "orders.create");
    assert_eq!(letter["messageId"], shown["envelope"]["id"]);
    let whole = dead(&url, "show", &[&id(&letter)]).ok().out;
    assert!(
        whole.contains("orders.create") && whole.contains(r#""op""#),
        "{whole}"
    );
    let line = dead(&url, "export", &[]).ok().out;
    assert!(
        line.contains(r#"{\"id\":7}"#),
        "the original is in the export: {line}"
    );
    dead(&url, "redrive", &[&id(&letter)]).ok();
    let worker = started(&url, &["--exec", "true"], &[]);
    until("the message to be handled", || waiting(&url) == 0);
    assert_eq!(counts(&url).0, 0);
    end(worker);
    let bad = run(Some(&url), &["tail", "orders", "--foreign", "avro"]).failed(2);
    assert!(
        bad.err
            .contains("must be debezium, cloudevents or plain:TYPE"),
        "{bad:?}"
    );
}
