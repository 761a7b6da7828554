//! The test kit, and the runtime as the kit shows it.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redstart::extract::Payload;
use redstart::store::decorate::{Answer, Decorated, Decorator, Next, Op};
use redstart::store::{
    Commit, Commits, DeliveriesAnswer, Fate, GroupAt, Member, Opening, Partition, ReclaimCursor,
    Unmarked,
};
use redstart::testing::{DeliveryBuilder, Faults, PublishFault, TestBus, call};
use redstart::{
    Container, Delivery, Envelope, Error, ErrorKind, Group, Outcome, RetryPolicy, SubscribeOptions,
    dead_letters::Reason,
    memory::MemoryStore,
    ports::BoxFuture,
    topics::{ConsumerName, TopicSettings},
};
use support::{PATIENCE, Server, builder, drained, finish, group, next, some, topic, until};
use tokio::sync::{Semaphore, mpsc};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn the_kit_lists_published_settled_and_dead_messages() {
    let bus = TestBus::start("billing").await;
    let (orders, billing) = (topic("orders"), group("billing"));
    let retry = RetryPolicy::fixed(HOUR).with_max_attempts(2);
    let options = SubscribeOptions::new()
        .with_retry(retry)
        .with_concurrency(1);
    let handler = |Payload(n): Payload<u32>, delivery: Delivery| async move {
        match (n % 3, delivery.attempt()) {
            (1, 1) | (2, _) => Err("jammed"),
            _ => Ok(()),
        }
    };
    let subscription = bus.container().bus();
    let subscription = subscription.subscribe_with(&orders, options, handler).await;
    let _subscription = subscription.unwrap();
    for n in 0..6_u32 {
        bus.publish(&orders, &Envelope::new("n", &n).unwrap()).await;
    }
    bus.settle().await;
    assert_eq!(bus.acknowledged::<u32>(&orders, &billing), [0, 3]);
    bus.dead_letters(&orders, &billing).await.assert_none();
    bus.advance(HOUR).await;
    assert_eq!(bus.acknowledged::<u32>(&orders, &billing), [0, 3, 1, 4]);
    let dead = bus.dead_letters(&orders, &billing).await;
    let dead: Vec<u32> = dead
        .letters()
        .iter()
        .map(|letter| letter.envelope().unwrap().payload().unwrap())
        .collect();
    assert_eq!(dead, [2, 5]);
    // Whatever retention has removed by now.
    bus.container()
        .store()
        .topics()
        .trim(&Partition::of(&orders))
        .await
        .unwrap();
    assert_eq!(bus.published(&orders).payloads::<u32>(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(bus.published(&orders).envelopes()[5].message_type(), "n");
    bus.stop().await;
}

#[tokio::test]
async fn settle_reports_the_remaining_work() {
    let bus = TestBus::start("billing").await;
    let bus = bus.with_patience(Duration::from_millis(50));
    let handler = |_: Payload<u32>, delivery: Delivery| async move { delivery.cancelled().await };
    let subscribing = bus.container().bus();
    let subscribing = subscribing.subscribe(&topic("orders"), handler).await;
    let _subscription = subscribing.unwrap();
    let tasks = tokio::task::LocalSet::new();
    let waiting = tasks.spawn_local(async move {
        let envelope = Envelope::new("n", &1).unwrap();
        bus.publish(&topic("orders"), &envelope).await;
    });
    let failure = tasks.run_until(waiting).await.unwrap_err().into_panic();
    let text = failure.downcast_ref::<String>().unwrap();
    assert!(text.contains("orders/billing"), "{text}");
}

#[tokio::test]
async fn every_fate_of_a_message_is_reported() {
    let bus = TestBus::start("billing").await;
    let orders = topic("orders");
    bus.faults().fail_publish(1, PublishFault::NotPublished);
    bus.faults().fail_publish(3, PublishFault::UnknownLost);
    bus.faults().fail_publish(4, PublishFault::UnknownPublished);
    let all: Vec<Envelope> = (0..5_u32)
        .map(|n| Envelope::new("n", &n).unwrap())
        .collect();
    let results = bus.container().bus().publish_all(&orders, &all).await;
    let kinds = results
        .iter()
        .map(|one| one.as_ref().err().map(Error::kind));
    let unknown = Some(ErrorKind::OutcomeUnknown);
    let expected = [Some(ErrorKind::Unavailable), None, unknown, unknown, None];
    assert_eq!(kinds.collect::<Vec<_>>(), expected);
    assert_eq!(bus.published(&orders).payloads::<u32>(), [1, 3, 4]);
}

/// The kit's faults on both adapters match the faults of a real connection.
async fn a_lost_connection(container: &Container, faults: &Faults) {
    let orders = topic("orders");
    let (sender, mut received) = mpsc::unbounded_channel();
    let handler = move |Payload(n): Payload<u32>, _: Delivery| {
        let _ = sender.send(n);
        async {}
    };
    let bus = container.bus();
    let _subscription = bus.subscribe(&orders, handler).await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for n in 0..3_u32 {
        let envelope = Envelope::new("n", &n).unwrap();
        bus.publish(&orders, &envelope).await.unwrap();
        faults.disconnect();
        let error = bus.publish(&orders, &envelope).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let health = container.health().await;
        assert!(!health.ok && !health.bus.ok && !health.kv.ok, "{health:?}");
        faults.reconnect();
    }
    while seen.len() < 3 {
        seen.insert(next(&mut received).await);
    }
    until("health to come back", async || {
        container.health().await.ok.then_some(())
    })
    .await;
    drained(container, &orders, &group("billing")).await;
}

#[tokio::test]
async fn a_subscription_outlives_a_lost_connection() {
    let bus = TestBus::start("billing").await;
    a_lost_connection(bus.container(), bus.faults()).await;
    bus.stop().await;
}

#[tokio::test]
async fn faults_work_over_a_server_too() {
    let server = Server::start();
    let real = builder(&server).connect().await.unwrap();
    let faults = Faults::on(real.store());
    let container = Container::builder()
        .with_store(faults.store())
        .with_service(group("billing"))
        .connect()
        .await
        .unwrap();
    a_lost_connection(&container, &faults).await;
    finish(container).await;
}

#[tokio::test]
async fn the_same_test_runs_on_a_server() {
    let server = Server::start();
    let buses = [
        TestBus::start("billing").await,
        TestBus::start_on(&server.url(), "billing").await,
        // A namespace of its own: it sees nothing of the others.
        TestBus::start_on(&server.url(), "billing").await,
    ];
    for bus in buses {
        let orders = topic("orders");
        let retry = RetryPolicy::fixed(HOUR).with_max_attempts(3);
        let options = SubscribeOptions::new().with_retry(retry);
        let handler = |Payload(n): Payload<u32>, delivery: Delivery| async move {
            match (n, delivery.attempt()) {
                (1, _) => Outcome::snooze(HOUR),
                (2, _) => Outcome::retry("jammed"),
                _ => Outcome::Ack,
            }
        };
        let subscribing = bus.container().bus();
        let subscribing = subscribing.subscribe_with(&orders, options, handler).await;
        let _subscription = subscribing.unwrap();
        for n in 0..3_u32 {
            bus.publish(&orders, &Envelope::new("n", &n).unwrap()).await;
        }
        bus.handled(&orders, "billing").assert_count(3);
        let second = Envelope::new("n", &2).unwrap();
        bus.faults().fail_publish(1, PublishFault::NotPublished);
        let refused = bus.container().bus().publish(&orders, &second).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unavailable);
        let payloads = bus.published(&orders).assert_count(3).payloads::<u32>();
        assert_eq!(payloads, [0, 1, 2]);
        let next = Envelope::new("n", &3).unwrap();
        bus.publish(&orders, &next).await;
        let calls = bus.handled(&orders, "billing").assert_count(4);
        assert_eq!(calls.calls()[3].outcome, Outcome::Ack);
        bus.stop().await;
    }
}

#[tokio::test]
async fn every_retry_runs_on_a_server_too() {
    let server = Server::start();
    let bus = TestBus::start_on(&server.url(), "billing").await;
    let orders = topic("orders");
    let retry = RetryPolicy::fixed(HOUR).with_max_attempts(3);
    let options = SubscribeOptions::new().with_retry(retry);
    let handler = |Payload(n): Payload<u32>, delivery: Delivery| async move {
        match n == 1 && delivery.attempt() == 2 {
            true => Ok(()),
            false => Err("jammed"),
        }
    };
    let subscribing = bus.container().bus();
    let subscribing = subscribing.subscribe_with(&orders, options, handler).await;
    let _subscription = subscribing.unwrap();
    for n in 1..3_u32 {
        bus.publish(&orders, &Envelope::new("n", &n).unwrap()).await;
    }
    bus.run_to_end().await;
    bus.handled(&orders, "billing").assert_count(5);
    assert_eq!(bus.acknowledged::<u32>(&orders, "billing"), [1]);
    let dead = bus.dead_letters(&orders, "billing").await.assert_once();
    dead.with_reason(Reason::Exhausted).with_attempts(3);
    let letters = bus.dead_letters(&orders, "billing").await;
    assert_eq!(letters.letters()[0].history.failures.len(), 3);
    bus.stop().await;
}

#[tokio::test]
async fn a_slow_store_breaks_nothing() {
    let bus = TestBus::start("billing").await;
    bus.faults().delay(Duration::from_millis(20));
    let count = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&count);
    let handler = move |_: Payload<u32>, _: Delivery| {
        counter.fetch_add(1, Ordering::SeqCst);
        async {}
    };
    let subscribing = bus.container().bus();
    let subscribing = subscribing.subscribe(&topic("orders"), handler).await;
    let _subscription = subscribing.unwrap();
    for n in 0..10_u32 {
        bus.publish(&topic("orders"), &Envelope::new("n", &n).unwrap())
            .await;
    }
    bus.settle().await;
    assert_eq!(count.load(Ordering::SeqCst), 10);
    bus.stop().await;
}

#[tokio::test]
async fn containers_of_one_test_bus_share_its_store() {
    let bus = TestBus::start("billing").await;
    let shipping = bus.second_process(Container::builder(), "shipping").await;
    let (sender, mut received) = mpsc::unbounded_channel();
    for container in [bus.container(), &shipping] {
        let sender = sender.clone();
        let handler = move |Payload(n): Payload<u32>, delivery: Delivery| {
            let _ = sender.send((delivery.group().to_string(), n));
            async {}
        };
        let orders = topic("orders");
        let _subscription = container.bus().subscribe(&orders, handler).await.unwrap();
    }
    bus.publish(&topic("orders"), &Envelope::new("n", &7).unwrap())
        .await;
    bus.settle().await;
    let expected = [("billing".to_owned(), 7), ("shipping".to_owned(), 7)];
    assert_eq!(some(&mut received, 2).await, expected);
    finish(shipping).await;
}

#[tokio::test]
async fn a_second_process_with_a_namespace_is_another_system_with_the_same_faults() {
    let bus = TestBus::start("billing").await;
    let builder = || Container::builder().with_namespace("other");
    let other = bus.second_process(builder(), "billing").await;
    let same = bus.second_process(builder(), "billing").await;
    let own = bus.second_process(Container::builder(), "billing").await;
    other.kv().set("k", &1).await.unwrap();
    assert_eq!(same.kv().get::<u32>("k").await.unwrap(), Some(1));
    for container in [bus.container(), &own] {
        assert_eq!(container.kv().get::<u32>("k").await.unwrap(), None);
    }
    bus.publish(&topic("orders"), &Envelope::new("n", &7).unwrap())
        .await;
    assert!(other.topics().list().await.unwrap().is_empty());
    assert_eq!(own.topics().list().await.unwrap().len(), 1);
    bus.faults().disconnect();
    for container in [&other, &own] {
        let refused = container.kv().get::<u32>("k").await.unwrap_err();
        assert_eq!(refused.kind(), redstart::ErrorKind::Unavailable);
    }
}

#[tokio::test]
async fn a_delivery_from_the_builder_equals_a_real_one() {
    let watching = |_: Payload<u32>, delivery: Delivery| async move {
        delivery.extend_lease().await?;
        delivery.cancelled().await;
        Ok::<_, Error>(Outcome::dead_letter("gave up"))
    };
    let (delivery, canceller) = DeliveryBuilder::from_payload(&7)
        .unwrap()
        .build_with_canceller();
    assert_eq!((delivery.attempt(), delivery.topic().as_str()), (1, "test"));
    let (outcome, ()) = tokio::join!(call(watching, delivery), async { canceller.cancel() });
    assert_eq!(outcome, Outcome::dead_letter("gave up"));

    let lost = DeliveryBuilder::from_payload(&7)
        .unwrap()
        .with_lost_lease()
        .build();
    assert!(lost.is_cancelled());
    let outcome = call(watching, lost).await;
    assert!(matches!(outcome, Outcome::Retry { .. }), "{outcome:?}");

    let retried = DeliveryBuilder::from_payload(&7)
        .unwrap()
        .with_group(Group::new("billing").unwrap())
        .with_attempt(4)
        .with_last_error("jammed")
        .build();
    let envelope = retried.envelope();
    assert_eq!((retried.attempt(), envelope.failed_attempts()), (4, 3));
    assert_eq!(envelope.last_error(), Some("jammed"));
    let wrong = DeliveryBuilder::from_payload("seven").unwrap().build();
    let outcome = call(watching, wrong).await;
    let undecodable = Reason::Undecodable;
    assert!(
        matches!(outcome, Outcome::DeadLetter { reason, .. } if reason == undecodable),
        "{outcome:?}"
    );
}

/// Holds the answer of a reclaim back.
#[derive(Debug)]
struct SlowReclaim {
    taken: mpsc::UnboundedSender<usize>,
    gate: Arc<Semaphore>,
}

impl Decorator for SlowReclaim {
    fn call<'a>(&'a self, op: Op<'a>, mut next: Next<'a>) -> BoxFuture<'a, Result<Answer, Error>> {
        Box::pin(async move {
            let answer = next.run(op).await?;
            if let Answer::Deliveries(DeliveriesAnswer::ClaimExpired(found)) = &answer {
                let _ = self.taken.send(found.taken.len());
                let _ = self.gate.acquire().await;
            }
            Ok(answer)
        })
    }
}

#[tokio::test]
async fn a_message_reclaimed_during_a_shutdown_is_released() {
    let store = MemoryStore::new();
    let (store, orders) = (store.store(None), topic("orders"));
    let (taken, mut looks) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let slow = SlowReclaim {
        taken,
        gate: Arc::clone(&gate),
    };
    let slow = Decorated::new(Arc::new(slow), Arc::clone(&store));
    let container = Container::builder()
        .with_store(Arc::new(slow))
        .with_service(group("billing"))
        .connect()
        .await
        .unwrap();
    // A delivery that another consumer released.
    let at = GroupAt::of(&orders, &group("billing"));
    let member = |name: &str| Member {
        at: at.clone(),
        consumer: ConsumerName::new(name).unwrap(),
    };
    let settings = TopicSettings::default();
    store
        .topics()
        .ensure_topic(&orders, settings)
        .await
        .unwrap();
    store
        .topics()
        .create_group(
            &GroupAt::of(&orders, &group("billing")),
            redstart::topics::StartFrom::Beginning,
        )
        .await
        .unwrap();
    for n in 0..3_u32 {
        let envelope = Envelope::new("n", &n).unwrap();
        container.bus().publish(&orders, &envelope).await.unwrap();
    }
    let other = member("other");
    let (mut reader, _) = store.open(&Opening::of(&other)).await.unwrap();
    let fetched = reader.fetch(10, Duration::ZERO).await.unwrap();
    let receipts: Vec<_> = fetched.iter().map(|one| one.receipt).collect();
    let commits: Commits = receipts.into_iter().map(Commit::release).collect();
    let replies = store.deliveries().commit(&other, &commits).await;
    assert_eq!(replies.unwrap().answered().unwrap(), [Fate::Done; 3]);

    let handler = |_: Payload<u32>, _: Delivery| async {};
    let subscription = container.bus().subscribe(&orders, handler).await.unwrap();
    assert_eq!(next(&mut looks).await, 3, "taken over, and not yet known");
    let ending = tokio::spawn(async move { subscription.unsubscribe(PATIENCE).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!ending.is_finished(), "a shutdown waits for the look");
    gate.add_permits(100);
    let report = ending.await.unwrap();
    assert_eq!((report.released, report.unsettled), (3, 0), "{report:?}");
    let cursor = ReclaimCursor::default();
    let again = store
        .deliveries()
        .claim_expired(&member("next"), HOUR, Unmarked::Begun, cursor, 10)
        .await;
    let again = again.unwrap().taken;
    assert_eq!(again.len(), 3, "claimable at once");
    assert!(again.iter().all(|one| one.attempts.begun == 0), "uncounted");
}

#[tokio::test]
async fn messages_for_later_are_listed_once_they_are_published() {
    for listens in [true, false] {
        let bus = TestBus::start("billing").await;
        let orders = topic("orders");
        let container = bus.container();
        let mut subscription = None;
        if listens {
            let handler = |_: Payload<u32>, _: Delivery| async {};
            subscription = Some(container.bus().subscribe(&orders, handler).await.unwrap());
        }
        let envelope = |n: u32| Envelope::new("n", &n).unwrap();
        let later = container.bus();
        later
            .publish_after(HOUR, &orders, &envelope(2))
            .await
            .unwrap();
        later
            .publish_after(HOUR, &orders, &envelope(3))
            .await
            .unwrap();
        later.publish(&orders, &envelope(1)).await.unwrap();
        assert_eq!(bus.published(&orders).payloads::<u32>(), [1]);
        bus.advance(HOUR).await;
        until("all messages", async || {
            let mut seen = bus.published(&orders).payloads::<u32>();
            seen[1..].sort_unstable();
            (seen == [1, 2, 3]).then_some(())
        })
        .await;
        later.publish(&orders, &envelope(4)).await.unwrap();
        let seen = bus.published(&orders).payloads::<u32>();
        assert_eq!((seen.len(), seen[3]), (4, 4));
        drop(subscription);
    }
}
