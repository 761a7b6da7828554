//! Operators who are interrupted, killed, or two at once.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use redstart::extract::Payload;
use redstart::{Delivery, Outcome};
use serde_json::Value;

use crate::dead::{bury, counts, dead, delivered, lines};
use crate::run::{line_with, processes, read_all, redstart, run_with, wait};
use crate::support::{PATIENCE, Server, container, finish, group, signal, status, topic, until};
use crate::terminal::Terminal;

/// A redrive of everything at a rate, in a process of its own.
fn redriving(url: &str, rate: &str, by: &str) -> Child {
    let args = [
        "dead",
        "redrive",
        "orders",
        "billing",
        "--all",
        "--json",
        "--rate",
        rate,
        "--operator",
        by,
    ];
    redstart(Some(url), &args).spawn().unwrap()
}

/// Waits until the journal and the group look as they are to, and returns the journal.
fn when(url: &str, what: &str, wanted: impl Fn(&[Value], (u64, u64)) -> bool) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let journal = lines(&dead(url, "journal", &["--json"]).ok());
        if wanted(&journal, counts(url)) {
            return journal;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
    }
}

fn are_running(journal: &[Value], count: usize) -> bool {
    journal.len() == count && journal.iter().all(|one| one["result"].is_null())
}

fn account(child: &mut Child) -> Value {
    let out = read_all(child.stdout.take().unwrap());
    assert_eq!(wait(child).code(), Some(0));
    let out = out.join().unwrap();
    serde_json::from_str(out.lines().last().unwrap()).unwrap()
}

/// Each of messages 0 to `count` comes to the group once.
fn each_comes_once(server: &Server, count: u64) {
    let seen = delivered(server, usize::try_from(count).unwrap());
    let mut seen: Vec<u64> = seen.iter().map(|one| one["n"].as_u64().unwrap()).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..count).collect::<Vec<_>>());
}

/// How far a process lets others go first, 0 to 19.
fn niceness(pid: u32) -> i32 {
    let (all, pid) = (processes("pid=,ni="), pid.to_string());
    let mut lines = all.lines().map(str::split_whitespace);
    let found = lines.find_map(|mut words| (words.next() == Some(&pid)).then(|| words.next()));
    found.flatten().and_then(|nice| nice.parse().ok()).unwrap()
}

#[test]
fn services_on_the_same_machine_go_before_a_redrive() {
    let server = Server::start();
    let url = server.url();
    bury(&server, 30);
    let mut child = redriving(&url, "1", "ann");
    when(&url, "it to be at it", |journal, _| are_running(journal, 1));
    let expected = (niceness(std::process::id()) + 10).min(19);
    assert_eq!(niceness(child.id()), expected);
    child.kill().unwrap();
    wait(&mut child);
}

#[test]
fn two_operators_at_once_neither_lose_nor_double() {
    let server = Server::start();
    let url = server.url();
    bury(&server, 300);
    let mut both = ["ann", "ben"].map(|by| redriving(&url, "30", by));
    when(&url, "both to be at it", |journal, (dead, _)| {
        assert!(dead > 0, "it is too fast to be done by two");
        are_running(journal, 2)
    });
    let told = both.each_mut().map(account);
    let taken = told.map(|one| one["taken"].as_u64().unwrap());
    assert_eq!(taken.iter().sum::<u64>(), 300, "{taken:?}");
    let journal = when(&url, "the end", |_, counts| counts == (0, 300));
    for operation in &journal {
        assert!(operation["result"].as_str().unwrap().starts_with("done"));
        let own = if operation["operator"] == "ann" {
            taken[0]
        } else {
            taken[1]
        };
        assert_eq!(operation["taken"], own);
    }
    each_comes_once(&server, 300);
}

#[test]
fn a_redrive_that_is_killed_is_brought_to_its_end() {
    let server = Server::start();
    let url = server.url();
    bury(&server, 40);
    let mut killed = redriving(&url, "6", "ann");
    when(&url, "some to have moved", |_, (dead, moved)| {
        assert!(dead > 0, "it is too fast to be killed");
        moved >= 5
    });
    killed.kill().unwrap();
    killed.wait().unwrap();
    // What was on its way to the server when the process died may still arrive.
    let journal = when(&url, "the account", |journal, (dead, moved)| {
        dead + moved == 40 && journal[0]["taken"] == moved
    });
    assert!(journal[0]["result"].is_null(), "{journal:?}");
    let operation = journal[0]["operation"].as_str().unwrap();

    let resume = ["--resume", operation, "--json"];
    let ran = dead(&url, "redrive", &resume).ok();
    assert_eq!(ran.json()["ended"], "done");
    let taken = ran.json()["taken"].as_u64().unwrap();
    assert!((1..=35).contains(&taken), "{ran:?}");
    let journal = lines(&dead(&url, "journal", &["--json"]).ok());
    assert_eq!((journal.len(), &journal[0]["taken"]), (1, &40.into()));
    let ran = dead(&url, "redrive", &resume).failed(1);
    assert!(ran.err.contains("the operation has ended: done"), "{ran:?}");
    each_comes_once(&server, 40);
}

#[test]
fn who_is_interrupted_is_told_of_the_own_operation() {
    let server = Server::start();
    let url = server.url();
    bury(&server, 100);
    let mut ann = redriving(&url, "4", "ann");
    let journal = when(&url, "the first", |journal, _| are_running(journal, 1));
    let mut ben = redriving(&url, "4", "ben");
    when(&url, "the second", |journal, (dead, _)| {
        assert!(dead > 0, "it is too fast to be interrupted");
        are_running(journal, 2)
    });
    signal(ann.id(), "INT");
    let mut err = BufReader::new(ann.stderr.take().unwrap()).lines();
    let hint = line_with(&mut err, "--resume");
    let own = journal[0]["operation"].as_str().unwrap();
    assert!(hint.ends_with(own), "{hint}");
    assert_eq!(wait(&mut ann).code(), Some(130));
    ben.kill().unwrap();
    ben.wait().unwrap();
}

#[test]
fn a_purge_that_goes_on_says_that_it_removes() {
    let server = Server::start();
    let url = server.url();
    bury(&server, 20);
    let args = [
        "dead", "purge", "orders", "billing", "--all", "--yes", "--rate", "4",
    ];
    let mut killed = redstart(Some(&url), &args).spawn().unwrap();
    let journal = when(&url, "it to begin", |journal, _| are_running(journal, 1));
    killed.kill().unwrap();
    killed.wait().unwrap();
    let operation = journal[0]["operation"].as_str().unwrap();
    let ran = dead(&url, "purge", &["--yes", "--resume", operation]).ok();
    assert!(ran.out.ends_with(" removed\n"), "{ran:?}");
    assert_eq!(counts(&url), (0, 0));
}

#[test]
fn a_redrive_that_is_interrupted_says_how_to_go_on() {
    let server = Server::start();
    let url = server.url();
    bury(&server, 40);
    let args = [
        "dead",
        "redrive",
        "orders",
        "billing",
        "--all",
        "--rate",
        "5",
        "--operator",
        "ann",
    ];
    let mut child = redstart(Some(&url), &args).spawn().unwrap();
    loop {
        let (left, moved) = counts(&url);
        assert!(left > 0, "it is too fast to be interrupted");
        if moved >= 2 {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(child.id(), "INT");
    let mut err = BufReader::new(child.stderr.take().unwrap()).lines();
    let hint = line_with(&mut err, "--resume");
    assert_eq!(wait(&mut child).code(), Some(130));
    let (left, moved) = counts(&url);
    assert!(left > 0 && left + moved == 40, "{left} {moved}");
    assert!(
        hint.starts_with(&format!("{moved} taken so far")),
        "{hint} {moved}"
    );
    let operation = hint.rsplit(' ').next().unwrap();

    // Whoever goes on is bound to what it was about, and its rate.
    let (code, screen) = {
        let args = [
            "dead", "redrive", "orders", "billing", "--resume", operation,
        ];
        let mut terminal = Terminal::start(&url, 80, &args);
        terminal.sees("/s");
        terminal.types("\u{3}");
        terminal.ends()
    };
    assert!(code == 130 && screen.contains("interrupted"), "{screen}");
    let (left, moved) = counts(&url);
    assert_eq!(left + moved, 40);
    let ran = dead(&url, "redrive", &["--all"]).ok();
    assert!(ran.out.starts_with(&format!("{left} redriven")), "{ran:?}");
    assert_eq!(counts(&url), (0, 40));
    let other = "0190163d-8694-739b-aea5-966c26f8ad90";
    dead(&url, "redrive", &["--resume", other]).failed(1);
    // Nor is anything taken back of what it was begun with.
    for command in ["redrive", "purge"] {
        let ran = dead(&url, command, &["--resume", other, "--tenant", "acme"]).failed(2);
        assert!(ran.err.contains("cannot be used with"), "{ran:?}");
    }
}

#[test]
fn a_purge_is_gone_on_with_as_a_purge_and_by_nothing_else() {
    let server = Server::start();
    let url = server.url();
    bury(&server, 40);
    let args = [
        "dead", "purge", "orders", "billing", "--all", "--yes", "--rate", "5",
    ];
    let mut child = redstart(Some(&url), &args).spawn().unwrap();
    while counts(&url).0 > 38 {
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(child.id(), "INT");
    let mut err = BufReader::new(child.stderr.take().unwrap()).lines();
    let hint = line_with(&mut err, "--resume");
    assert_eq!(wait(&mut child).code(), Some(130));
    assert!(
        hint.contains("redstart dead purge orders billing --resume"),
        "{hint}"
    );
    let operation = hint.rsplit(' ').next().unwrap();
    let (left, _) = counts(&url);
    let ran = dead(&url, "redrive", &["--resume", operation]).failed(2);
    assert!(ran.err.contains("is a purge"), "{ran:?}");
    let ran = dead(&url, "purge", &["--resume", operation]).failed(2);
    assert!(ran.err.contains("not confirmed"), "{ran:?}");
    assert_eq!(counts(&url), (left, 0));
    dead(&url, "purge", &["--resume", operation, "--yes"]).ok();
    assert_eq!(counts(&url), (0, 0));
}

#[test]
fn where_nothing_is_to_be_done_nothing_is_begun_and_that_is_told() {
    let server = Server::start();
    let url = server.url();
    bury(&server, 1);
    let ran = dead(&url, "redrive", &["--type", "none", "--json"]).ok();
    assert!(ran.out.contains("\"taken\":0"), "{ran:?}");
    let ran = dead(&url, "redrive", &["1-1"]).failed(1);
    assert!(ran.err.contains("1 id does not exist"), "{ran:?}");
    let ran = dead(&url, "journal", &["--json"]).ok();
    assert_eq!(ran.out, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_stops_when_too_many_die_again() {
    let server = Server::start();
    let url = server.url();
    let all = tokio::task::spawn_blocking({
        let url = url.clone();
        move || {
            bury(&server, 400);
            (server, url)
        }
    });
    let (server, url) = all.await.unwrap();
    let container = container(&server).await;
    let handler = |_: Payload<Value>, _: Delivery| async { Outcome::dead_letter("still") };
    let _subscription = container
        .bus()
        .subscribe(&topic("orders"), handler)
        .await
        .unwrap();
    let ran = tokio::task::spawn_blocking(move || {
        dead(
            &url,
            "redrive",
            &["--all", "--rate", "100", "--failure-limit", "20%", "--json"],
        )
    });
    let ran = ran.await.unwrap().failed(1);
    assert_eq!(ran.json()["ended"], "stopped", "{ran:?}");
    let taken = ran.json()["taken"].as_u64().unwrap();
    assert!((20..400).contains(&taken), "{ran:?}");
    assert!(
        ran.json()["diedAgain"].as_u64().unwrap() > taken / 5,
        "{ran:?}"
    );
    until("all to be dead again", async || {
        let status = status(&container, &topic("orders"), &group("billing")).await;
        (status.dead == 400).then_some(())
    })
    .await;
    finish(container).await;
}

fn is_written(file: &Path) -> bool {
    file.metadata().is_ok_and(|file| file.len() > 0)
}

/// The URL of a server that answers nothing more once a file has been written to.
fn silent_when_written(port: u16, file: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (mut up, mut down) = (client.try_clone().unwrap(), client);
            let (mut to, mut from, file) = (server.try_clone().unwrap(), server, file.clone());
            std::thread::spawn(move || std::io::copy(&mut up, &mut to));
            std::thread::spawn(move || {
                let mut piece = [0; 65_536];
                while let Ok(length @ 1..) = from.read(&mut piece) {
                    // The client closes the connection when it ends.
                    if is_written(&file) || down.write_all(&piece[..length]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    url
}

/// What is purged is kept first: where that is interrupted, nothing goes.
#[test]
fn a_purge_that_is_interrupted_while_it_keeps_a_copy_removes_nothing() {
    let server = Server::start();
    let url = server.url();
    bury(&server, 1);
    let one = lines(&dead(&url, "export", &[]).ok()).remove(0);
    let many: Vec<String> = (1..20_000)
        .map(|number| {
            let mut other = one.clone();
            other["id"] = format!("{number}-1").into();
            other.to_string()
        })
        .collect();
    let args = ["dead", "import", "orders", "billing"];
    run_with(redstart(Some(&url), &args), many.join("\n")).ok();
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept.ndjson");
    let args = ["dead", "purge", "orders", "billing", "--all", "--yes"];
    let slow = silent_when_written(server.port(), kept.clone());
    let mut command = redstart(Some(&slow), &args);
    let mut child = command.arg("--export").arg(&kept).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    // It listens to interrupts before it writes.
    while !is_written(&kept) {
        assert!(Instant::now() < deadline, "nothing is kept");
        std::thread::sleep(Duration::from_millis(1));
    }
    signal(child.id(), "INT");
    let err = read_all(child.stderr.take().unwrap());
    assert_eq!(wait(&mut child).code(), Some(130));
    let err = err.join().unwrap();
    let written = std::fs::read_to_string(&kept).unwrap().lines().count();
    assert!(written < 20_000, "the server answered to the end");
    let said = format!("has only {written} of them\nnothing was removed\n");
    assert!(err.ends_with(&said), "{err:?}");
    assert_eq!(counts(&url).0, 20_000);
}
