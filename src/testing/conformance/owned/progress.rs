//! What operators see of an owned group, without its token.

use std::time::Duration;

use bytes::Bytes;

use super::support::{log, up_to};
use crate::domain::EntryId;
use crate::store::{
    Attempts, Attendance, Cursor, DeliveryId, GroupAt, Lane, Note, OwnedProgress, Owner, Step,
    Stepped,
};
use crate::testing::conformance::Subject;
use crate::testing::conformance::support::{DAY, Must as _, Stage, group};

impl<S: Subject> Stage<'_, S> {
    async fn owned_progress(&self, max: usize) -> OwnedProgress {
        let progress = self.owners().progress(&self.at, max).await;
        progress.must("asking for the progress")
    }
}

/// > How far the owners of a partition have come, and which failed messages keep their places there: 4,096
/// > at most, the oldest `max` of them with their content, fewer where they are heavy. Changes nothing, and
/// > the owner keeps its token. Returns no cursor if no member has taken it, or if the group does not exist.
pub async fn progress_is_read_beside_the_owner<S: Subject>(subject: &S) {
    let stage = Stage::owned(subject).await;
    let ids = stage.append(0..5).await;
    let untouched = stage.owned_progress(9).await;
    let one = stage.member("one");
    stage.take_cursor(&one, 3).await;
    let redelivered = DeliveryId::new(Lane::Redelivery, EntryId::new(1, 0));
    let note = |delivery, kept: Option<(Duration, &'static str)>| Note {
        delivery,
        attempts: Attempts::from(1),
        kept: kept.map(|(delay, text)| (delay, Bytes::from_static(text.as_bytes()))),
    };
    let mut step = up_to(3, 1, ids[0], 1);
    let cursor = Cursor {
        low: ids[0],
        high: ids[4],
        done: vec![(ids[2], ids[2])],
    };
    step.lanes[0].as_mut().must("the log").cursor = cursor.clone();
    step.notes = vec![
        note(log(ids[3]), Some((DAY, "comes:back\0"))),
        note(log(ids[4]), None),
        note(redelivered, Some((Duration::ZERO, "first"))),
        note(log(ids[1]), Some((DAY * 2, "later"))),
    ];
    assert_eq!(stage.write_step(&one, &step).await, Stepped::Done);

    for (max, contents) in [(0, 0), (1, 1), (2, 2), (9, 3)] {
        let progress = stage.owned_progress(max).await;
        let taken = Owner {
            consumer: one.consumer.clone(),
            token: 3,
        };
        assert_eq!(progress.taken, Some(taken));
        assert_eq!(progress.cursors, [cursor.clone(), Cursor::default()]);
        let kept: Vec<DeliveryId> = progress.kept.iter().map(|one| one.delivery).collect();
        assert_eq!(kept, [redelivered, log(ids[1]), log(ids[3])]);
        let told = progress.kept.iter().filter_map(|one| one.message.as_ref());
        let told: Vec<&[u8]> = told.map(|one| &one[..]).collect();
        let all: [&[u8]; 3] = [b"first", b"later", b"comes:back\0"];
        assert_eq!(told, all[..contents]);
        let left = progress.kept.iter();
        let left = left.map(|one| one.due.as_millis() - progress.now.as_millis());
        let left: Vec<i64> = left.collect();
        let day = i64::try_from(DAY.as_millis()).must("a day");
        assert!(left[0] <= 0, "{left:?}");
        assert!(day < left[1] && left[1] <= 2 * day, "{left:?}");
        assert!(0 < left[2] && left[2] <= day, "{left:?}");
    }

    let settles = Step {
        forgets: vec![redelivered, log(ids[1]), log(ids[3]), log(ids[4])],
        ..up_to(3, 2, ids[4], 4)
    };
    assert_eq!(stage.write_step(&one, &settles).await, Stepped::Done);
    assert_eq!(stage.owned_progress(9).await.kept, []);
    let other = GroupAt::of(&stage.topic, &group("other"));
    let missing = stage.owners().progress(&other, 9).await.must("asking");
    for none in [untouched, missing] {
        assert_eq!((none.taken, none.kept), (None, Vec::new()));
        assert_eq!(none.cursors, [Cursor::default(), Cursor::default()]);
    }
}

/// The status of a group says whether it is owned, and counts the members of an owned group as its
/// consumers.
pub async fn the_status_counts_the_members_of_an_owned_group<S: Subject>(subject: &S) {
    let stage = Stage::owned(subject).await;
    let shared = group("shared");
    stage
        .store
        .topics()
        .create_group(
            &GroupAt::of(&stage.topic, &shared),
            crate::store::StartFrom::End,
        )
        .await
        .must("creating a group");
    assert!(!stage.status_of(&shared).await.owned);
    let status = stage.status().await;
    assert_eq!((status.owned, status.consumers), (true, 0));
    let attendance = Attendance {
        lease: DAY,
        ..Attendance::default()
    };
    for (name, count) in [("one", 1), ("two", 2), ("one", 2)] {
        let member = stage.member(name);
        let attends = stage.owners().attend(&member, &attendance).await;
        attends.must("attending");
        assert_eq!(stage.status().await.consumers, count);
    }
    stage
        .owners()
        .leave(&stage.member("one"))
        .await
        .must("leaving");
    assert_eq!(stage.status().await.consumers, 1);
}
