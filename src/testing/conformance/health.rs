//! Health.

use tokio::sync::mpsc;

use super::Subject;
use super::support::{Must as _, Stage, new_entry};
use crate::api::SubscribeOptions;
use crate::domain::MigrationState;
use crate::store::Partition;

/// A container on a working store is well, with and without subscriptions.
pub async fn a_working_container_is_healthy<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    for _ in 0..2 {
        let health = stage.container.health().await;
        assert!(health.ok && health.bus.ok && health.kv.ok, "{health:?}");
        let (sender, _received) = mpsc::unbounded_channel();
        let group = super::support::group("any");
        let options = SubscribeOptions::new().with_group(group);
        let subscription = stage.subscribe(options, sender).await;
        assert_eq!(subscription.problem(), None);
        subscription.unsubscribe(subject.patience()).await;
    }
    assert_eq!(stage.container.adapter_name(), stage.store.name());
    stage.finish().await;
}

/// > The time from which failure times are taken.
pub async fn failure_times_use_the_stores_clock<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let before = stage.store.now();
    let flaw = new_entry("json", &b"{"[..]);
    stage.append_entries(&[flaw]).await;
    let (sender, _received) = mpsc::unbounded_channel();
    let _subscription = stage.subscribe(SubscribeOptions::new(), sender).await;
    let letter = stage
        .until("the dead letter", async || stage.letters().await.pop())
        .await;
    let times = before..=stage.store.now();
    assert!(times.contains(&letter.last_failure), "{letter:?}");
    stage.finish().await;
}

/// > Facts about each server; none for a store without a server.
pub async fn a_server_reports_its_state<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    for facts in stage.store.inspect().servers().await.must("asking") {
        assert!(
            !facts.name.is_empty() && !facts.version.is_empty(),
            "{facts:?}"
        );
        assert!(facts.memory_used > 0, "{facts:?}");
        let scripts = facts.scripts.clone().must("the scripts");
        assert!(scripts.must("loading scripts") > 0, "{facts:?}");
    }
}

/// > The address of the primary that holds a partition in a cluster, whether it answers or not; `None`
/// > outside a cluster and where no node serves the partition's slot.
pub async fn a_partition_lies_on_one_of_the_servers<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let inspect = stage.store.inspect();
    let servers = inspect.servers().await.must("asking");
    for number in 0..8 {
        let at = Partition::numbered(&stage.topic, number);
        let held = inspect.server_of(&at).await.must("looking");
        let mut all = servers.iter();
        assert!(
            held.is_none() || all.any(|one| one.address == held),
            "{held:?} of {servers:?}"
        );
        let is_clustered = servers.iter().any(|one| !one.slots.is_empty());
        assert_eq!(held.is_some(), is_clustered, "{servers:?}");
    }
    stage.finish().await;
}

/// > The migrations of the namespace's layout, known or applied, by number; none for a store whose
/// > layout never changes.
pub async fn the_migrations_of_a_working_store_are_applied<S: Subject>(subject: &S) {
    let stage = Stage::bare(subject).await;
    let all = stage.store.inspect().migrations().await.must("asking");
    assert!(all.is_sorted_by(|one, next| one.number < next.number));
    for one in all {
        let applied = matches!(one.state, MigrationState::Applied(_));
        assert!(applied, "{one:?}");
    }
}

/// > Where the keys of the namespace lie; `None` for a namespace that is not set up.
pub async fn the_placement_stays_as_it_was_set_up<S: Subject>(subject: &S) {
    let stage = Stage::new(subject).await;
    let placement = stage.store.inspect().placement().await.must("looking");
    stage.append(0..1).await;
    let other = subject.container("other").await;
    let same = other.store().inspect().placement().await.must("looking");
    assert_eq!(placement, same);
}
