//! Settling: exactly once, by whoever holds the lease.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};

use super::Subject;
use super::support::{DAY, Must as _, SOON, Stage, dead_lettered, later, numbers, receipts};
use crate::api::{Delivery, SubscribeOptions};
use crate::domain::EntryId;
use crate::extract::Payload;
use crate::store::{Commit, DeliveryId, Fate, Holder, Lane};

/// > Its message is handled.
/// > Acknowledging twice succeeds.
pub async fn an_acknowledged_message_is_not_redelivered<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..5).await;
    let mut hand = stage.hand("one").await;
    let fetched = receipts(&stage.fetch(&mut hand, 5).await);
    for _ in 0..2 {
        stage.acknowledge(&hand.member, &fetched).await;
        assert_eq!(stage.counts().await, [0, 0, 0, 0]);
    }
    stage.acknowledge(&hand.member, &[]).await;
    stage.nothing(&mut hand).await;
    let again = stage.reclaim(&hand.member, Duration::ZERO).await;
    assert!(again.is_empty());
}

/// > Acknowledgements are not fenced: work that was done is done, whoever holds the lease now.
pub async fn a_late_acknowledgement_counts<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..1).await;
    let mut hand = stage.hand("slow").await;
    let fetched = stage.fetch(&mut hand, 1).await;
    let other = stage.member("other");
    assert_eq!(stage.reclaim(&other, Duration::ZERO).await.len(), 1);
    stage.acknowledge(&hand.member, &receipts(&fetched)).await;
    assert_eq!(stage.counts().await, [0, 0, 0, 0]);
}

/// > Where the member does not hold the delivery, nothing is written.
/// > Another member holds the delivery, or the group is gone; the store wrote nothing.
pub async fn a_stale_settlement_is_rejected<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..2).await;
    let mut hand = stage.hand("slow").await;
    let fetched = stage.fetch(&mut hand, 2).await;
    let other = stage.member("other");
    assert_eq!(stage.reclaim(&other, Duration::ZERO).await.len(), 2);
    let stale = [
        later(fetched[0].receipt, Duration::ZERO, "late"),
        dead_lettered(fetched[1].receipt, "late"),
    ];
    assert_eq!(stage.settle(&hand.member, &stale).await, [false, false]);
    assert_eq!(stage.counts().await, [0, 2, 0, 0], "nothing was written");
    assert_eq!(stage.settle(&other, &stale).await, [true, true]);
    assert_eq!(stage.counts().await, [0, 0, 1, 1]);
}

/// > Ends deliveries.
/// > The fenced commits end deliveries that the member still holds; each one atomically, written
/// > before it is acknowledged.
/// > Repeating the same call is safe in either case.
pub async fn a_second_settlement_writes_nothing<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..3).await;
    let mut hand = stage.hand("one").await;
    let fetched = stage.fetch(&mut hand, 3).await;
    stage.acknowledge(&hand.member, &[fetched[2].receipt]).await;
    let settlements = [
        later(fetched[0].receipt, DAY, "a"),
        dead_lettered(fetched[1].receipt, "b"),
        dead_lettered(fetched[2].receipt, "c"),
        later(fetched[0].receipt, DAY, "again"),
    ];
    let done = stage.settle(&hand.member, &settlements).await;
    assert_eq!(done, [true, true, false, false]);
    let done = stage.settle(&hand.member, &settlements).await;
    assert_eq!(done, [false; 4]);
    assert_eq!(stage.counts().await, [0, 0, 1, 1]);
    assert!(stage.settle(&hand.member, &[]).await.is_empty());
}

/// What was never fetched, or in another lane, is nobody's.
pub async fn an_entry_that_was_not_fetched_cannot_be_settled<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let ids = stage.append(0..2).await;
    let mut hand = stage.hand("one").await;
    let fetched = stage.fetch(&mut hand, 1).await;
    let receipt = |lane, id| DeliveryId { lane, id };
    let far = EntryId::new(u64::MAX / 4, 7);
    let strange = [
        receipt(Lane::Redelivery, fetched[0].receipt.id),
        receipt(Lane::Log, ids[1]),
        receipt(Lane::Log, far),
    ];
    stage.acknowledge(&hand.member, &strange).await;
    let settlements = strange.map(|receipt| dead_lettered(receipt, "x"));
    assert_eq!(stage.settle(&hand.member, &settlements).await, [false; 3]);
    let held = stage
        .store
        .deliveries()
        .extend(&hand.member, &strange)
        .await;
    assert_eq!(held.must("extending"), [Holder::Nobody; 3]);
    assert_eq!(stage.release(&hand.member, &strange).await, 0);
    assert_eq!(stage.counts().await, [1, 1, 0, 0]);
    assert_eq!(numbers(&stage.fetch(&mut hand, 1).await), [1]);
}

/// > The store then writes a retry or a dead letter also where nobody holds the delivery.
pub async fn an_only_copy_is_written_where_nobody_holds_it<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..4).await;
    let mut hand = stage.hand("one").await;
    let fetched = receipts(&stage.fetch(&mut hand, 4).await);
    stage.acknowledge(&hand.member, &fetched[..2]).await;
    assert_eq!(stage.release(&hand.member, &fetched[2..3]).await, 1);
    let heir = stage.member("heir");
    assert_eq!(stage.reclaim(&heir, DAY).await.len(), 1);

    let endings = [
        later(fetched[0], DAY, "p"),
        dead_lettered(fetched[1], "x"),
        dead_lettered(fetched[2], "x"),
    ];
    let fates = stage
        .commit(&hand.member, endings.iter().cloned().collect())
        .await;
    assert_eq!(fates, [Fate::NotHeld, Fate::NotHeld, Fate::Lost]);
    assert_eq!(stage.counts().await, [0, 2, 0, 0]);
    let mut from_memory = endings.map(Commit::of_only_copy).to_vec();
    // The member still holds this one.
    from_memory.push(dead_lettered(fetched[3], "x").of_only_copy());
    let fates = stage
        .commit(&hand.member, from_memory.into_iter().collect())
        .await;
    let (done, lost) = (Fate::Done, Fate::Lost);
    assert_eq!(fates, [done, done, lost, done]);
    assert_eq!(stage.counts().await, [0, 1, 1, 2]);
}

/// Hundreds are settled by one call, each by itself.
pub async fn large_batches_are_settled<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..450).await;
    let mut hand = stage.hand("one").await;
    let fetched = receipts(&stage.fetch(&mut hand, 450).await);
    let settlements: Vec<_> = fetched.iter().map(|one| later(*one, DAY, "p")).collect();
    let done = stage.settle(&hand.member, &settlements[..225]).await;
    assert_eq!(done, [true; 225]);
    stage.acknowledge(&hand.member, &fetched).await;
    assert_eq!(stage.counts().await, [0, 0, 225, 0]);
}

/// In a large call, too, a member ends what it holds and nothing else.
pub async fn a_large_stale_settlement_is_rejected<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..200).await;
    let mut hand = stage.hand("slow").await;
    let fetched = receipts(&stage.fetch(&mut hand, 200).await);
    let stale: Vec<_> = fetched.iter().copied().step_by(2).collect();
    assert_eq!(stage.release(&hand.member, &stale).await, 100);
    let other = stage.member("other");
    assert_eq!(receipts(&stage.reclaim(&other, DAY).await), stale);
    let settlements: Vec<_> = fetched.iter().map(|one| later(*one, DAY, "p")).collect();
    let expected: Vec<bool> = (0..200).map(|n| n % 2 == 1).collect();
    assert_eq!(stage.settle(&hand.member, &settlements).await, expected);
    assert_eq!(stage.counts().await, [0, 100, 100, 0]);
}

/// A message is settled when its handler has returned, and not before.
pub async fn nothing_is_settled_before_its_handler_returns<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let gate = Arc::new(Semaphore::new(0));
    let (door, (sender, mut received)) = (Arc::clone(&gate), mpsc::unbounded_channel());
    let handler = move |Payload(n): Payload<u32>, _: Delivery| {
        let door = Arc::clone(&door);
        let _ = sender.send(n);
        async move { door.acquire().await.must("the gate").forget() }
    };
    let bus = stage.container.bus();
    let made = bus.subscribe(&stage.topic, handler).await;
    let _subscription = made.must("subscribing");
    stage.publish(0..5).await;
    stage.some(&mut received, 5).await;
    assert_eq!(stage.counts().await, [0, 5, 0, 0]);
    gate.add_permits(5);
    stage.drained().await;
    stage.finish().await;
}

/// What a consumer that died had fetched comes to another one.
pub async fn an_unsettled_message_is_redelivered<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..3).await;
    let mut dying = stage.hand("dying").await;
    stage.fetch(&mut dying, 3).await;
    drop(dying);
    let (sender, mut received) = mpsc::unbounded_channel();
    let options = SubscribeOptions::new().with_lease(Duration::from_millis(200));
    let _subscription = stage.subscribe(options, sender).await;
    let mut seen = stage.some(&mut received, 3).await;
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2]);
    stage.drained().await;
    stage.finish().await;
}

/// Receipts of one group say nothing in another.
pub async fn groups_settle_independently<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let other = super::support::group("other");
    stage.create(&other).await;
    stage.append(0..2).await;
    let mut hand = stage.hand("one").await;
    let mut stranger = stage.hand_of(&other, "one").await;
    let fetched = receipts(&stage.fetch(&mut hand, 2).await);
    stage.fetch(&mut stranger, 2).await;
    stage.acknowledge(&hand.member, &fetched[..1]).await;
    let settlement = [later(fetched[1], SOON, "p")];
    assert_eq!(stage.settle(&hand.member, &settlement).await, [true]);
    assert_eq!(stage.status_of(&other).await.in_flight, 2);
    assert_eq!(stage.status_of(&other).await.scheduled, 0);
}
