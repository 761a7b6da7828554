//! `tail`, `topics`, `groups`, `migrate` and `health`.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{ChildStderr, ChildStdout};

use serde_json::{Value, json};

use crate::dead::bury;
use crate::run::{line_with, publish, read_all, redstart, run, wait};
use crate::support::Server;

#[test]
fn what_is_published_can_be_looked_at() {
    let server = Server::start();
    let url = server.url();
    let input = "{\"n\":1}\n\n\"two\"\nnull";
    let ran = publish(&url, &["--type", "t", "--key", "k", "--json"], input).ok();
    assert_eq!(
        ran.json(),
        json!({"published": 3, "duplicates": 0, "failed": 0, "unknown": 0})
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
        json!([{"topic": "orders", "entries": 5, "later": 0, "retention": "settled",
                "backlogLimit": 1_000_000, "partitions": 1, "groups": []}])
    );
    let () = server.command(&["XGROUP", "CREATE", "{shop:orders}:log", "billing", "0"]);
    for args in [&["groups", "orders", "--json"][..], &["groups", "--json"]] {
        let mut groups = run(Some(&url), args).ok().json();
        let age = groups[0]["oldestUndeliveredMs"].take();
        assert!(age.is_u64(), "{age}");
        assert_eq!(
            groups,
            json!([{"topic": "orders", "group": "billing", "lag": 5, "inFlight": 0,
                    "scheduled": 0, "dead": 0, "consumers": 0, "owned": false,
                    "oldestUndeliveredMs": null, "oldestInFlightMs": null, "nextRetryMs": null}])
        );
    }
    let table = run(Some(&url), &["groups"]).ok().out;
    assert!(table.starts_with("topic   group    kind    lag"), "{table}");
    assert!(!table.contains('\u{1b}'), "{table:?}");
}

#[test]
fn a_group_shows_how_old_its_oldest_message_is() {
    let server = Server::start();
    let url = server.url();
    publish(&url, &["--type", "t"], "1\n").ok();
    let log = "{shop:orders}:log";
    let () = server.command(&["XGROUP", "CREATE", log, "billing", "0"]);
    let () = server.command(&["XGROUP", "CREATE", log, "idle", "$"]);
    let oldest = |group: &str| {
        let table = run(Some(&url), &["groups"]).ok().out;
        let mut lines = table.lines();
        let header = lines.next().unwrap();
        let at = header.find("oldest").unwrap() + "oldest".len();
        let line = lines.find(|line| line.contains(group)).unwrap();
        line[..at].trim_end().to_owned()
    };
    assert!(oldest("idle").ends_with("  -"), "{}", oldest("idle"));
    let shown = oldest("billing");
    assert!(shown.ends_with('s'), "{shown}");
    // A consumer takes it, and does not settle it.
    let read = ["XREADGROUP", "GROUP", "billing", "one", "COUNT", "1"];
    let _: redis::Value = server.command(&[&read[..], &["STREAMS", log, ">"]].concat());
    let groups = run(Some(&url), &["groups", "--json"]).ok().json();
    let of = |name: &str| {
        let all = groups.as_array().unwrap().iter();
        let mut of = all.filter(|one| one["group"] == name);
        of.next().unwrap().clone()
    };
    assert!(of("billing")["oldestInFlightMs"].is_u64(), "{groups}");
    assert!(of("billing")["oldestUndeliveredMs"].is_null(), "{groups}");
    assert!(of("idle")["oldestInFlightMs"].is_null(), "{groups}");
}

#[test]
fn what_is_not_there_is_told_in_the_same_words_everywhere() {
    let server = Server::start();
    let url = server.url();
    publish(&url, &["--type", "t"], "1\n").ok();
    let said = |args: &[&str]| run(Some(&url), args).failed(1).err;
    for args in [
        &["tail", "nosuch"][..],
        &["groups", "nosuch"],
        &["dead", "summary", "nosuch"],
    ] {
        assert_eq!(said(args), "error: topic \"nosuch\": does not exist\n");
    }
    for (command, rest) in [
        (&["dead", "summary"][..], &[][..]),
        (&["dead", "list"], &[]),
        (&["dead", "show"], &["1-1"]),
        (&["dead", "redrive"], &["--all"]),
        (&["dead", "journal"], &[]),
        (&["retries", "list"], &[]),
        (&["groups", "remove"], &["--yes"]),
    ] {
        let nowhere = [command, &["nosuch", "billing"], rest].concat();
        assert_eq!(said(&nowhere), "error: topic \"nosuch\": does not exist\n");
        let nobody = [command, &["orders", "nobody"], rest].concat();
        let rule = "error: group \"orders/nobody\": does not exist; the topic has no groups\n";
        assert_eq!(said(&nobody), rule, "{command:?}");
    }
}

#[test]
fn a_tail_that_follows_sees_what_is_published_later() {
    let mut server = Server::start();
    let url = server.url();
    let args = ["tail", "orders", "--follow", "--last", "0", "--max", "2"];
    let mut child = redstart(Some(&url), &args).spawn().unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap()).lines();
    line_with(&mut err, "waiting for it");
    // It waits for the server too.
    server.kill();
    line_with(&mut err, "trying again");
    server.start_again();
    publish(&url, &["--type", "t"], "1\n").ok();
    publish(&url, &["--type", "t"], "2\n3\n").ok();
    assert_eq!(wait(&mut child).code(), Some(0));
    let out = read_all(child.stdout.take().unwrap()).join().unwrap();
    let payloads: Vec<&str> = out.lines().filter_map(|l| l.split("  ").last()).collect();
    assert_eq!(payloads, ["1", "2"]);
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
    assert_eq!(state()["appliedAt"], Value::Null);
    assert_eq!(
        server.command::<u64>(&["DBSIZE"]),
        0,
        "looking changes nothing"
    );
    let up = || run(Some(&url), &["migrate", "up", "--json"]).ok().json();
    assert_eq!(up(), json!({"applied": [1, 2]}));
    assert_eq!(up(), json!({"applied": []}));
    assert_eq!(state()["state"], "applied");
    assert!(state()["appliedAt"].is_string());
    let table = run(Some(&url), &["migrate", "status"]).ok().out;
    assert!(table.contains("0001    layout  applied"), "{table}");
}

#[test]
fn who_only_looks_writes_nothing_and_needs_no_right_to() {
    let server = Server::start();
    let () = server.command(&[
        "ACL", "SETUSER", "viewer", "on", ">secret", "~*", "+@all", "-@write",
    ]);
    let own = server.url();
    let viewers = own.replace("redis://", "redis://viewer:secret@");
    let id = "1-1";
    let of_group = |words: &[&'static str], rest: &[&'static str]| {
        [words, &["orders", "billing"], rest].concat()
    };
    for url in [&own, &viewers] {
        for args in [
            &["topics"][..],
            &["groups"],
            &["dead", "summary"],
            &["migrate", "status"],
        ] {
            run(Some(url), args).ok();
        }
        let health = run(Some(url), &["health"]);
        match *url == own {
            true => drop(health.ok()),
            false => assert!(health.failed(1).out.contains("this user may not write")),
        }
        for args in [
            vec!["groups", "orders"],
            vec!["tail", "orders"],
            vec!["kv", "get", "stock"],
            vec!["dead", "summary", "orders"],
            of_group(&["dead", "list"], &[]),
            of_group(&["dead", "show"], &[id]),
            of_group(&["dead", "export"], &[]),
            of_group(&["dead", "watch"], &[]),
            of_group(&["dead", "journal"], &[]),
            of_group(&["dead", "redrive"], &["--all", "--dry-run"]),
            of_group(&["dead", "purge"], &["--all", "--dry-run"]),
            of_group(&["retries", "list"], &[]),
            of_group(&["retries", "cancel"], &["--all", "--dry-run"]),
            of_group(&["groups", "remove"], &["--dry-run"]),
            // Nor does who would change what is not there set anything up.
            of_group(&["dead", "redrive"], &["--all"]),
            of_group(&["retries", "run-now"], &["--all"]),
            of_group(&["groups", "remove"], &["--yes"]),
        ] {
            let ran = run(Some(url), &args).failed(1);
            assert!(!ran.err.contains("right"), "{args:?}: {ran:?}");
        }
        run(Some(url), &["doctor"]);
        assert_eq!(server.command::<u64>(&["DBSIZE"]), 0);
    }
    run(Some(&own), &["kv", "set", "stock", "40"]).ok();
    let keys: Vec<String> = server.command(&["KEYS", "{shop}:*"]);
    assert_eq!(keys, ["{shop}:schema"]);
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
    for ran in [
        publish(&url, &["--type", "t"], "1\n"),
        run(Some(&url), &["dead", "summary"]),
    ] {
        let start = format!(
            "error: connect \"127.0.0.1:{}\": no connection to the server: ",
            server.port()
        );
        assert!(ran.err.starts_with(&start), "{ran:?}");
        ran.failed(1);
    }
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
    assert_eq!(shown[1]["fields"][0][1], "a\u{1b}]0;title\u{7}\nforged");
    assert!(shown[2]["undecodable"].is_string());
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
fn what_dies_is_watched() {
    let server = Server::start();
    let url = server.url();
    bury(&server, 2);
    let args = [
        "dead", "watch", "orders", "billing", "--tenant", "globex", "--max", "2",
    ];
    let mut child = redstart(Some(&url), &args).spawn().unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap()).lines();
    line_with(&mut err, "watching orders/billing");
    bury(&server, 4);
    assert_eq!(wait(&mut child).code(), Some(0));
    let out = crate::run::read_all(child.stdout.take().unwrap())
        .join()
        .unwrap();
    assert_eq!(out.lines().count(), 2, "{out}");
    assert!(
        out.lines()
            .all(|line| line.contains("exhausted") && line.contains("Refused")),
        "{out}"
    );
}
