//! The process handles the messages of the other partitions.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};

use super::reading::{AHEAD, Owner};
use super::{ATTEND, Away, Fault, Ground, MARKS, READ, STEP, connect};
use crate::api::{
    Batch, Delivery, Message, Ownership, Payload, Router, SubscribeOptions, Subscription,
};
use crate::domain::{Group, Outcome, RetryPolicy};
use crate::store::{GroupAt, StartFrom};

/// No renewal ends a wait.
const LEASE: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(50);
const LONG: Duration = Duration::from_secs(30);

/// The number and the attempt of a message.
type Calls = mpsc::UnboundedReceiver<(u32, u32)>;

fn options(attempts: u32) -> SubscribeOptions {
    SubscribeOptions::new()
        .with_start(StartFrom::Beginning)
        .with_concurrency(16)
        .with_retry(RetryPolicy::fixed(Duration::ZERO).with_max_attempts(attempts))
        .with_ownership(Ownership::new().with_lease(LEASE))
}

fn open_gate() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(Semaphore::MAX_PERMITS / 2))
}

/// How the attempt of this number ends.
type Ends = fn(u32) -> Outcome;

fn acks(_: u32) -> Outcome {
    Outcome::Ack
}

fn fails_first(attempt: u32) -> Outcome {
    match attempt {
        1 => Outcome::retry("not yet"),
        _ => Outcome::Ack,
    }
}

/// A process whose handler tells of each call and waits for a permit.
async fn process(
    ground: &Ground,
    permits: &Arc<Semaphore>,
    ends: Ends,
    options: SubscribeOptions,
) -> (Subscription, Calls) {
    let (sender, calls) = mpsc::unbounded_channel();
    let permits = Arc::clone(permits);
    let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
        let (sender, permits) = (sender.clone(), Arc::clone(&permits));
        async move {
            let _ = sender.send((n, delivery.attempt()));
            permits.acquire().await.unwrap().forget();
            ends(delivery.attempt())
        }
    };
    let bus = ground.container.bus();
    let made = bus.subscribe_with(&ground.topic, options, handler).await;
    (made.unwrap(), calls)
}

async fn next(calls: &mut Calls) -> (u32, u32) {
    let next = tokio::time::timeout(LONG, calls.recv()).await;
    next.expect("a call comes").unwrap()
}

/// Waits until calls of all these messages have come, and returns all that came.
async fn all_of(calls: &mut Calls, wanted: Vec<u32>) -> Vec<u32> {
    let (mut wanted, mut came): (BTreeSet<u32>, _) = (wanted.into_iter().collect(), Vec::new());
    while !wanted.is_empty() {
        let next = tokio::time::timeout(LONG, calls.recv()).await;
        let Ok(next) = next else {
            panic!("{wanted:?} do not come");
        };
        let (n, _) = next.unwrap();
        wanted.remove(&n);
        came.push(n);
    }
    came
}

async fn is_healthy(one: &Subscription) {
    let healthy = async {
        while one.problem().is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(LONG, healthy).await;
    waited.unwrap_or_else(|_| panic!("{:?} stays", one.problem()));
}

async fn has_problem(one: &Subscription) {
    let failing = async {
        while one.problem().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(LONG, failing).await;
    waited.expect("a problem");
}

/// Each message came once, and those of a key in their order.
fn assert_in_order(came: &[u32]) {
    for key in 0..40 {
        let of_key = came.iter().filter(|n| **n % 40 == key);
        let of_key: Vec<_> = of_key.collect();
        assert!(of_key.is_sorted_by(|one, next| one < next), "{of_key:?}");
    }
}

async fn ends_well(one: Subscription) {
    is_healthy(&one).await;
    assert!(one.unsubscribe(GRACE).await.is_clean());
}

/// The partition answers again, and its messages come after those that came before.
async fn ends_in_order(ground: &Ground, one: Subscription, mut calls: Calls, mut came: Vec<u32>) {
    ground.away.back();
    came.extend(all_of(&mut calls, ground.messages(true, 0)).await);
    assert_in_order(&came);
    ends_well(one).await;
}

/// The calls hang before anything has begun.
async fn of_others_come_while(names: &'static [&'static str], fault: Fault, attempts: u32) {
    let mut ground = Ground::new().await;
    ground.publish().await;
    ground.away.set(names, fault);
    let (one, mut calls) = process(&ground, &open_gate(), acks, options(attempts)).await;
    let mut came = all_of(&mut calls, ground.messages(false, 0)).await;
    ground.publish().await;
    came.extend(all_of(&mut calls, ground.messages(false, 40)).await);
    if let Fault::Fails = fault {
        has_problem(&one).await;
    }
    ends_in_order(&ground, one, calls, came).await;
}

#[tokio::test]
async fn a_partition_that_cannot_be_read_delays_no_other() {
    of_others_come_while(&[READ], Fault::Hangs, 5).await;
    of_others_come_while(&[READ], Fault::AnswerHangs, 5).await;
    of_others_come_while(&[READ], Fault::Fails, 5).await;
}

#[tokio::test]
async fn a_partition_whose_messages_cannot_begin_delays_no_other() {
    of_others_come_while(&[STEP], Fault::Hangs, 5).await;
    of_others_come_while(&[STEP], Fault::AnswerHangs, 5).await;
    of_others_come_while(&[STEP], Fault::Fails, 5).await;
}

#[tokio::test]
async fn a_partition_that_marks_each_attempt_delays_no_other() {
    of_others_come_while(&[MARKS], Fault::Hangs, 1).await;
    of_others_come_while(&[MARKS], Fault::Fails, 1).await;
}

/// More messages of the partition wait for marks than there are workers.
#[tokio::test]
async fn messages_that_wait_for_marks_keep_no_worker() {
    for fault in [Fault::Hangs, Fault::AnswerHangs, Fault::Fails] {
        let mut ground = Ground::new().await;
        ground.publish().await;
        ground.away.set(&[MARKS], fault);
        let options = options(1).with_concurrency(2);
        let (one, mut calls) = process(&ground, &open_gate(), acks, options).await;
        let came = all_of(&mut calls, ground.messages(false, 0)).await;
        has_problem(&one).await;
        // One whose attempt had counted would be a dead letter.
        ends_in_order(&ground, one, calls, came).await;
    }
}

/// Handlers of each partition have returned, with failures, when the steps of one begin to hang.
#[tokio::test]
async fn a_partition_whose_steps_hang_delays_no_other() {
    let mut ground = Ground::new().await;
    ground.publish().await;
    let permits = Arc::new(Semaphore::new(0));
    let (one, mut calls) = process(&ground, &permits, fails_first, options(5)).await;
    let first = next(&mut calls).await.0;
    ground.away.set(&[STEP], Fault::Hangs);
    permits.add_permits(Semaphore::MAX_PERMITS / 2);
    let others: BTreeSet<u32> = ground.messages(false, 0).into_iter().collect();
    let (mut begun, mut again) = (others.clone(), others);
    begun.remove(&first);
    while !begun.is_empty() || !again.is_empty() {
        match next(&mut calls).await {
            (n, 1) => begun.remove(&n),
            (n, _) => again.remove(&n),
        };
    }
    // The store has their acknowledgements: the next message of each key waits for one.
    ground.publish().await;
    all_of(&mut calls, ground.messages(false, 40)).await;
    ground.away.back();
    all_of(&mut calls, ground.messages(true, 40)).await;
    ends_well(one).await;
}

/// Failed messages wait for their next attempt there: they must not take the workers.
#[tokio::test]
async fn messages_that_are_due_in_a_silent_partition_take_no_worker() {
    let mut ground = Ground::new().await;
    ground.publish().await;
    let slowly = RetryPolicy::fixed(Duration::from_millis(300)).with_max_attempts(5);
    let options = options(5).with_concurrency(4).with_retry(slowly);
    let (one, mut calls) = process(&ground, &open_gate(), fails_first, options).await;
    all_of(&mut calls, ground.messages(true, 0)).await;
    ground.away.set(&[READ, STEP], Fault::Fails);
    for _ in 0..3 {
        let from = ground.partitions.len() as u32;
        ground.publish().await;
        all_of(&mut calls, ground.messages(false, from)).await;
    }
    ground.away.back();
    all_of(&mut calls, ground.messages(true, 40)).await;
    ends_well(one).await;
}

#[tokio::test]
async fn a_process_leaves_although_a_partition_does_not_answer() {
    let mut ground = Ground::new().await;
    let permits = Arc::new(Semaphore::new(0));
    // The end of an attempt that failed waits for the store.
    let (one, mut calls) = process(&ground, &permits, fails_first, options(5)).await;
    ground.publish().await;
    next(&mut calls).await;
    ground.away.set(&[STEP], Fault::Hangs);
    permits.add_permits(Semaphore::MAX_PERMITS / 2);
    all_of(&mut calls, ground.messages(false, 0)).await;
    one.unsubscribe(Duration::ZERO).await;
    let at = GroupAt::of(&ground.topic, &Group::new("billing").unwrap());
    let roster = ground.store.owners().roster(&at).await.unwrap();
    assert!(
        roster.owners.is_empty() && roster.members.is_empty(),
        "{roster:?}"
    );
}

/// The call is a task of its own by then.
#[tokio::test]
async fn a_call_that_panics_late_is_made_again() {
    let mut ground = Ground::new().await;
    ground.publish().await;
    ground.away.set(&[STEP], Fault::AnswerHangs);
    let (one, mut calls) = process(&ground, &open_gate(), acks, options(5)).await;
    let mut came = all_of(&mut calls, ground.messages(false, 0)).await;
    ground.away.panic();
    came.extend(all_of(&mut calls, ground.messages(true, 0)).await);
    ground.publish().await;
    came.extend(all_of(&mut calls, ground.messages(true, 40)).await);
    assert_in_order(&came);
    assert!(one.unsubscribe(GRACE).await.is_clean());
}

#[tokio::test]
async fn a_panic_leaves_no_fault_of_reading() {
    let mut ground = Ground::new().await;
    let (one, mut calls) = process(&ground, &open_gate(), acks, options(5)).await;
    ground.publish().await;
    all_of(&mut calls, ground.messages(true, 0)).await;
    ground.away.set(&[READ], Fault::Fails);
    ground.publish().await;
    has_problem(&one).await;
    ground.away.set(&[READ], Fault::Hangs);
    ground.away.hangs().await;
    ground.away.panic();
    all_of(&mut calls, ground.messages(true, 40)).await;
    ends_well(one).await;
}

/// They were handed to the workers before.
#[tokio::test]
async fn queued_messages_of_a_silent_partition_do_not_begin() {
    for is_batch in [false, true] {
        queued_messages_wait(is_batch).await;
    }
}

async fn queued_messages_wait(is_batch: bool) {
    let mut ground = Ground::new().await;
    ground.publish().await;
    let (permits, away) = (Arc::new(Semaphore::new(0)), ground.messages(true, 0));
    let options = options(5).with_concurrency(1).with_prefetch(64);
    let (one, mut calls) = match is_batch {
        true => batches_of_one(&ground, &permits, options).await,
        false => process(&ground, &permits, fails_first, options).await,
    };
    let mut others: BTreeSet<u32> = ground.messages(false, 0).into_iter().collect();
    loop {
        let (n, _) = next(&mut calls).await;
        if away.contains(&n) {
            break;
        }
        others.remove(&n);
        permits.add_permits(1);
    }
    ground.away.set(&[STEP], Fault::Fails);
    permits.add_permits(1);
    has_problem(&one).await;
    // The next one has begun meanwhile.
    while let Ok((n, _)) = calls.try_recv() {
        others.remove(&n);
    }
    permits.add_permits(Semaphore::MAX_PERMITS / 2);
    let came = all_of(&mut calls, others.into_iter().collect()).await;
    let silent = came.iter().filter(|n| away.contains(*n));
    assert_eq!(silent.count(), 0, "{came:?} with {away:?}");
    ground.away.back();
    all_of(&mut calls, away).await;
    ends_well(one).await;
}

/// The attempts at all messages have begun before, so they run alone, one after the other.
#[tokio::test]
async fn suspects_wait_for_no_ending_of_a_silent_partition() {
    let mut owner = Owner::new(AHEAD).await;
    owner.ground.publish().await;
    owner.fetch_all(40).await;
    let (ground, permits) = (owner.ground, Arc::new(Semaphore::new(0)));
    let dies = |_| Outcome::dead_letter("by order of a test");
    let (one, mut calls) = process(&ground, &permits, dies, options(2)).await;
    let (mut away, mut others): (BTreeSet<u32>, BTreeSet<u32>) = (
        ground.messages(true, 0).into_iter().collect(),
        ground.messages(false, 0).into_iter().collect(),
    );
    loop {
        let (n, attempt) = next(&mut calls).await;
        assert_eq!(attempt, 2);
        others.remove(&n);
        if away.remove(&n) {
            break;
        }
        permits.add_permits(1);
    }
    ground.away.set(&[STEP], Fault::Hangs);
    permits.add_permits(Semaphore::MAX_PERMITS / 2);
    // Several wait for longer than this if each waits for the ending.
    let others = all_of(&mut calls, others.into_iter().collect());
    let came = tokio::time::timeout(LONG, others).await;
    came.expect("they wait for no ending");
    ground.away.back();
    all_of(&mut calls, away.into_iter().collect()).await;
    assert!(one.unsubscribe(GRACE).await.is_clean());
}

#[tokio::test]
async fn a_shutdown_reports_the_other_partitions_beside_a_silent_one() {
    let mut ground = Ground::new().await;
    let permits = Arc::new(Semaphore::new(0));
    // The store has a mark of each attempt, which must go.
    let options = options(1).with_concurrency(64);
    let (one, mut calls) = process(&ground, &permits, acks, options).await;
    ground.publish().await;
    all_of(&mut calls, (0..40).collect()).await;
    ground.away.set(&[STEP], Fault::Hangs);
    let report = one.unsubscribe(Duration::ZERO).await;
    let away = ground.messages(true, 0).len() as u64;
    assert_eq!((report.cancelled, report.unsettled), (40, away));
}

/// Half of the partitions are to go to another process, and wait for their handlers.
#[tokio::test]
async fn an_overdue_handover_asks_no_server_that_is_away_without_a_pause() {
    let mut ground = Ground::new().await;
    let permits = Arc::new(Semaphore::new(0));
    let ownership = Ownership::new().with_lease(LEASE);
    let handover = Duration::from_secs(1);
    let ownership = ownership.with_handover(handover);
    let options = options(5).with_concurrency(64).with_ownership(ownership);
    let (one, mut calls) = process(&ground, &permits, acks, options.clone()).await;
    ground.publish().await;
    all_of(&mut calls, (0..40).collect()).await;
    let container = connect(&ground.store).await;
    let _first = std::mem::replace(&mut ground.container, container);
    let (other, _calls) = process(&ground, &permits, acks, options).await;
    let attended = || ground.away.attended.load(Ordering::Relaxed);
    let at = GroupAt::of(&ground.topic, &Group::new("billing").unwrap());
    let handover_begins = async {
        while ground
            .store
            .owners()
            .roster(&at)
            .await
            .unwrap()
            .members
            .len()
            < 2
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Each of the two attends some times more, and sees the other.
        let before = attended();
        while attended() < before + 10 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let begun = tokio::time::timeout(LONG, handover_begins).await;
    begun.expect("both attend");
    ground.away.set(&[ATTEND], Fault::Fails);
    tokio::time::sleep(handover).await;
    let before = attended();
    tokio::time::sleep(Duration::from_millis(600)).await;
    let calls = attended() - before;
    // Each of the two looks into memory every ten milliseconds.
    assert!(calls < 150, "{calls} calls");
    ground.away.back();
    permits.add_permits(Semaphore::MAX_PERMITS / 2);
    one.unsubscribe(GRACE).await;
    other.unsubscribe(GRACE).await;
}

#[derive(serde::Deserialize)]
struct Number(u32);

impl Message for Number {
    const TYPE: &'static str = "n";
}

/// The same as a process whose first attempts fail, with a batch handler.
async fn batches_of_one(
    ground: &Ground,
    permits: &Arc<Semaphore>,
    options: SubscribeOptions,
) -> (Subscription, Calls) {
    let (sender, calls) = mpsc::unbounded_channel();
    let (permits, failed) = (Arc::clone(permits), Mutex::new(BTreeSet::new()));
    let handler = move |batch: Batch<Number>| {
        let Number(n) = batch.messages()[0];
        let is_first = failed.lock().unwrap().insert(n);
        let _ = sender.send((n, 1));
        let permits = Arc::clone(&permits);
        async move {
            permits.acquire().await.unwrap().forget();
            vec![fails_first(if is_first { 1 } else { 2 })]
        }
    };
    let bus = ground.container.bus();
    let (options, router) = (options.with_batch(1, LONG), Router::new().on_batch(handler));
    let made = bus.subscribe_with(&ground.topic, options, router).await;
    (made.unwrap(), calls)
}

/// Each batch has messages of all partitions, and each attempt is marked. Those of the partition go back.
#[tokio::test]
async fn marks_of_a_batch_wait_for_their_own_partition() {
    let mut ground = Ground::new().await;
    let (sender, mut calls) = mpsc::unbounded_channel();
    let away: Away = ground.away.clone();
    let handler = move |batch: Batch<Number>| {
        for Number(n) in batch.messages() {
            let _ = sender.send((*n, 1));
        }
        let outcomes = vec![Outcome::Ack; batch.len()];
        async { outcomes }
    };
    let router = Router::new().on_batch(handler);
    let options = options(1)
        .with_concurrency(1)
        .with_batch(40, Duration::from_millis(100));
    let bus = ground.container.bus();
    let one = bus.subscribe_with(&ground.topic, options, router).await;
    away.set(&[MARKS], Fault::Hangs);
    ground.publish().await;
    all_of(&mut calls, ground.messages(false, 0)).await;
    away.back();
    all_of(&mut calls, ground.messages(true, 0)).await;
    assert!(one.unwrap().unsubscribe(GRACE).await.is_clean());
}
