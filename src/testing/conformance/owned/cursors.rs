//! The cursor of a partition: the steps that its owner writes, and what a reset does to it.

use std::time::Duration;

use bytes::Bytes;

use super::support::{attendance, log, up_to};
use crate::domain::{EntryId, ErrorKind};
use crate::store::{
    Attempts, Cursor, GroupAt, Lane, LaneStep, Member, Note, ResetTo, StartFrom, Step, Stepped,
};
use crate::testing::conformance::Subject;
use crate::testing::conformance::support::{DAY, Must as _, Stage, dead_lettered, group, later};

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
    let other = GroupAt::of(&stage.topic, &group("other"));
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

/// The lag of a long log is exact: of a new group, after a step, and after a reset; from the beginning of a
/// log that was trimmed, and from its end.
pub async fn a_long_lag_is_exact<S: Subject>(subject: &S) {
    let stage = Stage::owned(subject).await;
    let one = stage.member("one");
    let ids = stage.append(0..300).await;
    stage.take_cursor(&one, 1).await;
    stage.write_step(&one, &up_to(1, 1, ids[299], 300)).await;
    let topics = stage.store.topics();
    let trimmed = topics.trim(stage.partition()).await.must("trimming");
    let left = 300 - trimmed.removed;
    let late = GroupAt::of(&stage.topic, &group("late"));
    let made = stage.owners().create(&late, StartFrom::End).await;
    made.must("creating at the end");
    let ids = stage.append(300..1_800).await;
    let early = GroupAt::of(&stage.topic, &group("early"));
    let made = stage.owners().create(&early, StartFrom::Beginning).await;
    made.must("creating at the beginning");
    let lag = async |at: &GroupAt| {
        let status = stage.store.inspect().status(&at.partition).await;
        let groups = status.must("asking").must("the topic").groups;
        let group = groups.into_iter().find(|one| one.group == at.group);
        group.must("the group").lag
    };
    assert_eq!(lag(&late).await, 1_500);
    assert_eq!(lag(&early).await, left + 1_500);
    let mut token = 0;
    let mut settle_ten = async |at: &GroupAt| {
        token += 10;
        let by = Member::of(&stage.topic, &at.group, one.consumer.clone());
        let start = stage.take_cursor(&by, token).await.0[0].low;
        let read = stage.owners().read(at, Lane::Log, start, 10).await;
        let (last, _) = read.must("reading").pop().must("ten entries");
        stage.write_step(&by, &up_to(token, 1, last, 10)).await;
    };
    for (at, before) in [(&stage.at, 1_500), (&late, 1_500), (&early, left + 1_500)] {
        settle_ten(at).await;
        assert_eq!(lag(at).await, before - 10, "{at}");
    }
    for (to, before) in [
        (ResetTo::Beginning, left + 1_500),
        (ResetTo::Entry(ids[400]), 1_100),
    ] {
        let reset = topics.reset_group(&late, to, Duration::ZERO).await;
        assert!(reset.must("resetting").must("the group").moved);
        assert_eq!(lag(&late).await, before, "{to:?}");
        settle_ten(&late).await;
        assert_eq!(lag(&late).await, before - 10, "{to:?}");
    }
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
