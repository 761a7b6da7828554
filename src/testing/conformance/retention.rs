//! Retention: removed entries, protected entries, and the backlog.

use std::time::Duration;

use tokio::sync::mpsc;

use super::Subject;
use super::support::{DAY, Must as _, SOON, Stage, group, later, number, numbers, quick, receipts};
use crate::api::{Delivery, SubscribeOptions};
use crate::domain::{
    CountBy, DeadLetterFilter, DeadLetterRetention, ErrorKind, Outcome, Retention, Sweep,
    TopicSettings,
};
use crate::extract::Payload;
use crate::store::{IdRange, Trimmed};

/// How many entries an adapter may keep that it could remove: a Redis server removes whole
/// nodes of a stream.
const SLACK: u64 = 100;

fn settings(retention: Retention) -> TopicSettings {
    TopicSettings::default().with_retention(retention)
}

impl<S: Subject> Stage<'_, S> {
    async fn trim(&self) -> Trimmed {
        self.store
            .topics()
            .trim(self.partition())
            .await
            .must("retaining")
    }

    /// Fetches and acknowledges `count` entries.
    async fn consume(&self, name: &str, count: usize) {
        let mut hand = self.hand_of(&group(name), "quick").await;
        let fetched = receipts(&self.fetch(&mut hand, count).await);
        for some in fetched.chunks(500) {
            self.acknowledge(&hand.member, some).await;
        }
    }
}

/// > Removes from the log what retention no longer asks for; never an entry that a group has not
/// > settled.
pub async fn entries_that_every_group_settled_are_removed<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..1000).await;
    stage.consume("billing", 1000).await;
    let trimmed = stage.trim().await;
    assert!(trimmed.length <= SLACK, "{trimmed:?}");
    assert_eq!(trimmed.removed + trimmed.length, 1000);
    assert_eq!(stage.length().await, trimmed.length);
    // The group misses no later entry.
    stage.append(0..3).await;
    let mut hand = stage.hand("one").await;
    assert_eq!(numbers(&stage.fetch(&mut hand, 3).await), [0, 1, 2]);
}

/// No retention removes an entry that a group has not settled.
pub async fn nothing_unsettled_is_removed<S: Subject>(subject: &S) {
    for retention in [
        Retention::Settled,
        Retention::Count(1),
        Retention::Age(Duration::from_millis(1)),
    ] {
        let name = format!("kept-{}", retention.to_string().replace(':', "-"));
        let mut stage = Stage::bare(subject).await;
        stage.move_to(super::support::topic(&name));
        let made = stage
            .store
            .topics()
            .ensure_topic(&stage.topic, settings(retention));
        made.await.must("creating the topic");
        for name in ["billing", "late", "quick"] {
            stage.create(&group(name)).await;
        }
        stage.append(0..700).await;
        stage.consume("quick", 700).await;
        // One group has the 300th in flight; the other has settled up to the 500th.
        let mut hand = stage.hand("holds").await;
        let fetched = receipts(&stage.fetch(&mut hand, 700).await);
        for some in fetched[..299].chunks(100).chain(fetched[300..].chunks(100)) {
            stage.acknowledge(&hand.member, some).await;
        }
        stage.consume("late", 500).await;
        // Old enough for any age.
        tokio::time::sleep(Duration::from_millis(5)).await;
        for _ in 0..3 {
            stage.trim().await;
        }
        let heir = stage.member("heir");
        let held = stage.reclaim(&heir, Duration::ZERO).await;
        assert_eq!(numbers(&held), [299], "{retention}");
        let mut hand = stage.hand_of(&group("late"), "two").await;
        let rest = stage.fetch(&mut hand, 200).await;
        assert_eq!(
            numbers(&rest),
            (500..700).collect::<Vec<_>>(),
            "{retention}"
        );
    }
}

/// Without a group, entries wait for the first.
pub async fn entries_wait_for_the_first_group<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let made = stage
        .store
        .topics()
        .ensure_topic(&stage.topic, TopicSettings::default());
    made.await.must("creating the topic");
    stage.append(0..500).await;
    let trimmed = stage.trim().await;
    assert_eq!((trimmed.removed, trimmed.length), (0, 500));
    stage.create(&stage.group).await;
    let mut hand = stage.hand("one").await;
    assert_eq!(stage.fetch(&mut hand, 500).await.len(), 500);
}

/// > Also measures the backlog.
/// > What the topic keeps for its groups: the log's entries from the first that a group has not
/// > settled on, all of them while there is no group; and each group's scheduled retries and
/// > unsettled redeliveries.
/// > Whether the topic's settings are stored; FLUSHALL removes them.
pub async fn the_backlog_is_what_the_topic_keeps<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    stage.append(0..10).await;
    let trimmed = stage.trim().await;
    assert!(!trimmed.known, "nobody has created the topic");
    assert_eq!((trimmed.backlog, trimmed.length), (10, 10));
    let made = stage
        .store
        .topics()
        .ensure_topic(&stage.topic, TopicSettings::default());
    made.await.must("creating the topic");
    stage.create(&stage.group).await;
    stage.create(&group("quick")).await;
    stage.consume("quick", 9).await;
    stage.consume("billing", 2).await;
    let mut hand = stage.hand("holds").await;
    let held = stage.fetch(&mut hand, 3).await;
    let trimmed = stage.trim().await;
    assert!(trimmed.known);
    assert_eq!(trimmed.backlog, 8);
    let held = receipts(&held);
    stage.acknowledge(&hand.member, &held[1..]).await;
    assert_eq!(stage.trim().await.backlog, 8, "the first one is held");
    let retried = later(held[0], DAY, "p");
    assert_eq!(stage.settle(&hand.member, &[retried]).await, [true]);
    assert_eq!(stage.trim().await.backlog, 5 + 1);
    let fetched = receipts(&stage.fetch(&mut hand, 2).await);
    let redelivered = fetched.iter().map(|one| later(*one, Duration::ZERO, "p"));
    let redelivered: Vec<_> = redelivered.collect();
    assert_eq!(stage.settle(&hand.member, &redelivered).await, [true; 2]);
    assert_eq!(stage.trim().await.backlog, 3 + 1 + 2);
    assert_eq!(stage.fetch(&mut hand, 5).await.len(), 5);
    assert_eq!(stage.trim().await.backlog, 3 + 1 + 2, "all are held");
}

/// > Trims the log, unless another call of this method did so less than `pause` ago: the
/// > consumers of a topic share the work. Returns how many entries it removed.
pub async fn the_consumers_of_a_topic_share_the_trimming<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let in_turn = async |pause| {
        let topics = stage.store.topics();
        let removed = topics.trim_in_turn(stage.partition(), pause).await;
        removed.must("trimming in turn")
    };
    for (pause, removes) in [(DAY, true), (DAY, false), (Duration::ZERO, true)] {
        stage.append(0..400).await;
        stage.consume("billing", 400).await;
        assert_eq!(in_turn(pause).await > 0, removes, "{pause:?}");
    }
}

/// The backlog limit counts the messages behind a handler that never returns, and snoozed ones.
pub async fn pending_and_snoozed_messages_fill_the_backlog<S: Subject>(subject: &S) {
    for outcome in [None, Some(Outcome::snooze(DAY))] {
        let stage = Stage::with(subject, TopicSettings::default().with_backlog_limit(50)).await;
        let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
            let outcome = outcome.clone();
            async move {
                match outcome {
                    None if n == 0 => {
                        delivery.cancelled().await;
                        Outcome::retry("cancelled")
                    }
                    None => Outcome::Ack,
                    Some(outcome) => outcome,
                }
            }
        };
        let bus = stage.container.bus();
        let made = bus.subscribe_with(&stage.topic, quick(4), handler).await;
        let subscription = made.must("subscribing");
        let refused = stage.until("the backlog to be full", async || {
            for n in 0..20 {
                if let Err(error) = bus.publish(&stage.topic, &number(n)).await {
                    return Some(error.kind());
                }
            }
            None
        });
        assert_eq!(refused.await, ErrorKind::BacklogFull);
        subscription.unsubscribe(Duration::ZERO).await;
    }
}

/// Retention by length keeps the newest, settled or not.
pub async fn retention_by_length_keeps_the_newest<S: Subject>(subject: &S) {
    let stage = Stage::with(subject, settings(Retention::Count(300))).await;
    stage.append(0..1000).await;
    stage.consume("billing", 1000).await;
    let trimmed = stage.trim().await;
    let kept = 300..=300 + SLACK;
    assert!(kept.contains(&trimmed.length), "{trimmed:?}");
    let held = stage
        .store
        .log()
        .browse(stage.partition(), None, 1000)
        .await;
    let held = held.must("browsing").len() as u64;
    assert_eq!(held, trimmed.length);
}

/// Retention by age keeps young entries and removes old settled ones.
pub async fn retention_by_age_keeps_young_entries<S: Subject>(subject: &S) {
    let stage = Stage::with(subject, settings(Retention::Age(DAY))).await;
    stage.append(0..500).await;
    stage.consume("billing", 500).await;
    assert_eq!(stage.trim().await.removed, 0);

    let mut stage = Stage::bare(subject).await;
    stage.move_to(super::support::topic("short"));
    let short = settings(Retention::Age(Duration::from_millis(1)));
    let made = stage.store.topics().ensure_topic(&stage.topic, short).await;
    made.must("creating the topic");
    stage.create(&stage.group).await;
    stage.append(0..500).await;
    stage.consume("billing", 500).await;
    stage
        .until("the old to be removed", async || {
            (stage.trim().await.length <= SLACK).then_some(())
        })
        .await;
}

/// > Removes settled entries from a group's redelivery stream.
pub async fn the_redelivery_stream_keeps_unsettled_entries<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..300).await;
    let mut hand = stage.hand("one").await;
    let fetched = receipts(&stage.fetch(&mut hand, 300).await);
    let settlements: Vec<_> = fetched.iter().map(|one| later(*one, SOON, "p")).collect();
    stage.settle(&hand.member, &settlements).await;
    stage.promote(300).await;
    let fetched = receipts(&stage.fetch(&mut hand, 250).await);
    let (held, settled) = (fetched[120], [&fetched[..120], &fetched[121..]].concat());
    stage.acknowledge(&hand.member, &settled).await;
    for _ in 0..2 {
        let done = stage.store.topics().trim_redelivery(&stage.at).await;
        done.must("retaining");
    }
    assert_eq!(stage.counts().await, [0, 1, 50, 0]);
    let heir = stage.member("heir");
    let taken = stage.reclaim(&heir, Duration::ZERO).await;
    assert_eq!(receipts(&taken), [held]);
    assert_eq!(stage.fetch(&mut hand, 50).await.len(), 50);
}

/// A full backlog is a clear error that ends when the groups catch up.
pub async fn a_full_backlog_refuses_until_groups_catch_up<S: Subject>(subject: &S) {
    let limited = TopicSettings::default().with_backlog_limit(80);
    let stage = Stage::with(subject, limited).await;
    let all: Vec<_> = (0..100).map(number).collect();
    let bus = stage.container.bus();
    let results = bus.publish_all(&stage.topic, &all).await;
    let published = results.iter().take_while(|result| result.is_ok()).count();
    assert!((80..=90).contains(&published), "{published} published");
    for result in &results[published..] {
        let error = result.as_ref().err().must("a refusal");
        assert_eq!(error.kind(), ErrorKind::BacklogFull);
        assert!(error.is_retryable());
    }
    assert_eq!(stage.length().await, published as u64);
    stage.consume("billing", published).await;
    stage
        .until("publishing to work again", async || {
            bus.publish(&stage.topic, &all[0]).await.ok()
        })
        .await;
}

fn keeping(retention: DeadLetterRetention) -> SubscribeOptions {
    quick(1).with_dead_letter_retention(retention)
}

/// Retention removes dead letters over the limits, the oldest first, and updates the counts; the
/// others stay.
pub async fn overdue_dead_letters_are_removed<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let ids = stage.seed_dead_letters(1200).await;
    let (sender, _received) = mpsc::unbounded_channel();
    let forever = DeadLetterRetention::forever;
    let some = forever().with_max_age(DAY).with_max_count(30);
    let all = forever().with_max_age(Duration::from_millis(1));
    for (retention, left) in [(some, 30), (all, 0)] {
        let subscription = stage.subscribe(keeping(retention), sender.clone()).await;
        stage
            .until("the overdue to be removed", async || {
                (stage.status().await.dead <= left).then_some(())
            })
            .await;
        subscription.unsubscribe(subject.patience()).await;
        let kept = &ids[ids.len() - usize::try_from(left).must("a few")..];
        assert_eq!(stage.listed(IdRange::default()).await, kept);
        let found = stage.store.dead_letters().find(&stage.at, &ids);
        assert_eq!(found.await.must("finding").len() as u64, left);
        let causes: u64 = stage.causes().await.iter().map(|cause| cause.count).sum();
        assert_eq!(causes, left);
        for by in [CountBy::Type, CountBy::Tenant, CountBy::Hour] {
            let sum: u64 = stage
                .counts_by(by)
                .await
                .iter()
                .map(|(_, count)| count)
                .sum();
            assert_eq!(sum, left, "by {by:?}");
        }
    }
    stage.finish().await;
}

/// A dead letter that is redriven and overdue at the same moment is either moved or removed, never
/// both and never neither.
pub async fn a_redriven_dead_letter_is_not_removed_as_overdue<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let failing = stage.failing(quick(1)).await;
    stage.dead(900).await;
    failing.subscription.unsubscribe(subject.patience()).await;

    let all = DeadLetterRetention::forever().with_max_age(Duration::from_millis(1));
    let redrive = Sweep::redrive(DeadLetterFilter::default());
    let (sender, mut received) = mpsc::unbounded_channel();
    let (_subscription, report) = tokio::join!(
        stage.subscribe(keeping(all), sender),
        stage.sweep(redrive.with_rate(3000, Duration::ZERO))
    );
    let redriven = usize::try_from(report.progress.taken).must("a few");
    let mut came = stage.some(&mut received, redriven).await;
    assert_eq!(stage.drained().await.dead, 0);
    assert!(received.try_recv().is_err(), "none came that was removed");
    came.sort_unstable();
    came.dedup();
    assert_eq!(came.len(), redriven, "none came twice");
    stage.finish().await;
}
