//! Publishing once: repeats within a window, and what ends it.

use std::ops::Range;
use std::time::Duration;

use super::Subject;
use super::support::{self, DAY, Must as _, Stage, entry, number, receipts, topic};
use crate::api::PublishOptions;
use crate::domain::{Envelope, ErrorKind};
use crate::store::{Appended, NewEntry};

/// The shortest window that there is.
const BLINK: Duration = Duration::from_millis(1);

impl<S: Subject> Stage<'_, S> {
    async fn append_once(&self, window: Duration, entries: Vec<NewEntry>) -> Vec<Appended> {
        let results = self
            .store
            .log()
            .append_once(self.partition(), window, &entries)
            .await;
        let results = results.must("appending").into_iter();
        results.map(|result| result.must("appending")).collect()
    }

    async fn once(&self, window: Duration, numbers: Range<u32>) -> Vec<Appended> {
        self.append_once(window, numbers.map(entry).collect()).await
    }
}

/// > Appends messages in their order, except those whose id this method has appended within
/// > `window`: for these it returns the existing entry.
/// > After one, the call appends nothing more, so that a caller can repeat the rest in its order.
pub async fn a_duplicate_adds_nothing<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let first = stage.once(DAY, 0..700).await;
    assert!(first.is_sorted_by(|one, two| one.id < two.id), "ids grow");
    assert!(first.iter().all(|one| !one.duplicate));
    let again = stage.once(DAY, 0..700).await;
    assert!(again.iter().all(|one| one.duplicate));
    let ids = |all: &[Appended]| all.iter().map(|one| one.id).collect::<Vec<_>>();
    assert_eq!(ids(&first), ids(&again));
    assert_eq!(stage.length().await, 700);
    // Old and new ones in one call, and one of the new ones twice.
    let mixed = [699, 700, 3, 701, 700].map(entry).to_vec();
    let mixed = stage.append_once(DAY, mixed).await;
    let new: Vec<bool> = mixed.iter().map(|one| !one.duplicate).collect();
    assert_eq!(new, [false, true, false, true, false]);
    assert_eq!((mixed[0].id, mixed[2].id), (first[699].id, first[3].id));
    assert_eq!(mixed[4].id, mixed[1].id);
    assert_eq!(stage.length().await, 702);
    // Each as it was given, once, and in its order.
    let held = stage
        .store
        .log()
        .browse(stage.partition(), None, 1000)
        .await;
    for (n, (_, fields)) in (0..).zip(held.must("browsing")) {
        assert_eq!(fields, support::fields(entry(n)));
    }
    assert!(stage.append_once(DAY, Vec::new()).await.is_empty());
}

/// > Each message is one atomic step, so of concurrent calls with one id exactly one appends.
pub async fn of_concurrent_duplicates_one_is_added<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let tasks = (0..8_usize).map(|task| {
        let (store, at) = (stage.container.store(), stage.partition().clone());
        tokio::spawn(async move {
            let mut fresh = 0;
            for turn in 0..60 {
                // Each in an order of its own, a few at a time.
                let n = u32::try_from((turn * 7 + task * 11) % 60).must("a number");
                let some = [entry(n), entry((n + 1) % 60)];
                let results = store.log().append_once(&at, DAY, &some).await;
                for result in results.must("appending") {
                    fresh += u32::from(!result.must("appending").duplicate);
                }
            }
            fresh
        })
    });
    let mut fresh = 0;
    for task in tasks.collect::<Vec<_>>() {
        fresh += task.await.must("a task");
    }
    assert_eq!((fresh, stage.length().await), (60, 60));
}

/// > The window goes by the store's clock, and outlives the entry.
pub async fn a_window_outlives_its_entry<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let first = stage.once(DAY, 0..500).await;
    let mut hand = stage.hand("one").await;
    let fetched = receipts(&stage.fetch(&mut hand, 500).await);
    stage.acknowledge(&hand.member, &fetched).await;
    let trimmed = stage
        .store
        .topics()
        .trim(stage.partition())
        .await
        .must("retaining");
    assert!(trimmed.removed > 0, "{trimmed:?}");
    let again = stage.once(DAY, 0..500).await;
    assert!(again.iter().all(|one| one.duplicate));
    assert_eq!(again[0].id, first[0].id);
    assert_eq!(stage.length().await, trimmed.length);
}

/// A message is new again after its window, and that window counts from then on.
pub async fn after_its_window_a_message_is_not_a_duplicate<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let mut last = stage.once(BLINK, 0..1).await[0].id;
    for _ in 0..3 {
        let again = stage.until("the window to end", async || {
            let again = stage.once(BLINK, 0..1).await[0];
            (!again.duplicate).then_some(again.id)
        });
        let again = again.await;
        assert!(again > last);
        last = again;
        let longer = stage.once(DAY, 0..1).await[0];
        assert!(!longer.duplicate || longer.id == last);
        last = longer.id;
    }
}

/// Messages of a short window do not shorten a long one.
pub async fn deduplication_windows_of_different_lengths_coexist<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let first = stage.once(DAY, 0..3).await;
    let mut rounds = 0;
    for n in 100..110 {
        stage.once(BLINK, n..n + 1).await;
        stage
            .until("the window to end", async || {
                rounds += 1;
                let again = stage.once(BLINK, n..n + 1).await[0];
                (!again.duplicate).then_some(())
            })
            .await;
    }
    let again = stage.once(DAY, 0..3).await;
    for (one, two) in first.iter().zip(again) {
        assert!(two.duplicate, "not a duplicate after {rounds} others");
        assert_eq!(one.id, two.id);
    }
}

/// A message is recognised in its own topic, and only where it was published once.
pub async fn topics_know_their_own_messages<S: Subject>(subject: &S) {
    let mut stage = Stage::new(subject).await;
    stage.append(0..1).await;
    assert!(!stage.once(DAY, 0..1).await[0].duplicate);
    stage.move_to(topic("others"));
    assert!(!stage.once(DAY, 0..1).await[0].duplicate);
}

/// What the bus makes of it: `duplicate`, and the first entry's id.
pub async fn the_bus_reports_a_duplicate<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let bus = stage.container.bus();
    let once = PublishOptions::new().with_deduplication(DAY);
    let message = number(7);
    let first = bus.publish_with(&stage.topic, &message, once).await;
    let first = first.must("publishing");
    assert!(!first.duplicate);
    let again = bus.publish_with(&stage.topic, &message, once).await;
    let again = again.must("publishing");
    assert!(again.duplicate);
    assert_eq!(again.id, first.id);
    let batch: Vec<Envelope> = vec![message.clone(), number(8), number(9)];
    let results = bus.publish_all_with(&stage.topic, &batch, once).await;
    let told = results
        .into_iter()
        .map(|one| one.must("publishing").duplicate);
    assert_eq!(told.collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(stage.length().await, 3);
    // Without it nothing is recognised.
    for options in [PublishOptions::new(), once.without_deduplication()] {
        let plain = bus.publish_with(&stage.topic, &message, options).await;
        assert!(!plain.must("publishing").duplicate);
    }
    assert_eq!(stage.length().await, 5);
    for window in [Duration::ZERO, 31 * DAY] {
        let bad = PublishOptions::new().with_deduplication(window);
        let error = bus.publish_with(&stage.topic, &message, bad).await.err();
        assert_eq!(error.must("an error").kind(), ErrorKind::Invalid);
    }
    assert_eq!(stage.length().await, 5);
}
