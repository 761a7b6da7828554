//! `demo`.

use std::io::{BufRead as _, BufReader};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::run::{is_running, line_with, redstart, run, run_with, wait};
use crate::support::{PATIENCE, Server, signal};

fn adds_up(told: &Value, published: u64, store: &str) {
    let count = |name: &str| {
        told[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name}: {told}"))
    };
    assert_eq!(count("published"), published, "{told}");
    assert_eq!(count("handled") + count("dead"), published, "{told}");
    assert_eq!(count("dead"), 3, "{told}");
    assert_eq!(count("lost"), 0, "{told}");
    assert_eq!(count("workersKilled"), 1, "{told}");
    assert!(told["duplicates"].is_u64(), "{told}");
    assert_eq!(told["adapter"], store);
}

#[test]
fn the_demo_adds_up_on_a_server_of_its_own() {
    let ran = run(None, &["demo", "--json", "--messages", "120"]).ok();
    assert_eq!(ran.out.lines().count(), 1, "{ran:?}");
    assert_eq!(ran.err, "");
    adds_up(&ran.json(), 120, "redis");
}

#[test]
fn the_demo_on_a_given_server_keeps_to_a_namespace_of_its_own() {
    let server = Server::start();
    let ran = run(Some(&server.url()), &["demo", "--json", "--messages", "90"]).ok();
    let told = ran.json();
    adds_up(&told, 90, "redis");
    let namespace = told["namespace"].as_str().unwrap();
    assert!(namespace.starts_with("redstart-demo-"), "{namespace}");
    let keys: Vec<String> = server.command(&["KEYS", "*"]);
    assert!(keys.iter().all(|key| key.contains(namespace)), "{keys:?}");

    let told = run(
        Some(&server.url()),
        &["--namespace", namespace, "groups", "--json"],
    )
    .ok();
    assert_eq!(told.json()[0]["dead"], 3);
    assert_eq!(told.json()[0]["lag"], 0);
}

#[cfg(feature = "console")]
#[test]
fn the_demo_opens_a_console_with_its_data_also_in_memory() {
    use std::io::{Read as _, Write as _};

    for in_memory in [false, true] {
        let args = ["demo", "--messages", "60", "--console", "127.0.0.1:0"];
        let mut command = redstart(None, &args);
        if in_memory {
            command.env("PATH", "");
        }
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = line_with(&mut log, "console on http://");
        let address = line
            .split("http://")
            .nth(1)
            .unwrap()
            .split(';')
            .next()
            .unwrap();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = "GET /dead HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        for part in [
            "HTTP/1.1 200",
            "demo/demo-workers",
            "demo · operator",
            "orders/billing",
            "connect #: connection refused",
            "card of order # declined",
            "an order without a price",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        // The pages show commands: the demo says how to run them.
        let mut story = BufReader::new(child.stdout.take().unwrap()).lines();
        if in_memory {
            line_with(&mut story, "this demo runs in memory");
        } else {
            let url = line_with(&mut story, "export REDSTART_REDIS_URL=");
            let url = url.split('=').nth(1).unwrap();
            let namespace = line_with(&mut story, "export REDSTART_NAMESPACE=");
            let namespace = namespace.split('=').nth(1).unwrap();
            // Of the mixture exactly one cause comes back, and is handled.
            let tool = |args: &[&str]| {
                let mut command = redstart(Some(url), args);
                command.env("REDSTART_NAMESPACE", namespace);
                run_with(command, "").ok().json()
            };
            let of = ["orders", "billing"];
            let causes = tool(&["dead", "summary", "orders", "billing", "--json"]);
            let count = |cause: &str, of: &Value| {
                let all = of.as_array().unwrap();
                let found = all.iter().find(|one| one["fingerprint"] == cause);
                found.map_or(0, |one| one["count"].as_u64().unwrap())
            };
            let refused = "connect #: connection refused";
            let expected = count(refused, &causes);
            assert_eq!(
                (expected, count("an order without a price", &causes)),
                (72, 12)
            );
            let redrive = [
                &["dead", "redrive"],
                &of[..],
                &["--fingerprint", refused, "--json"],
            ];
            assert_eq!(tool(&redrive.concat())["taken"], expected);
            let left = tool(&["dead", "summary", "orders", "billing", "--json"]);
            assert_eq!(count(refused, &left), 0);
            assert_eq!(count("card of order # declined", &left), 36);
        }
        signal(child.id(), "INT");
        assert_eq!(wait(&mut child).code(), Some(130));
    }
}

#[test]
fn the_demo_tells_its_story() {
    let ran = run(None, &["demo", "--messages", "60"]).ok();
    for part in [
        "Started a private redis-server",
        "Published 60 messages before any worker existed",
        "Started 3 worker processes",
        "Killed worker",
        "Every message was handled or is a dead letter",
        "lost",
    ] {
        assert!(ran.out.contains(part), "{part}: {}", ran.out);
    }
}

/// Starts the demo, ends it by a signal, and waits for the end of its server and its workers.
fn end_by_signal(name: &str, args: &[&str], servers: usize) -> Option<i32> {
    let args = [&["demo", "--messages", "5000"], args].concat();
    let mut child = redstart(None, &args).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let server = line_with(&mut lines, "redis-server");
    let workers = line_with(&mut lines, "worker processes (pids");
    let numbers = |line: &str, after: &str| -> Vec<String> {
        let list = line.split_once(after).unwrap().1;
        let list = list.split(')').next().unwrap();
        let words = list.split([',', ' ']).map(str::to_owned);
        words.filter(|word| word.parse::<u32>().is_ok()).collect()
    };
    let mut pids = numbers(&workers, "(pids ");
    assert_eq!(pids.len(), 3, "{workers}");
    pids.extend(numbers(&server, "("));
    assert_eq!(pids.len(), 3 + servers, "{server}");
    signal(child.id(), name);
    let code = wait(&mut child).code();
    let deadline = Instant::now() + PATIENCE;
    while let Some(pid) = pids.iter().find(|pid| is_running(pid)) {
        assert!(Instant::now() < deadline, "process {pid} is left");
        thread::sleep(Duration::from_millis(20));
    }
    code
}

#[test]
fn an_interrupted_demo_ends_its_processes() {
    assert_eq!(end_by_signal("INT", &[], 1), Some(130));
}

#[test]
fn a_killed_demo_leaves_no_process() {
    assert_eq!(end_by_signal("KILL", &[], 1), None);
    assert_eq!(end_by_signal("KILL", &["--cluster"], 6), None);
}

#[test]
fn the_demo_on_a_cluster_of_its_own_loses_a_primary_and_no_message() {
    let ran = run(None, &["demo", "--cluster", "--json", "--messages", "90"]).ok();
    let told = ran.json();
    adds_up(&told, 90, "redis");
    assert_eq!(told["primariesKilled"], 1, "{told}");
}

/// The demo as it is where there is no redis-server on the PATH and no server was given.
fn without_a_server(args: &[&str]) -> crate::run::Ran {
    let nowhere = tempfile::tempdir().unwrap();
    let mut command = redstart(None, args);
    command.env("PATH", nowhere.path());
    run_with(command, "").ok()
}

#[test]
fn the_demo_without_any_server_plays_in_memory_and_adds_up() {
    let ran = without_a_server(&["demo", "--json", "--messages", "120"]);
    assert_eq!(ran.err, "");
    adds_up(&ran.json(), 120, "memory");
}

#[test]
fn the_demo_in_memory_says_so_and_what_it_would_need() {
    let ran = without_a_server(&["demo", "--messages", "60"]);
    for part in [
        "no redis-server on the PATH: running on the memory adapter",
        "Started 3 worker threads",
        "its runtime was dropped",
        "the other workers took over the messages of worker",
        "Every message was handled or is a dead letter",
        "set REDSTART_REDIS_URL",
    ] {
        assert!(ran.out.contains(part), "{part}: {}", ran.out);
    }
}
