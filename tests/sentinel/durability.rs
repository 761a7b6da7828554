//! Levels of durability: what a failover leaves of them, unmet levels, and refusals.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redstart::schedules::{ScheduleOptions, When};
use redstart::{Container, Durability, Envelope, ErrorKind, PublishOptions};

use crate::support::sentinel::{CALM, Watched};
use crate::support::{Server, builder, finish, signal, topic, until};

const REPLICATED: Durability = Durability::replicated(1, Duration::from_secs(2));
/// A level that the first message of a test reaches on a busy machine, too.
const LONG: Durability = Durability::replicated(1, Durability::MAX_TIMEOUT);
/// More than the buffers of a connection hold: the replica reads those even after its primary died.
const FAR: u64 = 32_000_000;

/// Publishes at a level until a message is not acknowledged, and counts those that were.
async fn until_it_fails(container: Container, level: Durability, done: Arc<AtomicUsize>) {
    let orders = topic("orders");
    let options = PublishOptions::new().with_durability(level);
    for n in 0.. {
        let envelope = Envelope::new("n", &(n, "x".repeat(500_000))).unwrap();
        let bus = container.bus();
        if bus.publish_with(&orders, &envelope, options).await.is_err() {
            break;
        }
        done.fetch_add(1, Ordering::SeqCst);
    }
}

/// How many bytes a primary has written for its replicas.
fn offset(primary: &Server) -> u64 {
    let info: String = primary.command(&["INFO", "replication"]);
    let found = info
        .lines()
        .find_map(|line| line.strip_prefix("master_repl_offset:"));
    found.unwrap().parse().unwrap()
}

/// Publishes at a level while the replica is cut off from the primary, lets the primary die, and counts
/// the acknowledged messages that the new primary does not have.
async fn lost_with_its_primary(level: Durability) -> (usize, usize) {
    let mut watched = Watched::start(2, 3);
    let namespace = watched.namespace();
    let container = watched.builder(&namespace).connect().await.unwrap();
    let replica = watched.servers[1].pid();
    let done = Arc::new(AtomicUsize::new(0));
    let publishing = until_it_fails(container.clone(), level, Arc::clone(&done));
    let publishing = tokio::spawn(publishing);
    until("a message", async || {
        (done.load(Ordering::SeqCst) > 0).then_some(())
    })
    .await;
    // What the primary acknowledges now, it cannot send.
    signal(replica, "STOP");
    let far = offset(&watched.servers[0]) + FAR;
    until(
        "the primary to be far ahead, or to say that it is alone",
        async || (publishing.is_finished() || offset(&watched.servers[0]) >= far).then_some(()),
    )
    .await;
    watched.servers[0].kill();
    // It must not go on at the new primary.
    publishing.abort();
    signal(replica, "CONT");
    finish(container).await;
    watched.until_failed_over(0);
    let log = format!("{{{namespace}:orders}}:log");
    let kept: usize = watched.servers[1].command(&["XLEN", &log]);
    let done = done.load(Ordering::SeqCst);
    (done, done.saturating_sub(kept))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replicated_message_outlives_the_primary_and_an_accepted_one_may_not() {
    let (done, lost) = lost_with_its_primary(REPLICATED).await;
    println!("replicated: {done} acknowledged, {lost} lost");
    assert!(done > 0);
    assert_eq!(lost, 0);
    let (done, lost) = lost_with_its_primary(Durability::Accepted).await;
    println!("accepted: {done} acknowledged, {lost} lost");
    // The fault is one that loses messages: without it the first half would show nothing.
    assert!(lost > 0);
}

#[tokio::test]
async fn an_unmet_level_is_unknown_and_says_so() {
    let watched = Watched::start_with(2, 1, &[], CALM);
    let namespace = watched.namespace();
    let short = Durability::replicated(1, Duration::from_millis(100));
    let builder = || watched.builder(&namespace).with_durability(short);
    // The replica may connect later than its primary answers.
    let connect = async || builder().connect().await.ok();
    let container = until("the replica", connect).await;
    let orders = topic("orders");
    let publish = async |n: u32, options| {
        let envelope = Envelope::new("n", &n).unwrap();
        container
            .bus()
            .publish_with(&orders, &envelope, options)
            .await
    };
    let first = PublishOptions::new().with_durability(LONG);
    publish(1, first).await.unwrap();
    let replica = watched.servers[1].pid();
    signal(replica, "STOP");
    let error = publish(2, PublishOptions::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    let told = error.to_string();
    assert!(
        told.contains("0 of 1 replicas had it after 100ms"),
        "{told}"
    );
    // A call may ask for less than its bus.
    let accepted = PublishOptions::new().with_durability(Durability::Accepted);
    publish(3, accepted).await.unwrap();
    // With deduplication the bus asks again until the replica is back, and adds nothing twice.
    let options = PublishOptions::new().with_deduplication(Duration::from_secs(60));
    let publishing = publish(4, options);
    let continuing = async {
        tokio::time::sleep(Duration::from_millis(250)).await;
        signal(replica, "CONT");
    };
    let (published, ()) = tokio::join!(publishing, continuing);
    published.unwrap();
    let at = redstart::store::Partition::of(&orders);
    let store = container.store();
    assert_eq!(store.log().browse(&at, None, 100).await.unwrap().len(), 4);
    finish(container).await;
}

#[tokio::test]
async fn a_repeat_is_durable_only_with_what_it_repeats() {
    let watched = Watched::start_with(2, 1, &[], CALM);
    let namespace = watched.namespace();
    let container = watched.builder(&namespace).connect().await.unwrap();
    let orders = topic("orders");
    let window = PublishOptions::new().with_deduplication(Duration::from_secs(60));
    let envelope = Envelope::new("n", &1).unwrap();
    let (bus, replica) = (container.bus(), watched.servers[1].pid());
    let level = Durability::replicated(1, Duration::from_millis(50));
    // The connection has been used, and the level has been shown.
    let other = Envelope::new("n", &0).unwrap();
    let first = window.with_durability(LONG);
    bus.publish_with(&orders, &other, first).await.unwrap();
    let durable = window.with_durability(level);
    signal(replica, "STOP");
    bus.publish_with(&orders, &envelope, window).await.unwrap();
    let error = bus.publish_with(&orders, &envelope, durable).await;
    let error = error.expect_err("the replica does not have the first one");
    assert!(error.is_outcome_unknown(), "{error}");
    signal(replica, "CONT");
    let published = until("the replica", async || {
        bus.publish_with(&orders, &envelope, durable).await.ok()
    })
    .await;
    assert!(published.duplicate);
    finish(container).await;
}

#[tokio::test]
async fn a_message_for_later_has_the_level_of_its_bus_and_of_its_call() {
    let watched = Watched::start_with(2, 1, &[], CALM);
    let namespace = watched.namespace();
    let short = Durability::replicated(1, Duration::from_millis(100));
    let builder = || watched.builder(&namespace).with_durability(short);
    // The replica may connect later than its primary answers.
    let connect = async || builder().connect().await.ok();
    let container = until("the replica", connect).await;
    let (orders, bus) = (topic("orders"), container.bus());
    let tomorrow = When::After(Duration::from_secs(86_400));
    let envelope = |n: u32| [Envelope::new("n", &n).unwrap()];
    let schedule = async |message: &[Envelope], options| {
        let mut done = bus.publish_later(&orders, message, tomorrow, options).await;
        done.pop().unwrap()
    };
    let (by_bus, by_call) = (
        ScheduleOptions::new(),
        ScheduleOptions::new().with_durability(Durability::Accepted),
    );
    let first = ScheduleOptions::new().with_durability(LONG);
    schedule(&envelope(1), first).await.unwrap();
    let replica = watched.servers[1].pid();
    signal(replica, "STOP");
    let third = envelope(3);
    schedule(&third, by_call.clone()).await.unwrap();
    // One that stays as it is must be as durable, though nothing changes.
    let error = schedule(&third, by_bus.clone().keep_existing()).await;
    let error = error.expect_err("the replica does not have it");
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    let error = schedule(&envelope(2), by_bus.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    let told = error.to_string();
    assert!(
        told.contains("0 of 1 replicas had it after 100ms"),
        "{told}"
    );
    signal(replica, "CONT");
    let kept = until("the replica", async || {
        schedule(&third, by_bus.clone().keep_existing()).await.ok()
    })
    .await;
    assert!(kept.kept);
    let listed = container.topics().get(&orders).await.unwrap().unwrap();
    assert_eq!(listed.later, 3);
    finish(container).await;
}

#[tokio::test]
async fn a_level_that_the_server_cannot_give_is_refused_when_the_bus_is_built() {
    let server = Server::start();
    let refused = async |level| {
        let connecting = builder(&server).with_durability(level).connect().await;
        let error = connecting.expect_err("a refusal");
        (error.kind(), error.to_string())
    };
    let (kind, told) = refused(REPLICATED).await;
    assert_eq!(kind, ErrorKind::Unavailable);
    assert!(told.contains("0 connected replicas"), "{told}");
    let (kind, told) = refused(Durability::replicated(0, Duration::from_secs(1))).await;
    assert_eq!(kind, ErrorKind::Invalid, "{told}");
    // Asked, not guessed from the version.
    let known: Vec<redis::Value> = server.command(&["COMMAND", "INFO", "WAITAOF"]);
    if known[0] == redis::Value::Nil {
        let (kind, told) = refused(Durability::Fsynced).await;
        assert_eq!(kind, ErrorKind::Unsupported);
        assert!(told.contains("level fsynced"), "{told}");
    } else {
        let fsynced = builder(&server).with_durability(Durability::Fsynced);
        let container = fsynced.connect().await.unwrap();
        let envelope = Envelope::new("n", &1).unwrap();
        let bus = container.bus();
        bus.publish(&topic("orders"), &envelope).await.unwrap();
        finish(container).await;
        server.command::<()>(&["CONFIG", "SET", "appendonly", "no"]);
        let (kind, told) = refused(Durability::Fsynced).await;
        assert_eq!(kind, ErrorKind::Unsupported, "{told}");
    }
}
