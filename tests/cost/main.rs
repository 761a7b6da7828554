//! The cost of a message in commands, bytes, allocations and instructions. No bound here
//! depends on how fast the machine is; each is some tenths above what was measured, and far below
//! the cost of a batch sent as single commands.
//!
//! One thread runs the client, so that the sizes of batches do not depend on chance.

#[path = "../support/mod.rs"]
mod support;

mod dead_letters;
mod idle;
#[cfg(target_os = "linux")]
mod instructions;
mod notices;
mod per_message;
mod proxy;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redstart::extract::Payload;
use redstart::{Container, Delivery, Envelope, Outcome, SubscribeOptions, Subscription, Topic};

use support::until;

#[global_allocator]
static ALLOCATOR: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

/// Allocations are counted for the whole process: one test at a time.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// How many messages each measurement takes.
const MESSAGES: u64 = 10_000;

fn allocations() -> u64 {
    ALLOCATOR.stats().allocations as u64
}

/// Prints `spent` per message and fails when it exceeds the bound.
fn assert_each(what: &str, spent: u64, bound: f64) {
    let each = spent as f64 / MESSAGES as f64;
    println!("{what}: {each:.4} a message, at most {bound}");
    assert!(each <= bound, "{what}: {each:.4} a message, over {bound}");
}

/// Publishes messages in batches of 500; 200 bytes of payload each.
async fn publish(container: &Container, topic: &Topic, messages: u64) {
    let payload = "x".repeat(200);
    for _ in 0..messages / 500 {
        let batch: Vec<Envelope> = (0..500)
            .map(|_| Envelope::new("cost", &payload).unwrap())
            .collect();
        for published in container.bus().publish_all(topic, &batch).await {
            published.unwrap();
        }
    }
}

/// Handles all messages of a topic: each fails a number of times, then succeeds.
async fn handle_all(
    container: &Container,
    topic: &Topic,
    messages: u64,
    failures: u32,
) -> Subscription {
    let options = SubscribeOptions::new();
    handle_all_with(options, container, topic, messages, failures).await
}

/// The same, with further settings.
async fn handle_all_with(
    options: SubscribeOptions,
    container: &Container,
    topic: &Topic,
    messages: u64,
    failures: u32,
) -> Subscription {
    let handled = Arc::new(AtomicU64::new(0));
    let done = Arc::clone(&handled);
    let options = options.with_concurrency(16).with_prefetch(1000);
    let handler = move |_: Payload<String>, delivery: Delivery| {
        std::future::ready(if delivery.attempt() <= failures {
            Outcome::retry_after(Duration::from_millis(1), "again")
        } else {
            done.fetch_add(1, Ordering::Relaxed);
            Outcome::Ack
        })
    };
    let bus = container.bus();
    let subscription = bus.subscribe_with(topic, options, handler).await.unwrap();
    until("all messages to be handled", async || {
        (handled.load(Ordering::Relaxed) == messages).then_some(())
    })
    .await;
    subscription
}
