//! Notes on causes and operations, and the messages of an operation that died again.

use redstart::extract::Payload;
use redstart::{Delivery, Outcome};
use serde_json::Value;

use crate::dead::{bury, dead, lines, list};
use crate::run::run;
use crate::support::{Server, container, finish, group, status, topic, until};

/// Handles messages, and rejects each, until so many are dead.
#[tokio::main(flavor = "current_thread")]
async fn until_dead_again(server: &Server, count: u64) {
    let (container, orders) = (container(server).await, topic("orders"));
    let handler =
        |Payload(_): Payload<Value>, _: Delivery| async { Outcome::dead_letter("no price for 7") };
    let _subscription = container.bus().subscribe(&orders, handler).await.unwrap();
    until("the messages to die again", async || {
        let status = status(&container, &orders, &group("billing")).await;
        (status.dead == count).then_some(())
    })
    .await;
    finish(container).await;
}

#[test]
fn an_operator_leaves_notes_and_finds_what_died_again() {
    let server = Server::start();
    let url = server.url();
    bury(&server, 4);
    let summary = || -> Vec<Value> {
        let told = run(Some(&url), &["dead", "summary", "--json"]).ok().json();
        told.as_array().unwrap().clone()
    };
    let cause = summary()[0]["fingerprint"].as_str().unwrap().to_owned();
    let of = ["--fingerprint", &cause];
    let note = |rest: &[&str]| dead(&url, "note", &[&of[..], rest].concat());
    note(&["OPS-7: the bank is down", "--operator", "ann"]).ok();
    let noted = summary().remove(0)["note"].clone();
    assert_eq!(
        (&noted["text"], &noted["operator"]),
        (&"OPS-7: the bank is down".into(), &"ann".into())
    );
    let shown = run(Some(&url), &["dead", "summary"]).ok().out;
    assert!(
        shown.contains(": OPS-7: the bank is down (ann)\n"),
        "{shown}"
    );
    note(&["--remove"]).ok();
    assert!(summary()[0]["note"].is_null());
    dead(&url, "note", &["--fingerprint", "nothing like it", "x"]).failed(1);
    note(&[]).failed(2);
    note(&["x", "--remove"]).failed(2);
    note(&[&"x".repeat(2_001)]).failed(2);

    // Two come back, and die again.
    let globex = ["--tenant", "globex", "--note", "OPS-8"];
    let done = dead(&url, "redrive", &[&globex[..], &["--json"]].concat())
        .ok()
        .json();
    let operation = done["operation"].as_str().unwrap();
    let again = || list(&url, &["--redriven-by", operation]);
    assert_eq!(again().len(), 0);
    until_dead_again(&server, 4);
    let again = again();
    assert_eq!(again.len(), 2, "{again:?}");
    assert!(again.iter().all(|one| one["tenantId"] == "globex"));
    let journal = lines(&dead(&url, "journal", &["--json"]).ok());
    assert_eq!(journal[0]["note"], "OPS-8");
    let told = dead(&url, "journal", &[]).ok().out;
    assert!(told.contains("\n  note: OPS-8\n"), "{told}");
}
