//! A partition whose server does not answer.

use super::*;
use crate::worker::ownership::partition::state::PATIENCE;

#[tokio::test]
async fn nothing_is_handed_out_of_a_partition_that_does_not_answer() {
    let ground = Ground::with(&[None; 3]).await;
    let owner = ground.own(1).await;
    let out = owner.hand_out(1).await.unwrap();
    owner.commit(ids(&out), Vec::new()).await.unwrap();
    ground.script.fail(STEP, Failure::NotDone);
    owner.flush().await.unwrap_err();
    assert_eq!(owner.hand_out(1).await.unwrap().len(), 0);
    // The flusher asks until there is an answer.
    assert!(owner.is_unwritten() && owner.is_overdue(MINUTE));
    assert!(owner.flush().await.unwrap(), "more may be ready");
    assert_eq!(owner.hand_out(1).await.unwrap().len(), 1);
    assert!(!owner.is_unwritten());
}

#[tokio::test]
async fn a_mark_without_an_answer_counts_no_attempt() {
    for failure in [
        Failure::NotDone,
        Failure::ReplyLost,
        Failure::Hangs,
        Failure::AnswerHangs,
    ] {
        let ground = Ground::with(&[None]).await;
        let owner = ground.own(1).await;
        let id = owner.hand_out(1).await.unwrap()[0].receipt;
        ground.script.fail(STEP, failure);
        let begun = owner.begin(vec![(id, Attempts::from(1))]);
        let begun = tokio::time::timeout(MINUTE, begun).await;
        begun.expect("the worker goes on").unwrap_err();
        owner.put_back_marked(id, Attempts::default());
        assert!(owner.is_idle() && owner.is_unwritten());
        assert_eq!(owner.hand_out(1).await.unwrap().len(), 0, "it is silent");
        assert!(owner.flush().await.unwrap(), "more is ready");
        let due = owner.next_due().expect("it is in its line again");
        tokio::time::sleep_until(due).await;
        let again = owner.hand_out(1).await.unwrap();
        assert_eq!((ids(&again), again[0].attempts.begun), (vec![id], 0));
        owner.put_back([id].into_iter());
        owner.let_go().await.unwrap();
        let next = ground.own(2).await.hand_out(1).await.unwrap();
        assert_eq!(next[0].attempts.begun, 0);
    }
}

#[tokio::test]
async fn a_permission_that_waits_for_an_answer_is_written_after_it() {
    let ground = Ground::with(&[None; 2]).await;
    let owner = ground.own(1).await;
    let turn = owner.turn.lock().await;
    let mut preparing = Box::pin(owner.prepare(2));
    assert!((&mut preparing).now_or_never().is_none());
    owner.state().silent_from = Some(Instant::now());
    drop(turn);
    preparing.await.unwrap();
    assert_eq!(owner.take(2).len(), 2);
}

#[test]
fn a_partition_whose_steps_are_always_slow_is_not_silent() {
    let (mut state, mut now) = (State::default(), Instant::now());
    let slow = PATIENCE + PATIENCE / 2;
    state.expect_answer(false, now);
    assert!(!state.is_silent(now) && state.is_silent(now + PATIENCE));
    assert!(state.note_answer(slow, now + slow), "it was silent");
    for _ in 0..2 {
        now += MINUTE;
        state.expect_answer(false, now);
        assert!(!state.is_silent(now + slow));
        assert!(state.is_silent(now + 2 * slow));
        assert!(!state.note_answer(slow, now + slow));
    }
    state.expect_answer(false, now);
    state.note_answer(Duration::ZERO, now);
    state.expect_answer(false, now);
    assert!(state.is_silent(now + PATIENCE), "it is quick again");
}
