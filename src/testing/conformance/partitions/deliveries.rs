//! Deliveries, dead letters, limits and removals cover all partitions of a topic.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::api::SubscribeOptions;
use crate::api::{Delivery, Payload};
use crate::domain::{DeadLetterFilter, ErrorKind, Outcome, Retention, Sweep};
use crate::store::{Fields, NewEntry, Partition, Unmarked};
use crate::testing::conformance::Subject;
use crate::testing::conformance::support::{Must as _, Stage, fields, quick, receipts};

use super::support::{FOUR, entry_of, four, keyed};

/// Deliveries of all partitions are settled, extended, listed and taken over, and the log is trimmed.
pub async fn deliveries_return_to_their_partition<S: Subject>(subject: &S) {
    let stage = Stage::with(subject, four()).await;
    for _ in 0..5 {
        stage.append_to_each().await;
    }
    let mut one = stage.hand("one").await;
    let fetched = stage.fetch(&mut one, 20).await;
    assert!(fetched.iter().all(|got| got.source == 0));
    let held = receipts(&fetched);
    let deliveries = stage.store.deliveries();
    let pending = deliveries.pending_of(&one.member, 100).await;
    let pending: BTreeSet<_> = pending.must("listing").into_iter().collect();
    assert_eq!(pending, held.iter().copied().collect());
    let extended = deliveries.extend(&one.member, &held).await;
    assert_eq!(extended.must("extending").len(), 20);
    assert_eq!(stage.counts().await, [0, 20, 0, 0]);

    let other = stage.hand("two").await;
    let taken = stage
        .claim(&other.member, Duration::ZERO, Unmarked::Begun)
        .await;
    let taken: BTreeSet<_> = receipts(&taken).into_iter().collect();
    assert_eq!(taken, pending);
    let left = deliveries.pending_of(&one.member, 100).await;
    assert!(left.must("listing").is_empty());
    stage.acknowledge(&other.member, &held).await;
    assert_eq!(stage.counts().await, [0, 0, 0, 0]);

    let topics = stage.store.topics();
    let mut removed = 0;
    stage
        .until("settled entries to be removed", async || {
            let trimmed = topics.trim(stage.partition()).await.must("trimming");
            removed += trimmed.removed;
            // A server removes whole nodes of a stream.
            (trimmed.backlog == 0 && trimmed.known).then_some(())
        })
        .await;
    let consumers = stage.store.inspect().consumers(&stage.at).await;
    assert_eq!(consumers.must("listing").len(), 2);
}

/// Trimming a topic trims every partition.
pub async fn trimming_reaches_every_partition<S: Subject>(subject: &S) {
    const EACH: u32 = 250;

    let stage = Stage::bare(subject).await;
    let (topics, settings) = (
        stage.store.topics(),
        four().with_retention(Retention::Count(40)),
    );
    let made = topics.ensure_topic(&stage.topic, settings).await;
    made.must("creating the topic");
    for at in 0..FOUR {
        let entries: Vec<NewEntry> = (0..EACH).map(|n| entry_of(at, n)).collect();
        stage.append_entries(&entries).await;
    }
    let trimmed = topics.trim(stage.partition()).await.must("trimming");
    assert!(trimmed.removed > 0);
    let mut left = Vec::new();
    for number in 0..FOUR {
        let at = Partition::numbered(&stage.topic, number);
        let status = stage.store.inspect().status(&at).await.must("asking");
        left.push(status.must("the partition").entries);
    }
    // A server removes whole nodes of a stream.
    let shrank = |entries: &u64| (10..u64::from(EACH)).contains(entries);
    assert!(left.iter().all(shrank), "{left:?}");
    // Each partition keeps its newest entries.
    for (number, left) in (0..FOUR).zip(left) {
        let at = Partition::numbered(&stage.topic, number);
        let kept = stage.store.log().browse(&at, None, 1_000).await;
        let kept: Vec<Fields> = kept.must("browsing").into_iter().map(|one| one.1).collect();
        let newest = (EACH - left as u32..EACH).map(|n| fields(entry_of(number, n)));
        assert_eq!(kept, newest.collect::<Vec<_>>(), "{number}");
    }
}

/// Retries and dead letters stay in the partition of their message; lists, counts, sweeps and the journal
/// cover all partitions.
pub async fn dead_letters_stay_in_their_partition<S: Subject>(subject: &S) {
    let stage = Stage::with(subject, four()).await;
    let ids = stage.publish_keyed(0..40).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let works = Arc::new(AtomicBool::new(false));
    let does_work = Arc::clone(&works);
    let handler = move |Payload(n): Payload<u32>, _: Delivery| {
        let works = does_work.load(Ordering::SeqCst);
        if works {
            let _ = sender.send(n);
        }
        std::future::ready(if works {
            Outcome::Ack
        } else {
            Outcome::retry("not yet")
        })
    };
    let bus = stage.container.bus();
    let options = quick(2).with_hold_back(Duration::ZERO);
    let made = bus.subscribe_with(&stage.topic, options, handler).await;
    let _subscription = made.must("subscribing");
    let status = stage
        .until("all to be dead", async || {
            let status = stage.status().await;
            (status.dead == 40).then_some(status)
        })
        .await;
    assert_eq!((status.lag, status.scheduled), (0, 0));
    let (dead, all) = (stage.container.dead_letters(), DeadLetterFilter::default());
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = dead.list(&stage.topic, &stage.group, &all, after, 7).await;
        let page = page.must("listing");
        listed.extend(page.items.iter().map(|(id, _)| *id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert!(listed.is_sorted(), "{listed:?}");
    assert_eq!(listed.len(), 40);
    let letters = stage.letters().await;
    let mut origins = BTreeSet::new();
    for letter in &letters {
        assert_eq!(letter.id.partition(), letter.history.origin.partition());
        origins.insert(letter.history.origin);
    }
    assert_eq!(origins, ids.iter().copied().collect());
    let causes = stage.store.dead_letters().causes(&stage.at).await;
    let counts: Vec<u64> = causes
        .must("asking")
        .items
        .iter()
        .map(|one| one.count)
        .collect();
    assert_eq!(counts, [40]);

    works.store(true, Ordering::SeqCst);
    let report = stage.sweep(Sweep::redrive(all)).await;
    assert_eq!(report.progress.taken, 40);
    let mut seen = stage.some(&mut received, 40).await;
    seen.sort_unstable();
    assert_eq!(seen, (0..40).collect::<Vec<_>>());
    stage.drained().await;
    let journal = dead
        .journal(&stage.topic, &stage.group)
        .await
        .must("reading");
    assert_eq!(journal.len(), 1);
    assert_eq!(stage.status().await.dead, 0);
    stage.finish().await;
}

/// The limits of a topic hold for all of its partitions together.
pub async fn limits_hold_for_all_partitions_together<S: Subject>(subject: &S) {
    let settings = four()
        .with_backlog_limit(20)
        .with_retention(Retention::Count(8));
    let stage = Stage::with(subject, settings).await;
    let bus = stage.container.bus();
    let mut published = 0;
    for n in 0..21 {
        match bus.publish(&stage.topic, &keyed(n)).await {
            Ok(_) => published += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::BacklogFull, "{error}"),
        }
    }
    assert_eq!(published, 20);
    let (sender, mut received) = mpsc::unbounded_channel();
    let _subscription = stage.subscribe(SubscribeOptions::new(), sender).await;
    stage.some(&mut received, 20).await;
    stage.drained().await;
    stage
        .until("the topic to take messages again", async || {
            bus.publish(&stage.topic, &keyed(21)).await.ok()
        })
        .await;
    stage.finish().await;
}

/// A group is kept while one of its partitions needs it, and removed from all of them.
pub async fn a_group_is_removed_from_all_partitions<S: Subject>(subject: &S) {
    let stage = Stage::with(subject, four()).await;
    stage.append_entries(&[entry_of(2, 1)]).await;
    let topics = stage.store.topics();
    let remove = async |force| {
        let removal = topics.remove_group(&stage.at, Duration::ZERO, force).await;
        removal.must("removing").must("the group").removed
    };
    assert!(!remove(false).await);
    for number in 0..FOUR {
        let status = stage
            .store
            .inspect()
            .status(&Partition::numbered(&stage.topic, number))
            .await;
        assert_eq!(status.must("asking").must("it").groups.len(), 1, "{number}");
    }
    let kept = topics.remove_topic(&stage.topic).await.must("removing");
    assert!(!kept.must("the topic").removed);
    assert!(remove(true).await);
    let status = stage.store.inspect().status(stage.partition()).await;
    assert_eq!(status.must("asking").must("it").groups, []);
    let removed = topics.remove_topic(&stage.topic).await.must("removing");
    assert!(removed.must("the topic").removed);
    assert!(topics.list().await.must("listing").is_empty());
}
