//! How many instructions the client needs for a message.
//!
//! Valgrind counts those of a program of its own, this one with another test to run; the server is
//! not counted. The numbers are of an unoptimised build: they differ from one run to the next by a
//! hundredth, and from one compiler to the next by more, so the bound is wide. It is there for what
//! makes a message twice as dear without a command, a byte or an allocation more.

use std::process::Command;

use crate::support::{PATIENCE, Server, container, finish, topic};
use crate::{ALONE, handle_all, publish};

/// How many messages the counted program handles.
const COUNT: &str = "REDSTART_COST_MESSAGES";

#[tokio::test]
async fn a_message_takes_few_instructions() {
    let _alone = ALONE.lock().await;
    let (few, many) = (500, 2500);
    // The difference is the cost of the additional messages.
    let [less, more] = [few, many].map(counted);
    let each = more.saturating_sub(less) / (many - few);
    println!("instructions: {each} a message");
    assert!(each > 0, "{less} for {few} messages, {more} for {many}");
    assert!(each <= BOUND, "{each} instructions a message, over {BOUND}");
}

/// Some four tenths above what was measured.
const BOUND: u64 = 220_000;

/// The instructions of a program that publishes and handles `messages` messages.
fn counted(messages: u64) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let counts = folder.path().join("counts");
    let done = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", counts.display()))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "instructions::work", "--ignored"])
        .env(COUNT, messages.to_string())
        .output()
        .expect("valgrind is needed; tests/run installs it");
    assert!(done.status.success(), "{done:?}");
    let counts = std::fs::read_to_string(counts).unwrap();
    let total = counts.lines().find_map(|line| {
        let total = line.strip_prefix("totals: ")?;
        total.trim().parse().ok()
    });
    total.expect("callgrind tells the total")
}

#[tokio::test]
#[ignore = "what is counted; by itself it says nothing"]
async fn work() {
    let messages = std::env::var(COUNT).unwrap().parse().unwrap();
    let server = Server::start();
    let (container, orders) = (container(&server).await, topic("orders"));
    publish(&container, &orders, messages).await;
    let subscription = handle_all(&container, &orders, messages, 0).await;
    let _ = subscription.unsubscribe(PATIENCE).await;
    finish(container).await;
}
