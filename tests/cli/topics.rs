//! `topics create`, `topics settings` and `topics remove`.

use serde_json::{Value, json};

use crate::run::{publish, run};
use crate::support::Server;
use crate::terminal::Terminal;

#[test]
fn a_topic_is_created_once_with_its_settings() {
    let server = Server::start();
    let url = server.url();
    let create = |rest: &[&str]| {
        let all = [&["topics", "create"][..], rest].concat();
        run(Some(&url), &all)
    };
    let ran = create(&["orders", "--retention", "7d", "--backlog-limit", "3"]).ok();
    assert_eq!(
        ran.out,
        "topic orders: retention age:604800000, backlog limit 3\n"
    );
    // A second time is the same; other settings are refused, and nothing changes.
    let told = create(&[
        "orders",
        "--retention",
        "7d",
        "--backlog-limit",
        "3",
        "--json",
    ]);
    assert_eq!(
        told.ok().json(),
        json!({"topic": "orders", "retention": "age:604800000", "backlogLimit": 3, "partitions": 1})
    );
    let ran = create(&["orders"]).failed(1);
    assert!(ran.err.contains("backlog limit 3"), "{ran:?}");

    let told = create(&[
        "bulk",
        "--retention",
        "5000",
        "--backlog-limit",
        "none",
        "--json",
    ]);
    assert_eq!(told.ok().json()["backlogLimit"], Value::Null);
    let all = run(Some(&url), &["topics", "--json"]).ok().json();
    assert_eq!(
        (&all[0]["retention"], &all[1]["retention"]),
        (&json!("length:5000"), &json!("age:604800000"))
    );

    // The limit holds for publishers that know nothing of it.
    let () = server.command(&[
        "XGROUP",
        "CREATE",
        "{shop:orders}:log",
        "billing",
        "0",
        "MKSTREAM",
    ]);
    let mut full = publish(&url, &["--type", "t"], "1\n2\n3\n4\n5\n6\n");
    full.err.make_ascii_lowercase();
    assert!(full.err.contains("backlog"), "{full:?}");

    for bad in [
        &["orders", "--retention", "for ever"][..],
        &["orders", "--backlog-limit", "0"],
        &["no/name"],
        &[],
    ] {
        create(bad).failed(2);
    }
}

#[test]
fn a_topics_settings_are_changed_with_a_preview() {
    let server = Server::start();
    let url = server.url();
    run(
        Some(&url),
        &["topics", "create", "orders", "--retention", "7d"],
    )
    .ok();
    publish(&url, &["--type", "t"], "1\n2\n").ok();
    let () = server.command(&["XGROUP", "CREATE", "{shop:orders}:log", "billing", "0"]);
    let settings = |rest: &[&str]| {
        let all = [&["topics", "settings", "orders"][..], rest].concat();
        run(Some(&url), &all)
    };
    let shown = settings(&[]).ok().out;
    assert_eq!(
        shown,
        "topic orders: retention age:604800000, backlog limit 1000000\n"
    );
    let dry = settings(&[
        "--retention",
        "settled",
        "--backlog-limit",
        "2",
        "--dry-run",
    ]);
    let told = dry.ok().out;
    for part in [
        "will change topic orders: retention from age:604800000 to settled, backlog limit from 1000000 to 2\n",
        "retention can then remove settled entries for good; the topic has 2 entries\n",
        "publishing will fail until groups have settled some of the 2 unsettled messages\n",
    ] {
        assert!(told.contains(part), "{part:?} in {told}");
    }
    assert_eq!(settings(&[]).ok().out, shown, "a dry run changes nothing");
    settings(&["--backlog-limit", "2"]).failed(2);
    let args = ["topics", "settings", "orders", "--backlog-limit", "2"];
    let mut terminal = Terminal::start(&url, 80, &args);
    terminal.sees("Type orders to continue: ");
    terminal.types("no");
    assert_eq!(terminal.ends().0, 1);
    assert_eq!(settings(&[]).ok().out, shown);

    let told = settings(&[
        "--backlog-limit",
        "2",
        "--yes",
        "--json",
        "--operator",
        "ann",
    ]);
    assert_eq!(
        told.ok().json(),
        json!({"topic": "orders", "retention": "age:604800000", "backlogLimit": 2, "partitions": 1})
    );
    publish(&url, &["--type", "t"], "3\n").failed(1);
    let same = settings(&["--backlog-limit", "2"]).ok();
    assert!(same.err.contains("has these settings already"), "{same:?}");
    let journal = run(Some(&url), &["dead", "journal", "orders", "billing"])
        .ok()
        .out;
    let entry = "  settings by ann: backlog limit from 1000000 to 2\n  changed\n";
    assert!(journal.contains(entry), "{journal}");
    run(Some(&url), &["topics", "settings", "oders"]).failed(1);
}

#[test]
fn a_topic_is_removed_with_its_groups() {
    let server = Server::start();
    let url = server.url();
    publish(&url, &["--type", "t"], "1\n2\n").ok();
    publish(&url, &["--type", "t"], "3\n").ok();
    let () = server.command(&["XGROUP", "CREATE", "{shop:orders}:log", "billing", "0"]);
    let remove = |rest: &[&str]| {
        let all = [&["topics", "remove", "orders"][..], rest].concat();
        run(Some(&url), &all)
    };
    let dry = remove(&["--dry-run"]).failed(1);
    let preview =
        "will remove topic orders for good: 3 entries, 1 group\n  billing: 3 not delivered, ";
    assert!(dry.out.starts_with(preview), "{dry:?}");
    assert!(dry.err.contains("--force"), "{dry:?}");
    remove(&["--yes"]).failed(1);
    remove(&["--force"]).failed(2);
    let told = remove(&["--force", "--dry-run", "--json"]).ok().json();
    assert_eq!(
        (&told["refused"], &told["confirmation"]),
        (&json!(false), &json!("orders"))
    );
    let left = || run(Some(&url), &["topics", "--json"]).ok().json();
    assert_eq!(left()[0]["entries"], 3, "nothing has changed");

    let mut terminal = Terminal::start(&url, 80, &["topics", "remove", "orders", "--force"]);
    terminal.sees("Type orders to continue: ");
    terminal.types("orders");
    let (code, screen) = terminal.ends();
    assert!(
        code == 0 && screen.contains("removed topic orders"),
        "{screen}"
    );
    assert_eq!(left(), json!([]));
    let keys: Vec<String> = server.command(&["KEYS", "{shop:orders}:*"]);
    assert_eq!(keys, [""; 0]);
    remove(&["--yes"]).failed(1);
}
