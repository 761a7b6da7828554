//! `publish --at`, `--after` and `--id`, and `schedules`.

use serde_json::{Value, json};

use crate::run::{publish, run};
use crate::support::Server;

fn listed(url: &str) -> Vec<Value> {
    let lines = run(Some(url), &["schedules", "list", "orders", "--json"]);
    let lines = lines.ok().out;
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_message_for_later_is_scheduled_listed_changed_and_cancelled() {
    let server = Server::start();
    let url = server.url();
    let later =
        |rest: &[&str], lines: &str| publish(&url, &[&["--type", "t"], rest].concat(), lines);
    let ran = later(&["--after", "1d", "--id", "order-7", "--json"], "1\n").ok();
    assert_eq!(
        ran.json(),
        json!({"published": 0, "scheduled": 1, "duplicates": 0, "failed": 0, "unknown": 0})
    );
    let ran = later(&["--at", "2099-05-01T08:00:00Z"], "2\n3\n").ok();
    assert_eq!(ran.out, "2 scheduled for orders\n");
    // The id replaces the message that waits.
    later(&["--after", "2d", "--id", "order-7"], "4\n").ok();
    let all = listed(&url);
    assert_eq!(all.len(), 3);
    assert_eq!(
        (&all[0]["id"], &all[0]["envelope"]["payload"]),
        (&json!("order-7"), &json!(4))
    );
    assert!(all[0]["dueInMs"].as_u64().unwrap() > 86_400_000);
    assert_eq!(all[2]["due"], "2099-05-01T08:00:00.000Z");
    let topics = run(Some(&url), &["topics", "--json"]).ok().json();
    assert_eq!(
        (&topics[0]["later"], &topics[0]["entries"]),
        (&json!(3), &json!(0))
    );
    let shown = run(Some(&url), &["schedules", "list", "orders", "--max", "1"]).ok();
    assert!(
        shown.out.starts_with("id ") && shown.out.contains("order-7"),
        "{shown:?}"
    );
    assert!(shown.err.contains("more than 1"), "{shown:?}");
    assert_eq!(
        shown.out.lines().count(),
        2,
        "the head and one message: {shown:?}"
    );

    let move_to = |rest: &[&str]| {
        let args = [&["schedules", "reschedule", "orders"], rest].concat();
        run(Some(&url), &args)
    };
    let moved = move_to(&["order-7", "--at", "2100-01-01T00:00:00Z", "--json"]).ok();
    assert_eq!(
        moved.json(),
        json!({"id": "order-7", "due": "2100-01-01T00:00:00.000Z", "messages": 1})
    );
    let missing = move_to(&["order-8", "--after", "1h"]).failed(1);
    assert!(
        missing.err.contains("no message for later has this id"),
        "{missing:?}"
    );
    move_to(&["order-7"]).failed(2);

    let cancel = [
        "schedules",
        "cancel",
        "orders",
        "order-7",
        "order-8",
        "--json",
    ];
    let ran = run(Some(&url), &cancel).failed(1);
    assert_eq!(ran.json(), json!({"cancelled": 1, "missing": 1}));
    assert_eq!(listed(&url).len(), 2);
}

#[test]
fn an_id_that_names_messages_in_several_partitions_is_told_apart() {
    let server = Server::start();
    let url = server.url();
    run(
        Some(&url),
        &["topics", "create", "orders", "--partitions", "4"],
    )
    .ok();
    // Two keys of different partitions.
    for key in ["k0", "k1"] {
        let args = [
            "--type", "t", "--after", "1d", "--id", "order-7", "--key", key,
        ];
        publish(&url, &args, "1\n").ok();
    }
    let partitions = |listed: Vec<Value>| -> Vec<u64> {
        let all = listed.iter().map(|one| one["partition"].as_u64().unwrap());
        all.collect()
    };
    let both = partitions(listed(&url));
    assert!(both.len() == 2 && both[0] != both[1], "{both:?}");
    let shown = run(Some(&url), &["schedules", "list", "orders"]).ok();
    let head = shown.out.lines().next().unwrap();
    assert!(head.ends_with("partition"), "{shown:?}");

    let first = both[0].to_string();
    let call = |action: &str, rest: &[&str]| {
        let args = [&["schedules", action, "orders", "order-7", "--json"], rest].concat();
        run(Some(&url), &args)
    };
    let moved = call("reschedule", &["--at", "2100-01-01T00:00:00Z"]).ok();
    assert_eq!(moved.json()["messages"], 2);
    assert!(moved.err.contains("order-7 names 2 messages"), "{moved:?}");
    let moved = call("reschedule", &["--after", "2d", "--partition", &first]).ok();
    assert_eq!(moved.json()["messages"], 1);
    let gone = call("cancel", &["--partition", &first]).ok();
    assert_eq!(gone.json(), json!({"cancelled": 1, "missing": 0}));
    assert_eq!(partitions(listed(&url)), both[1..]);
    call("cancel", &["--partition", &first]).failed(1);
    let refused = call("cancel", &["--partition", "4"]).failed(2);
    assert!(
        refused.err.contains("orders has 4 partitions"),
        "{refused:?}"
    );
    let args = [
        "--type", "t", "--after", "1d", "--id", "order-7", "--key", "k0",
    ];
    publish(&url, &args, "1\n").ok();
    publish(&url, &[&args[..6], &["--key", "k1"]].concat(), "1\n").ok();
    let gone = call("cancel", &[]).ok();
    assert_eq!(gone.json(), json!({"cancelled": 2, "missing": 0}));
    assert!(gone.err.contains("order-7 named 2 messages"), "{gone:?}");
    assert_eq!(listed(&url).len(), 0);
}

#[test]
fn bad_schedules_are_refused_by_their_rule() {
    let server = Server::start();
    let url = server.url();
    let later =
        |rest: &[&str], lines: &str| publish(&url, &[&["--type", "t"], rest].concat(), lines);
    later(&["--after", "1d", "--at", "2099-05-01T08:00:00Z"], "1\n").failed(2);
    later(&["--after", "soon"], "1\n").failed(2);
    later(&["--id", "a"], "1\n").failed(2);
    let ran = later(&["--after", "1d", "--id", "a", "--json"], "1\n2\n").failed(1);
    assert_eq!(
        ran.json(),
        json!({"published": 0, "scheduled": 1, "duplicates": 0, "failed": 1, "unknown": 0})
    );
    assert!(
        ran.err.contains("line 2: ") && ran.err.contains("--id names one message"),
        "{ran:?}"
    );
    let ran = later(&["--after", "200y"], "1\n");
    assert_ne!(ran.code, Some(0), "{ran:?}");
    run(Some(&url), &["schedules", "list", "ordres"]).failed(1);
}

#[test]
fn the_greatest_number_is_a_limit_like_any_other() {
    let server = Server::start();
    let url = server.url();
    publish(&url, &["--type", "t", "--after", "1d"], "1\n").ok();
    let most = usize::MAX.to_string();
    let args = ["schedules", "list", "orders", "--json", "--max", &most];
    assert_eq!(run(Some(&url), &args).ok().out.lines().count(), 1);
}
