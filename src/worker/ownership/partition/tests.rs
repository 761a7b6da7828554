//! One process after the other owns a partition; steps fail, get lost and are repeated.

mod begins;
mod silence;

use bytes::Bytes;
use futures_util::FutureExt;

use super::*;
use crate::adapters::memory::MemoryStore;
use crate::api::Fence;
use crate::domain::{Codec, Envelope};
use crate::store::{Capabilities, Fetched, Kind, Lane, NewEntry, StartFrom, Taken};
use crate::wire::{Limits, encode_entry};
use crate::worker::fixture::member;
use crate::worker::script::{Failure, Script};

const STEP: &str = "owners.step";
const MINUTE: Duration = Duration::from_secs(60);

/// An owned group in memory, and messages with these keys.
struct Ground {
    script: Script,
    store: Arc<dyn Store>,
    member: Member,
}

impl Ground {
    async fn with(keys: &[Option<&str>]) -> Self {
        let script = Script::default();
        let store = script.before(MemoryStore::new().store(None));
        assert!(matches!(
            store.capabilities(),
            Capabilities {
                ownership: true,
                ..
            }
        ));
        let member = member();
        let topics = store.topics();
        topics
            .ensure_topic(member.topic(), <_>::default())
            .await
            .unwrap();
        let start = StartFrom::Beginning;
        store.owners().create(&member.at, start).await.unwrap();
        let ground = Self {
            script,
            store,
            member,
        };
        ground.append(keys).await;
        ground
    }

    async fn append(&self, keys: &[Option<&str>]) {
        for (n, key) in keys.iter().enumerate() {
            let mut envelope = Envelope::new("n", &n).unwrap();
            if let Some(key) = key {
                envelope = envelope.with_key(*key);
            }
            let (name, value) = encode_entry(&envelope, Codec::Json, Limits::default()).unwrap();
            let entry = NewEntry {
                id: envelope.id(),
                name,
                value: value.into(),
                slot: None,
            };
            let log = self.store.log();
            let appended = log.append(&self.member.at.partition, &[entry]).await;
            appended.unwrap().remove(0).unwrap();
        }
    }

    /// The notes that an owner finds.
    async fn notes(&self, token: u64) -> Vec<Note> {
        match self.store.owners().take(&self.member, token).await.unwrap() {
            Taken::Taken { notes, .. } => notes,
            stale => panic!("{stale:?}"),
        }
    }

    /// The partition under a token.
    async fn own(&self, token: u64) -> OwnedPartition {
        let taken = self.store.owners().take(&self.member, token).await.unwrap();
        let Taken::Taken {
            cursors,
            notes,
            settled: marks,
        } = taken
        else {
            panic!("{taken:?}");
        };
        let fence = Fence {
            partition: 0,
            token,
        };
        let tenure = Tenure::new(fence, Instant::now() + MINUTE);
        let rules = Rules {
            decoder: Decoder::default(),
            lets_pass: false,
            marks_attempts: false,
            ahead: 1,
            pause: MINUTE,
        };
        let start = Start {
            member: self.member.clone(),
            tenure: Arc::new(tenure),
            cursors,
            notes,
            marks,
        };
        self.script.calls();
        OwnedPartition::new(Arc::clone(&self.store), rules, start)
    }

    fn steps(&self) -> usize {
        let calls = self.script.calls();
        calls.iter().filter(|call| **call == STEP).count()
    }
}

fn ids(fetched: &[Fetched]) -> Vec<DeliveryId> {
    fetched.iter().map(|one| one.receipt).collect()
}

fn failed(id: DeliveryId) -> Vec<Commit> {
    let message = Bytes::from_static(b"again");
    vec![Commit::reschedule(id, Duration::ZERO, message)]
}

#[tokio::test]
async fn the_next_owner_knows_what_may_have_begun() {
    let ground = Ground::with(&[None; 6]).await;
    let first = ground.own(1).await;
    let out = first.hand_out(2).await.unwrap();
    assert_eq!((out.len(), ground.steps()), (2, 1));
    first.commit(ids(&out[1..]), Vec::new()).await.unwrap();
    first.flush().await.unwrap();
    // The process dies. The look-ahead counts, too.
    let next = ground.own(2).await;
    let all = next.hand_out(9).await.unwrap();
    let attempts: Vec<u32> = all.iter().map(|one| one.attempts.begun).collect();
    assert_eq!(attempts, [1, 1, 1, 0, 0]);
    assert_eq!(all[0].receipt, out[0].receipt);
    first.commit(ids(&out[..1]), Vec::new()).await.unwrap();
    first.flush().await.unwrap();
    assert!(first.is_fenced_off() && first.tenure.is_over());
}

#[tokio::test]
async fn a_message_stays_in_its_line_until_it_may_begin() {
    let ground = Ground::with(&[None; 4]).await;
    let owner = ground.own(1).await;
    owner.prepare(1).await.unwrap();
    assert!(owner.is_idle(), "nothing is taken yet");
    let out = owner.take(9);
    assert_eq!((out.len(), ground.steps()), (2, 1), "one and one ahead");
    let next = ground.own(2).await.hand_out(9).await.unwrap();
    let attempts: Vec<u32> = next.iter().map(|one| one.attempts.begun).collect();
    assert_eq!(attempts, [1, 1, 0, 0]);
}

#[tokio::test]
async fn an_owner_that_lets_go_leaves_nothing_begun() {
    let ground = Ground::with(&[None; 3]).await;
    let first = ground.own(1).await;
    let out = first.hand_out(2).await.unwrap();
    first.put_back(ids(&out).into_iter());
    assert!(first.is_idle());
    first.let_go().await.unwrap();
    let all = ground.own(2).await.hand_out(9).await.unwrap();
    assert!(
        all.iter()
            .all(|one| one.attempts.begun == 0 && one.kind == Kind::Fresh)
    );
    assert_eq!(all.len(), 3);
}

#[tokio::test]
async fn the_next_message_of_a_key_waits_until_the_store_has_the_end_of_the_one_before() {
    let ground = Ground::with(&[Some("a"), Some("a"), Some("b")]).await;
    let owner = ground.own(1).await;
    let out = owner.hand_out(9).await.unwrap();
    assert_eq!(out.len(), 2, "one of each key");
    ground.script.fail(STEP, Failure::NotDone);
    owner.commit(ids(&out[..1]), Vec::new()).await.unwrap_err();
    assert_eq!(owner.hand_out(9).await.unwrap().len(), 0);
    owner.commit(ids(&out[..1]), Vec::new()).await.unwrap();
    assert_eq!(owner.hand_out(9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn acknowledgements_wait_for_a_step_unless_a_message_waits_for_them() {
    let ground = Ground::with(&[None, Some("a"), Some("b"), Some("b")]).await;
    let owner = ground.own(1).await;
    let out = owner.hand_out(9).await.unwrap();
    assert_eq!((out.len(), ground.steps()), (3, 1));
    let (fate, ..) = owner.commit(ids(&out[..2]), Vec::new()).await.unwrap();
    assert_eq!((fate, ground.steps()), (Fate::Done, 0));
    assert!(owner.is_unwritten());
    assert_eq!(owner.unwritten(), 2);
    // The second message of the key is ready once the store has the first.
    let (.., ready) = owner.commit(ids(&out[2..]), Vec::new()).await.unwrap();
    assert!(ready && !owner.is_unwritten());
    assert_eq!(ground.steps(), 1);
    let out = owner.hand_out(9).await.unwrap();
    assert_eq!((out.len(), ground.steps()), (1, 0), "allowed by that step");
    owner.commit(ids(&out), Vec::new()).await.unwrap();
    owner.flush().await.unwrap();
    assert_eq!(ground.steps(), 1);
    assert_eq!(ground.own(2).await.hand_out(9).await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_message_of_a_key_waits_for_an_acknowledgement_that_the_store_does_not_know() {
    let ground = Ground::with(&[Some("a")]).await;
    let owner = ground.own(1).await;
    let out = owner.hand_out(9).await.unwrap();
    owner.commit(ids(&out), Vec::new()).await.unwrap();
    ground.append(&[Some("a")]).await;
    assert_eq!(owner.hand_out(9).await.unwrap().len(), 0);
    assert!(owner.flush().await.unwrap(), "the next one is ready");
    assert_eq!(owner.hand_out(9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_failed_message_waits_for_its_time_at_the_next_owner_too() {
    let ground = Ground::with(&[Some("a"), Some("a")]).await;
    let first = ground.own(1).await;
    let out = first.hand_out(9).await.unwrap();
    let later = Commit::reschedule(out[0].receipt, MINUTE, Bytes::from_static(b"again"));
    first.commit(Vec::new(), vec![later]).await.unwrap();
    let next = ground.own(2).await;
    assert_eq!(next.hand_out(9).await.unwrap().len(), 0);
    let due = next.next_due().unwrap();
    assert!(due > Instant::now() + MINUTE / 2);
    next.state().wake(due);
    assert_eq!(ids(&next.hand_out(9).await.unwrap()), [out[0].receipt]);
}

#[tokio::test]
async fn the_redelivery_stream_is_read_again_when_it_may_have_more() {
    const READ: &str = "owners.read";
    let ground = Ground::with(&[None; 3]).await;
    let mut owner = ground.own(1).await;
    owner.rules.lets_pass = true;
    let reads = || {
        ground
            .script
            .calls()
            .iter()
            .filter(|call| **call == READ)
            .count()
    };
    let out = owner.hand_out(1).await.unwrap();
    assert_eq!(reads(), 2);
    owner.hand_out(9).await.unwrap();
    assert_eq!(reads(), 1, "the log alone");
    owner
        .commit(Vec::new(), failed(out[0].receipt))
        .await
        .unwrap();
    let again = owner.hand_out(9).await.unwrap();
    assert_eq!(reads(), 2);
    assert_eq!(again[0].receipt.lane, Lane::Redelivery);
}

#[tokio::test]
async fn a_failed_message_keeps_its_place_for_the_next_owner_too() {
    let ground = Ground::with(&[Some("a"), Some("a")]).await;
    let first = ground.own(1).await;
    let out = first.hand_out(9).await.unwrap();
    let id = out[0].receipt;
    first.commit(Vec::new(), failed(id)).await.unwrap();
    let next = ground.own(2).await;
    let again = next.hand_out(9).await.unwrap();
    assert_eq!((ids(&again), again[0].kind), (vec![id], Kind::Kept));
    assert_eq!(again[0].fields[0].1, Bytes::from_static(b"again"));
    let begun = Attempts::from(1);
    assert!(next.begin(vec![(id, begun)]).await.unwrap().0);
    let last = ground.own(3).await;
    let again = last.hand_out(9).await.unwrap();
    assert_eq!((again[0].attempts, again[0].kind), (begun, Kind::Kept));
    assert!(
        !next.begin(vec![(id, begun)]).await.unwrap().0,
        "it has a new owner"
    );
}

#[tokio::test]
async fn a_step_whose_answer_is_lost_is_done_once() {
    let ground = Ground::with(&[Some("a"), None]).await;
    let owner = ground.own(1).await;
    let out = owner.hand_out(1).await.unwrap();
    let id = out[0].receipt;
    ground.script.fail(STEP, Failure::ReplyLost);
    owner.commit(Vec::new(), failed(id)).await.unwrap_err();
    assert_eq!(owner.hand_out(1).await.unwrap().len(), 0, "it is silent");
    // Another call comes before the repetition, and the message is handed out again.
    assert!(owner.is_unwritten() && owner.is_overdue(MINUTE));
    assert!(owner.flush().await.unwrap(), "more is ready");
    let again = owner.hand_out(1).await.unwrap();
    assert_eq!(ids(&again), [id]);
    let other = owner.hand_out(9).await.unwrap();
    owner.commit(ids(&other), Vec::new()).await.unwrap();
    let (_, fates, _) = owner.commit(Vec::new(), failed(id)).await.unwrap();
    assert_eq!(fates, [Fate::Done]);
    assert_eq!(owner.out(), [id], "the attempt under way goes on");
    owner.commit(vec![id], Vec::new()).await.unwrap();
    assert!(owner.is_idle());
}

#[tokio::test]
async fn a_step_of_unknown_outcome_keeps_its_number_also_after_a_try_that_did_nothing() {
    for dropped in [false, true] {
        let ground = Ground::with(&[None, None]).await;
        let mut owner = ground.own(1).await;
        owner.rules.lets_pass = true;
        let out = owner.hand_out(2).await.unwrap();
        let later = |at: usize| {
            let message = Bytes::from_static(b"again");
            vec![Commit::reschedule(out[at].receipt, MINUTE, message)]
        };
        if dropped {
            ground.script.fail(STEP, Failure::AnswerHangs);
            let first = owner.commit(Vec::new(), later(0));
            let ended = tokio::time::timeout(Duration::from_millis(1), first).await;
            assert!(ended.is_err());
        } else {
            ground.script.fail(STEP, Failure::ReplyLost);
            owner.commit(Vec::new(), later(0)).await.unwrap_err();
        }
        ground.script.fail(STEP, Failure::NotDone);
        owner.commit(Vec::new(), later(1)).await.unwrap_err();
        owner.commit(Vec::new(), later(1)).await.unwrap();
        let status = ground.store.inspect().status(&ground.member.at.partition);
        let group = &status.await.unwrap().unwrap().groups[0];
        assert_eq!((group.scheduled, group.lag), (2, 0), "dropped: {dropped}");
    }
}

#[tokio::test]
async fn acknowledgements_of_a_step_without_an_answer_count_as_unwritten() {
    let ground = Ground::with(&[None; 2]).await;
    let owner = ground.own(1).await;
    let out = ids(&owner.hand_out(2).await.unwrap());
    owner.commit(out, Vec::new()).await.unwrap();
    ground.script.fail(STEP, Failure::AnswerHangs);
    // As a shutdown does at its deadline.
    assert!(owner.flush().now_or_never().is_none());
    assert_eq!(owner.unwritten(), 2);
    owner.flush().await.unwrap();
    assert_eq!(owner.unwritten(), 0);
}

#[tokio::test]
async fn a_delivery_that_is_given_back_before_it_began_leaves_no_mark() {
    let ground = Ground::with(&[None, None]).await;
    let mut owner = ground.own(1).await;
    owner.rules.marks_attempts = true;
    let out = owner.hand_out(2).await.unwrap();
    let begun = out.iter().map(|one| (one.receipt, Attempts::from(1)));
    assert!(owner.begin(begun.collect()).await.unwrap().0);
    let released = Commit::release_counted(out[0].receipt, Attempts::default());
    owner.commit(Vec::new(), vec![released]).await.unwrap();
    let notes = ground.notes(2).await;
    let noted: Vec<_> = notes.iter().map(|note| note.delivery).collect();
    assert_eq!(noted, [out[1].receipt]);
}

/// The partition was to move and does not: the process that wanted it has left.
#[tokio::test]
async fn messages_go_on_after_a_step_to_let_go_that_had_no_answer() {
    let ground = Ground::with(&[None, None]).await;
    let owner = ground.own(1).await;
    let out = owner.hand_out(2).await.unwrap();
    owner.put_back(ids(&out).into_iter());
    owner.set_closing(true);
    ground.script.fail(STEP, Failure::Hangs);
    let gone = tokio::time::timeout(Duration::from_millis(1), owner.let_go()).await;
    assert!(gone.is_err());
    owner.set_closing(false);
    // What the flusher asks.
    assert!(owner.is_unwritten() && owner.is_overdue(MINUTE));
    assert!(owner.flush().await.unwrap(), "the reader learns of it");
    assert_eq!(owner.hand_out(2).await.unwrap().len(), 2);
    assert!(!owner.is_unwritten());
}

#[tokio::test]
async fn an_owner_that_lets_go_before_it_has_read_anything_forgets_nothing() {
    let ground = Ground::with(&[None; 3]).await;
    let first = ground.own(1).await;
    let out = first.hand_out(3).await.unwrap();
    first.commit(ids(&out[1..]), Vec::new()).await.unwrap();
    first.flush().await.unwrap();
    // That process dies, and the next one gives the partition on at once.
    ground.own(2).await.let_go().await.unwrap();
    let again = ground.own(3).await.hand_out(9).await.unwrap();
    assert_eq!(ids(&again), ids(&out[..1]));
    assert_eq!(again[0].attempts.begun, 1, "the crash counts");
}

#[tokio::test]
async fn an_owner_that_lets_go_tells_of_attempts_that_began_before_it() {
    let ground = Ground::with(&[None; 3]).await;
    ground.own(1).await.hand_out(1).await.unwrap();
    // That process dies. The next one has the messages and begins none.
    let second = ground.own(2).await;
    let out = second.hand_out(9).await.unwrap();
    second.put_back(ids(&out).into_iter());
    second.let_go().await.unwrap();
    let all = ground.own(3).await.hand_out(9).await.unwrap();
    let attempts: Vec<u32> = all.iter().map(|one| one.attempts.begun).collect();
    assert_eq!(attempts, [1, 1, 0], "the crash counts once");
}

#[tokio::test]
async fn nothing_is_handed_out_while_the_store_may_know_that_nothing_has_begun() {
    let ground = Ground::with(&[None; 3]).await;
    let owner = ground.own(1).await;
    let out = owner.hand_out(1).await.unwrap();
    owner.put_back(ids(&out).into_iter());
    ground.script.fail(STEP, Failure::ReplyLost);
    owner.let_go().await.unwrap_err();
    assert_eq!(owner.hand_out(1).await.unwrap().len(), 0);
    owner.flush().await.unwrap();
    assert_eq!(owner.hand_out(1).await.unwrap().len(), 1);
    let next = ground.own(2).await.hand_out(9).await.unwrap();
    assert_eq!(next[0].attempts.begun, 1);
}

#[tokio::test]
async fn an_owner_whose_cursor_is_gone_writes_nothing_more() {
    let ground = Ground::with(&[None]).await;
    let owner = ground.own(1).await;
    let out = owner.hand_out(1).await.unwrap();
    let topics = ground.store.topics();
    let removed = topics.remove_group(&ground.member.at, Duration::ZERO, true);
    assert!(removed.await.unwrap().unwrap().removed);
    owner.commit(ids(&out), Vec::new()).await.unwrap();
    let error = owner.flush().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(owner.is_fenced_off() && owner.tenure.is_over());
}

#[tokio::test]
async fn nothing_is_handed_out_after_the_time_of_the_owner() {
    let ground = Ground::with(&[None; 2]).await;
    let owner = ground.own(1).await;
    let out = owner.hand_out(1).await.unwrap();
    owner.tenure.end();
    assert_eq!(owner.hand_out(9).await.unwrap().len(), 0);
    let begin = owner.begin(vec![(out[0].receipt, 1.into())]);
    assert!(!begin.await.unwrap().0);
    // Nobody has taken the partition, so finished work counts.
    let (fate, ..) = owner.commit(ids(&out), Vec::new()).await.unwrap();
    assert_eq!(fate, Fate::Done);
}
