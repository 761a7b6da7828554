//! Owned groups: members, partitions, and cursors that only their owner moves.

use std::time::Duration;

use bytes::Bytes;

use super::Subject;
use super::support::{DAY, Must as _, Stage, dead_lettered, later};
use crate::domain::{EntryId, ErrorKind};
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

fn log(id: EntryId) -> DeliveryId {
    DeliveryId::new(Lane::Log, id)
}

/// The owner and the token of each partition.
fn owners(roster: &Roster) -> Vec<(u16, &str, u64)> {
    let owners = roster.owners.iter();
    let owners = owners.map(|(at, owner)| (*at, owner.consumer.as_str(), owner.token));
    owners.collect()
}

/// A step that settles the log up to an entry.
fn up_to(token: u64, number: u64, low: EntryId, passed: u64) -> Step {
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
    async fn owned(subject: &'a S) -> Self {
        let stage = Self::bare(subject).await;
        let topics = stage.store.topics();
        let made = topics.ensure_topic(&stage.topic, <_>::default()).await;
        made.must("creating the topic");
        let made = stage.owners().create(&stage.at, StartFrom::Beginning).await;
        made.must("creating the group");
        stage
    }

    fn owners(&self) -> &dyn Owners {
        self.store.owners()
    }

    async fn attend(&self, by: &Member, attendance: &Attendance) -> Roster {
        let roster = self.owners().attend(by, attendance).await;
        roster.must("attending")
    }

    async fn write_step(&self, by: &Member, step: &Step) -> Stepped {
        self.owners().step(by, step).await.must("a step")
    }

    async fn take_cursor(&self, by: &Member, token: u64) -> ([Cursor; 2], Vec<Note>) {
        match self.owners().take(by, token).await.must("taking") {
            Taken::Taken { cursors, notes } => (cursors, notes),
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
    assert_eq!(roster.members, [two.consumer.clone()]);
}

/// > Takes the cursor of a partition under a token. Taking it again under the same token, as after a lost
/// > answer, is the same as once. A cursor that was moved from outside, such as by
/// > [`reset_group`](super::Topics::reset_group), is where it was moved to. Fails with
/// > [`NotFound`](crate::ErrorKind::NotFound) when the group is gone.
/// > Writes a step, all or nothing, if the token holds. A step of settled entries only succeeds also while
/// > the server's memory is full. Fails with [`NotFound`](crate::ErrorKind::NotFound) when the group or
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

/// > Lets the [bell](super::Store::bell) of the group ring from now on. Returns whether it does; otherwise
/// > the runtime looks at regular times.
pub async fn a_change_of_owners_rings<S: Subject>(subject: &S) {
    use crate::store::Ring;
    let stage = Stage::owned(subject).await;
    let bell = stage.store.bell(&stage.at);
    if !stage.owners().listen(&stage.at).await.must("listening") {
        return;
    }
    let bell = bell.must("the bell that rings");
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
