//! Effects whose answer was lost: numbered calls, sent again under the same number.

use std::time::Duration;

use uuid::Uuid;

use super::Subject;
use super::support::{DAY, Must as _, Stage, entry, receipts, topic};
use crate::domain::ErrorKind;
use crate::store::{Effect, EffectCommit, EffectFate, Member, Partition, Session};

async fn sum<S: Subject>(stage: &Stage<'_, S>) -> Option<i64> {
    let kv = stage.container.kv();
    kv.get("n").await.must("getting")
}

fn bills() -> Partition {
    Partition::of(&topic("bills"))
}

fn effects() -> Vec<Effect> {
    vec![
        Effect::Publish {
            at: bills(),
            entry: entry(1),
            window: None,
        },
        Effect::Increment {
            key: "n".to_owned(),
            by: 1,
            within: None,
        },
    ]
}

/// A consumer that holds some messages, and their commits.
async fn holding<S: Subject>(stage: &Stage<'_, S>, name: &str) -> (Member, Vec<EffectCommit>) {
    stage.append(0..3).await;
    let mut hand = stage.hand(name).await;
    let fetched = receipts(&stage.fetch(&mut hand, 3).await);
    let commit = |delivery| EffectCommit {
        delivery,
        acknowledges: true,
        only_copy: false,
        effects: effects(),
    };
    (hand.member, fetched.into_iter().map(commit).collect())
}

/// > The member's calls are numbered, from 1, each greater than the one before.
/// > The store remembers the last number and its answer for
/// > [`SESSION_LIVES`](crate::store::SESSION_LIVES).
/// > A repeated number gets the same answer and writes nothing.
pub async fn a_repeated_call_gets_the_same_answer<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let (member, commits) = holding(&stage, "one").await;
    let store = stage.store.effects();
    let first = store.commit(&member, 1, &commits[..2]).await;
    let first = first.must("committing");
    assert!(matches!(
        &first[..],
        [EffectFate::Done(_), EffectFate::Done(_)]
    ));
    for _ in 0..3 {
        let again = store.commit(&member, 1, &commits[..2]).await;
        assert_eq!(again.must("committing"), first);
    }
    assert_eq!(sum(&stage).await, Some(2));
    let next = store.commit(&member, 2, &commits[1..]).await;
    let next = next.must("committing");
    assert!(matches!(
        &next[..],
        [EffectFate::NotHeld, EffectFate::Done(_)]
    ));
    let again = store.commit(&member, 2, &commits[1..]).await;
    assert_eq!(again.must("committing"), next);
    assert_eq!(sum(&stage).await, Some(3));
    let log = stage.store.log();
    assert_eq!(log.latest(&bills(), 10).await.must("reading").len(), 3);
}

/// > A number below the last one fails with [`Refused`](crate::ErrorKind::Refused) and writes nothing.
///
/// A first sending arrives late: after its repetition, and after the next call.
pub async fn an_earlier_call_writes_nothing<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let (member, commits) = holding(&stage, "one").await;
    let store = stage.store.effects();
    let refused = EffectCommit {
        effects: vec![Effect::Unchanged {
            key: "n".to_owned(),
            seen: Some(bytes::Bytes::from_static(b"5")),
        }],
        ..commits[0].clone()
    };
    // Its condition will hold when it arrives again.
    let differs = store.commit(&member, 1, std::slice::from_ref(&refused));
    assert_eq!(differs.await.must("committing"), [EffectFate::Differs(0)]);
    stage.container.kv().set("n", &5).await.must("setting");
    let late = store.commit(&member, 1, std::slice::from_ref(&refused));
    assert_eq!(late.await.must("committing"), [EffectFate::Differs(0)]);
    let done = store.commit(&member, 2, &commits[1..2]).await;
    assert!(matches!(
        &done.must("committing")[..],
        [EffectFate::Done(_)]
    ));
    stage.container.kv().set("n", &5).await.must("setting");
    let late = store.commit(&member, 1, &[refused]).await;
    assert_eq!(late.err().must("an error").kind(), ErrorKind::Refused);
    let pending = stage.store.deliveries().pending_of(&member, 10).await;
    assert_eq!(pending.must("listing").len(), 2);
    assert_eq!(sum(&stage).await, Some(5));
}

/// Members number their calls apart from each other.
pub async fn each_member_has_its_own_numbers<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let (one, of_one) = holding(&stage, "one").await;
    let (two, of_two) = holding(&stage, "two").await;
    let store = stage.store.effects();
    for (member, commits) in [(&one, &of_one), (&two, &of_two)] {
        for number in 1..=2_usize {
            let commit = &commits[number..=number];
            let fates = store.commit(member, number as u64, commit).await;
            assert!(matches!(
                &fates.must("committing")[..],
                [EffectFate::Done(_)]
            ));
        }
    }
    assert_eq!(sum(&stage).await, Some(4));
}

/// > The store then forgets the number of the consumer's last call of effects, if `only` names it or if
/// > the group's lease has passed since the consumer was active.
pub async fn a_removed_consumer_leaves_no_numbers<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let (one, of_one) = holding(&stage, "one").await;
    let (two, of_two) = holding(&stage, "two").await;
    let (topics, effects) = (stage.store.topics(), stage.store.effects());
    let prune = async |only| {
        let pruned = topics.prune_consumers(&one.at, Duration::ZERO, only).await;
        pruned.must("pruning")
    };
    let knows = async |member: &Member| {
        let earlier = effects.commit(member, 1, &[]).await;
        let known = earlier.err().map(|error| error.kind());
        known.inspect(|kind| assert_eq!(*kind, ErrorKind::Refused))
    };
    effects.commit(&one, 5, &of_one).await.must("committing");
    effects
        .commit(&two, 5, &of_two[..2])
        .await
        .must("committing");
    // The lease has not passed, so a consumer that is out of reach may still ask again.
    topics.set_lease(&one, DAY).await.must("setting");
    assert_eq!(prune(None).await, 1);
    assert!(knows(&one).await.is_some());
    assert_eq!(prune(Some(&one.consumer)).await, 0, "it is gone");
    assert!(knows(&one).await.is_none());
    // A consumer that holds something is no longer needed only when that has ended.
    assert_eq!(prune(Some(&two.consumer)).await, 0);
    assert!(knows(&two).await.is_some());
    stage.acknowledge(&two, &[of_two[2].delivery]).await;
    assert_eq!(prune(Some(&two.consumer)).await, 1);
    assert!(knows(&two).await.is_none());

    // With a short lease.
    let (three, of_three) = holding(&stage, "three").await;
    let short = Duration::from_millis(1);
    topics.set_lease(&three, short).await.must("setting");
    effects
        .commit(&three, 5, &of_three)
        .await
        .must("committing");
    stage
        .until("the lease to pass", async || {
            let pruned = topics.prune_consumers(&three.at, short, None).await;
            (pruned.must("pruning") == 1).then_some(())
        })
        .await;
    assert!(knows(&three).await.is_none());
}

/// > Otherwise as `commit`, with the numbers of the session.
pub async fn calls_without_a_delivery_have_sessions<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let store = stage.store.effects();
    let session = |id, number| Session {
        id: Uuid::from_u128(id),
        number,
    };
    let apply = async |id, number| {
        let lists = [effects()];
        store.apply(session(id, number), &lists).await
    };
    let first = apply(1, 5).await.must("applying");
    assert_eq!(apply(1, 5).await.must("applying"), first);
    assert_eq!(sum(&stage).await, Some(1));
    let other = apply(2, 5).await.must("applying");
    assert_ne!(other, first, "another session");
    let late = apply(1, 4).await;
    assert_eq!(late.err().must("an error").kind(), ErrorKind::Refused);
    apply(1, 6).await.must("applying");
    assert_eq!(sum(&stage).await, Some(3));
}
