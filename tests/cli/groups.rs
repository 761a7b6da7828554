//! `groups show` and `groups reset`.

use serde_json::{Value, json};

use crate::run::{publish, run};
use crate::support::Server;
use crate::terminal::Terminal;

const LOG: &str = "{shop:orders}:log";

/// A topic with five messages, of which the group has handled all.
fn handled(server: &Server) -> Vec<String> {
    let url = server.url();
    publish(&url, &["--type", "t"], "1\n2\n3\n4\n5\n").ok();
    let () = server.command(&["XGROUP", "CREATE", LOG, "billing", "0"]);
    let _: redis::Value = server.command(&[
        "XREADGROUP",
        "GROUP",
        "billing",
        "one",
        "NOACK",
        "STREAMS",
        LOG,
        ">",
    ]);
    let listed = run(
        Some(&url),
        &["tail", "orders", "--from-beginning", "--json"],
    )
    .ok();
    let lines = listed.out.lines().map(serde_json::from_str);
    lines
        .map(|line: Result<Value, _>| line.unwrap()["id"].as_str().unwrap().to_owned())
        .collect()
}

fn reset(url: &str, rest: &[&str]) -> crate::run::Ran {
    let all = [&["groups", "reset", "orders", "billing"][..], rest].concat();
    run(Some(url), &all)
}

fn lag(url: &str) -> u64 {
    let groups = run(Some(url), &["groups", "orders", "--json"]).ok().json();
    groups[0]["lag"].as_u64().unwrap()
}

/// The newest entry of the topic, as a delivery of the log.
fn newest(url: &str) -> Value {
    let told = run(Some(url), &["tail", "orders", "--last", "1", "--json"]).ok();
    told.json()["id"].clone()
}

#[test]
fn a_group_is_shown_with_its_consumers() {
    let server = Server::start();
    let url = server.url();
    handled(&server);
    let show = ["groups", "show", "orders", "billing"];
    let shown = run(Some(&url), &show).ok().out;
    assert!(shown.contains("\nconsumer  in flight "), "{shown}");
    assert!(shown.contains("\none "), "{shown}");
    let told = run(Some(&url), &[&show[..], &["--json"]].concat())
        .ok()
        .json();
    assert_eq!(
        (&told["group"], &told["lag"]),
        (&json!("billing"), &json!(0))
    );
    let one = &told["consumersOf"][0];
    assert_eq!(
        (&one["consumer"], &one["inFlight"]),
        (&json!("one"), &json!(0))
    );
    assert!(one["idleForMs"].is_u64() && one["live"] == true, "{told}");

    // What a consumer holds, and for how long.
    publish(&url, &["--type", "t"], "6\n").ok();
    let _: redis::Value =
        server.command(&["XREADGROUP", "GROUP", "billing", "one", "STREAMS", LOG, ">"]);
    let told = run(Some(&url), &[&show[..], &["--json"]].concat())
        .ok()
        .json();
    let one = &told["consumersOf"][0];
    assert_eq!(
        (&one["inFlight"], &one["deliveries"][0]["id"]),
        (&json!(1), &newest(&url))
    );
    for age in ["heldForMs", "leaseAgeMs"] {
        assert!(one["deliveries"][0][age].is_u64(), "{age} in {told}");
    }

    let _: u64 = server.command(&["XGROUP", "DELCONSUMER", LOG, "billing", "one"]);
    let ran = run(Some(&url), &show).ok();
    assert!(ran.err.contains("no consumers"), "{ran:?}");
    let ran = run(Some(&url), &["groups", "show", "orders", "biling"]).failed(1);
    assert!(ran.err.contains("did you mean billing?"), "{ran:?}");
}

#[test]
fn a_group_without_live_consumers_goes_back_and_forward() {
    let server = Server::start();
    let url = server.url();
    let ids = handled(&server);
    let told = reset(&url, &["--to", "beginning", "--yes"]).failed(1);
    assert!(
        told.err.contains("live consumers") && told.out.contains("1 live consumer"),
        "{told:?}"
    );
    let told = reset(&url, &["--to", "beginning", "--yes", "--json"]).failed(1);
    assert_eq!(told.json()["refused"], true);
    let error: Value = serde_json::from_str(told.err.lines().last().unwrap()).unwrap();
    assert_eq!(error["error"]["kind"], "failed");
    assert_eq!(lag(&url), 0);
    let _: u64 = server.command(&["XGROUP", "DELCONSUMER", LOG, "billing", "one"]);

    // A dry run and a wrong answer change nothing.
    let dry = reset(&url, &["--to", "beginning", "--dry-run"]).ok();
    assert_eq!(
        dry.out,
        "will reset group billing of orders to beginning: 5 entries to deliver, in place of 0\n\
         the group will handle messages again that it has handled before\n"
    );
    reset(&url, &["--to", "beginning"]).failed(2);
    reset(&url, &["--to", "soon", "--yes"]).failed(2);
    let args = ["groups", "reset", "orders", "billing", "--to", "beginning"];
    let mut terminal = Terminal::start(&url, 80, &args);
    terminal.sees("Type billing to continue: ");
    terminal.types("yes");
    let (code, screen) = terminal.ends();
    assert!(
        code == 1 && screen.contains("nothing was changed"),
        "{screen}"
    );
    assert_eq!(lag(&url), 0);

    let mut terminal = Terminal::start(&url, 80, &args);
    terminal.sees("Type billing to continue: ");
    terminal.types("billing");
    let (code, screen) = terminal.ends();
    assert!(code == 0 && screen.contains("to the beginning"), "{screen}");
    assert_eq!(lag(&url), 5);

    let told = reset(
        &url,
        &["--to", &ids[3], "--yes", "--json", "--operator", "ann"],
    );
    let told = told.ok().json();
    assert_eq!(
        (&told["moved"], &told["before"]),
        (&json!(true), &json!("0-0"))
    );
    assert_eq!(lag(&url), 2);
    let skips = reset(&url, &["--to", "end", "--dry-run", "--json"]).ok();
    assert_eq!(skips.json()["next"], 0);
    let skips = reset(&url, &["--to", "end", "--dry-run"]).ok();
    assert!(skips.out.contains("skip messages"), "{skips:?}");
    reset(&url, &["--to", "end", "--yes"]).ok();
    assert_eq!(lag(&url), 0);
    reset(&url, &["--to", "1h", "--yes"]).ok();
    assert_eq!(lag(&url), 5, "all messages are younger than an hour");

    let journal = run(Some(&url), &["dead", "journal", "orders", "billing"]).ok();
    let of_ann = format!("  reset to {} by ann\n  moved from the beginning", ids[3]);
    assert!(journal.out.contains(&of_ann), "{journal:?}");
    let lines = journal.out.lines().filter(|line| line.contains("reset to"));
    assert_eq!(lines.count(), 4, "{journal:?}");
}

#[test]
fn groups_are_shown_on_each_partition() {
    let server = Server::start();
    let url = server.url();
    let create = ["topics", "create", "orders", "--partitions", "3"];
    run(Some(&url), &create).ok();
    for key in [
        "{shop:orders}:log",
        "{shop:orders/1}:log",
        "{shop:orders/2}:log",
    ] {
        let made = ["XGROUP", "CREATE", key, "billing", "0", "MKSTREAM"];
        let () = server.command(&made);
    }
    for number in 0..2 {
        let _: String = server.command(&[
            "XADD",
            "{shop:orders/2}:log",
            "*",
            "json",
            &number.to_string(),
        ]);
    }
    let list = ["groups", "orders", "--partitions"];
    let shown = run(Some(&url), &list).ok().out;
    assert!(
        shown.starts_with("topic   group    partition  owner  token  lag"),
        "{shown}"
    );
    let told = run(Some(&url), &[&list[..], &["--json"]].concat())
        .ok()
        .json();
    let lags = told
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["lag"].as_u64());
    assert_eq!(
        lags.collect::<Vec<_>>(),
        [Some(0), Some(0), Some(2)],
        "{told}"
    );
    assert_eq!(
        told[2],
        json!({"topic": "orders", "partition": 2, "group": "billing", "lag": 2, "inFlight": 0,
               "scheduled": 0, "dead": 0, "consumers": 0, "owned": false, "owner": null,
               "token": null, "heldBack": null})
    );
    run(Some(&url), &["groups", "--partitions"]).failed(2);
}
