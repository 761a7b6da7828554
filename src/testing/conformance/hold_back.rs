//! Holding back: messages that failed and wait with their consumer, and what becomes of their
//! attempts.

use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::time::Instant;

use super::Subject;
use super::support::{DAY, Must as _, SOON, Stage, receipts};
use crate::api::{Delivery, SubscribeOptions, Subscription};
use crate::domain::{Outcome, Reason, RetryPolicy};
use crate::extract::Payload;
use crate::store::{Attempts, Begin, Commit, DeliveryId, Fetched, Holder, Member};

/// Longer than a check takes, and short enough to be held back.
const LONG: Duration = Duration::from_secs(50);

/// Holds everything back for up to a minute, and tries it again after `delay`.
fn hold_back_all(delay: Duration, attempts: u32) -> SubscribeOptions {
    SubscribeOptions::new()
        .with_hold_back(Duration::from_secs(60))
        .with_retry(RetryPolicy::fixed(delay).with_max_attempts(attempts))
}

/// A message's number, its attempt, and the failures and the last error that its envelope shows.
type Seen = (u32, u32, u32, Option<String>);

impl<S: Subject> Stage<'_, S> {
    /// Subscribes with a handler whose first attempts fail.
    async fn failing_first(
        &self,
        options: SubscribeOptions,
        failures: u32,
    ) -> (Subscription, UnboundedReceiver<Seen>) {
        let (sender, received) = mpsc::unbounded_channel();
        let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
            let (envelope, attempt) = (delivery.envelope(), delivery.attempt());
            let error = envelope.last_error().map(str::to_owned);
            let _ = sender.send((n, attempt, envelope.failed_attempts(), error));
            std::future::ready(match attempt <= failures {
                true => Outcome::retry("disk full"),
                false => Outcome::Ack,
            })
        };
        let bus = self.container.bus();
        let made = bus.subscribe_with(&self.topic, options, handler).await;
        (made.must("subscribing"), received)
    }

    async fn note(&self, by: &Member, delivery: DeliveryId, begun: u32, failed: u32) -> Holder {
        let attempts = Attempts { begun, failed };
        let begins = [Begin { delivery, attempts }];
        let holders = self.store.deliveries().begin(by, &begins).await;
        holders.must("noting")[0]
    }

    /// The messages in the redelivery stream and on the schedule.
    async fn scheduled(&self) -> u64 {
        self.status().await.scheduled
    }
}

fn attempts(fetched: &[Fetched]) -> Vec<(u32, u32)> {
    let attempts = fetched.iter().map(|one| one.attempts);
    attempts.map(|one| (one.begun, one.failed)).collect()
}

/// > Records the attempts at entries, because one begins or has failed, and restarts the leases. Answers
/// > who holds each delivery; where the member does not, nothing is written. The counts are absolute,
/// > so repeating the call is safe.
pub async fn noted_failures_are_counted_and_told_from_crashes<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..4).await;
    let mut dying = stage.hand("dying").await;
    let fetched = receipts(&stage.fetch(&mut dying, 4).await);
    for _ in 0..2 {
        let noted = stage.note(&dying.member, fetched[0], 2, 1).await;
        assert_eq!(noted, Holder::Member);
    }
    assert_eq!(
        stage.note(&dying.member, fetched[1], 1, 1).await,
        Holder::Member
    );
    assert_eq!(
        stage.note(&dying.member, fetched[2], 7, 4).await,
        Holder::Member
    );
    let heir = stage.member("heir");
    assert_eq!(stage.note(&heir, fetched[3], 9, 9).await, Holder::Other);
    let taken = stage.reclaim(&heir, Duration::ZERO).await;
    assert_eq!(receipts(&taken), fetched);
    assert_eq!(attempts(&taken), [(2, 1), (1, 1), (7, 4), (1, 0)]);
    assert_eq!(
        stage.note(&dying.member, fetched[0], 9, 9).await,
        Holder::Other
    );

    // What was not begun goes back as it came; a cancelled attempt is taken back, also twice.
    assert_eq!(stage.release(&heir, &fetched[..2]).await, 2);
    for _ in 0..2 {
        let failed = Attempts {
            begun: 6,
            failed: 4,
        };
        let commits = [Commit::release_counted(fetched[2], failed)];
        assert_eq!(stage.settle(&heir, &commits).await, [true]);
    }
    let taken = stage.reclaim(&stage.member("last"), DAY).await;
    assert_eq!(attempts(&taken), [(2, 1), (1, 1), (6, 4)]);
    stage.acknowledge(&heir, &fetched[3..]).await;
    assert_eq!(stage.note(&heir, fetched[3], 9, 9).await, Holder::Nobody);
}

/// A message that failed stays in flight, and its next attempt is as that of a scheduled retry.
pub async fn a_message_that_failed_waits_with_its_consumer<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    stage.publish(0..3).await;
    let (subscription, mut seen) = stage.failing_first(hold_back_all(LONG, 3), 1).await;
    stage.some(&mut seen, 3).await;
    assert_eq!(stage.counts().await, [0, 3, 0, 0]);
    subscription.unsubscribe(subject.patience()).await;

    let (_subscription, mut seen) = stage.failing_first(hold_back_all(SOON, 3), 2).await;
    let due = async || {
        let page = stage.store.schedule().list(&stage.at, None, 9).await;
        let entries = page.must("listing").entries;
        entries
            .iter()
            .map(|entry| entry.receipt)
            .collect::<Vec<_>>()
    };
    let run_now = stage
        .store
        .schedule()
        .run_now(&stage.at, &due().await)
        .await;
    run_now.must("running them now");
    let mut all = stage.some(&mut seen, 6).await;
    all.sort_unstable();
    let error = || Some("disk full".to_owned());
    let expected: Vec<Seen> = (0..3)
        .flat_map(|n| [(n, 2, 1, error()), (n, 3, 2, error())])
        .collect();
    assert_eq!(all, expected);
    assert_eq!(stage.drained().await.dead, 0);
    stage.finish().await;
}

/// > Whether the adapter itself keeps the time by which delays go: that of `now`. By default the time
/// > that really passes counts.
pub async fn a_message_waits_for_its_whole_delay<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    stage.publish(0..1).await;
    let (keeps_time, began) = (stage.store.keeps_time(), Instant::now());
    let time = || match keeps_time {
        true => stage.store.now().as_millis(),
        false => i64::try_from(began.elapsed().as_millis()).must("the time"),
    };
    let before = time();
    let (_subscription, mut seen) = stage
        .failing_first(hold_back_all(Duration::from_millis(300), 3), 1)
        .await;
    stage.some(&mut seen, 2).await;
    let waited = time() - before;
    assert!(waited >= 299, "{waited}");
    assert_eq!(stage.drained().await.dead, 0);
    stage.finish().await;
}

/// Longer delays, snoozes, and every delay where nothing is held back wait in the store.
pub async fn longer_delays_wait_in_the_store<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let bus = stage.container.bus();
    let long = hold_back_all(LONG, 3);
    let nothing = long.clone().with_hold_back(Duration::ZERO);
    let short = long.clone().with_hold_back(LONG.saturating_sub(SOON));
    for (n, options, outcome) in [
        (0, nothing, Outcome::retry("no")),
        (1, short, Outcome::retry("no")),
        (2, long.clone(), Outcome::snooze(LONG)),
        (3, long, Outcome::retry_after(DAY, "no")),
    ] {
        stage.publish(n..n + 1).await;
        let handler = move |_: Payload<u32>, _: Delivery| std::future::ready(outcome.clone());
        let made = bus.subscribe_with(&stage.topic, options, handler).await;
        let subscription = made.must("subscribing");
        let waits = async || (stage.scheduled().await == u64::from(n) + 1).then_some(());
        stage.until("the message to be scheduled", waits).await;
        subscription.unsubscribe(subject.patience()).await;
    }
    assert_eq!(stage.counts().await, [0, 0, 4, 0]);
    stage.finish().await;
}

/// Beyond 1,024 messages the store schedules the retries.
pub async fn a_subscription_holds_back_a_bounded_number<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    stage.publish(0..1100).await;
    let (subscription, _seen) = stage.failing_first(hold_back_all(LONG, 3), 1).await;
    let all = async || (stage.counts().await == [0, 1024, 76, 0]).then_some(());
    stage.until("1,024 messages to be held back", all).await;
    subscription.unsubscribe(subject.patience()).await;
    assert_eq!(stage.counts().await, [0, 0, 1100, 0]);
    stage.finish().await;
}

/// A shutdown schedules what is held back, with the rest of its delay, its attempts and its history.
pub async fn a_shutdown_returns_waiting_messages<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    stage.publish(0..2).await;
    let (subscription, mut seen) = stage.failing_first(hold_back_all(LONG, 2), 9).await;
    stage.some(&mut seen, 2).await;
    let report = subscription.unsubscribe(subject.patience()).await;
    let uncounted = (report.cancelled, report.released, report.unsettled);
    assert_eq!(uncounted, (0, 0, 0), "{report:?}");
    assert_eq!(stage.counts().await, [0, 0, 2, 0]);
    let page = stage.store.schedule().list(&stage.at, None, 9).await;
    let entries = page.must("listing").entries;
    let left = entries[0].due.as_millis() - stage.store.now().as_millis();
    assert!(left <= 50_000, "{left}");
    let all: Vec<_> = entries.iter().map(|entry| entry.receipt).collect();
    let run_now = stage.store.schedule().run_now(&stage.at, &all).await;
    run_now.must("running them now");
    let (_subscription, mut seen) = stage.failing_first(hold_back_all(LONG, 2), 9).await;
    let seen = stage.some(&mut seen, 2).await;
    assert!(
        seen.iter().all(|(_, attempt, ..)| *attempt == 2),
        "{seen:?}"
    );
    assert_eq!(stage.drained().await.dead, 2);
    for letter in stage.letters().await {
        let failures = letter.history.failures.iter();
        let failures: Vec<_> = failures.map(|it| (it.number, &it.error[..])).collect();
        assert_eq!(failures, [(1, "disk full"), (2, "disk full")]);
        assert_eq!((letter.reason, letter.attempts), (Reason::Exhausted, 2));
    }
    stage.finish().await;
}

/// Of a consumer that died, the failures that it noted and the attempt that it may have begun count,
/// and no other attempt.
pub async fn a_dead_consumers_failures_are_counted<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..3).await;
    let mut dying = stage.hand("dying").await;
    let fetched = receipts(&stage.fetch(&mut dying, 3).await);
    stage.note(&dying.member, fetched[0], 3, 2).await;
    stage.note(&dying.member, fetched[1], 4, 4).await;
    stage.note(&dying.member, fetched[2], 3, 3).await;
    let lease = Duration::from_millis(100);
    let (_subscription, mut seen) = stage
        .failing_first(hold_back_all(SOON, 4).with_lease(lease), 9)
        .await;
    let mut called = stage.some(&mut seen, 2).await;
    called.sort_unstable();
    let called: Vec<_> = called
        .iter()
        .map(|(n, attempt, ..)| (*n, *attempt))
        .collect();
    assert_eq!(called, [(0, 4), (2, 4)]);
    assert_eq!(stage.drained().await.dead, 3);
    let mut letters = stage.letters().await;
    letters.sort_by_key(|letter| letter.history.origin);
    let told = |at: usize| {
        let letter = &letters[at];
        let failures = letter.history.failures.iter();
        let numbers: Vec<_> = failures.map(|failure| failure.number).collect();
        (letter.reason, letter.attempts, numbers)
    };
    assert_eq!(told(0), (Reason::Exhausted, 4, vec![2, 3, 4]));
    // No attempt was left, and none of the four crashed.
    assert_eq!(told(1), (Reason::Exhausted, 4, vec![4]));
    // The last attempt had not begun.
    assert_eq!(told(2), (Reason::Exhausted, 4, vec![3, 4]));
    assert!(seen.try_recv().is_err(), "no handler was called for it");
    stage.finish().await;
}

/// A message that another consumer has taken over is neither tried again here nor written back.
pub async fn a_lost_message_is_not_tried_again_here<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    stage.publish(0..1).await;
    let (subscription, mut seen) = stage.failing_first(hold_back_all(LONG, 5), 9).await;
    assert_eq!(stage.next(&mut seen).await.1, 1);
    // Something gives it back in the consumer's name.
    let consumers = stage.store.inspect().consumers(&stage.at).await;
    let consumer = consumers.must("asking").remove(0).consumer;
    let owner = stage.member(consumer.as_str());
    let heir = stage.member("heir");
    let taken = stage.take_over(&owner, &heir).await;
    subscription.unsubscribe(subject.patience()).await;
    assert_eq!(stage.counts().await, [0, 1, 0, 0]);
    let pending = stage.store.deliveries().pending_of(&heir, 9).await;
    assert_eq!(pending.must("asking"), taken);
    assert!(seen.try_recv().is_err(), "it was tried again");
    stage.acknowledge(&heir, &taken).await;
    stage.finish().await;
}
