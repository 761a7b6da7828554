//! Consumer groups: which messages each consumer sees, and the state of a group.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;

use super::Subject;
use super::support::{
    DAY, Must as _, SOON, Stage, dead_lettered, group, later, number_in, numbers, receipts, topic,
};
use crate::api::{Delivery, SubscribeOptions};
use crate::domain::{EntryId, Group};
use crate::extract::Payload;
use crate::store::{DeliveryId, Disposition, GroupAt, Lane, Partition, ResetTo};

/// Consumers of one group share the messages; every group sees all of them.
pub async fn consumers_share_and_every_group_sees_everything<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let mut containers = Vec::new();
    for _ in 0..3 {
        let container = subject.container("billing").await;
        for name in ["billing", "shipping"] {
            let sender = sender.clone();
            let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
                let _ = sender.send((delivery.group().to_string(), n));
                async {}
            };
            let options = SubscribeOptions::new().with_group(group(name));
            let bus = container.bus();
            let made = bus.subscribe_with(&stage.topic, options, handler).await;
            let _subscription = made.must("subscribing");
        }
        containers.push(container);
    }
    stage.publish(0..300).await;
    let mut seen = stage.some(&mut received, 600).await;
    seen.sort();
    let expected = ["billing", "shipping"]
        .iter()
        .flat_map(|name| (0..300).map(|n| ((*name).to_owned(), n)));
    assert_eq!(seen, expected.collect::<Vec<_>>());
    for container in &containers {
        stage.end(container).await;
    }
    assert!(received.try_recv().is_err(), "nothing came twice");
}

/// No two members of a group fetch the same entry.
pub async fn no_entry_is_given_to_two_members<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let mut hands = [stage.hand("one").await, stage.hand("two").await];
    stage.append(0..60).await;
    let (mut seen, mut turn) = (Vec::new(), 0);
    while seen.len() < 60 {
        turn = 1 - turn;
        seen.extend(numbers(&stage.fetch_some(&mut hands[turn], 6).await));
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..60).collect::<Vec<_>>());
    let other = group("other");
    stage.create(&other).await;
    let mut hand = stage.hand_of(&other, "one").await;
    let mut seen = numbers(&stage.fetch(&mut hand, 60).await);
    seen.sort_unstable();
    assert_eq!(seen, (0..60).collect::<Vec<_>>());
}

/// > The state of a partition and of its groups; `None` when it does not exist.
/// > Entries not yet delivered to it.
/// > Entries delivered and unsettled.
/// > Retries and snoozed messages: scheduled, or due and not yet read again.
pub async fn a_status_accounts_for_every_message<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let nowhere = stage
        .store
        .inspect()
        .status(&Partition::of(&topic("nowhere")))
        .await;
    assert_eq!(nowhere.must("asking"), None);
    assert_eq!(stage.counts().await, [0, 0, 0, 0]);
    stage.append(0..6).await;
    assert_eq!(stage.counts().await, [6, 0, 0, 0]);
    let mut hand = stage.hand("one").await;
    let fetched = stage.fetch(&mut hand, 6).await;
    stage.append(6..10).await;
    assert_eq!(stage.counts().await, [4, 6, 0, 0]);
    stage.acknowledge(&hand.member, &[fetched[0].receipt]).await;
    let settlements = [
        later(fetched[1].receipt, SOON, "a"),
        later(fetched[2].receipt, DAY, "b"),
        dead_lettered(fetched[3].receipt, "c"),
    ];
    stage.settle(&hand.member, &settlements).await;
    assert_eq!(stage.counts().await, [4, 2, 2, 1]);
    stage.promote(1).await;
    assert_eq!(stage.counts().await, [4, 2, 2, 1], "to be read again");
    stage.fetch(&mut hand, 5).await;
    assert_eq!(stage.counts().await, [0, 7, 1, 1]);
    assert_eq!(stage.length().await, 10);
}

/// > Its groups, by name.
pub async fn groups_are_listed_by_name<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    for name in ["shipping", "audit"] {
        stage.create(&group(name)).await;
    }
    let status = stage
        .store
        .inspect()
        .status(stage.partition())
        .await
        .must("asking");
    let groups = status.must("the topic").groups.into_iter();
    let names: Vec<_> = groups.map(|status| status.group).collect();
    assert_eq!(names, ["audit", "billing", "shipping"].map(group));
}

/// > How far a partition's log and its groups have come, with the oldest unsettled deliveries
/// > of each group, up to [`LONGEST_UNSETTLED`](crate::store::LONGEST_UNSETTLED) of each
/// > stream; `None` when the log does not exist.
/// > The newest id that the log has given; its entry may be gone.
/// > How long ago its lease began or was extended; `None` when the consumer has given it back.
pub async fn progress_tells_how_far_a_group_has_come<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let progress = async |at: &Partition| {
        let found = stage.store.inspect().progress(at).await;
        found.must("asking")
    };
    assert_eq!(progress(&Partition::of(&topic("nowhere"))).await, None);
    let ids = stage.append(0..6).await;
    let mut hand = stage.hand("one").await;
    let fetched = receipts(&stage.fetch(&mut hand, 4).await);
    stage.acknowledge(&hand.member, &fetched[..1]).await;
    stage.release(&hand.member, &fetched[1..2]).await;
    let retry = later(fetched[2], SOON, "r");
    stage.settle(&hand.member, &[retry]).await;
    stage.promote(1).await;
    let lease = stage.store.topics().set_lease(&hand.member, DAY).await;
    assert_eq!(lease.must("setting the lease"), DAY);
    let redelivered = receipts(&stage.fetch(&mut hand, 3).await);
    let redelivered = redelivered.iter().find(|one| one.lane == Lane::Redelivery);

    let found = progress(stage.partition()).await.must("the log");
    assert_eq!(Some(&found.last), ids.last());
    assert!(found.appended.is_none_or(|count| count == 6), "{found:?}");
    let [group] = &found.groups[..] else {
        panic!("{found:?}");
    };
    assert_eq!((&group.group, group.lease), (&stage.group, Some(DAY)));
    assert_eq!(Some(&group.delivered), ids.last());
    assert!(group.read.is_none_or(|count| count == 6), "{group:?}");
    let unsettled: Vec<_> = group.unsettled.iter().map(|one| one.id).collect();
    let in_log = [ids[1], ids[3], ids[4], ids[5]].map(|id| DeliveryId::new(Lane::Log, id));
    let expected = in_log.iter().chain(redelivered).copied();
    assert_eq!(unsettled, expected.collect::<Vec<_>>());
    for one in &group.unsettled {
        assert_eq!(one.consumer, "one");
        assert_eq!(one.idle_for.is_none(), one.id.id == ids[1], "{one:?}");
        assert!(one.idle_for.is_none_or(|idle| idle < DAY), "{one:?}");
    }
}

/// > Removes consumers that were not active for `idle` and have no pending deliveries; with `only`,
/// > that consumer alone.
/// > Returns how many.
pub async fn only_consumers_without_pending_entries_are_pruned<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..4).await;
    let mut hands = Vec::new();
    for name in ["one", "two", "three"] {
        let mut hand = stage.hand(name).await;
        if name == "one" {
            stage.fetch(&mut hand, 2).await;
        } else {
            let fetched = receipts(&stage.fetch(&mut hand, 1).await);
            stage.acknowledge(&hand.member, &fetched).await;
        }
        hands.push(hand);
    }
    assert_eq!(stage.status().await.consumers, 3);
    let prune = async |idle, only| {
        let (store, topic, group) = (&stage.store, &stage.topic, &stage.group);
        let done = store
            .topics()
            .prune_consumers(&GroupAt::of(topic, group), idle, only)
            .await;
        done.must("forgetting")
    };
    assert_eq!(prune(DAY, None).await, 0);
    let [one, two] = [0, 1].map(|at: usize| &hands[at].member.consumer);
    assert_eq!(prune(Duration::ZERO, Some(one)).await, 0, "it holds two");
    assert_eq!(prune(Duration::ZERO, Some(two)).await, 1);
    assert_eq!(stage.status().await.consumers, 2);
    assert_eq!(prune(Duration::ZERO, None).await, 1);
    assert_eq!(stage.status().await.in_flight, 2, "pending entries stay");
    let held = stage.reclaim(&hands[1].member, Duration::ZERO).await;
    assert_eq!(numbers(&held), [0, 1]);
}

/// > The deliveries that the member holds, up to `max`, oldest first in each lane.
pub async fn a_member_lists_its_pending_entries<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..24).await;
    let (mut one, mut two) = (stage.hand("one").await, stage.hand("two").await);
    let mut held = BTreeMap::new();
    for _ in 0..3 {
        for (name, hand) in [("one", &mut one), ("two", &mut two)] {
            let fetched = stage.fetch_some(hand, 1).await;
            let of: &mut Vec<_> = held.entry(name).or_default();
            of.extend(receipts(&fetched));
            assert!(number_in(&fetched[0]) < 24);
        }
    }
    held.values_mut().for_each(|of| of.sort_unstable());
    for (name, hand) in [("one", &one), ("two", &two)] {
        let own = stage.store.deliveries().pending_of(&hand.member, 100).await;
        assert_eq!(own.must("asking"), held[name]);
    }
    let first = stage
        .store
        .deliveries()
        .pending_of(&one.member, 2)
        .await
        .must("asking");
    assert_eq!(first, held["one"][..2]);
    let stranger = stage.member("stranger");
    let none = stage
        .store
        .deliveries()
        .pending_of(&stranger, 10)
        .await
        .must("asking");
    assert!(none.is_empty());
}

/// > The consumers that a group knows, by name; none where the group does not exist.
/// > Entries delivered to it and unsettled.
/// > How long ago it was last active.
pub async fn consumers_of_a_group_are_listed_by_name<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    stage.append(0..3).await;
    let consumers = async |of: &str| {
        let listed = stage
            .store
            .inspect()
            .consumers(&GroupAt::of(&stage.topic, &group(of)))
            .await;
        listed.must("listing consumers")
    };
    assert_eq!(consumers("nobody").await, []);
    assert_eq!(consumers("billing").await, []);
    let mut two = stage.hand("two").await;
    stage.fetch(&mut two, 2).await;
    let mut one = stage.hand("one").await;
    let fetched = stage.fetch(&mut one, 1).await;
    stage.acknowledge(&one.member, &receipts(&fetched)).await;
    let listed = consumers("billing").await;
    let known: Vec<_> = listed
        .iter()
        .map(|one| (one.consumer.as_str(), one.in_flight))
        .collect();
    assert_eq!(known, [("one", 0), ("two", 2)]);
    let quiet = listed[0].idle_for;
    stage
        .until("a consumer to be quiet for longer", async || {
            (consumers("billing").await[0].idle_for > quiet + Duration::from_millis(20))
                .then_some(())
        })
        .await;
}

/// > Removes a group and all that is its own: its cursor, its pending deliveries, its redelivery
/// > stream, its scheduled retries, its dead letters.
/// > The log and other groups stay as they are.
/// > Returns where the group stood, or `None` where it does not exist.
pub async fn a_group_is_removed_with_all_of_its_data<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let other = group("other");
    stage.create(&other).await;
    stage.append(0..5).await;
    let mut hand = stage.hand("one").await;
    let fetched = stage.fetch(&mut hand, 5).await;
    stage.append(5..6).await;
    let settlements = [
        later(fetched[0].receipt, SOON, "a"),
        later(fetched[1].receipt, SOON, "b"),
        later(fetched[2].receipt, DAY, "c"),
        dead_lettered(fetched[3].receipt, "d"),
    ];
    stage.settle(&hand.member, &settlements).await;
    stage.promote(2).await;
    let mut stranger = stage.hand_of(&other, "one").await;
    stage.fetch_some(&mut stranger, 2).await;
    let (before, others) = (stage.status().await, stage.status_of(&other).await);

    let remove = async |of: &Group| {
        let removed = stage
            .store
            .topics()
            .remove_group(&GroupAt::of(&stage.topic, of), DAY, true)
            .await;
        removed.must("removing")
    };
    assert_eq!(remove(&group("nobody")).await, None);
    let removal = remove(&stage.group).await.must("the group");
    assert!(removal.removed);
    assert_eq!((removal.status, removal.live_consumers), (before, 1));
    assert_eq!(remove(&stage.group).await, None);
    assert_eq!(stage.status_of(&other).await, others);
    assert_eq!(stage.length().await, 6);

    // A group of the same name is a new one.
    stage.create(&stage.group).await;
    assert_eq!(stage.counts().await, [6, 0, 0, 0]);
    let causes = stage.store.dead_letters().causes(&stage.at);
    assert_eq!(causes.await.must("counting").items, []);
    let consumers = stage.store.inspect().consumers(&stage.at).await;
    assert_eq!(consumers.must("listing consumers"), []);
    let mut hand = stage.hand("two").await;
    let mut fetched = numbers(&stage.fetch(&mut hand, 6).await);
    fetched.sort_unstable();
    assert_eq!(fetched, (0..6).collect::<Vec<_>>());
    stage.nothing(&mut hand).await;
}

/// > Without `force`, keeps a group that has unsettled messages, scheduled retries or dead letters,
/// > or of which a consumer was active within `quiet`. The store checks and removes in one step.
pub async fn a_group_in_use_is_not_removed<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let remove = async |quiet| {
        let found = stage
            .store
            .topics()
            .remove_group(&stage.at, quiet, false)
            .await;
        found.must("removing").must("the group")
    };
    let mut hand = stage.hand("one").await;
    let stays = async |counts: [u64; 4]| {
        assert_eq!(stage.counts().await, counts);
        let found = remove(Duration::ZERO).await;
        assert_eq!(
            (found.removed, found.live_consumers),
            (false, 0),
            "{counts:?}"
        );
        assert_eq!(stage.counts().await, counts);
    };
    stage.append(0..1).await;
    stays([1, 0, 0, 0]).await;
    let fetched = stage.fetch(&mut hand, 1).await;
    stays([0, 1, 0, 0]).await;
    let settlement = later(fetched[0].receipt, DAY, "a");
    stage.settle(&hand.member, &[settlement]).await;
    stays([0, 0, 1, 0]).await;
    let ids = receipts(&fetched);
    let moved = stage.store.schedule().run_now(&stage.at, &ids).await;
    assert_eq!(moved.must("running now"), [true]);
    stays([0, 0, 1, 0]).await;
    let fetched = stage.fetch(&mut hand, 1).await;
    stays([0, 1, 0, 0]).await;
    stage
        .settle(&hand.member, &[dead_lettered(fetched[0].receipt, "a")])
        .await;
    stays([0, 0, 0, 1]).await;
    let dead_letters = stage.store.dead_letters();
    let dead = dead_letters.newest(&stage.at).await;
    let dead = [(
        dead.must("asking").must("the dead letter"),
        Disposition::Discard,
    )];
    let purged = dead_letters.move_out(&stage.at, &dead, &[], None).await;
    assert_eq!(purged.must("purging"), [true]);
    let found = remove(DAY).await;
    assert_eq!((found.removed, found.live_consumers), (false, 1));
    let found = remove(Duration::ZERO).await;
    assert_eq!((found.removed, found.live_consumers), (true, 0));
    let status = stage
        .store
        .inspect()
        .status(stage.partition())
        .await
        .must("asking");
    assert_eq!(status.must("the topic").groups, []);
}

/// > Moves a group's cursor in the log.
/// > Unsettled deliveries, scheduled retries and dead letters stay as they are.
/// > A place after the newest entry is the end.
/// > Returns `None` where the group does not exist.
pub async fn a_reset_group_goes_on_elsewhere<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let other = group("other");
    stage.create(&other).await;
    let ids = stage.append(0..6).await;
    let reset = async |of: &Group, to| {
        let at = GroupAt::of(&stage.topic, of);
        let moved = stage.store.topics().reset_group(&at, to, Duration::ZERO);
        moved.await.must("resetting")
    };
    assert_eq!(reset(&group("nobody"), ResetTo::End).await, None);
    let mut hand = stage.hand("one").await;
    let fetched = stage.fetch(&mut hand, 4).await;
    stage
        .acknowledge(&hand.member, &receipts(&fetched[..1]))
        .await;
    let settlements = [
        later(fetched[1].receipt, DAY, "b"),
        dead_lettered(fetched[2].receipt, "d"),
    ];
    stage.settle(&hand.member, &settlements).await;
    assert_eq!(stage.counts().await, [2, 1, 1, 1]);

    let back = reset(&stage.group, ResetTo::Beginning).await;
    let back = back.must("the group");
    assert!(back.moved);
    assert_eq!((back.before, back.after), (ids[3], EntryId::default()));
    assert_eq!(stage.counts().await, [6, 1, 1, 1]);
    let again = stage.fetch(&mut hand, 6).await;
    assert_eq!(numbers(&again), (0..6).collect::<Vec<_>>());
    assert_eq!(
        stage.counts().await,
        [0, 6, 1, 1],
        "the group has an unsettled entry once"
    );
    stage.acknowledge(&hand.member, &receipts(&again)).await;

    let into = reset(&stage.group, ResetTo::Entry(ids[4])).await;
    assert_eq!(into.must("the group").before, ids[5]);
    assert_eq!(stage.counts().await, [2, 0, 1, 1]);
    let rest = stage.fetch(&mut hand, 2).await;
    assert_eq!(numbers(&rest), [4, 5]);
    stage.acknowledge(&hand.member, &receipts(&rest)).await;

    let far = EntryId::new(ids[5].millis + 1_000_000, 0);
    for to in [ResetTo::End, ResetTo::Entry(far)] {
        let beginning = reset(&stage.group, ResetTo::Entry(EntryId::default())).await;
        assert_eq!(beginning.must("the group").after, EntryId::default());
        assert_eq!(stage.counts().await, [6, 0, 1, 1]);
        let end = reset(&stage.group, to).await.must("the group");
        assert_eq!((end.moved, end.after), (true, ids[5]));
        assert_eq!(stage.counts().await, [0, 0, 1, 1]);
    }
    stage.append(6..8).await;
    assert_eq!(stage.counts().await, [2, 0, 1, 1]);
    let new = stage.fetch(&mut hand, 2).await;
    assert_eq!(numbers(&new), [6, 7]);
    assert_eq!(stage.status_of(&other).await.lag, 8, "other groups stay");
}

/// > Leaves the cursor where a consumer was active within `quiet`. The store checks and moves in one
/// > step.
pub async fn a_group_with_live_consumers_is_not_reset<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let ids = stage.append(0..3).await;
    let mut hand = stage.hand("one").await;
    let fetched = stage.fetch(&mut hand, 2).await;
    stage.acknowledge(&hand.member, &receipts(&fetched)).await;
    for to in [ResetTo::Beginning, ResetTo::Entry(ids[0]), ResetTo::End] {
        let kept = stage.store.topics().reset_group(&stage.at, to, DAY).await;
        let kept = kept.must("resetting").must("the group");
        assert_eq!((kept.moved, kept.live_consumers), (false, 1));
        assert_eq!((kept.before, kept.after), (ids[1], ids[1]));
        assert_eq!(stage.counts().await, [1, 0, 0, 0]);
    }
}
