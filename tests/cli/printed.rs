//! Texts that `dead summary` and `dead list` print are taken back by `--fingerprint` and `--error`.

use std::collections::{BTreeMap, BTreeSet};

use redstart::extract::Payload;
use redstart::{Delivery, Envelope, Outcome};
use serde_json::Value;

use crate::dead::{dead, id, list};
use crate::run::run;
use crate::support::{Server, container, finish, group, status, topic, until};

/// Lets one message of `orders` die in `billing` with each error.
#[tokio::main(flavor = "current_thread")]
async fn bury(server: &Server, errors: &[String]) {
    let container = container(server).await;
    let (bus, orders) = (container.bus(), topic("orders"));
    let handler = |Payload(payload): Payload<Value>, _: Delivery| async move {
        Outcome::dead_letter(payload.as_str().unwrap().to_owned())
    };
    let _subscription = bus.subscribe(&orders, handler).await.unwrap();
    for error in errors {
        let envelope = Envelope::new("order.placed", error).unwrap();
        bus.publish(&orders, &envelope).await.unwrap();
    }
    until("all to be dead", async || {
        let dead = status(&container, &orders, &group("billing")).await.dead;
        (dead == errors.len() as u64).then_some(())
    })
    .await;
    finish(container).await;
}

fn hostile() -> Vec<String> {
    let long = "the gateway refused the charge ".repeat(9);
    let texts = [
        "plain",
        "plain and more",
        "connect 10.0.0.1:5432: refused",
        "connect 10.0.0.2:5432: refused",
        "unknown field `tenant` in \"order\"",
        "unknown field `tenant` in \"order\" 7",
        "line one\nline two",
        "a\u{1b}[31mred\u{202e}\u{200b}",
        "path c:\\temp\\new and \\n as text",
        "quote 'single' $HOME `whoami` <b>",
        "-- begins like an option",
        "  spaces  at both ends  ",
        "ends in a cut…",
        "…",
        "日本語 \u{1f600} ünïcödé",
        "{\"a\": [1, \"\\u0000\"]}",
        long.as_str(),
    ];
    let mut all: Vec<String> = texts.iter().map(|one| (*one).to_owned()).collect();
    all.push(format!("{long}and then another cause"));
    all.push(format!("{}é", "x".repeat(159)));
    all
}

/// The last column of each row of a table in a pipe: the header says where it begins.
fn errors(table: &str) -> Vec<String> {
    let mut lines = table.lines().skip_while(|line| !line.ends_with("error"));
    let header = lines.next().unwrap();
    let at = header.chars().count() - "error".len();
    lines
        .map(|line| {
            line.chars()
                .skip(at)
                .collect::<String>()
                .trim_end()
                .to_owned()
        })
        .collect()
}

fn ids(lines: &[Value]) -> BTreeSet<String> {
    lines.iter().map(id).collect()
}

#[test]
fn every_printed_text_selects_the_dead_letters_that_it_stands_for() {
    let server = Server::start();
    let url = server.url();
    bury(&server, &hostile());
    let all = list(&url, &[]);
    let mut of_cause: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for one in &all {
        let cause = one["fingerprint"].as_str().unwrap().to_owned();
        of_cause.entry(cause).or_default().insert(id(one));
    }

    let table = dead(&url, "summary", &["--max", "100"]).ok().out;
    let printed = errors(&table);
    assert_eq!(printed.len(), of_cause.len(), "{table}");
    for text in &printed {
        let found = ids(&list(&url, &["--fingerprint", text]));
        assert!(
            of_cause.values().any(|cause| *cause == found),
            "{text}: {found:?}"
        );
        // The column says "error", and so does an operator.
        let by_error = ids(&list(&url, &["--error", text]));
        assert!(by_error.is_superset(&found), "{text}: {by_error:?}");
    }

    let table = dead(&url, "list", &["--max", "100"]).ok().out;
    let printed = errors(&table);
    assert_eq!(printed.len(), all.len(), "{table}");
    for (text, one) in printed.iter().zip(&all) {
        let found = ids(&list(&url, &["--error", text]));
        assert!(found.contains(&id(one)), "--error {text}: {found:?}");
        // A text that the list has not cut names its cause, too.
        if text.chars().count() <= 120 {
            let found = ids(&list(&url, &["--fingerprint", text]));
            let cause = &of_cause[one["fingerprint"].as_str().unwrap()];
            assert_eq!(found, *cause, "--fingerprint {text}");
        }
    }
    assert_eq!(list(&url, &["--error", "connect #: refused"]).len(), 2);
    assert_eq!(
        list(&url, &["--error", "connect #"]).len(),
        0,
        "a part of no error"
    );
    assert_eq!(list(&url, &["--fingerprint", "plain"]).len(), 1);
}

#[test]
fn only_a_wide_summary_has_a_sample_to_show() {
    let server = Server::start();
    let url = server.url();
    bury(&server, &["refused".to_owned()]);
    let narrow = dead(&url, "summary", &[]).ok().out;
    let wide = dead(&url, "summary", &["--wide"]).ok().out;
    assert!(!narrow.contains("sample"), "{narrow}");
    let words: Vec<&str> = wide.lines().nth(1).unwrap().split_whitespace().collect();
    let at = words.iter().position(|word| *word == "sample").unwrap();
    // Ages have a space in them, so the id is counted from the end.
    let row: Vec<&str> = wide.lines().nth(2).unwrap().split_whitespace().collect();
    let sample = row[row.len() - (words.len() - at)];
    assert_eq!(sample, id(&list(&url, &[])[0]), "{wide}");
    assert!(!narrow.contains(sample), "{narrow}");
    run(Some(&url), &["dead", "show", "orders", "billing", sample]).ok();
}
