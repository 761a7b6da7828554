//! What must never be told.

use std::thread;
use std::time::{Duration, Instant};

use crate::run::{processes, read_all, redstart, run};
use crate::support::{PATIENCE, Server};

#[test]
fn a_password_is_never_told() {
    const CANARY: &str = "canary-7f3a";
    let server = Server::start();
    let () = server.command(&["CONFIG", "SET", "requirepass", CANARY]);
    let good = server
        .url()
        .replace("redis://", &format!("redis://:{CANARY}@"));
    let wrong = server
        .url()
        .replace("redis://", &format!("redis://:{CANARY}-no@"));
    let nowhere = format!("redis://:{CANARY}@127.0.0.1:1/");
    let nonsense = format!("redis//{CANARY}");
    let commands: [&[&str]; 14] = [
        &["topics"],
        &["groups"],
        &["groups", "remove", "orders", "billing", "--yes"],
        &["retries", "list", "orders", "billing"],
        &["kv", "get", "key"],
        &["doctor"],
        &["doctor", "--json"],
        &["health"],
        &["health", "--json"],
        &["migrate", "status"],
        &["tail", "orders"],
        &["publish", "orders", "--type", "t"],
        &["demo", "--messages", "x"],
        &["--help"],
    ];
    let mut told = String::new();
    let others = [
        format!("redis://{CANARY}:{CANARY}@127.0.0.1:1/"),
        format!("rediss://:{CANARY}@127.0.0.1:1/"),
        format!("rediss://:{CANARY}@127.0.0.1:1/#insecure"),
        format!("redis://:{CANARY}@127.0.0.1:1/{CANARY}"),
        format!("unix:///nowhere.sock?pass={CANARY}"),
    ];
    // Passwords that are not percent-encoded.
    let raw = [
        format!("redis://ann:1/{CANARY}@127.0.0.1:1/"),
        format!("redis://ann:{CANARY}/x@127.0.0.1:1/"),
        format!("redis://ann:x?{CANARY}@127.0.0.1:1/"),
    ];
    for url in &raw {
        let ran = run(Some(url), &["settings"]).ok();
        assert!(ran.out.contains('…'), "{ran:?}");
        told.push_str(&ran.out);
    }
    for url in others.iter().chain(&raw) {
        for args in [
            &["topics"][..],
            &["doctor", "--json"],
            &["migrate", "status"],
        ] {
            let ran = run(Some(url), &[&["--log", "trace"], args].concat());
            told.push_str(&ran.out);
            told.push_str(&ran.err);
        }
    }
    for url in [&good, &wrong, &nowhere, &nonsense] {
        for args in commands {
            let mut all = vec!["--log", "trace"];
            all.extend(args);
            let ran = run(Some(url), &all);
            told.push_str(&ran.out);
            told.push_str(&ran.err);
        }
    }
    run(Some(&good), &["topics"]).ok();
    for args in [&[&good, "topics"][..], &["topics", &good], &["tail", &good]] {
        let ran = run(None, args).failed(2);
        told.push_str(&ran.err);
    }
    let ran = run(None, &["demo", "--redis-url", &nonsense]).failed(2);
    told.push_str(&ran.err);
    assert!(!told.contains(CANARY), "{told}");

    // Nor does it stand in the arguments of a process.
    let mut demo = redstart(Some(&good), &["demo", "--messages", "60"])
        .spawn()
        .unwrap();
    let out = read_all(demo.stdout.take().unwrap());
    let err = read_all(demo.stderr.take().unwrap());
    let mut seen = false;
    let deadline = Instant::now() + PATIENCE;
    while demo.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the demo does not end");
        let all = processes("args=");
        seen |= all.contains("demo-worker");
        assert!(!all.contains(CANARY), "{all}");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(seen, "no worker was seen");
    let told = out.join().unwrap() + &err.join().unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(0), "{told}");
    assert!(!told.contains(CANARY), "{told}");
}
