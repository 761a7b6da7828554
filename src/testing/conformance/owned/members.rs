//! The members of a group, the partitions they own, and their tokens.

use super::support::{LEASE, attendance, owners, owning, token_of, up_to};
use crate::domain::ErrorKind;
use crate::store::{Attendance, Cursor, GroupAt, Member, ResetTo, StartFrom};
use crate::testing::conformance::Subject;
use crate::testing::conformance::support::{DAY, Must as _, Stage, group};

/// Tokens may go by the store's clock in microseconds.
const HOUR: u64 = 3_600_000_000;

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

    let shared = GroupAt::of(&stage.topic, &group("shipping"));
    topics.create_group(&shared, start).await.must("creating");
    let refused = stage.owners().create(&shared, start).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
    let asked = stage.owners().roster(&shared).await.unwrap_err();
    assert_eq!(asked.kind(), ErrorKind::NotFound, "{asked}");

    let late = GroupAt::of(&stage.topic, &group("late"));
    stage.owners().create(&late, start).await.must("creating");
    let by = Member::of(&stage.topic, &late.group, one.consumer.clone());
    assert_eq!(stage.take_cursor(&by, 1).await.0[0], Cursor::at(ids[1]));
}

/// > Joins the group, or stays in it for the lease. In the same step gives partitions up, and claims
/// > partitions.
/// > A claim is granted where the partition has no owner, or an owner whose lease has ended.
/// > A claim on an own partition gets a new token where the member's is not above the number it names.
/// > Only the owner can give a partition up.
/// > The members and what they own. Changes nothing.
pub async fn a_partition_has_one_owner_and_growing_tokens<S: Subject>(subject: &S) {
    let stage = Stage::owned(subject).await;
    let (one, two) = (stage.member("one"), stage.member("two"));
    let roster = stage.attend(&one, &attendance(DAY, &[0, 1])).await;
    assert_eq!(owners(&roster), [(0, "one"), (1, "one")]);
    let (first, other) = (token_of(&roster, 0), token_of(&roster, 1));
    assert_eq!(
        stage.attend(&one, &attendance(DAY, &[0])).await,
        roster,
        "it has it"
    );

    let roster = stage.attend(&two, &attendance(LEASE, &[0, 1, 2])).await;
    let names: Vec<&str> = roster.members.iter().map(|name| name.as_str()).collect();
    assert_eq!(names, ["one", "two"]);
    let all = [(0, "one"), (1, "one"), (2, "two")];
    assert_eq!(owners(&roster), all);
    assert_eq!((token_of(&roster, 0), token_of(&roster, 1)), (first, other));
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
    assert_eq!(owners(&roster), [(1, "one")]);
    let roster = stage.attend(&two, &attendance(LEASE, &[0])).await;
    assert_eq!(owners(&roster), [(0, "two"), (1, "one")]);
    let second = token_of(&roster, 0);
    assert!(second > first, "{second} after {first}");

    // As after a failover that lost tokens.
    let lost = second + HOUR;
    let above = Attendance {
        claims: vec![(0, lost)],
        ..attendance(LEASE, &[])
    };
    let roster = stage.attend(&two, &above).await;
    assert_eq!(owners(&roster), [(0, "two"), (1, "one")]);
    let third = token_of(&roster, 0);
    assert!(third > lost, "{third} after {lost}");

    // A crash: the lease of `two` ends.
    stage
        .until("the lease to end", async || {
            let roster = stage.attend(&one, &attendance(DAY, &[0])).await;
            let all = owners(&roster) == [(0, "one"), (1, "one")];
            let tokens = (token_of(&roster, 0), token_of(&roster, 1));
            (all && roster.members.len() == 1)
                .then(|| assert!(tokens.0 > third && tokens.1 == other))
        })
        .await;
}

/// > It gets a token that is greater than every earlier one of the partition, also those of a group of this
/// > name that was removed.
pub async fn tokens_grow_over_a_removed_group<S: Subject>(subject: &S) {
    let stage = Stage::owned(subject).await;
    let one = stage.member("one");
    let mut last = 0;
    for _ in 0..3 {
        let roster = stage.attend(&one, &attendance(DAY, &[0, 1])).await;
        let tokens = [0, 1].map(|at| token_of(&roster, at));
        assert!(
            tokens.iter().all(|one| *one > last),
            "{tokens:?} after {last}"
        );
        last = tokens.into_iter().fold(last, u64::max);
        let topics = stage.store.topics();
        let removal = topics.remove_group(&stage.at, DAY, true).await;
        assert!(removal.must("removing").must("the group").removed);
        let made = stage.owners().create(&stage.at, StartFrom::Beginning).await;
        made.must("creating the group again");
    }
}

/// > A member that is about to leave owns what it has not given up. `by` names partition 0.
///
/// The roster names it no more among the members, unless it says otherwise.
pub async fn a_member_that_is_about_to_leave_keeps_what_it_has_not_given_up<S: Subject>(
    subject: &S,
) {
    let stage = Stage::owned(subject).await;
    let (one, two) = (stage.member("one"), stage.member("two"));
    stage.attend(&one, &attendance(DAY, &[0, 1])).await;
    let leaving = Attendance {
        leaving: true,
        gives: vec![0],
        ..attendance(DAY, &[])
    };
    for _ in 0..2 {
        stage.attend(&one, &leaving).await;
        let roster = stage.attend(&two, &attendance(DAY, &[0, 1])).await;
        assert_eq!(owners(&roster), [(0, "two"), (1, "one")]);
        assert_eq!(roster.members, std::slice::from_ref(&two.consumer));
        let asked = stage.owners().roster(&stage.at).await.must("asking");
        assert_eq!(asked, roster);
        let stays = stage.attend(&one, &attendance(DAY, &[])).await;
        assert_eq!(stays.members.len(), 2);
    }
    stage.attend(&one, &leaving).await;
    stage.owners().leave(&one).await.must("leaving");
    let roster = stage.attend(&two, &attendance(DAY, &[1])).await;
    assert_eq!(owners(&roster), [(0, "two"), (1, "two")]);
    let back = stage.attend(&one, &attendance(DAY, &[])).await;
    assert_eq!(back.members.len(), 2);
}

/// > Leaves the group, and gives up every partition. `by` names partition 0.
pub async fn a_member_that_leaves_owns_nothing<S: Subject>(subject: &S) {
    let stage = Stage::owned(subject).await;
    let (one, two) = (stage.member("one"), stage.member("two"));
    let roster = stage.attend(&one, &attendance(DAY, &[0, 1])).await;
    let first = token_of(&roster, 0);
    for _ in 0..2 {
        stage.owners().leave(&one).await.must("leaving");
    }
    let roster = stage.attend(&two, &attendance(DAY, &[0])).await;
    assert_eq!(owners(&roster), [(0, "two")]);
    assert!(token_of(&roster, 0) > first);
    assert_eq!(roster.members, std::slice::from_ref(&two.consumer));
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
