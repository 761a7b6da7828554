//! `retries`: what waits for its time.

use std::time::Duration;

use redstart::extract::Payload;
use redstart::{Delivery, Envelope, RetryPolicy, SubscribeOptions};
use serde_json::{Value, json};

use crate::run::run;
use crate::support::{Server, container, finish, group, status, topic, until};
use crate::terminal::Terminal;

/// Lets messages of `orders` fail in `billing`, so that their retries wait for a day.
#[tokio::main(flavor = "current_thread")]
async fn fail(server: &Server, payloads: &[Value]) {
    let container = container(server).await;
    let (bus, orders) = (container.bus(), topic("orders"));
    let retry = RetryPolicy::fixed(Duration::from_secs(86_400)).with_max_attempts(5);
    let _subscription = bus
        .subscribe_with(
            &orders,
            SubscribeOptions::new().with_retry(retry),
            |_: Payload<Value>, _: Delivery| async { Err::<(), _>("no \u{1b}[31muser\u{202e}\n7") },
        )
        .await
        .unwrap();
    for payload in payloads {
        let envelope = Envelope::new("order.placed", payload).unwrap();
        bus.publish(&orders, &envelope).await.unwrap();
    }
    let wanted = payloads.len() as u64;
    until("the failures", async || {
        let status = status(&container, &orders, &group("billing")).await;
        (status.scheduled == wanted).then_some(())
    })
    .await;
    finish(container).await;
}

const LIST: [&str; 5] = ["retries", "list", "orders", "billing", "--json"];

fn listed(url: &str) -> Vec<Value> {
    let lines = run(Some(url), &LIST).ok().out;
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn scheduled(url: &str) -> Value {
    run(Some(url), &["groups", "orders", "--json"]).ok().json()[0]["scheduled"].clone()
}

#[test]
fn what_waits_is_listed_with_its_error_made_harmless() {
    let server = Server::start();
    let url = server.url();
    run(Some(&url), &LIST).failed(1);
    fail(&server, &[json!({"n": 1}), json!("two")]);
    let all = listed(&url);
    assert_eq!(all.len(), 2);
    assert_eq!(all[0]["envelope"]["payload"], json!({"n": 1}));
    assert_eq!(
        (&all[0]["attempts"], &all[0]["redriven"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(all[0]["error"], "no \u{1b}[31muser\u{202e}\n7");
    assert!(all[0]["dueInMs"].as_u64().unwrap() > 1000);
    assert!(all.is_sorted_by_key(|one| one["due"].as_str().unwrap().to_owned()));

    let ran = run(Some(&url), &LIST[..4]).ok();
    let id = all[0]["id"].as_str().unwrap();
    assert!(
        ran.out.starts_with("id ") && ran.out.contains(id),
        "{ran:?}"
    );
    assert!(ran.out.contains(r"no \u{1b}[31muser\u{202e}\n7"), "{ran:?}");
    assert!(
        !ran.out.contains('\u{1b}') && !ran.out.contains('\u{202e}'),
        "{ran:?}"
    );
    let mut first = LIST[..4].to_vec();
    first.extend(["--max", "1"]);
    let ran = run(Some(&url), &first).ok();
    assert_eq!(
        (ran.out.lines().count(), ran.err.lines().count()),
        (2, 1),
        "{ran:?}"
    );
    run(Some(&url), &["retries", "list", "orders", "nobody"]).failed(1);
    run(Some(&url), &["retries", "list", "nowhere", "billing"]).failed(1);

    // A list is as wide as the terminal, and breaks no id; a wide one gets a table.
    let (code, screen) = Terminal::start(&url, 80, &LIST[..4]).ends();
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains("  attempts 1  "), "{screen}");
    let table = Terminal::start(&url, 120, &LIST[..4]).ends().1;
    assert!(table.contains('│') && table.contains(id), "{table}");
    let widest = screen
        .lines()
        .map(|line| line.trim_end().chars().count())
        .max();
    assert!(widest.unwrap() <= 80 && screen.contains(id), "{screen}");
}

#[test]
fn chosen_retries_run_now() {
    let server = Server::start();
    let url = server.url();
    fail(&server, &[json!(1), json!(2), json!(3)]);
    let id = listed(&url)[1]["id"].as_str().unwrap().to_owned();
    let run_now = |rest: &[&str]| {
        let mut args = vec!["retries", "run-now", "orders", "billing", "--json"];
        args.extend(rest);
        run(Some(&url), &args)
    };
    assert_eq!(
        run_now(&["--all", "--dry-run"]).ok().json(),
        json!({"topic": "orders", "group": "billing", "action": "runNow", "matching": 3,
               "missing": 0, "confirmation": null})
    );
    assert_eq!(listed(&url).len(), 3);
    assert_eq!(
        run_now(&[&id]).ok().json(),
        json!({"action": "runNow", "moved": 1, "missing": 0})
    );
    assert_eq!(
        run_now(&[&id, "redo:1-1"]).failed(1).json(),
        json!({"action": "runNow", "moved": 0, "missing": 2})
    );
    let left: Vec<Value> = listed(&url)
        .iter()
        .map(|one| one["envelope"]["payload"].clone())
        .collect();
    assert_eq!(left, [1, 3]);
    assert_eq!(scheduled(&url), 3, "it waits to be read");
    assert_eq!(
        run_now(&["--all"]).ok().json(),
        json!({"action": "runNow", "moved": 2, "missing": 0})
    );
    assert_eq!(
        run_now(&["--all"]).ok().json(),
        json!({"action": "runNow", "moved": 0, "missing": 0})
    );
    for bad in [&[][..], &["--all", "1-1"], &["nonsense"]] {
        run_now(bad).failed(2);
    }
    // They come back with their count.
    until_failed_again(&server);
    assert!(listed(&url).iter().all(|one| one["attempts"] == 2));
}

#[tokio::main(flavor = "current_thread")]
async fn until_failed_again(server: &Server) {
    let url = server.url();
    let container = container(server).await;
    let retry = RetryPolicy::fixed(Duration::from_secs(86_400)).with_max_attempts(5);
    let options = SubscribeOptions::new().with_retry(retry);
    let handler = |_: Payload<Value>, _: Delivery| async { Err::<(), _>("again") };
    let bus = container.bus();
    let _subscription = bus
        .subscribe_with(&topic("orders"), options, handler)
        .await
        .unwrap();
    until("three retries", async || {
        (listed(&url).len() == 3).then_some(())
    })
    .await;
    finish(container).await;
}

#[test]
fn cancelling_asks_keeps_a_copy_and_removes_for_good() {
    let server = Server::start();
    let url = server.url();
    fail(&server, &[json!(1), json!(2), json!(3)]);
    let ids: Vec<String> = listed(&url)
        .iter()
        .map(|one| one["id"].as_str().unwrap().to_owned())
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kept.ndjson");
    let file = file.to_str().unwrap();
    let cancel = ["retries", "cancel", "orders", "billing"];
    let with = |rest: &[&'static str]| [&cancel[..], rest].concat();

    let ran = run(Some(&url), &with(&["--all"])).failed(2);
    assert!(
        ran.err.contains("will cancel 3 scheduled retries") && ran.err.contains("--yes"),
        "{ran:?}"
    );
    let ran = run(Some(&url), &with(&["--all", "--dry-run"])).ok();
    assert!(
        ran.out.starts_with("will cancel 3 scheduled retries of "),
        "{ran:?}"
    );

    let mut terminal = Terminal::start(&url, 80, &with(&["--all"]));
    terminal.sees("Type 3 to continue: ");
    terminal.types("yes");
    let (code, screen) = terminal.ends();
    assert!(
        code == 1 && screen.contains("nothing was changed"),
        "{code} {screen}"
    );
    assert_eq!(listed(&url).len(), 3);

    let args = [&cancel[..], &[&ids[1], "--export", file]].concat();
    let mut terminal = Terminal::start(&url, 80, &args);
    terminal.sees("Type 1 to continue: ");
    terminal.types("1");
    let (code, screen) = terminal.ends();
    assert!(
        code == 0 && screen.contains("1 cancelled"),
        "{code} {screen}"
    );
    let kept = std::fs::read_to_string(file).unwrap();
    let kept: Value = serde_json::from_str(kept.trim_end()).unwrap();
    assert_eq!(kept["envelope"]["payload"], 2);
    assert_eq!(listed(&url).len(), 2);

    // A copy is never written over, and nothing is removed without one.
    let args = [&cancel[..], &[&ids[0], "--yes", "--export", file]].concat();
    let ran = run(Some(&url), &args).failed(1);
    assert!(ran.err.contains(file), "{ran:?}");
    assert_eq!(listed(&url).len(), 2);
    // Nor is one written before the question.
    let other = format!("{file}.other");
    let args = [&cancel[..], &[&ids[0], "--export", &other]].concat();
    run(Some(&url), &args).failed(2);
    assert!(!std::path::Path::new(&other).exists());
    let args = [&cancel[..], &[&ids[0], &ids[1], "--yes", "--json"]].concat();
    let ran = run(Some(&url), &args).failed(1);
    assert_eq!(
        ran.json(),
        json!({"action": "cancel", "moved": 1, "missing": 1})
    );
    run(Some(&url), &with(&["--all", "--yes"])).ok();
    assert_eq!((listed(&url).len(), scheduled(&url)), (0, json!(0)));
    let ran = run(Some(&url), &LIST[..4]).ok();
    assert_eq!((&*ran.out, &*ran.err), ("", "no retries are scheduled\n"));
}
