//! Dead letters: kept, counted, brought back to their group, removed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Subject;
use super::support::{Must as _, Stage, bury, group, quick, receipts, record};
use crate::backend::Lane;
use crate::consumer::Delivery;
use crate::domain::{EntryId, Reason};
use crate::ports::MessageBusExt as _;

const NOWHERE: EntryId = EntryId {
    millis: 1,
    sequence: 1,
};

impl<S: Subject> Stage<'_, S> {
    /// Buries so many, and returns their ids.
    async fn buried(&self, count: u32) -> Vec<EntryId> {
        self.append(0..count).await;
        let mut hand = self.hand("one").await;
        let fetched = receipts(&self.fetch(&mut hand, count as usize).await);
        let letters: Vec<_> = fetched.iter().map(|one| bury(*one, "body")).collect();
        let done = self.settle(&hand.member, &letters).await;
        assert!(done.iter().all(|done| *done));
        let dead = self
            .backend
            .dead(&self.topic, &self.group, None, 1000)
            .await;
        dead.must("listing").iter().map(|(id, _)| *id).collect()
    }
}

/// > Goes to the group's dead letters.
/// > What the dead letters will hold.
pub async fn a_record_is_kept_as_it_was_given<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let ids = stage.buried(3).await;
    assert_eq!(ids.len(), 3);
    assert_eq!(stage.counts().await, [0, 0, 0, 3]);
    let dead = stage.backend.dead(&stage.topic, &stage.group, None, 10);
    for (_, kept) in dead.await.must("listing") {
        assert_eq!(kept, record("body"));
    }
    let other = group("other");
    stage.create(&other).await;
    let none = stage.backend.dead(&stage.topic, &other, None, 10).await;
    assert!(none.must("listing").is_empty());
}

/// > Dead letters after an id, oldest first.
pub async fn records_are_listed_in_pages<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let ids = stage.buried(25).await;
    assert!(ids.is_sorted_by(|one, two| one < two));
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = stage.backend.dead(&stage.topic, &stage.group, after, 10);
        let page = page.await.must("listing");
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        seen.extend(page.iter().map(|(id, _)| *id));
    }
    assert_eq!(seen, ids);
}

/// > The dead letters with these ids; those that do not exist are left out.
pub async fn records_are_found_by_id<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let ids = stage.buried(3).await;
    let wanted = [ids[2], NOWHERE, ids[0]];
    let found = stage
        .backend
        .dead_by_id(&stage.topic, &stage.group, &wanted);
    let found: Vec<_> = found
        .await
        .must("finding")
        .iter()
        .map(|(id, _)| *id)
        .collect();
    assert_eq!(found, [ids[2], ids[0]]);
}

/// > How many dead letters there are by `reason:…`, `fingerprint:…`, `type:…` and `tenant:…`.
pub async fn records_are_counted_by_cause<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let counts = async || {
        let counts = stage.backend.dead_counts(&stage.topic, &stage.group).await;
        counts.must("counting")
    };
    assert!(counts().await.is_empty());
    let ids = stage.buried(3).await;
    let names = [
        "fingerprint:no user #",
        "reason:rejected",
        "tenant:t-1",
        "type:n",
    ];
    let of = |count| names.map(|name| (name.to_owned(), count)).to_vec();
    assert_eq!(counts().await, of(3));
    let purged = stage.backend.purge(&stage.topic, &stage.group, &ids[..1]);
    purged.await.must("purging");
    let parcel = [(ids[1], Bytes::from_static(b"p"))];
    let moved = stage.backend.redrive(&stage.topic, &stage.group, &parcel);
    moved.await.must("redriving");
    assert_eq!(counts().await, of(1));
    let purged = stage.backend.purge(&stage.topic, &stage.group, &ids);
    purged.await.must("purging");
    assert!(counts().await.is_empty(), "no count outlives its records");
}

/// > Removes dead letters.
/// > For each, whether it was there.
pub async fn purging_removes_for_good<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let ids = stage.buried(3).await;
    let purge = async |ids: &[EntryId]| {
        let done = stage.backend.purge(&stage.topic, &stage.group, ids).await;
        done.must("purging")
    };
    let some = [ids[0], NOWHERE, ids[2], ids[0]];
    assert_eq!(purge(&some).await, [true, false, true, false]);
    assert_eq!(purge(&ids).await, [false, true, false]);
    assert_eq!(stage.counts().await, [0, 0, 0, 0]);
    let mut hand = stage.hand("two").await;
    stage.nothing(&mut hand).await;
}

/// > Moves dead letters to the redo lane as the given parcels, each atomically.
/// > For each, whether it was there to be moved.
pub async fn redriving_moves_each_once<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let ids = stage.buried(40).await;
    let parcels: Vec<_> = ids
        .iter()
        .chain([&NOWHERE])
        .map(|id| (*id, Bytes::from_static(b"p")))
        .collect();
    let redrive = || stage.backend.redrive(&stage.topic, &stage.group, &parcels);
    let (one, two) = tokio::join!(redrive(), redrive());
    let (one, two) = (one.must("redriving"), two.must("redriving"));
    for (at, (one, two)) in one.into_iter().zip(two).enumerate() {
        assert_eq!(one ^ two, at < 40, "moved by exactly one");
        assert!(!(one && two));
    }
    assert_eq!(stage.counts().await, [0, 0, 40, 0]);
    let mut hand = stage.hand("two").await;
    let fetched = stage.fetch(&mut hand, 40).await;
    for one in fetched {
        assert_eq!((one.receipt.lane, one.deliveries), (Lane::Redo, 1));
        assert_eq!(one.fields[0].1, Bytes::from_static(b"p"));
    }
}

/// Redriven messages go to the group that failed them, and attempts begin anew.
pub async fn a_redriven_message_begins_anew_in_its_group<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let broken = Arc::new(AtomicBool::new(true));
    let (sender, mut received) = mpsc::unbounded_channel();
    for name in ["failing", "fine"] {
        let (sender, broken) = (sender.clone(), Arc::clone(&broken));
        let handler = move |n: u32, delivery: Delivery| {
            let fails = name == "failing" && broken.load(Ordering::SeqCst);
            if !fails {
                let _ = sender.send((name, n, delivery.attempt()));
            }
            async move { if fails { Err("on fire") } else { Ok(()) } }
        };
        let bus = stage.container.bus();
        let options = quick(2).with_group(group(name));
        let made = bus.subscribe_with(&stage.topic, options, handler).await;
        let _subscription = made.must("subscribing");
    }
    stage.publish(0..5).await;
    let seen = stage.some(&mut received, 5).await;
    assert!(seen.iter().all(|(name, ..)| *name == "fine"));
    let failing = group("failing");
    assert_eq!(stage.drained_of(&failing).await.dead, 5);
    broken.store(false, Ordering::SeqCst);
    let dead = stage.container.dead_letters();
    let letters = dead.list(&stage.topic, &failing, None, 10).await;
    let ids: Vec<_> = letters.must("listing").iter().map(|one| one.id).collect();
    let moved = dead.redrive(&stage.topic, &failing, &ids).await;
    assert_eq!(moved.must("redriving").done, ids);
    let mut seen = stage.some(&mut received, 5).await;
    seen.sort_unstable();
    let expected = (0..5).map(|n| ("failing", n, 1));
    assert_eq!(seen, expected.collect::<Vec<_>>());
    assert_eq!(stage.drained_of(&failing).await.dead, 0);
    let again = dead.redrive(&stage.topic, &failing, &ids).await;
    assert_eq!(again.must("redriving").missing, ids);
    stage.finish().await;
    assert!(received.try_recv().is_err(), "the other group got nothing");
}

/// A dead letter tells its story.
pub async fn a_dead_letter_tells_its_story<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let handler = |_: u32, delivery: Delivery| async move {
        Err::<(), _>(format!("no user {}", delivery.attempt()))
    };
    let bus = stage.container.bus();
    let made = bus.subscribe_with(&stage.topic, quick(3), handler).await;
    let _subscription = made.must("subscribing");
    let envelope = super::support::number(7).with_tenant("t-1");
    let published = bus.publish(&stage.topic, &envelope).await;
    let published = published.must("publishing");
    stage
        .until("the dead letter", async || {
            let status = stage.backend.status(&stage.topic).await.must("asking");
            let groups = status.must("the topic").groups;
            groups.iter().any(|group| group.dead == 1).then_some(())
        })
        .await;
    let dead = stage.container.dead_letters();
    let letters = dead.list(&stage.topic, &stage.group, None, 10).await;
    let letter = letters.must("listing").pop().must("the letter");
    assert_eq!((letter.reason, letter.attempts), (Reason::Exhausted, 3));
    assert_eq!(letter.error, "no user 3");
    assert_eq!(letter.fingerprint, "no user #");
    assert_eq!(
        (letter.kind.as_str(), letter.tenant.as_deref()),
        ("n", Some("t-1"))
    );
    assert_eq!(letter.trail.origin, published.id);
    let history: Vec<_> = letter.trail.history.iter().map(|one| one.number).collect();
    assert_eq!(history, [1, 2, 3]);
    let kept = letter.envelope().must("decoding");
    assert_eq!(kept.id(), envelope.id());
    let found = dead.get(&stage.topic, &stage.group, letter.id).await;
    assert_eq!(found.must("getting"), Some(letter));
    stage.finish().await;
}
