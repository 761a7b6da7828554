//! Messages that kill their process, and the messages beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use redstart::extract::Payload;
use redstart::{Delivery, RetryPolicy, SubscribeOptions, dead_letters::Reason};
use tokio::runtime::Runtime;

use crate::support::{Server, container, group, letters, publish, status, topic};

const MESSAGES: u32 = 400;
const POISON: u32 = 137;
const WORKERS: usize = 4;

/// What the processes of a test have seen.
#[derive(Debug, Default)]
struct Seen {
    begun: Mutex<BTreeMap<u32, u32>>,
    handled: Mutex<BTreeSet<u32>>,
}

impl Seen {
    fn begun(&self, n: u32) -> u32 {
        self.begun.lock().unwrap().get(&n).copied().unwrap_or(0)
    }
}

/// Runs consumers one after the other, each on a runtime that is torn down, as by a SIGKILL, when
/// the poison message begins. Returns when a consumer has drained the group.
fn crash_until_drained(server: &Server, options: &SubscribeOptions, seen: &Arc<Seen>) {
    for _ in 0..12 {
        let runtime = Runtime::new().unwrap();
        let (crash, crashed) = mpsc::channel();
        let orders = topic("orders");
        let container = runtime.block_on(async {
            let container = container(server).await;
            let seen = Arc::clone(seen);
            let handler = move |Payload(n): Payload<u32>, _: Delivery| {
                let (seen, crash) = (Arc::clone(&seen), crash.clone());
                async move {
                    *seen.begun.lock().unwrap().entry(n).or_default() += 1;
                    if n == POISON {
                        let _ = crash.send(());
                        std::future::pending::<()>().await;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    seen.handled.lock().unwrap().insert(n);
                }
            };
            let bus = container.bus();
            let made = bus.subscribe_with(&orders, options.clone(), handler).await;
            let _subscription = made.unwrap();
            container
        });
        loop {
            if crashed.recv_timeout(Duration::from_millis(20)).is_ok() {
                runtime.shutdown_background();
                break;
            }
            let billing = group("billing");
            let left = runtime.block_on(status(&container, &orders, &billing));
            if left.lag + left.in_flight + left.scheduled == 0 {
                runtime.block_on(container.shutdown(Duration::from_secs(5)));
                return;
            }
        }
    }
    panic!("the group does not drain: {seen:?}");
}

/// A dead letter: its payload, its reason and its attempts.
type Dead = (u32, Reason, u32);

/// Publishes, crashes until the group has drained, and returns the dead letters.
fn dead_after_crashes(options: &SubscribeOptions) -> (Vec<Dead>, Arc<Seen>) {
    let (server, seen) = (Server::start(), Arc::<Seen>::default());
    let runtime = Runtime::new().unwrap();
    let orders = topic("orders");
    runtime.block_on(async {
        let container = container(&server).await;
        publish(&container, &orders, 0..MESSAGES).await;
        container.shutdown(Duration::from_secs(5)).await;
    });
    crash_until_drained(&server, options, &seen);
    let dead = runtime.block_on(async {
        let container = container(&server).await;
        let letters = letters(&container, &orders, &group("billing")).await;
        letters
            .iter()
            .map(|one| {
                let n = one.envelope().unwrap().payload().unwrap();
                (n, one.reason, one.attempts)
            })
            .collect()
    });
    (dead, seen)
}

#[test]
fn a_message_that_kills_its_process_dies_alone_after_its_attempts() {
    let options = SubscribeOptions::new()
        .with_prefetch(800)
        .with_lease(Duration::from_millis(300))
        .with_retry(RetryPolicy::default().with_max_attempts(8));
    let (dead, seen) = dead_after_crashes(&options);
    assert_eq!(dead, [(POISON, Reason::Crashed, 8)], "{seen:?}");
    assert_eq!(seen.begun(POISON), 8);
    assert_eq!(seen.handled.lock().unwrap().len(), MESSAGES as usize - 1);
}

#[test]
fn where_one_attempt_is_allowed_only_begun_messages_die() {
    let options = SubscribeOptions::new()
        .with_prefetch(800)
        .with_concurrency(WORKERS)
        .with_lease(Duration::from_millis(300))
        .with_retry(RetryPolicy::default().with_max_attempts(1));
    let (dead, seen) = dead_after_crashes(&options);
    assert_eq!(seen.begun(POISON), 1);
    let handled = seen.handled.lock().unwrap();
    for n in 0..MESSAGES {
        let died = dead.iter().find(|(of, ..)| *of == n);
        // A handled message dies too where the crash came before its acknowledgement.
        assert!(died.is_some() || handled.contains(&n), "{n} is lost");
        if let Some((_, reason, attempts)) = died {
            assert_eq!((*reason, *attempts), (Reason::Crashed, 1), "{n}");
            assert!(seen.begun(n) <= 1, "{n}: {seen:?}");
        }
    }
    // The mark precedes the call, and a crash may come between the two: at most once per worker.
    let not_called = dead.iter().filter(|(n, ..)| seen.begun(*n) == 0).count();
    assert!(not_called < WORKERS, "{dead:?}");
    assert!(dead.iter().any(|(n, ..)| *n == POISON), "{dead:?}");
}
