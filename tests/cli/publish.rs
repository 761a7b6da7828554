//! `publish`.

use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::run::{publish, read_all, redstart, wait};
use crate::support::{PATIENCE, Server, signal};

#[test]
fn bad_lines_are_named_and_do_not_lose_the_others() {
    let server = Server::start();
    let url = server.url();
    let input = "1\n{\"a\":\n2\n3 4\n5\n";
    let ran = publish(&url, &["--type", "t", "--json"], input).failed(1);
    assert_eq!(
        ran.json(),
        json!({"published": 3, "failed": 2, "unknown": 0})
    );
    let complaints: Vec<&str> = ran.err.lines().collect();
    assert_eq!(complaints.len(), 2, "{ran:?}");
    assert!(
        complaints[0].starts_with("line 2: is not JSON: "),
        "{ran:?}"
    );
    assert!(
        complaints[1].starts_with("line 4: is not JSON: "),
        "{ran:?}"
    );

    let ran = publish(&url, &["--type", "t", "--stop-on-error"], input).failed(1);
    assert_eq!(ran.out, "1 published to orders, 1 failed\n");
    let ran = publish(&url, &["--envelope"], "{\"type\":\"t\"}\n[]\n").failed(1);
    assert!(
        ran.err.contains("line 1: field `payload` is missing"),
        "{ran:?}"
    );
    assert!(ran.err.contains("line 2: is not an envelope"), "{ran:?}");

    // A rule of the library, not of the parser.
    let big = format!("1\n\"{}\"\n2\n", "x".repeat(2 * 1024 * 1024));
    let ran = publish(&url, &["--type", "t", "--json"], &big).failed(1);
    assert_eq!(
        ran.json(),
        json!({"published": 2, "failed": 1, "unknown": 0})
    );
    assert!(ran.err.starts_with("line 2: encode envelope"), "{ran:?}");
    publish(&url, &[], "1\n").failed(2);
}

#[test]
fn a_trouble_of_many_lines_is_told_once() {
    let server = Server::start();
    let url = server.url();
    publish(&url, &["--type", "t"], "1\n").ok();
    // With no memory left every batch is refused for the same reason.
    let () = server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let many: String = (0..3000).map(|n| format!("{n}\n")).collect();
    let ran = publish(&url, &["--type", "t", "--json"], &many).failed(1);
    assert_eq!(
        ran.json(),
        json!({"published": 0, "failed": 3000, "unknown": 0})
    );
    let told: Vec<&str> = ran.err.lines().collect();
    assert!(told.len() <= 2, "{ran:?}");
    // How many lines have arrived when the first batch is made up is not for the test to say.
    let from_first = ["line 1: ", "lines 1 to "];
    assert!(
        from_first.iter().any(|start| told[0].starts_with(start)),
        "{ran:?}"
    );
    assert!(told[0].contains("OOM"), "{ran:?}");
    assert!(
        told.len() == 1 || told[1].ends_with(" to 3000: as before"),
        "{ran:?}"
    );
}

#[test]
fn a_line_is_published_before_the_input_ends() {
    let server = Server::start();
    let url = server.url();
    let args = ["publish", "orders", "--type", "t"];
    let mut child = redstart(Some(&url), &args).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "1").unwrap();
    let deadline = Instant::now() + PATIENCE;
    while server.command::<u64>(&["XLEN", "{shop:orders}:log"]) < 1 {
        assert!(Instant::now() < deadline, "the line waits for others");
        thread::sleep(Duration::from_millis(10));
    }
    // Interrupted, it still tells the account.
    signal(child.id(), "INT");
    assert_eq!(wait(&mut child).code(), Some(130));
    let out = read_all(child.stdout.take().unwrap()).join().unwrap();
    assert_eq!(out, "1 published to orders\n");
}
