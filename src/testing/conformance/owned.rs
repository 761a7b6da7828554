//! Owned groups: members, partitions, and cursors that only their owner moves.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Subject;
use super::support::{DAY, Must as _, Stage, dead_lettered, later, number, quick};
use crate::api::{Delivery, Ownership, Payload, SubscribeOptions, Subscription};
use crate::container::Container;
use crate::domain::{EntryId, Envelope, ErrorKind, Outcome, TopicSettings};
use crate::store::{
    Attempts, Attendance, Cursor, DeliveryId, GroupAt, Lane, LaneStep, Member, Note, Owners,
    ResetTo, Roster, StartFrom, Step, Stepped, Taken,
};

/// Long enough for every call of a check, and short enough to wait for.
const LEASE: Duration = Duration::from_millis(500);

fn attendance(lease: Duration, claims: &[u16]) -> Attendance {
    Attendance {
        lease,
        gives: Vec::new(),
        claims: claims.iter().map(|at| (*at, 0)).collect(),
    }
}

pub(super) fn log(id: EntryId) -> DeliveryId {
    DeliveryId::new(Lane::Log, id)
}

/// The owner and the token of each partition.
fn owners(roster: &Roster) -> Vec<(u16, &str, u64)> {
    let owners = roster.owners.iter();
    let owners = owners.map(|(at, owner)| (*at, owner.consumer.as_str(), owner.token));
    owners.collect()
}

/// A step that settles the log up to an entry.
pub(super) fn up_to(token: u64, number: u64, low: EntryId, passed: u64) -> Step {
    let lane = LaneStep {
        cursor: Cursor::at(low),
        passed,
    };
    Step {
        token,
        number,
        lanes: [Some(lane), None],
        ..Step::default()
    }
}

impl<'a, S: Subject> Stage<'a, S> {
    /// An owned group on topic `orders`.
    pub(super) async fn owned(subject: &'a S) -> Self {
        let stage = Self::bare(subject).await;
        let topics = stage.store.topics();
        let made = topics.ensure_topic(&stage.topic, <_>::default()).await;
        made.must("creating the topic");
        let made = stage.owners().create(&stage.at, StartFrom::Beginning).await;
        made.must("creating the group");
        stage
    }

    pub(super) fn owners(&self) -> &dyn Owners {
        self.store.owners()
    }

    async fn attend(&self, by: &Member, attendance: &Attendance) -> Roster {
        let roster = self.owners().attend(by, attendance).await;
        roster.must("attending")
    }

    pub(super) async fn write_step(&self, by: &Member, step: &Step) -> Stepped {
        self.owners().step(by, step).await.must("a step")
    }

    pub(super) async fn take_cursor(&self, by: &Member, token: u64) -> ([Cursor; 2], Vec<Note>) {
        match self.owners().take(by, token).await.must("taking") {
            Taken::Taken { cursors, notes, .. } => (cursors, notes),
            Taken::Stale(other) => panic!("{token} is stale beside {other}"),
        }
    }

    async fn is_stale(&self, by: &Member, token: u64) -> u64 {
        match self.owners().take(by, token).await.must("taking") {
            Taken::Stale(other) => other,
            Taken::Taken { .. } => panic!("{token} should be stale"),
        }
    }
}

/// > Creates an owned group on one partition, or finds it: an existing one keeps its cursor. Fails with
/// > [`Refused`](crate::ErrorKind::Refused) where the group exists and is not owned.
///
/// A shared group cannot be created where an owned one is.
pub async fn a_group_is_owned_or_shared_for_ever<S: Subject>(subject: &S) {
    let stage = Stage::owned(subject).await;
    let ids = stage.append(0..2).await;
    let one = stage.member("one");
    stage.take_cursor(&one, 1).await;
    stage.write_step(&one, &up_to(1, 1, ids[0], 1)).await;
    let (topics, start) = (stage.store.topics(), StartFrom::End);
    stage
        .owners()
        .create(&stage.at, start)
        .await
        .must("finding");
    let (cursors, _) = stage.take_cursor(&one, 1).await;
    assert_eq!(cursors[0], Cursor::at(ids[0]));
    let refused = topics.create_group(&stage.at, start).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
    assert!(refused.to_string().contains("owned"), "{refused}");

    let shared = GroupAt::of(&stage.topic, &super::support::group("shipping"));
    topics.create_group(&shared, start).await.must("creating");
    let refused = stage.owners().create(&shared, start).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
    let asked = stage.owners().roster(&shared).await.unwrap_err();
    assert_eq!(asked.kind(), ErrorKind::NotFound, "{asked}");

    let late = GroupAt::of(&stage.topic, &super::support::group("late"));
    stage.owners().create(&late, start).await.must("creating");
    let by = Member::of(&stage.topic, &late.group, one.consumer.clone());
    assert_eq!(stage.take_cursor(&by, 1).await.0[0], Cursor::at(ids[1]));
}

/// > Joins the group, or stays in it for the lease. In the same step gives partitions up, and claims
/// > partitions.
/// > A claim is granted where the partition has no owner, or an owner whose lease has ended; it gets a
/// > token that is greater than every earlier one of the partition. A claim on an own partition gets a
/// > new token where the member's is not above the number it names. Only the owner can give a partition
/// > up. `by` names partition 0.
/// > The members and what they own. Changes nothing.
pub async fn a_partition_has_one_owner_and_growing_tokens<S: Subject>(subject: &S) {
    let stage = Stage::owned(subject).await;
    let (one, two) = (stage.member("one"), stage.member("two"));
    let roster = stage.attend(&one, &attendance(DAY, &[0, 1])).await;
    assert_eq!(owners(&roster), [(0, "one", 1), (1, "one", 1)]);
    assert_eq!(
        stage.attend(&one, &attendance(DAY, &[0])).await,
        roster,
        "it has it"
    );

    let roster = stage.attend(&two, &attendance(LEASE, &[0, 1, 2])).await;
    let names: Vec<&str> = roster.members.iter().map(|name| name.as_str()).collect();
    assert_eq!(names, ["one", "two"]);
    let all = [(0, "one", 1), (1, "one", 1), (2, "two", 1)];
    assert_eq!(owners(&roster), all);
    assert_eq!(
        stage.owners().roster(&stage.at).await.must("asking"),
        roster
    );

    let gives = Attendance {
        gives: vec![0, 2],
        ..attendance(LEASE, &[])
    };
    let roster = stage.attend(&two, &gives).await;
    assert_eq!(owners(&roster), all[..2], "it gives up what it owns");
    let roster = stage
        .attend(
            &one,
            &Attendance {
                lease: DAY,
                ..gives
            },
        )
        .await;
    assert_eq!(owners(&roster), [(1, "one", 1)]);
    let roster = stage.attend(&two, &attendance(LEASE, &[0])).await;
    assert_eq!(owners(&roster), [(0, "two", 2), (1, "one", 1)]);

    // As after a failover that lost tokens.
    let above = Attendance {
        claims: vec![(0, 7)],
        ..attendance(LEASE, &[])
    };
    let roster = stage.attend(&two, &above).await;
    assert_eq!(owners(&roster), [(0, "two", 8), (1, "one", 1)]);

    // A crash: the lease of `two` ends.
    stage
        .until("the lease to end", async || {
            let roster = stage.attend(&one, &attendance(DAY, &[0])).await;
            let all = owners(&roster) == [(0, "one", 9), (1, "one", 1)];
            (all && roster.members.len() == 1).then_some(())
        })
        .await;
}

/// > Leaves the group, and gives up every partition. `by` names partition 0.
pub async fn a_member_that_leaves_owns_nothing<S: Subject>(subject: &S) {
    let stage = Stage::owned(subject).await;
    let (one, two) = (stage.member("one"), stage.member("two"));
    stage.attend(&one, &attendance(DAY, &[0, 1])).await;
    for _ in 0..2 {
        stage.owners().leave(&one).await.must("leaving");
    }
    let roster = stage.attend(&two, &attendance(DAY, &[0])).await;
    assert_eq!(owners(&roster), [(0, "two", 2)]);
    assert_eq!(roster.members, std::slice::from_ref(&two.consumer));
}

/// > Takes the cursor of a partition under a token. Taking it again under the same token, as after a lost
/// > answer, is the same as once. A cursor that was moved from outside, such as by
/// > [`reset_group`](crate::store::Topics::reset_group), is where it was moved to. Fails with
/// > [`NotFound`](crate::ErrorKind::NotFound) when the group is gone.
/// > Writes a step, all or nothing, if the token holds. A step whose number is neither the last one nor
/// > the next is stale, as after a failover that lost steps. A step of settled entries and begun attempts
/// > only succeeds also while the server's memory is full. Fails with [`NotFound`](crate::ErrorKind::NotFound) when the group or
/// > its cursor is gone.
pub async fn only_the_last_owner_moves_the_cursor<S: Subject>(subject: &S) {
    let stage = Stage::owned(subject).await;
    let ids = stage.append(0..6).await;
    let (one, two) = (stage.member("one"), stage.member("two"));
    let early = stage.owners().step(&one, &up_to(1, 1, ids[0], 1)).await;
    assert!(!matches!(early, Ok(Stepped::Done)), "{early:?}");
    stage.take_cursor(&one, 3).await;
    assert_eq!(
        stage.write_step(&one, &up_to(3, 1, ids[0], 1)).await,
        Stepped::Done
    );
    let (cursors, notes) = stage.take_cursor(&one, 3).await;
    assert_eq!((cursors[0].low, notes), (ids[0], Vec::new()), "once more");

    // A repeated number is the step that was done, whatever it holds.
    assert_eq!(
        stage.write_step(&one, &up_to(3, 1, ids[3], 3)).await,
        Stepped::Done
    );
    let mut step = up_to(3, 2, ids[1], 1);
    let range = (ids[3], ids[4]);
    step.lanes[0].as_mut().must("the log").cursor = Cursor {
        low: ids[1],
        high: ids[5],
        done: vec![range],
    };
    assert_eq!(stage.write_step(&one, &step).await, Stepped::Done);
    assert_eq!(stage.counts().await, [4, 0, 0, 0]);

    for number in [1, 4] {
        assert_eq!(
            stage.write_step(&one, &up_to(3, number, ids[5], 4)).await,
            Stepped::Stale,
            "{number} after 2"
        );
    }
    assert_eq!(stage.counts().await, [4, 0, 0, 0], "nothing was written");
    assert_eq!(stage.is_stale(&two, 2).await, 3);
    assert_eq!(stage.is_stale(&two, 3).await, 3, "another member has it");
    let (cursors, _) = stage.take_cursor(&two, 4).await;
    assert_eq!(
        cursors,
        [
            step.lanes[0].take().must("the log").cursor,
            Cursor::default()
        ]
    );
    for stale in [up_to(3, 3, ids[5], 4), up_to(4, 1, ids[5], 4)] {
        assert_eq!(stage.write_step(&one, &stale).await, Stepped::Stale);
    }
    assert_eq!(stage.counts().await, [4, 0, 0, 0], "nothing was written");
    assert_eq!(
        stage.write_step(&two, &up_to(4, 1, ids[5], 4)).await,
        Stepped::Done
    );
    assert_eq!(stage.counts().await, [0, 0, 0, 0]);
    let other = GroupAt::of(&stage.topic, &super::support::group("other"));
    let nobody = Member::of(&stage.topic, &other.group, one.consumer.clone());
    let missing = stage.owners().take(&nobody, 1).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");
    let missing = stage.owners().step(&nobody, &up_to(1, 1, ids[0], 1)).await;
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
}

/// Retries and dead letters are written once, and not by a former owner. A note is there for the next
/// owner until its message is settled.
pub async fn endings_and_notes_belong_to_the_owner<S: Subject>(subject: &S) {
    let stage = Stage::owned(subject).await;
    let ids = stage.append(0..4).await;
    let (one, two) = (stage.member("one"), stage.member("two"));
    stage.take_cursor(&one, 1).await;
    let failed = Attempts {
        begun: 2,
        failed: 1,
    };
    let note = |id, kept| Note {
        delivery: log(id),
        attempts: failed,
        kept,
    };
    let kept = Bytes::from_static(b"comes:back");
    let step = Step {
        ends: vec![
            later(log(ids[0]), Duration::ZERO, "at once"),
            later(log(ids[1]), DAY, "tomorrow"),
            dead_lettered(log(ids[2]), "body"),
        ],
        notes: vec![note(ids[3], Some((DAY, kept.clone())))],
        ..up_to(1, 1, ids[2], 3)
    };
    for _ in 0..2 {
        assert_eq!(stage.write_step(&one, &step).await, Stepped::Done);
    }
    // One entry not read, one retry at once and one tomorrow, one dead letter.
    assert_eq!(stage.counts().await, [1, 0, 2, 1]);

    let (_, notes) = stage.take_cursor(&two, 2).await;
    let [
        Note {
            delivery,
            attempts,
            kept: Some((left, message)),
        },
    ] = &notes[..]
    else {
        panic!("{notes:?}");
    };
    assert_eq!(
        (*delivery, *attempts, message),
        (log(ids[3]), failed, &kept)
    );
    assert!(*left <= DAY && *left > DAY / 2, "{left:?}");
    let stale = Step {
        token: 1,
        number: 2,
        ends: vec![dead_lettered(log(ids[3]), "late")],
        forgets: vec![log(ids[3])],
        ..up_to(1, 2, ids[3], 1)
    };
    assert_eq!(stage.write_step(&one, &stale).await, Stepped::Stale);
    assert_eq!(stage.counts().await, [1, 0, 2, 1]);
    let plain = Step {
        notes: vec![note(ids[3], None)],
        token: 2,
        number: 1,
        ..Step::default()
    };
    assert_eq!(stage.write_step(&two, &plain).await, Stepped::Done);
    assert_eq!(stage.take_cursor(&two, 2).await.1, [note(ids[3], None)]);
    let settled = Step {
        forgets: vec![log(ids[3])],
        ..up_to(2, 2, ids[3], 1)
    };
    assert_eq!(stage.write_step(&two, &settled).await, Stepped::Done);
    assert_eq!(stage.take_cursor(&two, 2).await.1, []);
    assert_eq!(stage.counts().await, [0, 0, 2, 1]);
}

/// > Up to `max` entries of a lane after an id, in their order. Checks no token.
///
/// Trimming keeps what is not settled.
pub async fn entries_are_read_in_their_order_and_kept_until_settled<S: Subject>(subject: &S) {
    let stage = Stage::owned(subject).await;
    let ids = stage.append(0..300).await;
    let read = async |lane, after, max| {
        let read = stage.owners().read(&stage.at, lane, after, max).await;
        let read = read.must("reading").into_iter();
        read.map(|(id, _)| id).collect::<Vec<_>>()
    };
    assert_eq!(read(Lane::Log, EntryId::default(), 2).await, ids[..2]);
    assert_eq!(read(Lane::Log, ids[296], 9).await, ids[297..]);
    let one = stage.member("one");
    stage.take_cursor(&one, 1).await;
    stage.write_step(&one, &up_to(1, 1, ids[9], 10)).await;
    stage
        .store
        .topics()
        .trim(stage.partition())
        .await
        .must("trimming");
    assert_eq!(read(Lane::Log, ids[9], 1).await, ids[10..11]);
    stage.write_step(&one, &up_to(1, 2, ids[299], 290)).await;
    let trimmed = stage.store.topics().trim(stage.partition()).await;
    assert!(trimmed.must("trimming").removed > 0);

    let step = Step {
        ends: vec![later(log(ids[299]), Duration::ZERO, "again")],
        ..up_to(1, 3, ids[299], 0)
    };
    stage.write_step(&one, &step).await;
    let again = read(Lane::Redelivery, EntryId::default(), 9).await;
    assert_eq!(again.len(), 1);
    let lane = LaneStep {
        cursor: Cursor::at(again[0]),
        passed: 1,
    };
    let settled = Step {
        token: 1,
        number: 4,
        lanes: [None, Some(lane)],
        ..Step::default()
    };
    assert_eq!(stage.counts().await, [0, 0, 1, 0]);
    assert_eq!(stage.write_step(&one, &settled).await, Stepped::Done);
    assert_eq!(stage.counts().await, [0, 0, 0, 0]);
    let (cursors, _) = stage.take_cursor(&one, 1).await;
    assert_eq!(cursors, [Cursor::at(ids[299]), Cursor::at(again[0])]);
}

/// A reset waits until no member lives, and fences off who has joined since.
pub async fn a_reset_moves_the_cursor_of_an_owned_group<S: Subject>(subject: &S) {
    let stage = Stage::owned(subject).await;
    let ids = stage.append(0..3).await;
    let one = stage.member("one");
    stage.attend(&one, &attendance(DAY, &[0])).await;
    stage.take_cursor(&one, 1).await;
    let mut step = up_to(1, 1, ids[0], 1);
    step.lanes[0].as_mut().must("the log").cursor.done = vec![(ids[2], ids[2])];
    stage.write_step(&one, &step).await;
    let topics = stage.store.topics();
    let kept = topics.reset_group(&stage.at, ResetTo::Beginning, Duration::ZERO);
    let kept = kept.await.must("asking").must("the group");
    assert_eq!((kept.moved, kept.live_consumers), (false, 1));
    stage.owners().leave(&one).await.must("leaving");
    let reset = topics.reset_group(&stage.at, ResetTo::Beginning, Duration::ZERO);
    assert!(reset.await.must("resetting").must("the group").moved);
    assert_eq!(
        stage.write_step(&one, &up_to(1, 2, ids[2], 2)).await,
        Stepped::Stale
    );
    let token = stage.is_stale(&one, 1).await;
    assert_eq!(
        stage.take_cursor(&one, token + 1).await.0[0],
        Cursor::default()
    );
    let forced = topics.remove_group(&stage.at, Duration::ZERO, true).await;
    assert!(forced.must("removing").must("the group").removed);
    stage.create(&stage.group).await;
}

/// A group with members is neither removed nor reset on any of its partitions.
pub async fn a_group_with_members_stays<S: Subject>(subject: &S) {
    let stage = Stage::four(subject).await;
    let (_subscription, _seen) = stage.own(&stage.container, owning(3), |_| 0).await;
    stage
        .until("a member", async || {
            (!stage.owners_of().await.is_empty()).then_some(())
        })
        .await;
    let topics = stage.store.topics();
    let removal = topics.remove_group(&stage.at, DAY, false).await;
    let removal = removal.must("removing").must("the group");
    assert_eq!((removal.removed, removal.live_consumers), (false, 1));
    let reset = topics.reset_group(&stage.at, ResetTo::End, DAY).await;
    let reset = reset.must("resetting").must("the group");
    assert_eq!((reset.moved, reset.live_consumers), (false, 1));
    let operator = stage.container.topics();
    let plan = operator.plan_group_reset(&stage.topic, &stage.group, ResetTo::End);
    assert!(plan.await.must("planning").preview().refused);
    // The partitions still have the group.
    stage.publish_keys(0..20).await;
    stage.drained().await;
    stage.finish().await;
}

/// > Lets the [bell](crate::store::Store::bell) of the group ring from now on. Returns whether it does; otherwise
/// > the runtime looks at regular times.
pub async fn a_change_of_owners_rings<S: Subject>(subject: &S) {
    use crate::store::Ring;
    let stage = Stage::owned(subject).await;
    let bell = stage.store.bell(&stage.at);
    if !stage.owners().listen(&stage.at).await.must("listening") {
        return;
    }
    let Some(bell) = bell else { return };
    stage
        .until("the bell to hear", async || bell.hears().then_some(()))
        .await;
    let one = stage.member("one");
    for attendance in [attendance(DAY, &[]), attendance(DAY, &[0])] {
        let seen = bell.count(Ring::Owners);
        stage.attend(&one, &attendance).await;
        bell.rung_since(Ring::Owners, seen).await;
    }
}

const FOUR: u16 = 4;

pub(super) fn owning(attempts: u32) -> SubscribeOptions {
    quick(attempts)
        .with_start(StartFrom::Beginning)
        .with_ownership(Ownership::new().with_lease(LEASE))
}

/// Message `n` has key `n % 10`.
pub(super) fn keyed(n: u32) -> Envelope {
    number(n).with_key(format!("k{}", n % 10))
}

/// What a handler sends: the message's number, and its attempt.
type Seen = mpsc::UnboundedReceiver<(u32, u32)>;

impl<S: Subject> Stage<'_, S> {
    /// Topic `orders` with four partitions and no group.
    pub(super) async fn four(subject: &S) -> Stage<'_, S> {
        let stage = Stage::bare(subject).await;
        let settings = TopicSettings::default().with_partitions(FOUR);
        let made = stage.store.topics().ensure_topic(&stage.topic, settings);
        made.await.must("creating the topic");
        stage
    }

    pub(super) async fn publish_keys(&self, numbers: Range<u32>) {
        let all: Vec<Envelope> = numbers.map(keyed).collect();
        let results = self.container.bus().publish_all(&self.topic, &all).await;
        for result in results {
            result.must("publishing");
        }
    }

    /// The partition of a message of [`keyed`].
    fn partition_of(&self, n: u32) -> u16 {
        crate::domain::crc16(format!("k{}", n % 10).as_bytes()) % FOUR
    }

    /// Subscribes a handler that fails as often as `fails` says.
    async fn own(
        &self,
        container: &Container,
        options: SubscribeOptions,
        fails: impl Fn(u32) -> u32 + Send + Sync + 'static,
    ) -> (Subscription, Seen) {
        let (sender, seen) = mpsc::unbounded_channel();
        let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
            assert!(delivery.fence().is_some_and(|fence| fence.token > 0));
            let _ = sender.send((n, delivery.attempt()));
            let fails = delivery.attempt() <= fails(n);
            async move {
                tokio::task::yield_now().await;
                if fails { Err("not yet") } else { Ok(()) }
            }
        };
        let bus = container.bus();
        let made = bus.subscribe_with(&self.topic, options, handler).await;
        (made.must("subscribing"), seen)
    }

    async fn owners_of(&self) -> Vec<(u16, String)> {
        let roster = self.owners().roster(&self.at).await.must("asking");
        let owners = roster.owners.iter();
        owners
            .map(|(at, owner)| (*at, owner.consumer.to_string()))
            .collect()
    }
}

/// The numbers of each key in the order in which they came, without repeated attempts.
fn of_keys(seen: &[(u32, u32)]) -> Vec<Vec<u32>> {
    let of = |key| {
        let of_key = seen.iter().filter(|(n, _)| n % 10 == key);
        let mut numbers: Vec<u32> = of_key.map(|(n, _)| *n).collect();
        numbers.dedup();
        numbers
    };
    (0..10).map(of).collect()
}

/// The messages of a key are handled in the order in which they were published, those of different keys
/// at once; with several partitions, and with one.
pub async fn the_messages_of_a_key_are_handled_in_their_order<S: Subject>(subject: &S) {
    for partitions in [FOUR, 1] {
        let mut stage = Stage::bare(subject).await;
        stage.move_to(super::support::topic(&format!("orders-{partitions}")));
        let settings = TopicSettings::default().with_partitions(partitions);
        let made = stage.store.topics().ensure_topic(&stage.topic, settings);
        made.await.must("creating the topic");
        stage.publish_keys(0..200).await;
        let (subscription, mut seen) = stage.own(&stage.container, owning(3), |_| 0).await;
        stage.publish_keys(200..400).await;
        let seen = stage.some(&mut seen, 400).await;
        for (key, numbers) in (0..).zip(of_keys(&seen)) {
            let expected: Vec<u32> = (0..40).map(|n| 10 * n + key).collect();
            assert_eq!(numbers, expected, "key {key} of {partitions}");
        }
        stage.drained().await;
        let report = subscription.unsubscribe(subject.patience()).await;
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(stage.owners_of().await, [], "it has left");
    }
}

/// A failed message holds back the later ones of its key and no others; after its last attempt it is a
/// dead letter with the error of each attempt, and its key goes on.
pub async fn a_failed_message_holds_back_its_key<S: Subject>(subject: &S) {
    let stage = Stage::four(subject).await;
    stage.publish_keys(0..40).await;
    let fails = |n| match n {
        3 => 2,
        4 => 9,
        _ => 0,
    };
    let (_subscription, mut seen) = stage.own(&stage.container, owning(3), fails).await;
    let seen = stage.some(&mut seen, 40 + 4).await;
    for (key, numbers) in (0..).zip(of_keys(&seen)) {
        assert_eq!(numbers, [key, key + 10, key + 20, key + 30], "key {key}");
    }
    for n in [3, 4] {
        let attempts = seen.iter().filter(|one| one.0 == n).map(|one| one.1);
        assert_eq!(attempts.collect::<Vec<_>>(), [1, 2, 3], "{n}");
    }
    stage.drained().await;
    let letters = stage.letters().await;
    let [letter] = &letters[..] else {
        panic!("{letters:?}");
    };
    assert_eq!((letter.attempts, &letter.error[..]), (3, "not yet"));
    assert_eq!(letter.history.failures.len(), 3);
    assert_eq!(stage.status().await.dead, 1);
    stage.finish().await;
}

/// With [`Ownership::letting_pass`], later messages of the key pass the failed one, which comes back
/// through the store.
pub async fn a_failed_message_lets_its_key_pass<S: Subject>(subject: &S) {
    let stage = Stage::four(subject).await;
    stage.publish_keys(0..40).await;
    let options = owning(3).with_ownership(Ownership::new().with_lease(LEASE).letting_pass());
    let (_subscription, mut seen) = stage
        .own(&stage.container, options, |n| u32::from(n == 3))
        .await;
    let seen = stage.some(&mut seen, 41).await;
    let of_key = seen.iter().filter(|(n, _)| n % 10 == 3);
    let numbers: Vec<u32> = of_key.map(|(n, _)| *n).collect();
    assert_eq!(numbers.len(), 5, "{numbers:?}");
    assert!(
        numbers[..2] == [3, 13],
        "the next one did not wait: {numbers:?}"
    );
    stage.drained().await;
    stage.finish().await;
}

/// A process that joins gets its share, and one that leaves gives its partitions back. Nothing is handled
/// twice or out of order meanwhile.
pub async fn partitions_move_with_joins_and_departures<S: Subject>(subject: &S) {
    let stage = Stage::four(subject).await;
    let (one, mut first) = stage.own(&stage.container, owning(3), |_| 0).await;
    stage
        .until("the first to own all", async || {
            (stage.owners_of().await.len() == 4).then_some(())
        })
        .await;
    stage.publish_keys(0..100).await;
    let other = subject.container("billing").await;
    let (two, mut second) = stage.own(&other, owning(3), |_| 0).await;
    stage.publish_keys(100..200).await;
    stage
        .until("even shares", async || {
            let owners = stage.owners_of().await;
            let own = owners
                .iter()
                .filter(|(_, name)| *name == one.consumer().as_str());
            (owners.len() == 4 && own.count() == 2).then_some(())
        })
        .await;
    stage.publish_keys(200..300).await;
    stage
        .until("the second to have its part", async || {
            (!second.is_empty()).then_some(())
        })
        .await;
    let report = one.unsubscribe(subject.patience()).await;
    assert!(report.is_clean(), "{report:?}");
    stage.publish_keys(300..400).await;
    let mut seen = Vec::new();
    stage
        .until("every message", async || {
            while let Ok(one) = first.try_recv() {
                seen.push(one);
            }
            while let Ok(one) = second.try_recv() {
                seen.push(one);
            }
            (seen.len() >= 400).then_some(())
        })
        .await;
    stage.drained().await;
    let mut numbers: Vec<u32> = seen.iter().map(|(n, _)| *n).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..400).collect::<Vec<_>>(), "each of them once");
    assert!(seen.iter().all(|(_, attempt)| *attempt == 1));
    let report = two.unsubscribe(subject.patience()).await;
    assert!(report.is_clean(), "{report:?}");
    stage.end(&other).await;
    stage.finish().await;
}

/// A partition keeps its owner until the handlers have returned.
pub async fn a_partition_is_given_up_when_its_handlers_have_returned<S: Subject>(subject: &S) {
    let stage = Stage::four(subject).await;
    let go = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let (sender, mut begun) = mpsc::unbounded_channel();
    let handler = |name: &'static str| {
        let (sender, go) = (sender.clone(), std::sync::Arc::clone(&go));
        move |Payload(n): Payload<u32>, _: Delivery| {
            let (sender, go) = (sender.clone(), std::sync::Arc::clone(&go));
            async move {
                let _ = sender.send((name, n));
                let _ = go.acquire().await;
            }
        }
    };
    let bus = stage.container.bus();
    let one = bus.subscribe_with(&stage.topic, owning(3), handler("one"));
    let one = one.await.must("subscribing");
    stage.publish_keys(0..10).await;
    stage.some(&mut begun, 10).await;
    let other = subject.container("billing").await;
    let others = other.bus();
    let two = others.subscribe_with(&stage.topic, owning(3), handler("two"));
    let two = two.await.must("subscribing");
    stage
        .until("the second to be a member", async || {
            let roster = stage.owners().roster(&stage.at).await.must("asking");
            (roster.members.len() == 2).then_some(())
        })
        .await;
    // Keys have at most four partitions here, and a partition without a message moves at once.
    let busy: std::collections::BTreeSet<u16> = (0..10).map(|n| stage.partition_of(n)).collect();
    tokio::time::sleep(LEASE / 2).await;
    for (at, owner) in stage.owners_of().await {
        assert!(
            !busy.contains(&at) || owner == one.consumer().as_str(),
            "{at}"
        );
    }
    assert!(
        begun.try_recv().is_err(),
        "nothing runs beside its first handler"
    );
    go.close();
    stage
        .until("even shares", async || {
            let owners = stage.owners_of().await;
            let second = owners
                .iter()
                .filter(|(_, name)| *name == two.consumer().as_str());
            (second.count() == 2).then_some(())
        })
        .await;
    stage.drained().await;
    assert!(begun.try_recv().is_err(), "each message was handled once");
    stage.end(&other).await;
    stage.finish().await;
}

/// A handler that never returns holds a partition no longer than the time for a handover. Its message comes
/// again, as the next attempt.
pub async fn a_handover_waits_for_handlers_up_to_its_time<S: Subject>(subject: &S) {
    let stage = Stage::four(subject).await;
    let (sender, mut begun) = mpsc::unbounded_channel();
    let handler = |hangs: bool| {
        let sender = sender.clone();
        move |Payload(n): Payload<u32>, delivery: Delivery| {
            let _ = sender.send((n, delivery.attempt(), hangs));
            async move {
                if hangs {
                    delivery.cancelled().await;
                }
            }
        }
    };
    let options = |handover| {
        let ownership = Ownership::new().with_lease(LEASE).with_handover(handover);
        owning(5).with_ownership(ownership)
    };
    let bus = stage.container.bus();
    let one = bus.subscribe_with(&stage.topic, options(LEASE), handler(true));
    let one = one.await.must("subscribing");
    stage.publish_keys(0..10).await;
    stage.some(&mut begun, 10).await;
    let other = subject.container("billing").await;
    let others = other.bus();
    let two = others.subscribe_with(&stage.topic, options(DAY), handler(false));
    two.await.must("subscribing");
    let (n, attempt, hangs) = stage.next(&mut begun).await;
    assert!(!hangs && attempt == 2, "{n}: {attempt}");
    // Its other handlers hang until it is cancelled.
    one.unsubscribe(Duration::ZERO).await;
    stage.end(&other).await;
    stage.finish().await;
}

/// An owner whose partition was taken settles nothing more; its message comes again, as the next attempt.
pub async fn a_former_owner_settles_nothing<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let made = stage
        .store
        .topics()
        .ensure_topic(&stage.topic, <_>::default());
    made.await.must("creating the topic");
    stage.publish_keys(0..1).await;
    let (sender, mut begun) = mpsc::unbounded_channel();
    let go = std::sync::Arc::new(tokio::sync::Notify::new());
    let waits = std::sync::Arc::clone(&go);
    let handler = move |delivery: Delivery| {
        let (sender, go) = (sender.clone(), std::sync::Arc::clone(&waits));
        async move {
            let token = delivery.fence().map(|fence| fence.token);
            let _ = sender.send((delivery.attempt(), token));
            if delivery.attempt() == 1 {
                go.notified().await;
            }
            Outcome::Ack
        }
    };
    let bus = stage.container.bus();
    let made = bus.subscribe_with(&stage.topic, owning(5), handler).await;
    let subscription = made.must("subscribing");
    let (attempt, token) = stage.next(&mut begun).await;
    assert_eq!(attempt, 1);
    let token = token.must("the fence");
    let thief = stage.member("thief");
    stage.take_cursor(&thief, token + 3).await;
    go.notify_one();
    let (attempt, next) = stage.next(&mut begun).await;
    assert_eq!(attempt, 2, "the first one was not acknowledged");
    assert!(next.must("the fence") > token + 3);
    stage.drained().await;
    let report = subscription.unsubscribe(subject.patience()).await;
    assert!(report.is_clean(), "{report:?}");
    stage.finish().await;
}
