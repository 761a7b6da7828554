//! Attempts that a step notes before their handlers begin, and the end of the time in which a process owns the
//! partition.

use futures_util::future::join_all;

use super::*;
use crate::api::ownership::Ownership;
use crate::worker::ownership::group::OwnedGroup;
use crate::worker::ownership::reader;

#[tokio::test]
async fn one_step_notes_all_attempts_that_wait_for_it() {
    let ground = Ground::with(&[None; 4]).await;
    let owner = ground.own(1).await;
    let out = ids(&owner.hand_out(4).await.unwrap());
    ground.steps();
    let begin = |id| owner.begin(vec![(id, Attempts::from(1))]);
    let turn = owner.turn.lock().await;
    let mut begin_all = join_all(out[..3].iter().map(|id| begin(*id)));
    assert!((&mut begin_all).now_or_never().is_none());
    // Its worker gives up before.
    assert!(begin(out[3]).now_or_never().is_none());
    drop(turn);
    assert!(begin_all.await.into_iter().all(|may| may.unwrap().0));
    assert_eq!(ground.steps(), 1);
    let notes = ground.notes(2).await;
    let noted: Vec<_> = notes.iter().map(|note| note.delivery).collect();
    assert_eq!(noted, out[..3]);
}

#[tokio::test]
async fn messages_of_a_partition_that_is_lost_during_a_look_go_to_no_worker() {
    let ground = Ground::with(&[None; 2]).await;
    let options = Ownership::new();
    let (store, member) = (Arc::clone(&ground.store), Arc::new(ground.member.clone()));
    let group = OwnedGroup::new(store, member, &options, (Decoder::default(), false));
    // Two owners of the same messages. The reader begins with the second one.
    let [one, other] = [ground.own(1).await, ground.own(1).await];
    let lost = Arc::clone(&other.tenure);
    group.insert(0, one);
    group.insert(1, other);
    ground.script.on(STEP, || {});
    ground.script.on(STEP, move || lost.end());
    let (mut reader, _interrupt) = reader::open(&Arc::new(group));
    let fetched = reader.fetch(10, Duration::ZERO).await.unwrap();
    assert_eq!(ground.steps(), 2);
    assert_eq!(fetched.len(), 2);
}

#[tokio::test]
async fn no_attempt_is_noted_after_the_time_of_the_owner() {
    let ground = Ground::with(&[None; 2]).await;
    let owner = ground.own(1).await;
    let out = ids(&owner.hand_out(2).await.unwrap());
    let turn = owner.turn.lock().await;
    let mut begin = Box::pin(owner.begin(vec![(out[0], Attempts::from(1))]));
    assert!((&mut begin).now_or_never().is_none());
    owner.state().acknowledge(out[1]);
    owner.tenure.end();
    drop(turn);
    assert!(!begin.await.unwrap().0);
    owner.flush().await.unwrap();
    let notes = ground.notes(2).await;
    assert!(notes.is_empty(), "{notes:?}");
}

#[tokio::test]
async fn an_attempt_that_another_step_has_noted_begins_beside_the_next_step() {
    let ground = Ground::with(&[None; 2]).await;
    let owner = ground.own(1).await;
    let out = ids(&owner.hand_out(2).await.unwrap());
    let begin = |id| owner.begin(vec![(id, Attempts::from(1))]);
    let turn = owner.turn.lock().await;
    let mut first = Box::pin(begin(out[0]));
    let mut second = Box::pin(begin(out[1]));
    assert!((&mut first).now_or_never().is_none());
    let mut next = Box::pin(owner.turn.lock());
    assert!((&mut next).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none());
    drop(turn);
    assert!(first.await.unwrap().0);
    let _turn = next.await;
    assert!(second.now_or_never().unwrap().unwrap().0);
}
