//! `dead`: looking after dead letters.

use std::collections::BTreeSet;
use std::time::Duration;

use redstart::extract::Payload;
use redstart::{Delivery, Envelope, Outcome, RetryPolicy, SubscribeOptions};
use serde_json::{Value, json};

use crate::run::{Ran, redstart, run, run_with, wait};
use crate::support::{Server, container, drained, finish, group, status, topic, until};
use crate::terminal::Terminal;

/// Lets messages 0 to `count` of `orders` die in `billing`: the even ones of tenant `acme` are
/// rejected, the odd ones of tenant `globex` are exhausted.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn bury(server: &Server, count: u64) {
    let container = container(server).await;
    let (bus, orders) = (container.bus(), topic("orders"));
    let retry = RetryPolicy::fixed(Duration::from_millis(2)).with_max_attempts(2);
    let options = SubscribeOptions::new().with_retry(retry);
    let handler = |Payload(payload): Payload<Value>, _: Delivery| async move {
        match payload["n"].as_u64().unwrap() {
            n if n % 2 == 0 => Outcome::dead_letter("no price\u{1b}[31m\u{202e}"),
            n => Outcome::retry(format!("connect 10.0.0.{n}:5432: Refused")),
        }
    };
    let _subscription = bus.subscribe_with(&orders, options, handler).await.unwrap();
    let before = status(&container, &orders, &group("billing")).await.dead;
    for n in 0..count {
        let payload = json!({"n": n, "cents": 1250, "note": "\u{1b}[2J"});
        let tenant = if n % 2 == 0 { "acme" } else { "globex" };
        let envelope = Envelope::new("order.placed", &payload).unwrap();
        let envelope = envelope
            .with_tenant(tenant)
            .with_correlation(format!("c-{n}"));
        bus.publish(&orders, &envelope).await.unwrap();
    }
    until("all to be dead", async || {
        let dead = status(&container, &orders, &group("billing")).await.dead;
        (dead == before + count).then_some(())
    })
    .await;
    finish(container).await;
}

pub(crate) fn dead(url: &str, command: &str, rest: &[&str]) -> Ran {
    let all = [&["dead", command, "orders", "billing"], rest].concat();
    run(Some(url), &all)
}

pub(crate) fn lines(ran: &Ran) -> Vec<Value> {
    let lines = ran.out.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

pub(crate) fn list(url: &str, rest: &[&str]) -> Vec<Value> {
    lines(&dead(url, "list", &[&["--json"], rest].concat()).ok())
}

pub(crate) fn id(line: &Value) -> String {
    line["id"].as_str().unwrap().to_owned()
}

/// The dead letters and the messages on their way to the group.
pub(crate) fn counts(url: &str) -> (u64, u64) {
    let groups = run(Some(url), &["groups", "orders", "--json"]).ok().json();
    let count = |name: &str| groups[0][name].as_u64().unwrap();
    (count("dead"), count("scheduled"))
}

fn is_harmless(text: &str) -> bool {
    let is_bad = |c: char| c != '\n' && (c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c));
    !text.contains(is_bad)
}

/// What comes to a handler that takes everything, which is so many.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn delivered(server: &Server, count: usize) -> Vec<Value> {
    let container = container(server).await;
    let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |Payload(payload): Payload<Value>, delivery: Delivery| {
        let envelope = delivery.envelope();
        let seen = json!({
            "n": payload["n"],
            "cents": payload["cents"],
            "id": envelope.id().to_string(),
            "edited-from": envelope.headers().get("edited-from"),
        });
        let _ = sender.send(seen);
        async {}
    };
    let _subscription = container
        .bus()
        .subscribe(&topic("orders"), handler)
        .await
        .unwrap();
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(crate::support::next(&mut received).await);
    }
    drained(&container, &topic("orders"), &group("billing")).await;
    assert!(received.try_recv().is_err(), "more came than there were");
    finish(container).await;
    all
}

#[test]
fn dead_letters_are_counted_listed_and_shown() {
    let server = Server::start();
    let url = server.url();
    bury(&server, 6);
    let _: String = server.command(&["XADD", "{shop:orders}:log", "*", "other", "\u{1b}bytes"]);
    until_dead(&server, 7);

    let told = run(Some(&url), &["dead", "summary", "--json"]).ok().json();
    let told = told.as_array().unwrap();
    let summary: Vec<(&str, u64)> = told
        .iter()
        .map(|one| {
            (
                one["reason"].as_str().unwrap(),
                one["count"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(summary.iter().map(|(_, count)| count).sum::<u64>(), 7);
    assert!(summary.contains(&("exhausted", 3)) && summary.contains(&("undecodable", 1)));
    let refused = told
        .iter()
        .find(|one| one["reason"] == "exhausted")
        .unwrap();
    assert_eq!(refused["fingerprint"], "connect #: Refused");
    let by = run(
        Some(&url),
        &["dead", "summary", "orders", "--by", "tenant", "--json"],
    )
    .ok();
    assert!(
        by.json()
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["name"] == "acme" && one["count"] == 3)
    );
    run(Some(&url), &["dlq", "summary", "orders", "nobody"]).failed(1);

    for (filter, count) in [
        (&["--reason", "exhausted"][..], 3),
        (&["--fingerprint", "connect #: Refused"], 3),
        (&["--error", "refused"], 3),
        (&["--error-pattern", r"10\.0\.0\.[13]:"], 2),
        (&["--tenant", "acme", "--type", "order.placed"], 3),
        (&["--correlation", "c-4"], 1),
        (&["--min-attempts", "2"], 3),
        (&["--redriven"], 0),
        (&["--never-redriven", "--since", "1h"], 7),
        (&["--until", "1h"], 0),
        (&["--max", "2"], 2),
    ] {
        assert_eq!(list(&url, filter).len(), count, "{filter:?}");
    }
    let first = &list(&url, &["--max", "1"])[0];
    let rest = list(&url, &["--after", &id(first)]);
    assert_eq!(rest.len(), 6);
    for bad in [
        &["--reason", "bored"][..],
        &["--error-pattern", "("],
        &["--since", "soon"],
    ] {
        dead(&url, "list", bad).failed(2);
    }

    let exhausted = id(&list(&url, &["--correlation", "c-1"])[0]);
    let shown = dead(&url, "show", &[&exhausted]).ok().out;
    for part in [
        "exhausted, after 2 attempts",
        "attempt 1 on billing-",
        "attempt 2 on billing-",
        "globex",
        "    \"cents\": 1250,",
        r#""note": "\u001b[2J""#,
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let told = dead(&url, "show", &[&exhausted, "--json"]).ok().json();
    assert_eq!(
        (&told["payload"]["n"], &told["history"][1]["number"]),
        (&json!(1), &json!(2))
    );
    let undecodable = id(&list(&url, &["--reason", "undecodable"])[0]);
    let hex = dead(&url, "show", &[&undecodable]).ok().out;
    assert!(
        hex.contains("1b 62 79 74 65 73") && hex.contains("|.bytes|"),
        "{hex}"
    );
    dead(&url, "show", &["1-1"]).failed(1);
    // Also where there is no server.
    let ran = dead("redis://127.0.0.1:1", "redrive", &["--error-pattern", "a("]).failed(2);
    let first = ran.err.lines().next().unwrap();
    assert!(
        first.contains("\"a(\": ") && first.ends_with(" 1 MiB: unclosed group"),
        "{ran:?}"
    );

    // Nothing that others wrote reaches the output as it is.
    let all = [
        shown,
        hex,
        dead(&url, "list", &[]).ok().out,
        dead(&url, "list", &["--json"]).ok().out,
        run(Some(&url), &["dead", "summary"]).ok().out,
        dead(&url, "export", &[]).ok().out,
    ];
    for text in &all {
        assert!(is_harmless(text), "{text:?}");
    }
    for args in [
        &["dead", "summary"][..],
        &["dead", "list", "orders", "billing"],
    ] {
        let (code, screen) = Terminal::start(&url, 90, args).ends();
        assert!(
            screen.contains(&exhausted) || args[1] == "summary",
            "{screen}"
        );
        let widest = screen
            .lines()
            .map(|line| line.trim_end().chars().count())
            .max();
        assert!(code == 0 && widest.unwrap() <= 90, "{screen}");
        assert!(is_harmless(&screen.replace('\r', "")), "{screen:?}");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn until_dead(server: &Server, count: u64) {
    let container = container(server).await;
    let handler = |_: Payload<Value>, _: Delivery| async { Outcome::Ack };
    let _subscription = container
        .bus()
        .subscribe(&topic("orders"), handler)
        .await
        .unwrap();
    until("the dead letters", async || {
        let dead = status(&container, &topic("orders"), &group("billing"))
            .await
            .dead;
        (dead == count).then_some(())
    })
    .await;
    finish(container).await;
}

#[test]
fn what_is_chosen_is_redriven_and_accounted_for() {
    let server = Server::start();
    let url = server.url();
    bury(&server, 6);
    let _: String = server.command(&["XADD", "{shop:orders}:log", "*", "other", "x"]);
    until_dead(&server, 7);
    let dry = dead(&url, "redrive", &["--all", "--dry-run", "--json"])
        .ok()
        .json();
    assert_eq!(
        (&dry["matching"], &dry["skipped"]),
        (&json!(6), &json!({"notMatching": 0, "undecodable": 1}))
    );
    assert_eq!(counts(&url), (7, 0));
    for bad in [
        &[][..],
        &["--all", "--tenant", "acme"],
        &["--all", "--failure-limit", "10%"],
        &["--all", "--rate", "5", "--failure-limit", "0.1"],
    ] {
        dead(&url, "redrive", bad).failed(2);
        // Before it connects.
        dead("redis://127.0.0.1:1", "redrive", bad).failed(2);
    }

    let first = id(&list(&url, &["--correlation", "c-1"])[0]);
    let ran = dead(&url, "redrive", &[&first, &first, "--json"]).ok();
    let told = ["taken", "missing", "ended"].map(|name| ran.json()[name].clone());
    assert_eq!(
        told,
        [json!(1), json!(0), json!("done")],
        "named twice, one"
    );
    let ran = dead(&url, "redrive", &[&first, "--json"]).failed(1);
    assert_eq!(ran.json()["taken"], 0, "{ran:?}");
    let ran = dead(
        &url,
        "redrive",
        &["--tenant", "acme", "--operator", "ann\u{1b}"],
    )
    .ok();
    assert!(ran.out.starts_with("3 redriven"), "{ran:?}");
    assert!(
        ran.err
            .starts_with("will redrive 3 dead letters to group billing\n"),
        "{ran:?}"
    );
    assert_eq!(counts(&url), (3, 4));
    let journal = lines(&dead(&url, "journal", &["--json"]).ok());
    let last = journal.last().unwrap();
    assert_eq!(
        (
            &last["action"],
            &last["operator"],
            &last["taken"],
            &last["selection"]
        ),
        (
            &json!("redrive"),
            &json!("ann\u{1b}"),
            &json!(3),
            &json!("tenant \"acme\"")
        )
    );
    assert!(last["result"].is_string());
    let table = dead(&url, "journal", &[]).ok().out;
    assert!(
        is_harmless(&table) && table.contains("ann\\u{1b}"),
        "{table:?}"
    );

    // Elsewhere, where it is a message as any other.
    let ran = dead(
        &url,
        "redrive",
        &["--reason", "exhausted", "--to", "copies"],
    )
    .ok();
    assert!(
        ran.err.contains("will publish 2 dead letters to copies"),
        "{ran:?}"
    );
    let copies = run(Some(&url), &["tail", "copies", "--json"]).ok();
    let numbers: BTreeSet<u64> = lines(&copies)
        .iter()
        .map(|one| one["envelope"]["payload"]["n"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, BTreeSet::from([3, 5]));
    assert_eq!(counts(&url), (1, 4));
    let journal = dead(&url, "journal", &[]).ok();
    assert!(
        journal.out.contains("  publish to copies by "),
        "{journal:?}"
    );
    let journal = lines(&dead(&url, "journal", &["--json"]).ok());
    assert_eq!(journal.last().unwrap()["to"], "copies");
    let ran = dead(&url, "redrive", &["--all"]).ok();
    assert_eq!(ran.out, "nothing to do\n", "{ran:?}");
    dead(&url, "redrive", &["--reason", "undecodable"]).ok();
    assert_eq!(counts(&url), (0, 5));

    // Nothing of a group outlives it.
    let args = ["groups", "remove", "orders", "billing", "--force", "--yes"];
    run(Some(&url), &args).ok();
    let left: Vec<String> = server.command(&["KEYS", "{shop:orders}:group:*"]);
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn the_journal_says_who_or_that_nobody_knows() {
    let server = Server::start();
    let url = server.url();
    bury(&server, 3);
    for (variables, told) in [
        (&[("USER", "ann"), ("LOGNAME", "ben")][..], "ann"),
        (&[("USER", ""), ("LOGNAME", "ben")], "ben"),
        (&[], "unknown"),
    ] {
        let first = id(&list(&url, &["--max", "1"])[0]);
        let args = ["dead", "redrive", "orders", "billing", &first];
        let mut command = redstart(Some(&url), &args);
        command.env_remove("USER").env_remove("LOGNAME");
        command.envs(variables.iter().copied());
        run_with(command, "").ok();
        let journal = lines(&dead(&url, "journal", &["--json"]).ok());
        assert_eq!(journal.last().unwrap()["operator"], told);
    }
}

#[test]
fn purging_asks_for_the_count_and_keeps_a_copy_that_comes_back() {
    let server = Server::start();
    let url = server.url();
    bury(&server, 6);
    let _: String = server.command(&["XADD", "{shop:orders}:log", "*", "other", "x"]);
    until_dead(&server, 7);
    let before = dead(&url, "export", &[]).ok();
    assert_eq!(lines(&before).len(), 7);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kept.ndjson");
    let file = file.to_str().unwrap();

    let dry = dead(&url, "purge", &["--all", "--dry-run"]).ok();
    assert!(
        dry.out.starts_with("will remove 7 dead letters for good\n"),
        "{dry:?}"
    );
    dead(&url, "purge", &["--all"]).failed(2);
    let args = [
        "dead", "purge", "orders", "billing", "--tenant", "acme", "--export", file,
    ];
    let mut terminal = Terminal::start(&url, 80, &args);
    terminal.sees("will remove 3 dead letters for good");
    terminal.sees("Type 3 to continue: ");
    terminal.types("all");
    let (code, screen) = terminal.ends();
    assert!(
        code == 1 && screen.contains("nothing was changed"),
        "{screen}"
    );
    assert_eq!(counts(&url), (7, 0));
    let mut terminal = Terminal::start(&url, 80, &args);
    terminal.sees("Type 3 to continue: ");
    terminal.types("3");
    let (code, screen) = terminal.ends();
    assert!(code == 0 && screen.contains("3 removed"), "{screen}");
    assert_eq!(counts(&url), (4, 0));
    let kept = std::fs::read_to_string(file).unwrap();
    assert_eq!(kept.lines().count(), 3);
    dead(&url, "purge", &["--all", "--yes", "--export", file]).failed(1);
    assert_eq!(
        counts(&url),
        (4, 0),
        "a copy is never written over, and nothing goes without it"
    );
    dead(&url, "purge", &["--all", "--yes"]).ok();
    assert_eq!(counts(&url), (0, 0));

    // What was exported comes back as it was, once.
    let import = |input: &str, rest: &[&str]| {
        let args = [&["dead", "import", "orders", "billing", "--json"], rest].concat();
        run_with(redstart(Some(&url), &args), input)
    };
    let count = |[imported, present, gone, failed]: [u64; 4]| json!({"imported": imported, "present": present, "gone": gone, "failed": failed});
    assert_eq!(import(&kept, &[]).ok().json(), count([3, 0, 0, 0]));
    assert_eq!(import(&before.out, &[]).ok().json(), count([4, 3, 0, 0]));
    assert_eq!(import(&before.out, &[]).ok().json(), count([0, 7, 0, 0]));
    let again = lines(&dead(&url, "export", &[]).ok());
    let fields = |all: &[Value]| {
        let fields = all.iter().map(|one| one["fields"].to_string());
        fields.collect::<BTreeSet<_>>()
    };
    assert_eq!(fields(&again), fields(&lines(&before)), "byte for byte");
    dead(&url, "purge", &["--all", "--yes"]).ok();
    let ran = import(&kept, &[]).failed(1);
    assert_eq!(ran.json(), count([0, 0, 3, 0]), "it was here before");
    assert!(
        ran.err.starts_with("lines 1 to 3: an earlier import added")
            && ran.err.contains("--reimport"),
        "{ran:?}"
    );
    let two: String = kept.split_inclusive('\n').skip(1).collect();
    assert_eq!(
        import(&two, &["--reimport"]).ok().json(),
        count([2, 0, 0, 0])
    );
    let ran = import(&kept, &[]).failed(1);
    assert_eq!(ran.json(), count([0, 2, 1, 0]), "one of three is missing");
    assert!(ran.err.starts_with("line 1: "), "{ran:?}");
    assert_eq!(
        import(&kept, &["--reimport"]).ok().json(),
        count([1, 2, 0, 0])
    );
    let ran = import(&format!("\nnonsense\u{1b}\n{{}}\n{kept}"), &["--reimport"]).failed(1);
    assert_eq!(
        ran.json(),
        count([0, 3, 0, 2]),
        "what is there is not doubled"
    );
    assert!(
        ran.err.contains("line 2: ") && is_harmless(&ran.err),
        "{ran:?}"
    );
}

#[test]
fn an_export_whose_reader_has_gone_is_none() {
    let server = Server::start();
    let url = server.url();
    bury(&server, 2);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = redstart(Some(&url), &["dead", "export", "orders", "billing"]);
    let mut child = command.stdout(writer).spawn().unwrap();
    assert_eq!(wait(&mut child).code(), Some(1));
}
