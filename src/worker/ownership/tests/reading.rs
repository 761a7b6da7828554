//! The reader hands out each message once, whatever happens while a call hangs.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::{AWAY, EFFECTS, FOUR, Fault, Ground, READ, STEP};
use crate::api::ownership::Tenure;
use crate::api::{Fence, Ownership, SubscribeOptions};
use crate::domain::{ConsumerName, Cursor, Envelope, Group};
use crate::store::{
    Attempts, Begin, Commit, Deliveries, DeliveryId, EffectCommit, EffectStore, Fetched, Member,
    Reader, StartFrom, Taken,
};
use crate::wire::Decoder;
use crate::worker::fixture::Fixture;
use crate::worker::intake::in_flight::HandOut;
use crate::worker::ownership::group::{OwnedGroup, bare, member_at};
use crate::worker::ownership::partition::{OwnedPartition, Start};
use crate::worker::ownership::reader;

const MINUTE: Duration = Duration::from_secs(60);
/// Longer than a look waits for a call.
const MOMENT: Duration = Duration::from_millis(100);

/// How many entries may begin ahead.
pub(super) const AHEAD: usize = 250;

/// A group that owns all partitions, and its reader.
pub(super) struct Owner {
    pub(super) ground: Ground,
    group: Arc<OwnedGroup>,
    reader: Box<dyn Reader>,
}

impl Owner {
    pub(super) async fn new(ahead: usize) -> Self {
        let ground = Ground::new().await;
        let consumer = ConsumerName::new("one").unwrap();
        let member = Member::of(&ground.topic, &Group::new("billing").unwrap(), consumer);
        let store = Arc::clone(&ground.store);
        let ways = (Decoder::default(), false);
        let mut group = OwnedGroup::new(store, Arc::new(member), &Ownership::new(), ways);
        group.rules.ahead = ahead;
        group.create(StartFrom::Beginning).await.unwrap();
        let group = Arc::new(group);
        let owner = Self {
            ground,
            reader: reader::open(&group).0,
            group,
        };
        for number in 0..FOUR {
            owner.take(number, 1).await;
        }
        owner
    }

    /// Takes a partition under a token.
    async fn take(&self, number: u16, token: u64) {
        let member = member_at(&self.group.member, number);
        let taken = self
            .ground
            .store
            .owners()
            .take(&member, token)
            .await
            .unwrap();
        let Taken::Taken {
            cursors,
            notes,
            settled,
        } = taken
        else {
            panic!("{taken:?}");
        };
        let fence = Fence {
            partition: number,
            token,
        };
        let start = Start {
            member,
            tenure: Arc::new(Tenure::new(fence, Instant::now() + MINUTE)),
            cursors,
            notes,
            marks: settled,
        };
        let (store, rules) = (Arc::clone(&self.ground.store), self.group.rules.clone());
        self.group
            .insert(number, OwnedPartition::new(store, rules, start));
    }

    fn away(&self) -> Arc<OwnedPartition> {
        self.group.get(AWAY).unwrap()
    }

    /// What the partition has handed out.
    fn out(&self) -> Vec<DeliveryId> {
        let mut out = self.away().out();
        out.sort_unstable();
        out
    }

    async fn fetch(&mut self) -> Vec<DeliveryId> {
        let fetched = self.reader.fetch(100, MOMENT).await.unwrap();
        fetched.iter().map(|one: &Fetched| one.receipt).collect()
    }

    /// Fetches until `count` messages have come, and no more.
    pub(super) async fn fetch_all(&mut self, count: usize) -> Vec<DeliveryId> {
        let mut all = Vec::new();
        let until = Instant::now() + MINUTE / 2;
        while all.len() < count {
            assert!(Instant::now() < until, "{all:?}");
            all.extend(self.fetch().await);
        }
        assert_eq!(self.fetch().await, [], "more than {count}");
        all.sort_unstable();
        all
    }

    /// Publishes, and fetches what the other partitions have while the calls of this one hang.
    async fn fetch_others(&mut self, names: &'static [&'static str], fault: Fault) -> usize {
        self.ground.publish().await;
        self.ground.away.set(names, fault);
        let others = self.ground.messages(false, 0).len();
        let fetched = self.fetch_all(others).await;
        assert!(fetched.iter().all(|id| id.id.partition() != AWAY));
        self.ground.away.hangs().await;
        self.ground.messages(true, 0).len()
    }
}

#[tokio::test]
async fn a_slow_partition_hands_messages_out_while_more_of_them_come() {
    let mut owner = Owner::new(AHEAD).await;
    owner.ground.away.set(&[READ, STEP], Fault::Slow);
    let published = Arc::new(AtomicU32::new(0));
    let (container, topic) = (owner.ground.container.clone(), owner.ground.topic.clone());
    let count = Arc::clone(&published);
    let publishing = tokio::spawn(async move {
        loop {
            let n = count.fetch_add(1, Ordering::SeqCst);
            let message = Envelope::new("n", &n).unwrap().with_key(format!("new {n}"));
            container.bus().publish(&topic, &message).await.unwrap();
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    });
    let is_away = |id: &DeliveryId| id.id.partition() == AWAY;
    while !owner.fetch().await.iter().any(is_away) {
        // A quarter of them: as many as a fetch asks for would be handed out anyway.
        assert!(published.load(Ordering::SeqCst) < 300);
    }
    publishing.abort();
}

#[tokio::test]
async fn a_recovery_while_a_permission_hangs_hands_nothing_out_twice() {
    for fault in [Fault::Hangs, Fault::AnswerHangs] {
        let mut owner = Owner::new(AHEAD).await;
        let count = owner.fetch_others(&[STEP], fault).await;
        // None of them is handed out, so a recovery finds none.
        assert_eq!(owner.out(), []);
        let is_known = |id: DeliveryId| id.id.partition() != AWAY;
        owner.group.put_back_unknown(is_known);
        owner.ground.away.back();
        assert_eq!(owner.fetch_all(count).await, owner.out());
        // What was handed out and is unknown comes again, and once.
        owner.group.put_back_unknown(is_known);
        assert_eq!(owner.fetch_all(count).await, owner.out());
    }
}

#[tokio::test]
async fn a_permission_of_an_earlier_time_is_not_used() {
    for names in [&[STEP], &[READ]] {
        for fault in [Fault::Hangs, Fault::AnswerHangs] {
            let mut owner = Owner::new(AHEAD).await;
            let count = owner.fetch_others(names, fault).await;
            let earlier = owner.away();
            earlier.tenure.end();
            // The partition comes back, and the earlier call hangs still.
            owner.ground.away.set(&[], Fault::Fails);
            owner.take(AWAY, 2).await;
            let all = owner.fetch_all(count).await;
            let first = owner.away();
            first.commit(vec![bare(all[0])], Vec::new()).await.unwrap();
            owner.ground.away.back();
            assert_eq!(owner.fetch().await, []);
            assert_eq!(owner.out(), all[1..]);
            assert_eq!(earlier.out(), []);
            assert!(!first.tenure.is_over());
        }
    }
}

#[tokio::test]
async fn nothing_of_a_partition_that_closes_is_handed_out_when_its_call_ends() {
    let mut owner = Owner::new(AHEAD).await;
    let count = owner.fetch_others(&[STEP], Fault::AnswerHangs).await;
    owner.away().set_closing(true);
    owner.ground.away.back();
    assert_eq!(owner.fetch().await, []);
    assert!(owner.away().is_idle());
    owner.away().set_closing(false);
    owner.group.changed.ring();
    assert_eq!(owner.fetch_all(count).await, owner.out());
}

/// Another step has the turn meanwhile.
#[tokio::test]
async fn a_permission_that_waits_for_its_turn_is_not_written_after_a_close() {
    let mut owner = Owner::new(AHEAD).await;
    owner.ground.publish().await;
    owner.ground.away.set(&[STEP], Fault::AnswerHangs);
    let other = owner.away();
    let verifying = tokio::spawn(async move { other.verify().await });
    owner.ground.away.hangs().await;
    let others = owner.ground.messages(false, 0).len();
    owner.fetch_all(others).await;
    owner.away().set_closing(true);
    owner.ground.away.back();
    verifying.await.unwrap().unwrap();
    assert_eq!(owner.fetch().await, []);
    let member = member_at(&owner.group.member, AWAY);
    let taken = owner.ground.store.owners().take(&member, 2).await.unwrap();
    let Taken::Taken { cursors, .. } = taken else {
        panic!("{taken:?}");
    };
    assert_eq!(cursors, <[Cursor; 2]>::default(), "nothing has begun");
}

#[tokio::test]
async fn a_ring_during_a_read_leads_to_another_read() {
    let mut owner = Owner::new(AHEAD).await;
    owner.ground.away.set(&[READ], Fault::AnswerHangs);
    assert_eq!(owner.fetch().await, []);
    // The read has found nothing, and its answer is under way.
    owner.ground.away.hangs().await;
    owner.ground.publish().await;
    owner.fetch_all(owner.ground.messages(false, 0).len()).await;
    owner.ground.away.back();
    let fetching = tokio::time::timeout(MINUTE / 2, owner.reader.fetch(100, MINUTE));
    let fetched = fetching.await.expect("another read").unwrap();
    assert_eq!(fetched.len(), owner.ground.messages(true, 0).len());
}

/// A message of the partition is due, and its calls fail.
#[tokio::test]
async fn a_partition_that_rests_lets_the_reader_sleep() {
    let mut owner = Owner::new(AHEAD).await;
    owner.ground.publish().await;
    owner.fetch_all(40).await;
    let id = bare(owner.out()[0]);
    let later = Commit::reschedule(id, MOMENT / 2, bytes::Bytes::from_static(b"again"));
    owner.away().commit(Vec::new(), vec![later]).await.unwrap();
    owner.ground.away.set(&[READ], Fault::Fails);
    owner.ground.publish().await;
    let others = owner.ground.messages(false, 40).len();
    let mut polls = 0;
    // They wait behind the first ones of their keys.
    assert!(others > 0);
    let mut fetching = pin!(owner.reader.fetch(100, 3 * MOMENT));
    let fetched = poll_fn(|context| {
        polls += 1;
        fetching.as_mut().poll(context)
    });
    assert_eq!(fetched.await.unwrap().len(), 0);
    assert!(polls < 100, "{polls}");
}

#[tokio::test]
async fn messages_that_are_not_due_hide_no_others() {
    let mut owner = Owner::new(1).await;
    owner.ground.publish().await;
    owner.fetch_all(40).await;
    let out = owner.out();
    let (last, first) = out.split_last().unwrap();
    let failed = first
        .iter()
        .map(|id| Commit::reschedule(bare(*id), MINUTE, bytes::Bytes::from_static(b"again")));
    let away = owner.away();
    away.commit(Vec::new(), failed.collect()).await.unwrap();
    away.put_back([bare(*last)].into_iter());
    away.let_go().await.unwrap();
    // The next owner may begin two messages with one step, and these are not due.
    assert!(first.len() > 2);
    owner.take(AWAY, 2).await;
    // The reader looks no more at regular times.
    let bell = owner
        .ground
        .store
        .bell(&member_at(&owner.group.member, AWAY).at);
    bell.unwrap().set_hears(true);
    let fetching = tokio::time::timeout(MINUTE / 2, owner.reader.fetch(1, MINUTE));
    let fetched = fetching.await.expect("the last one").unwrap();
    assert_eq!(fetched[0].receipt, *last);
}

#[tokio::test]
async fn a_reader_that_is_dropped_lets_the_flusher_ask() {
    let mut owner = Owner::new(AHEAD).await;
    owner.fetch_others(&[STEP], Fault::AnswerHangs).await;
    let (away, group) = (owner.away(), Arc::clone(&owner.group));
    let seen = group.unwritten.count();
    drop(owner.reader);
    let ringing = tokio::time::timeout(MINUTE / 2, group.unwritten.since(seen));
    ringing.await.expect("a ring");
    assert!(away.is_unwritten());
}

#[tokio::test]
async fn a_mark_that_fails_lets_the_reader_look() {
    let mut owner = Owner::new(AHEAD).await;
    owner.ground.publish().await;
    owner.fetch_all(40).await;
    owner.ground.away.set(&[STEP], Fault::Fails);
    let begins = [Begin {
        delivery: owner.out()[0],
        attempts: Attempts::from(1),
    }];
    let (group, seen) = (&owner.group, owner.group.changed.count());
    let begun = Deliveries::begin(&**group, &group.member, &begins);
    begun.await.unwrap_err();
    assert!(group.changed.count() > seen);
}

/// A process has lost a message whose handler had begun, and got it again.
#[tokio::test]
async fn a_message_that_is_put_back_keeps_what_is_known_of_its_attempts() {
    let mut owner = Owner::new(AHEAD).await;
    owner.ground.publish().await;
    owner.fetch_all(40).await;
    let (group, id, one) = (Arc::clone(&owner.group), owner.out()[0], Attempts::from(1));
    let begins = [Begin {
        delivery: id,
        attempts: one,
    }];
    let begun = Deliveries::begin(&*group, &group.member, &begins);
    begun.await.unwrap();
    let fixture = Fixture::new().await;
    let (core, _settlements) = fixture.core(SubscribeOptions::new());
    let hand_out = |attempts: Attempts, taken_over| {
        let entries = [(id, attempts)].into_iter();
        let leases = core.in_flight.enter(entries, taken_over, Instant::now());
        let lease = leases.into_iter().next().flatten().unwrap();
        (
            HandOut {
                id,
                token: lease.token(),
            },
            lease.before(),
        )
    };
    let (lost, _) = hand_out(Attempts::default(), false);
    assert_eq!(core.in_flight.lose([lost]), 1);
    let (again, before) = hand_out(one, true);
    assert_eq!(before, Attempts::default(), "it was no crash");
    core.put_back(&group, [again].into_iter());
    let fetched = owner.reader.fetch(100, MINUTE).await.unwrap();
    let attempts: Vec<_> = fetched
        .iter()
        .map(|one| (one.receipt, one.attempts))
        .collect();
    assert_eq!(attempts, [(id, Attempts::default())]);
}

#[tokio::test]
async fn a_recovery_leaves_what_an_ended_time_has_handed_out() {
    let mut owner = Owner::new(AHEAD).await;
    owner.ground.publish().await;
    owner.fetch_all(40).await;
    let out = owner.out();
    owner.away().tenure.end();
    owner.group.put_back_unknown(|_| false);
    assert_eq!(owner.out(), out, "their handlers may run");
}

#[tokio::test]
async fn effects_without_an_answer_make_their_partition_silent() {
    for fault in [Fault::Hangs, Fault::Fails] {
        let mut owner = Owner::new(AHEAD).await;
        owner.ground.publish().await;
        owner.fetch_all(40).await;
        owner.ground.away.set(&[EFFECTS], fault);
        let commits = [EffectCommit {
            delivery: owner.out()[0],
            acknowledges: true,
            only_copy: false,
            effects: Vec::new(),
        }];
        let (group, seen) = (Arc::clone(&owner.group), owner.group.unwritten.count());
        let committing = async move {
            let effects: &dyn EffectStore = &*group;
            effects.commit(&group.member, 1, &commits).await
        };
        let committing = tokio::spawn(committing);
        let ringing = tokio::time::timeout(MINUTE / 2, owner.group.unwritten.since(seen));
        ringing.await.expect("the flusher asks");
        let silent = owner.group.all().into_iter().filter(|one| one.is_silent());
        let silent: Vec<u16> = silent.map(|one| one.number()).collect();
        assert_eq!(silent, [AWAY]);
        owner.ground.away.back();
        assert_eq!(
            committing.await.unwrap().is_ok(),
            matches!(fault, Fault::Hangs)
        );
        owner.away().flush().await.unwrap();
        assert!(!owner.away().is_silent());
    }
}
