//! `groups remove`, `kv`, `completions` and `man`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::run::{publish, redstart, run, run_with};
use crate::support::{Server, container, finish};
use crate::terminal::Terminal;

#[test]
fn a_group_is_removed_when_nobody_needs_it_or_when_told() {
    let server = Server::start();
    let url = server.url();
    let log = "{shop:orders}:log";
    publish(&url, &["--type", "t"], "1\n2\n").ok();
    for group in ["billing", "idle"] {
        let () = server.command(&["XGROUP", "CREATE", log, group, "0"]);
    }
    let remove = ["groups", "remove", "orders"];
    let with = |rest: &[&'static str]| [&remove[..], rest].concat();
    let ran = run(Some(&url), &with(&["billing"])).failed(1);
    assert!(
        ran.out.contains("2 not delivered") && ran.err.contains("--force"),
        "{ran:?}"
    );
    let told = run(Some(&url), &with(&["billing", "--json"]))
        .failed(1)
        .json();
    assert_eq!((&told["refused"], &told["lag"]), (&json!(true), &json!(2)));
    run(Some(&url), &with(&["nobody", "--yes"])).failed(1);
    run(
        Some(&url),
        &["groups", "remove", "nowhere", "billing", "--yes"],
    )
    .failed(1);

    // Not without a terminal, not with another name, and then by its own.
    run(Some(&url), &with(&["billing", "--force"])).failed(2);
    let mut terminal = Terminal::start(&url, 80, &with(&["billing", "--force"]));
    terminal.sees("2 not delivered");
    terminal.sees("Type billing to continue: ");
    terminal.types("y");
    let (code, screen) = terminal.ends();
    assert!(
        code == 1 && screen.contains("nothing was changed"),
        "{code} {screen}"
    );
    let dry = run(Some(&url), &with(&["billing", "--force", "--dry-run"])).ok();
    assert!(dry.out.starts_with("will remove group billing"), "{dry:?}");
    assert_eq!(dry.out.lines().count(), 1, "{dry:?}");
    let narrow = Terminal::start(&url, 60, &with(&["billing"])).ends().1;
    for (told, columns) in [(screen, 80), (narrow, 60)] {
        let lines: Vec<&str> = told.lines().map(str::trim_end).collect();
        assert!(lines.iter().all(|line| line.len() <= columns), "{told}");
        let is_end = |line: &&str| line.ends_with("consumers") && !line.starts_with("will");
        assert!(lines.iter().any(is_end), "{told}");
    }
    let names = || {
        let groups = run(Some(&url), &["groups", "orders", "--json"]).ok().json();
        let groups = groups.as_array().unwrap().iter();
        groups
            .map(|one| one["group"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(), ["billing", "idle"]);
    let mut terminal = Terminal::start(&url, 80, &with(&["billing", "--force"]));
    terminal.sees("Type billing to continue: ");
    terminal.types("billing");
    let (code, screen) = terminal.ends();
    assert!(
        code == 0 && screen.contains("removed group billing"),
        "{code} {screen}"
    );
    assert_eq!(names(), ["idle"]);

    // One for which nothing waits needs no force; one that lives does.
    let () = server.command(&["XGROUP", "SETID", log, "idle", "$", "ENTRIESREAD", "2"]);
    let _: u64 = server.command(&["XGROUP", "CREATECONSUMER", log, "idle", "c"]);
    let told = run(Some(&url), &with(&["idle", "--yes", "--json"]))
        .failed(1)
        .json();
    assert_eq!(
        (&told["lag"], &told["liveConsumers"]),
        (&json!(0), &json!(1))
    );
    let _: u64 = server.command(&["XGROUP", "DELCONSUMER", log, "idle", "c"]);
    let told = run(Some(&url), &with(&["idle", "--yes", "--json"]))
        .ok()
        .json();
    assert_eq!(told["removed"], true);
    assert_eq!(names(), Vec::<String>::new());
    assert_eq!(
        server.command::<u64>(&["XLEN", log]),
        2,
        "the topic keeps its entries"
    );
}

#[test]
fn keys_are_listed_with_their_values() {
    let server = Server::start();
    let url = server.url();
    let list = |args: &[&str]| run(Some(&url), &[&["kv", "list"], args].concat());
    assert_eq!(list(&[]).ok().err, "no keys\n");
    for n in 0..1_200 {
        let key = format!("shop:cart:{n:04}");
        let _: String = server.command(&["SET", &key, "{\"n\":1}", "PX", "7300000"]);
    }
    let _: String = server.command(&["SET", "office:cart:1", "1"]);
    let _: String = server.command(&["SET", "shop:long", &"y".repeat(3_000)]);
    let _: i64 = server.command(&["LPUSH", "shop:cart:list", "1"]);
    let all = list(&["--prefix", "cart:", "--max", "5000", "--json"]).ok();
    let all: Vec<Value> = all
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let keys: BTreeSet<&str> = all.iter().map(|one| one["key"].as_str().unwrap()).collect();
    assert_eq!((keys.len(), all.len()), (1_200, 1_200));
    let one = all.iter().find(|one| one["key"] == "cart:0007").unwrap();
    assert_eq!((&one["form"], &one["bytes"]), (&json!("json"), &json!(7)));
    assert_eq!(one["value"], json!({"n": 1}));
    assert!(one["expiresInMs"].as_u64().unwrap() > 3_600_000);
    for (max, more) in [("3", true), ("1200", false)] {
        let some = list(&["--prefix", "cart:", "--max", max]).ok();
        let rows = some.out.lines().filter(|line| line.starts_with("cart:"));
        assert_eq!(rows.count().to_string(), max);
        assert_eq!(some.err.contains("raise --max"), more, "{}", some.err);
    }
    let long = list(&["--prefix", "long"]).ok();
    assert!(
        long.out.contains("text   3000  never       yyy"),
        "{}",
        long.out
    );
    assert!(long.out.trim_end().ends_with("yyy…"), "{}", long.out);
    let none = list(&["--prefix", "nothing"]).ok();
    assert_eq!(none.err, "no key begins with \"nothing\"\n");
    list(&["--prefix", "{shop"]).failed(2);
    list(&["--max", "0"]).failed(2);
}

#[test]
fn values_are_json_whatever_their_form() {
    let server = Server::start();
    let url = server.url();
    let kv = |args: &[&str]| run(Some(&url), &[&["kv"], args].concat());
    kv(&["set", "order", r#"{"n": 1.5, "t": "é\u001b[31m"}"#]).ok();
    let shown = kv(&["get", "order"]).ok();
    assert_eq!(shown.out, "{\"n\":1.5,\"t\":\"é\\u001b[31m\"}\n");
    assert_eq!(
        kv(&["get", "order", "--json"]).ok().json(),
        json!({"key": "order", "value": {"n": 1.5, "t": "é\u{1b}[31m"}})
    );
    assert_eq!(server.command::<i64>(&["PTTL", "shop:order"]), -1);
    kv(&["set", "order", "-5", "--ttl", "2h"]).ok();
    assert!(server.command::<i64>(&["PTTL", "shop:order"]) > 3_600_000);
    assert_eq!(server.command::<String>(&["GET", "shop:order"]), "-5");
    kv(&["set", "greeting", "hello there", "--text"]).ok();
    assert_eq!(kv(&["get", "greeting"]).ok().out, "\"hello there\"\n");
    run_with(redstart(Some(&url), &["kv", "set", "order"]), "[1, 2]\n").ok();
    assert_eq!(kv(&["get", "order"]).ok().json(), json!([1, 2]));

    let deep = "[".repeat(100) + &"]".repeat(100);
    for bad in [
        &["set", "k", "nonsense"][..],
        &["set", "k", &deep],
        &["set", "k", "1", "--ttl", "0"],
        &["set", "", "1"],
        &["set", "{orders}:log", "1"],
        &["get", ""],
        &["cas", "k", "1"],
        &["cas", "", "1", "--expect-absent"],
    ] {
        kv(bad).failed(2);
    }
    for bad in [
        &["set", "k", "1", "--ttl", "0s"][..],
        &["cas", "k", "1", "--expect-absent", "--ttl", "0s"],
    ] {
        let ran = kv(bad).failed(2);
        assert!(ran.err.contains("\"k\": a time to live"), "{ran:?}");
    }
    kv(&["get", "absent"]).failed(1);
    // All keys are looked at before one is removed.
    kv(&["delete", "order", ""]).failed(2);
    assert_eq!(kv(&["get", "order"]).ok().json(), json!([1, 2]));
    assert_eq!(
        kv(&["delete", "order", "absent", "--json"])
            .failed(1)
            .json(),
        json!({"deleted": ["order"], "absent": ["absent"]})
    );
    kv(&["del", "greeting"]).ok();

    kv(&["cas", "leader", "\"one\"", "--expect-absent", "--ttl", "1h"]).ok();
    kv(&["cas", "leader", "\"two\"", "--expect-absent"]).failed(1);
    // Another program's form of the same value is the same value.
    let () = server.command(&["SET", "shop:map", "{ \"b\": 1, \"a\": 2 }"]);
    let swapped = kv(&["cas", "map", "3", "--expect", r#"{"a":2,"b":1}"#, "--json"]).ok();
    assert_eq!(swapped.json(), json!({"swapped": true}));
    let kept = kv(&["cas", "map", "4", "--expect", "9", "--json"]).failed(1);
    assert_eq!(kept.json(), json!({"swapped": false}));
    assert_eq!(kv(&["get", "map"]).ok().json(), 3);
}

#[test]
fn no_digit_of_a_number_is_lost() {
    let server = Server::start();
    let url = server.url();
    let (one, two) = ("100000000000000000000001", "100000000000000000000002");
    let () = server.command(&["SET", "shop:account", one]);
    assert_eq!(
        run(Some(&url), &["kv", "get", "account"]).ok().out,
        format!("{one}\n")
    );
    run(Some(&url), &["kv", "cas", "account", "1", "--expect", two]).failed(1);
    assert_eq!(server.command::<String>(&["GET", "shop:account"]), one);
    run(Some(&url), &["kv", "cas", "account", two, "--expect", one]).ok();
    assert_eq!(server.command::<String>(&["GET", "shop:account"]), two);
    let list = format!("[{one},1.5]");
    run(Some(&url), &["kv", "set", "list", &list]).ok();
    assert_eq!(
        run(Some(&url), &["kv", "get", "list"]).ok().out,
        format!("{list}\n")
    );

    // MessagePack has no such number: publish says so. JSON carries it as it is.
    let publish = |codec: &str, line: &str| {
        let mut command = redstart(Some(&url), &["publish", "orders", "--type", "t"]);
        command.env("REDSTART_CODEC", codec);
        run_with(command, line)
    };
    let ran = publish("msgpack", one).failed(1);
    assert!(ran.err.contains("number"), "{ran:?}");
    publish("json", &list).ok();
    let tail = ["tail", "orders", "--json"];
    let seen = run(Some(&url), &tail).ok().out;
    assert!(seen.contains(&list), "{seen}");
}

#[test]
fn a_key_of_once_says_what_it_is() {
    let server = Server::start();
    let url = server.url();
    for (mark, word) in [(b'c', "claimed"), (b'b', "begun"), (b'd', "done")] {
        let value = [b"\xC1\xC1", &[mark][..], b"token"].concat();
        redis::cmd("SET")
            .arg("shop:charge")
            .arg(value)
            .exec(&mut server.raw())
            .unwrap();
        let ran = run(Some(&url), &["kv", "get", "charge"]).ok();
        assert_eq!(ran.out, format!("once: {word}\n"));
    }
}

#[test]
fn what_is_no_value_can_be_seen_in_hexadecimal() {
    let server = Server::start();
    let url = server.url();
    let () = server.command(&["SET", "shop:blob", "\u{1b}[31m"]);
    let _: u64 = server.command(&["SETRANGE", "shop:odd", "2", "x"]);
    let () = redis::cmd("SET")
        .arg("shop:bad")
        .arg(&b"\xff\xfe\x1b"[..])
        .exec(&mut server.raw())
        .unwrap();
    let ran = run(Some(&url), &["kv", "get", "bad"]).failed(1);
    assert!(ran.err.contains("--raw"), "{ran:?}");
    let told = run(Some(&url), &["kv", "get", "bad", "--raw", "--json"])
        .ok()
        .json();
    assert_eq!(told, json!({"key": "bad", "hex": "fffe1b"}));
    let raw = redstart(Some(&url), &["kv", "get", "bad", "--raw"])
        .output()
        .unwrap();
    assert_eq!(raw.stdout, b"\xff\xfe\x1b");
    let (code, screen) = Terminal::start(&url, 80, &["kv", "get", "blob", "--raw"]).ends();
    assert!(code == 0 && screen.contains("1b 5b 33 31 6d"), "{screen}");
    assert!(!screen.contains('\u{1b}'), "{screen:?}");
    run(Some(&url), &["kv", "get", "absent", "--raw"]).failed(1);
}

#[test]
fn a_usage_error_offers_no_hidden_command() {
    for args in [&[][..], &["--json"], &["demo-work"], &["dem"], &["dead"]] {
        for url in [None, Some("redis://127.0.0.1:1")] {
            let ran = run(url, args).failed(2);
            assert!(!ran.err.contains("demo-worker"), "{ran:?}");
            assert!(!ran.err.is_empty(), "{args:?}");
        }
    }
    let ran = run(Some("redis://127.0.0.1:1"), &[]).failed(2);
    assert!(ran.err.contains("[subcommands: demo, publish, "), "{ran:?}");
    let ran = run(None, &["dem"]).failed(2);
    assert!(ran.err.contains("'demo'"), "{ran:?}");
}

#[test]
fn shells_and_man_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(None, &["completions", shell, "--static"]).ok().out;
        for word in [
            "run-now",
            "doctor",
            "stuck-after",
            "expect-absent",
            "redis-url",
        ] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        assert!(!script.contains("demo-worker"), "{shell}: it is hidden");
    }
    run(None, &["completions", "nonsense"]).failed(2);
    assert!(run(None, &["man"]).ok().out.contains(".TH redstart 1"));
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    run(None, &["man", "--dir", pages.to_str().unwrap()]).ok();
    for page in [
        "redstart.1",
        "redstart-groups-remove.1",
        "redstart-retries-cancel.1",
    ] {
        let text = std::fs::read_to_string(pages.join(page)).unwrap();
        assert!(text.contains(".SH"), "{page}");
    }
}

#[test]
fn a_key_of_once_shows_its_state_and_its_result() {
    let server = Server::start();
    let url = server.url();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let container = container(&server).await;
        let (kv, day) = (container.kv(), std::time::Duration::from_secs(86_400));
        let charge = async || Ok::<_, std::io::Error>("receipt-1\u{1b}[31m".to_owned());
        let charged = redstart::kv::once(&kv, "charge", day, charge).await;
        drop(charged.unwrap());
        let nothing = async || Ok::<_, std::io::Error>(());
        drop(redstart::kv::once(&kv, "mail", day, nothing).await.unwrap());
        finish(container).await;
    });
    let get = |rest: &[&str]| run(Some(&url), &[&["kv", "get"], rest].concat()).ok();
    assert_eq!(
        get(&["charge"]).out,
        "once: done, \"receipt-1\\u001b[31m\"\n"
    );
    assert_eq!(
        get(&["charge", "--json"]).json(),
        json!({ "key": "charge", "once": "done", "result": "receipt-1\u{1b}[31m" })
    );
    assert_eq!(get(&["mail"]).out, "once: done, null\n");
}
