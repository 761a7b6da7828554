//! Effects in owned groups: written under the token of the partition's owner, or not at all.

use tokio::sync::mpsc;

use super::support::{keyed, log, owning, up_to};
use crate::api::{Delivery, Payload};
use crate::domain::{Effects, EntryId, Error};
use crate::store::{
    DeliveryId, Effect, EffectCommit, EffectFate, Member, Partition, Stepped, Taken,
};
use crate::testing::conformance::Subject;
use crate::testing::conformance::support::{Must as _, Stage, entry, topic};

fn increment(id: EntryId, acknowledges: bool) -> EffectCommit {
    let effect = Effect::Increment {
        key: "n".to_owned(),
        by: 1,
        within: None,
    };
    EffectCommit {
        delivery: log(id),
        acknowledges,
        only_copy: false,
        effects: vec![effect],
    }
}

impl<S: Subject> Stage<'_, S> {
    async fn n(&self) -> i64 {
        let found = self.container.kv().get("n").await;
        found.must("getting").unwrap_or(0)
    }

    async fn commit_under(
        &self,
        (by, token): (&Member, u64),
        number: u64,
        commits: &[EffectCommit],
    ) -> Vec<EffectFate> {
        let effects = self.store.effects();
        let fates = effects.commit_owned(by, token, number, commits).await;
        fates.must("committing")
    }

    async fn settled(&self, by: &Member, token: u64) -> Vec<DeliveryId> {
        match self.owners().take(by, token).await.must("taking") {
            Taken::Taken { settled, .. } => settled,
            Taken::Stale(other) => panic!("{token} is stale beside {other}"),
        }
    }
}

/// > Writes the effects of deliveries of a partition of an owned group, under the token of the partition's
/// > owner. Under any other token than the one that last took the cursor every commit is
/// > [`Lost`](EffectFate::Lost), and the store writes nothing.
pub async fn only_the_owner_commits_effects<S: Subject>(subject: &S) {
    let stage = Stage::owned(subject).await;
    let ids = stage.append(0..3).await;
    let (one, two) = (stage.member("one"), stage.member("two"));
    stage.take_cursor(&one, 3).await;
    let bills = Partition::of(&topic("bills"));
    let mut first = increment(ids[0], true);
    first.effects.push(Effect::Publish {
        at: bills.clone(),
        entry: entry(7),
        window: None,
    });
    let done = stage.commit_under((&one, 3), 1, &[first.clone()]).await;
    assert!(matches!(&done[..], [EffectFate::Done(new)] if new.len() == 1));
    let again = stage.commit_under((&one, 3), 1, &[first]).await;
    assert_eq!(again, done, "a repeated number gets the same answer");
    assert_eq!(stage.n().await, 1);

    let second = [increment(ids[1], true), increment(ids[2], false)];
    for (by, token) in [(&one, 2), (&one, 4), (&two, 3)] {
        let lost = stage.commit_under((by, token), 2, &second).await;
        assert_eq!(lost, [EffectFate::Lost, EffectFate::Lost], "{by} {token}");
    }
    stage.take_cursor(&two, 4).await;
    let lost = stage.commit_under((&one, 3), 3, &second).await;
    assert_eq!(lost, [EffectFate::Lost, EffectFate::Lost]);
    assert_eq!(stage.n().await, 1, "nothing was written");
    assert_eq!(stage.settled(&two, 4).await, [log(ids[0])]);
    let bills = stage.store.log().latest(&bills, 9).await;
    assert_eq!(bills.must("reading").len(), 1);
}

/// > So is a commit of a delivery that is settled. A delivery that a commit acknowledges counts as settled,
/// > and [`take`](crate::store::Owners::take) tells it, until a step forgets it. Otherwise as `commit`.
pub async fn effects_end_a_delivery_once<S: Subject>(subject: &S) {
    let stage = Stage::owned(subject).await;
    let ids = stage.append(0..5).await;
    let one = stage.member("one");
    stage.take_cursor(&one, 1).await;
    let mut number = 0;
    let mut commit = async |commits: &[EffectCommit]| {
        number += 1;
        let fates = stage.commit_under((&one, 1), number, commits).await;
        let is_done = |fate: &EffectFate| matches!(fate, EffectFate::Done(_));
        fates.iter().map(is_done).collect::<Vec<_>>()
    };
    let checkpoint = increment(ids[0], false);
    assert_eq!(commit(&[checkpoint.clone(), checkpoint]).await, [true; 2]);
    assert_eq!(stage.settled(&one, 1).await, []);
    let twice = [increment(ids[0], true), increment(ids[0], true)];
    assert_eq!(commit(&twice).await, [true, false]);
    assert_eq!(commit(&twice).await, [false; 2], "its mark is there");
    // What is refused is not settled.
    let mut refused = increment(ids[1], true);
    refused.effects.push(Effect::Insert {
        key: "n".to_owned(),
        value: "9".into(),
        ttl: None,
    });
    assert_eq!(commit(&[refused]).await, [false]);
    assert_eq!(stage.settled(&one, 1).await, [log(ids[0])]);
    let mut step = up_to(1, 1, ids[1], 2);
    step.forgets = vec![log(ids[0])];
    let lane = step.lanes[0].as_mut().must("the log");
    lane.cursor.done = vec![(ids[3], ids[3])];
    assert_eq!(stage.write_step(&one, &step).await, Stepped::Done);
    assert_eq!(stage.settled(&one, 1).await, []);
    let settled = [0, 1, 3].map(|at| increment(ids[at], true));
    assert_eq!(commit(&settled).await, [false; 3], "the cursor counts them");
    let open = [2, 4].map(|at| increment(ids[at], true));
    assert_eq!(commit(&open).await, [true; 2]);
    assert_eq!(stage.n().await, 5);
}

/// The effects of handlers are written once each, and their messages are settled with them.
pub async fn handlers_of_an_owned_group_return_effects<S: Subject>(subject: &S) {
    let stage = Stage::four(subject).await;
    stage.publish_keys(0..60).await;
    let handler = async |Payload(n): Payload<u32>, delivery: Delivery| -> Result<Effects, Error> {
        if n % 7 == 0 && delivery.attempt() == 1 {
            return Err(Error::new(crate::ErrorKind::Refused, "work", "not yet"));
        }
        if n % 5 == 0 {
            let mut checkpoint = Effects::new();
            checkpoint.incr("checkpoints", 1);
            delivery.checkpoint(checkpoint).await?;
        }
        let mut effects = Effects::new();
        effects.incr("n", 1).publish(&topic("bills"), keyed(n));
        Ok(effects)
    };
    let bus = stage.container.bus();
    let made = bus.subscribe_with(&stage.topic, owning(3), handler).await;
    let subscription = made.must("subscribing");
    stage.publish_keys(60..100).await;
    stage.drained().await;
    assert_eq!(stage.n().await, 100);
    let kv = stage.container.kv();
    assert_eq!(kv.get::<i64>("checkpoints").await.must("asking"), Some(20));
    let bills = Partition::of(&topic("bills"));
    let bills = stage.store.log().latest(&bills, 1000).await;
    assert_eq!(bills.must("reading").len(), 100);
    let report = subscription.unsubscribe(subject.patience()).await;
    assert!(report.is_clean(), "{report:?}");
    stage.finish().await;
}

/// The effects of an owner whose partition was taken are not written; those of the next attempt are.
pub async fn a_former_owner_commits_no_effects<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let topics = stage.store.topics();
    let made = topics.ensure_topic(&stage.topic, <_>::default()).await;
    made.must("creating the topic");
    stage.publish_keys(0..1).await;
    let (sender, mut begun) = mpsc::unbounded_channel();
    let go = std::sync::Arc::new(tokio::sync::Notify::new());
    let waits = std::sync::Arc::clone(&go);
    let handler = move |delivery: Delivery| {
        let (sender, go) = (sender.clone(), std::sync::Arc::clone(&waits));
        async move {
            let attempt = delivery.attempt();
            let _ = sender.send((attempt, delivery.fence()));
            if attempt == 1 {
                go.notified().await;
            }
            let mut effects = Effects::new();
            effects.incr("n", i64::from(attempt) * 10);
            Ok::<_, Error>(effects)
        }
    };
    let bus = stage.container.bus();
    let made = bus.subscribe_with(&stage.topic, owning(5), handler).await;
    let subscription = made.must("subscribing");
    let (attempt, fence) = stage.next(&mut begun).await;
    assert_eq!(attempt, 1);
    let thief = stage.member("thief");
    let token = fence.must("the fence").token + 3;
    stage.take_cursor(&thief, token).await;
    go.notify_one();
    assert_eq!(stage.next(&mut begun).await.0, 2);
    stage.drained().await;
    assert_eq!(stage.n().await, 20, "the second attempt alone");
    let report = subscription.unsubscribe(subject.patience()).await;
    assert!(report.is_clean(), "{report:?}");
    stage.finish().await;
}
