//! `topics create`.

use serde_json::{Value, json};

use crate::run::{publish, run};
use crate::support::Server;

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
        json!({"topic": "orders", "retention": "age:604800000", "backlogLimit": 3})
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
