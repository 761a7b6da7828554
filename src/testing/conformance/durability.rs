//! Levels of durability.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Subject;
use super::support::{DAY, Must as _, Stage, entry};
use crate::domain::{Durability, ErrorKind, ScheduleId, When};
use crate::store::{LaterPut, NewLater};

/// More replicas than any test has.
const UNREACHABLE: Durability = Durability::replicated(50, Duration::from_millis(20));

/// > Whether the store can give a level of durability now. The error says why not, and is
/// > `Unsupported` where it never can.
/// > A level that the store never can give is `Unsupported`, and nothing is appended.
pub async fn a_level_is_given_or_refused_before_anything_is_appended<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let log = stage.store.log();
    log.can_keep(Durability::Accepted)
        .await
        .must("level accepted");
    let mut expected = 0;
    for level in [Durability::Accepted, Durability::Fsynced, UNREACHABLE] {
        let can = log.can_keep(level).await;
        for window in [None, Some(DAY)] {
            let entries = [entry(expected)];
            let done = log.append_durably(stage.partition(), level, window, &entries);
            match (&can, done.await) {
                (Ok(()), Ok(done)) => {
                    assert_eq!(done.len(), 1, "{level}");
                    for one in done {
                        one.must("appending");
                    }
                    expected += 1;
                }
                (Err(cannot), Err(refused)) => {
                    assert_eq!(cannot.kind(), refused.kind(), "{level}: {refused}");
                    let kinds = [ErrorKind::Unsupported, ErrorKind::Unavailable];
                    assert!(kinds.contains(&refused.kind()), "{level}: {refused}");
                }
                (can, done) => panic!("{level}: {can:?} and {done:?}"),
            }
        }
    }
    let kept = log.browse(stage.partition(), None, 100).await;
    assert_eq!(kept.must("browsing").len(), expected as usize);
    assert!(log.can_keep(UNREACHABLE).await.is_err());
}

/// > Waits until the messages, those that stay as they are among them, are as durable as the
/// > level says. Messages that are not in time are an [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown).
/// > A level that the store never can give is `Unsupported`, and nothing is scheduled.
pub async fn a_message_for_later_has_a_level<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    if !stage.store.capabilities().later {
        return;
    }
    let (log, later) = (stage.store.log(), stage.store.later());
    let mut expected = BTreeSet::new();
    for level in [Durability::Accepted, Durability::Fsynced, UNREACHABLE] {
        let can = log.can_keep(level).await;
        let id = ScheduleId::new(level.to_string()).must("an id");
        for keeps in [false, true] {
            let message = NewLater {
                id: id.clone(),
                due: When::After(DAY),
                keeps,
                name: "json",
                value: "{}".into(),
                slot: None,
            };
            let done = later.put(stage.partition(), level, &[message]).await;
            match (&can, done) {
                (Ok(()), Ok(done)) => match (keeps, &done[..]) {
                    (false, [LaterPut::Scheduled { .. }]) => drop(expected.insert(id.clone())),
                    (true, [LaterPut::Kept { .. }]) => {}
                    _ => panic!("{level}: {done:?}"),
                },
                (Err(cannot), Err(refused)) => {
                    assert_eq!(cannot.kind(), refused.kind(), "{level}: {refused}");
                }
                (can, done) => panic!("{level}: {can:?} and {done:?}"),
            }
        }
    }
    let kept = later.list(stage.partition(), None, 100).await;
    let kept = kept.must("listing").entries.into_iter();
    let kept: BTreeSet<_> = kept.map(|one| one.id).collect();
    assert_eq!(kept, expected);
}

/// > Appends messages as `append` does, or with a window as `append_once`, and waits until they
/// > are as durable as the level says.
pub async fn durable_messages_keep_their_order_and_repeats_are_known<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let (log, at) = (stage.store.log(), stage.partition());
    let level = match log.can_keep(Durability::Fsynced).await {
        Ok(()) => Durability::Fsynced,
        Err(_) => Durability::Accepted,
    };
    let entries: Vec<_> = (0..600).map(entry).collect();
    let plain = log.append_durably(at, level, None, &entries).await;
    let plain: Vec<_> = plain
        .must("appending")
        .into_iter()
        .map(|one| one.must("it").id)
        .collect();
    assert!(plain.is_sorted_by(|one, two| one < two));
    let first = log
        .append_durably(at, level, Some(DAY), &entries)
        .await
        .must("appending");
    let again = log
        .append_durably(at, level, Some(DAY), &entries)
        .await
        .must("repeating");
    for (first, again) in first.into_iter().zip(again) {
        let (first, again) = (first.must("the first"), again.must("the repeat"));
        assert_eq!((first.duplicate, again.duplicate), (false, true));
        assert_eq!(first.id, again.id);
    }
    let none = log.append_durably(at, level, None, &[]).await;
    assert!(none.must("nothing").is_empty());
    let kept = log.browse(at, None, 2000).await.must("browsing");
    assert_eq!(kept.len(), 1200);
}
