//! Messages go to the partitions of their keys, and a topic is read as one log.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::mpsc;

use crate::api::{PublishOptions, SubscribeOptions};
use crate::domain::{EntryId, Envelope, ErrorKind, TopicSettings};
use crate::store::Partition;
use crate::testing::conformance::Subject;
use crate::testing::conformance::support::{DAY, Must as _, Stage, number, topic};

use super::support::{FOUR, entry_of, four, keyed};

/// > Creates a topic with all of its partitions, or finds it: an existing topic keeps its settings.
/// > Changes the settings of a topic but the number of its partitions, and returns the earlier ones;
/// > `None` where it does not exist.
/// > The number of a topic's partitions; `None` where it does not exist.
pub async fn the_number_of_partitions_is_fixed<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let (topics, store) = (stage.container.topics(), stage.store.topics());
    let count = async || store.partitions(&stage.topic).await.must("counting");
    assert_eq!(count().await, None);
    for bad in [0, 257] {
        let settings = TopicSettings::default().with_partitions(bad);
        let refused = topics.create(&stage.topic, settings).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
    }
    topics.create(&stage.topic, four()).await.must("creating");
    assert_eq!(count().await, Some(FOUR));
    topics.create(&stage.topic, four()).await.must("finding");
    for other in [1, 5] {
        let settings = TopicSettings::default().with_partitions(other);
        let refused = topics.create(&stage.topic, settings).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
        assert!(refused.to_string().contains("4 partitions"), "{refused}");
        let refused = topics.plan_settings(&stage.topic, settings).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
        let kept = store.change_settings(&stage.topic, settings).await;
        assert_eq!(kept.must("changing").must("the topic").partitions(), FOUR);
        assert_eq!(count().await, Some(FOUR));
    }
    // A publish and a subscription with the defaults find the topic as it is.
    let ids = stage.publish_keyed(0..40).await;
    assert!(ids.iter().any(|id| id.partition() > 0), "{ids:?}");
    let status = topics.get(&stage.topic).await.must("asking").must("it");
    assert_eq!((status.entries, status.settings.partitions()), (40, FOUR));
    // The container that has read along goes by the new number, too.
    let removed = store.remove_topic(&stage.topic).await.must("removing");
    assert!(removed.is_some_and(|removal| removal.removed && removal.entries == 40));
    assert_eq!(count().await, None);
    topics
        .create(&stage.topic, TopicSettings::default())
        .await
        .must("creating it again");
    let left = stage.store.log().browse(stage.partition(), None, 100).await;
    assert!(left.must("browsing").is_empty(), "nothing is left");
}

/// Messages of one key go to one partition in their order; those without a key take turns, and a repeat
/// meets its id.
pub async fn messages_of_one_key_stay_together<S: Subject>(subject: &S) {
    let stage = Stage::with(subject, four()).await;
    let mut places: BTreeMap<u32, BTreeSet<u16>> = BTreeMap::new();
    for n in (0..200).step_by(20) {
        for (n, id) in (n..).zip(stage.publish_keyed(n..n + 20).await) {
            places.entry(n % 10).or_default().insert(id.partition());
        }
    }
    assert!(places.values().all(|one| one.len() == 1), "{places:?}");
    let used: BTreeSet<u16> = places.into_values().flatten().collect();
    assert!(used.len() > 1, "{used:?}");

    let bus = stage.container.bus();
    let mut turns = BTreeSet::new();
    for n in 0..4 {
        let call: Vec<Envelope> = (n..n + 5).map(number).collect();
        let ids = bus.publish_all(&stage.topic, &call).await.into_iter();
        let used: BTreeSet<u16> = ids
            .map(|one| one.must("publishing").id.partition())
            .collect();
        assert_eq!(used.len(), 1, "a call stays together");
        turns.extend(used);
    }
    assert!(turns.len() > 1, "{turns:?}");
    if stage.store.capabilities().append_once {
        let options = PublishOptions::new().with_deduplication(DAY);
        for envelope in [number(1), keyed(1)] {
            let mut ids = BTreeSet::new();
            for repeat in 0..5 {
                let done = bus.publish_with(&stage.topic, &envelope, options).await;
                let done = done.must("publishing");
                assert_eq!(done.duplicate, repeat > 0);
                ids.insert(done.id);
            }
            assert_eq!(ids.len(), 1, "{ids:?}");
        }
    }
}

/// One handler at a time sees the messages of each key in their order, and every message once.
pub async fn a_key_keeps_its_order<S: Subject>(subject: &S) {
    let stage = Stage::with(subject, four()).await;
    stage.publish_keyed(0..150).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let options = SubscribeOptions::new().with_concurrency(1);
    let _subscription = stage.subscribe(options, sender).await;
    stage.publish_keyed(150..300).await;
    let seen = stage.some(&mut received, 300).await;
    for key in 0..10 {
        let of_key: Vec<u32> = seen.iter().copied().filter(|n| n % 10 == key).collect();
        assert!(of_key.is_sorted(), "{of_key:?}");
    }
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 300);
    stage.drained().await;
    stage.finish().await;
}

/// Pages over all partitions are in the order of their ids and miss nothing.
pub async fn a_topic_is_read_as_one_log<S: Subject>(subject: &S) {
    let stage = Stage::with(subject, four()).await;
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.extend(stage.append_to_each().await);
    }
    ids.sort_unstable();
    let (log, at) = (stage.store.log(), stage.partition());
    let (mut forth, mut back) = (Vec::new(), Vec::new());
    loop {
        let after: Option<EntryId> = forth.last().copied();
        let page = log.browse(at, after, 5).await.must("browsing");
        if page.is_empty() {
            break;
        }
        forth.extend(page.into_iter().map(|(id, _)| id));
    }
    loop {
        let before: Option<EntryId> = back.last().copied();
        let page = log.browse_back(at, before, 5).await.must("browsing back");
        if page.is_empty() {
            break;
        }
        back.extend(page.into_iter().map(|(id, _)| id));
    }
    back.reverse();
    assert_eq!((&forth, &back), (&ids, &ids));
    let latest = log.latest(at, 3).await.must("reading the latest");
    let latest: Vec<EntryId> = latest.into_iter().map(|(id, _)| id).collect();
    assert_eq!(latest, ids[ids.len() - 3..]);
    assert_eq!(log.newest(at).await.must("asking"), ids.last().copied());
    // One partition alone.
    let third = Partition::numbered(&stage.topic, 3);
    let alone = log.browse(&third, None, 100).await.must("browsing");
    assert_eq!(alone.len(), 6);
    assert!(alone.iter().all(|(id, _)| id.partition() == 3));
}

/// A handler's messages to a topic with partitions go to the partitions of their keys.
pub async fn effects_go_to_the_partition_of_their_key<S: Subject>(subject: &S) {
    use crate::store::{Effect, EffectFate, Session};

    let stage = Stage::with(subject, four()).await;
    let capabilities = stage.store.capabilities();
    if !capabilities.effects || !capabilities.effects_anywhere {
        return;
    }
    let bills = topic("bills");
    let made = stage.store.topics().ensure_topic(&bills, four()).await;
    made.must("creating");
    let effects: Vec<Effect> = (0..FOUR)
        .map(|slot| Effect::Publish {
            at: Partition::of(&bills),
            entry: entry_of(slot, slot.into()),
            window: None,
        })
        .collect();
    let session = Session {
        id: uuid::Uuid::now_v7(),
        number: 1,
    };
    let fates = stage.store.effects().apply(session, &[effects]).await;
    let fates = fates.must("applying");
    let [EffectFate::Done(appended)] = &fates[..] else {
        panic!("{fates:?}");
    };
    let places: Vec<u16> = appended.iter().map(|one| one.id.partition()).collect();
    assert_eq!(places, [0, 1, 2, 3]);
}
